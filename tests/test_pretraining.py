"""The pre-embedding model: its seed tasks, what it may see, and its basis functions."""

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from pipeline import pretraining
from pipeline.errors import PipelineError
from pipeline.examples import Examples
from pipeline.models.ratio import PreEmbeddingNet
from pipeline.models.weights import draw_layers
from pipeline.pairs import Pairs
from pipeline.pretraining import Pretraining, pretrain, seed_ratios
from pipeline.sections import Base
from pipeline.seed_tasks import random_seed_tasks
from pipeline.training.session import Session
from tests.worlds import default_params, small_world


@pytest.fixture(scope="module")
def examples() -> Examples:
    return small_world().examples


def trained(
    examples: Examples,
    seed_tasks: list[int],
    seed: int = 0,
    base: Base = "exposures",
    **changed: object,
) -> Pretraining:
    quick = {"batch_size": 256, "max_epochs": 2}
    return pretrain(
        examples,
        np.array(seed_tasks),
        base=base,
        params=default_params(pretrain=quick | changed).pretrain,
        seed=seed,
        session=Session(),
    )


def weights(made: Pretraining) -> bytes:
    return b"".join(value.numpy().tobytes() for value in made.net.state_dict().values())


def pairs_of(*tasks: int) -> Pairs:
    return Pairs(np.arange(len(tasks)), np.array(tasks), np.zeros(len(tasks), bool))


def test_seed_tasks_are_drawn_uniformly_without_repeats_among_tasks_with_a_pair() -> None:
    gen, drawn = np.random.default_rng(0), np.zeros(9)
    for _ in range(3000):
        chosen = random_seed_tasks(pairs_of(8, 1, 3, 3, 3, 6, 7), 3, gen)
        assert (np.diff(chosen) > 0).all()
        drawn[chosen] += 1
    assert np.flatnonzero(drawn).tolist() == [1, 3, 6, 7, 8]
    assert chisquare(drawn[drawn > 0]).pvalue > 0.001


def test_all_tasks_can_be_seed_tasks_but_no_more() -> None:
    gen = np.random.default_rng(0)
    assert random_seed_tasks(pairs_of(4, 2, 2), 2, gen).tolist() == [2, 4]
    with pytest.raises(PipelineError) as error:
        random_seed_tasks(pairs_of(4, 2, 2), 3, gen)
    assert str(error.value) == (
        "pretrain.seed_tasks must be between 1 and 2, the number of tasks with a training "
        "exposure. Got 3."
    )


@pytest.mark.parametrize("base", get_args(Base))
def test_other_tasks_take_no_part(examples: Examples, base: Base) -> None:
    """Neither as positives nor in p."""
    seed_tasks, pairs = [1, 4, 5], examples.pairs
    alone = replace(examples, pairs=pairs.where(np.isin(pairs.task, seed_tasks)))
    assert weights(trained(examples, seed_tasks, base=base)) == weights(
        trained(alone, seed_tasks, base=base)
    )


def test_head_s_is_of_seed_task_s(examples: Examples) -> None:
    """Seed tasks 1, 4 and 5 train as tasks 0, 1 and 2 of a world that has no others would."""
    seed_tasks, pairs = [1, 4, 5], examples.pairs
    own = pairs.where(np.isin(pairs.task, seed_tasks))
    renamed = Pairs(own.user, np.searchsorted(seed_tasks, own.task), own.held_out)
    only = trained(replace(examples, pairs=renamed, tasks=3), [0, 1, 2])
    among = trained(examples, seed_tasks)
    assert weights(only) == weights(among)
    assert among.seed_tasks.tolist() == seed_tasks


def test_training_is_a_function_of_its_seed(examples: Examples) -> None:
    once, again, other = (trained(examples, [1, 4, 5], seed) for seed in (0, 0, 1))
    assert weights(once) == weights(again) != weights(other)
    assert once.history == again.history


def test_the_seed_moves_the_first_weights(examples: Examples) -> None:
    """A learning rate of next to nothing leaves them as they are."""
    one, other = (trained(examples, [1, 4, 5], seed, lr=1e-12).net.first.weight for seed in (0, 1))
    assert not torch.allclose(one, other)


def test_the_seed_moves_more_than_the_first_weights(
    examples: Examples, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = torch.Generator()
    monkeypatch.setattr(
        pretraining, "draw_layers", lambda net, _: draw_layers(net, fixed.manual_seed(0))
    )
    once, again, other = (weights(trained(examples, [1, 4, 5], seed)) for seed in (0, 0, 1))
    assert once == again != other


@pytest.mark.parametrize("block", [1, 7, 200, 1 << 16])
def test_the_basis_functions_are_the_heads_without_dropout(examples: Examples, block: int) -> None:
    net = PreEmbeddingNet(x_dim=examples.x.shape[1], heads=3)
    draw_layers(net, torch.Generator().manual_seed(0))
    found = seed_ratios(net.train(), examples.x, block)
    with torch.no_grad():
        expected = net.eval()(torch.from_numpy(examples.x)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.shape == (200, 3)
