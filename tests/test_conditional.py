"""Algorithm 1 on all tasks: what is watched, what is kept, what the seed moves."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from pipeline import conditional
from pipeline.conditional import Conditional, train_conditional
from pipeline.embeddings import Projection, task_means
from pipeline.errors import PipelineError
from pipeline.estimation import make_estimation, pair_losses
from pipeline.examples import Examples
from pipeline.models.ratio import TaskRatios
from pipeline.models.weights import draw_layers
from pipeline.pairs import Pairs
from pipeline.platt import Platt, fit_platt
from pipeline.scoring import score_all
from pipeline.training.course import VALID_SEED
from pipeline.training.history import best_row
from pipeline.training.session import Session
from tests.worlds import default_params, small_world


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
        session=Session(),
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


@pytest.mark.parametrize("linear", [None, 0.01])
def test_scaled_log_ratios_are_those_of_the_training_but_for_a_slope_and_an_offset(
    examples: Examples, linear: float | None
) -> None:
    scaled, plain = (trained(examples, linear=linear, scaling=of) for of in ("platt", "none"))
    kept = best_row(scaled.history)
    assert kept["slope"] != 1
    columns = {"slope", "offset", "scaled_valid_loss", "scaled_held_out_loss"}
    assert [{k: v for k, v in row.items() if k not in columns} for row in scaled.history] == (
        plain.history
    )
    f, g = (scores(examples, made, examples.valid) for made in (plain, scaled))
    assert g == pytest.approx(kept["slope"] * f + kept["offset"], abs=1e-5)


def test_the_scaled_loss_is_that_of_the_network_that_is_kept(examples: Examples) -> None:
    """Dropout makes log ratios too small: scaled ones have a lower loss."""
    made = trained(examples, max_epochs=20)
    kept = best_row(made.history)
    data = make_estimation(examples, base="exposures", device=torch.device("cpu"))
    gen = torch.Generator().manual_seed(VALID_SEED)
    model = TaskRatios(made.net, x=torch.from_numpy(examples.x), e=torch.from_numpy(made.e)).eval()
    for pairs, name in ((data.valid, "valid_loss"), (data.held_out, "held_out_loss")):
        with torch.no_grad():
            loss = float(pair_losses(model, *pairs.fixed(gen)).mean())
        assert kept[f"scaled_{name}"] == pytest.approx(loss, abs=1e-5)
    assert kept["scaled_valid_loss"] < kept["valid_loss"]
    assert kept["slope"] > 1.1
    user, task = data.valid.fixed(torch.Generator().manual_seed(VALID_SEED))
    with torch.no_grad():
        f = model(user, task).numpy()
    common = np.array([[1.0], [0.0]])
    again = fit_platt(f, common, 1 - common)  # on what it was fitted on there is no more to scale
    assert again.slope == pytest.approx(1, abs=0.01)
    assert again.offset == pytest.approx(0, abs=0.01)


def test_with_visible_all_log_ratios_are_scaled_by_all_exposures_of_validation_users(
    examples: Examples,
) -> None:
    """Their held-out ones alone are told from some users, and scale no ratio to all of p."""
    made = trained(examples, max_epochs=20, visible="all")
    kept = best_row(made.history)
    data = make_estimation(examples, base="exposures", visible="all", device=torch.device("cpu"))
    pairs, of_valid = examples.pairs, np.isin(examples.pairs.user, examples.valid)
    assert data.scaling is not None
    assert data.scaling.user.tolist() == pairs.user[of_valid].tolist()
    assert data.scaling.task.tolist() == pairs.task[of_valid].tolist()
    gen = torch.Generator().manual_seed(VALID_SEED)
    *_, (user, task) = [one.fixed(gen) for one in (data.valid, data.held_out, data.scaling)]
    model = TaskRatios(made.net, x=torch.from_numpy(examples.x), e=torch.from_numpy(made.e)).eval()
    with torch.no_grad():
        f = model(user, task).numpy()
    common = np.array([[1.0], [0.0]])
    again = fit_platt(f, common, 1 - common)
    assert (again.slope, again.offset) == pytest.approx((1, 0), abs=0.01)
    assert kept["slope"] != 1


def test_what_runs_the_wrong_way_stays_as_it_is(
    examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.estimation.fit_platt", lambda *_: Platt(-2.0, 0.1))
    kept = best_row(trained(examples).history)
    assert (kept["slope"], kept["offset"]) == (1, 0)
    assert kept["scaled_valid_loss"] == kept["valid_loss"]


def test_training_can_go_by_the_watched_auc(examples: Examples) -> None:
    made = trained(examples, stop="auc", lr=0.02, max_epochs=8)
    watched = [row["valid_auc"] for row in made.history]
    assert [row["valid_miss"] for row in made.history] == [1 - auc for auc in watched]
    lowest = min(made.history, key=lambda row: row["valid_loss"])
    assert lowest["valid_auc"] < max(watched)  # else the loss would have done
    assert slow_valid_auc(examples, made, range(examples.tasks)) == pytest.approx(max(watched))
    by_loss = trained(examples, lr=0.02, max_epochs=8)
    assert "valid_miss" not in by_loss.history[0]
    assert best_row(by_loss.history)["epoch"] == lowest["epoch"]


def test_without_held_out_exposures_no_auc_can_end_a_training(examples: Examples) -> None:
    pairs = examples.pairs
    shown = Pairs(pairs.user, pairs.task, np.zeros(len(pairs), bool))
    with pytest.raises(PipelineError, match=r"ratio\.stop auc: no task has a validation user"):
        trained(replace(examples, pairs=shown), max_epochs=1, stop="auc")


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


def test_heads_start_at_nothing_follow_the_embeddings_and_can_be_held_back(
    examples: Examples,
) -> None:
    start = mean_embeddings(examples)
    still, free, held = (
        trained(examples, **changed)
        for changed in ({"linear": 0.0, "lr": 1e-12}, {"linear": 0.0}, {"linear": 10.0})
    )
    head = slice(start.shape[1], None)
    for made in (still, free, held):
        assert made.e.shape == (examples.tasks, start.shape[1] + examples.x.shape[1] + 1)
    np.testing.assert_allclose(still.e, np.pad(start, ((0, 0), (0, made.net.head_dim))), atol=1e-8)
    assert (free.e[:, head] != 0).all()
    weights = [np.square(made.e[:, head][:, :-1]).mean() for made in (free, held)]
    assert weights[1] < 0.3 * weights[0]


def test_training_is_a_function_of_its_seed(examples: Examples) -> None:
    once, again, other = (trained(examples, seed) for seed in (0, 0, 1))
    assert once.e.tobytes() == again.e.tobytes() != other.e.tobytes()
    assert once.history == again.history


def test_the_seed_moves_the_first_weights(examples: Examples) -> None:
    """A learning rate of next to nothing leaves them as they are."""
    one, other = (trained(examples, seed, lr=1e-12).net.first.weight for seed in (0, 1))
    assert not torch.allclose(one, other)


def test_the_seed_moves_more_than_the_first_weights(
    examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = torch.Generator()
    monkeypatch.setattr(
        conditional, "draw_layers", lambda net, _: draw_layers(net, fixed.manual_seed(0))
    )
    once, again, other = (trained(examples, seed).e.tobytes() for seed in (0, 0, 1))
    assert once == again != other


def test_the_network_is_kept_in_eval_mode_and_its_scores_are_those_of_the_best_epoch(
    examples: Examples,
) -> None:
    made = trained(examples, dropout=[0.0] * 3, lr=0.03, max_epochs=12)
    losses = [row["valid_loss"] for row in made.history]
    assert np.argmin(losses) < len(losses) - 1  # it went on until the loss rose
    assert not made.net.training
    watched = best_row(made.history)["valid_auc"]
    assert watched == pytest.approx(slow_valid_auc(examples, made, range(examples.tasks)))
