"""Algorithm 1 on all tasks: what is watched, what is kept, and the simulation's own truth."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from pipeline import conditional
from pipeline.conditional import Conditional, train_conditional
from pipeline.embeddings import Projection, task_means
from pipeline.examples import Examples
from pipeline.pairs import Pairs
from pipeline.params import Base
from pipeline.probes import mean_spearman
from pipeline.scoring import score_all
from pipeline.training.loop import best_row
from tests.worlds import default_params, small_world

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def examples() -> Examples:
    return small_world().examples


def mean_embeddings(examples: Examples) -> np.ndarray:
    """The start `mean`, standardised."""
    means = task_means(examples.x, examples.learned, examples.tasks)
    return Projection.fit(means, standardise=True, reduce=None).apply(means)


def trained(examples: Examples, seed: int = 0, **changed: object) -> Conditional:
    quick = {"batch_size": 256, "max_epochs": 3}
    return train_conditional(
        examples,
        mean_embeddings(examples),
        params=default_params(ratio=quick | changed).ratio,
        seed=seed,
        device=CPU,
        report=lambda row: None,
    )


def scores(examples: Examples, made: Conditional, users: np.ndarray) -> np.ndarray:
    return score_all(made.net, torch.from_numpy(examples.x[users]), torch.from_numpy(made.e))


def slow_valid_auc(examples: Examples, made: Conditional, tasks: range) -> float:
    """Held-out validation users above those without any exposure, by scikit-learn."""
    pairs, found = examples.pairs, []
    of_grid = scores(examples, made, examples.valid)
    for task in tasks:
        held = set(pairs.user[(pairs.task == task) & pairs.held_out].tolist())
        exposed = set(pairs.user[pairs.task == task].tolist())
        sides = [
            (user in held, score)
            for user, score in zip(examples.valid.tolist(), of_grid[task].tolist(), strict=True)
            if user in held or user not in exposed
        ]
        if len({high for high, _ in sides}) == 2:
            found.append(roc_auc_score(*zip(*sides, strict=True)))
    return float(np.mean(found))


def test_the_watched_auc_is_that_of_held_out_exposures_at_the_kept_epoch(
    examples: Examples,
) -> None:
    made = trained(examples)
    watched = best_row(made.history)["valid_auc"]
    assert watched == pytest.approx(slow_valid_auc(examples, made, range(examples.tasks)))


@pytest.mark.parametrize(("tasks_watched", "step"), [(22, 1), (11, 2), (10, 3), (1, 22)])
def test_where_tasks_are_too_many_every_nth_is_watched(
    examples: Examples, tasks_watched: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conditional, "WATCHED", tasks_watched * len(examples.valid))
    made = trained(examples, max_epochs=1)
    every = range(0, examples.tasks, step)
    assert examples.tasks == 22
    assert made.history[0]["valid_auc"] == pytest.approx(slow_valid_auc(examples, made, every))


def test_without_held_out_exposures_nothing_is_watched(examples: Examples) -> None:
    pairs = examples.pairs
    shown = Pairs(pairs.user, pairs.task, np.zeros(len(pairs), bool))
    row = trained(replace(examples, pairs=shown), max_epochs=1).history[0]
    assert np.isnan([row["valid_auc"], row["held_out_loss"]]).all()
    assert np.isfinite(row["valid_loss"])


def test_embeddings_are_trained_unless_they_are_frozen(examples: Examples) -> None:
    start = mean_embeddings(examples)
    frozen, free = (trained(examples, freeze_e=freeze) for freeze in (True, False))
    assert frozen.e.tobytes() == start.tobytes()
    assert (free.e != start).all()
    first = [made.net.first.weight.detach().numpy() for made in (frozen, free)]
    assert not np.array_equal(*first)


def test_training_is_a_function_of_its_seed(examples: Examples) -> None:
    once, again, other = (trained(examples, seed) for seed in (0, 0, 1))
    assert once.e.tobytes() == again.e.tobytes() != other.e.tobytes()
    assert once.history == again.history


def test_the_network_is_kept_in_eval_mode_and_its_scores_are_those_of_the_best_epoch(
    examples: Examples,
) -> None:
    made = trained(examples, dropout=[0.0] * 3, lr=0.03, max_epochs=12)
    losses = [row["valid_loss"] for row in made.history]
    assert np.argmin(losses) < len(losses) - 1  # it went on until the loss rose
    assert not made.net.training
    watched = best_row(made.history)["valid_auc"]
    assert watched == pytest.approx(slow_valid_auc(examples, made, range(examples.tasks)))


@pytest.mark.parametrize(("base", "floor"), [("exposures", 0.85), ("users", 0.93)])
def test_from_the_true_tastes_the_true_ratio_is_learned(base: Base, floor: float) -> None:
    """Ranks of test users a task. The truth under the other base is another: below .75."""
    made_world = small_world(users=2000, items=60, exposures=24_000, least=100)
    examples, test = made_world.examples, made_world.rows("test")
    made = trained(
        examples,
        base=base,
        hidden=[32, 32],
        dropout=[0.0, 0.0],
        lr=0.005,
        batch_size=1024,
        max_epochs=30,
    )
    found = scores(examples, made, test)
    items = made_world.tasks["item_id"].to_numpy() - 1
    agreement = {
        some: mean_spearman(found, made_world.world.log_ratio(test, items, some))
        for some in get_args(Base)
    }
    assert agreement.pop(base) > floor
    assert max(agreement.values()) < 0.75
