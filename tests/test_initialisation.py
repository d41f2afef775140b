"""Equation 4 and the other initialisations, against slow loops and by hand."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.embeddings import Projection, task_means
from pipeline.errors import PipelineError
from pipeline.estimation import ratio_loss
from pipeline.examples import Examples
from pipeline.initialisation import Initialisation, initialise
from pipeline.model_files import read_model
from pipeline.models.ratio import PreEmbeddingNet, RatioNet, TaskRatios
from pipeline.models.weights import draw_layers
from pipeline.pairs import Pairs
from pipeline.params import Init, Label, Params, load_params
from pipeline.pretraining import seed_ratios
from pipeline.seeds import random_seed_tasks
from pipeline.training.dropout import MaskSource, set_masks

ROOT = Path(__file__).parents[1]
USERS, TASKS, WIDTH, HEADS = 40, 12, 5, 7


@pytest.fixture(scope="module")
def examples() -> Examples:
    """Pairs of all users but 0; users 0-29 train; task 11 has no training exposure."""
    gen = np.random.default_rng(0)
    exposed = gen.random((USERS, TASKS)) < 0.4
    exposed[0] = False
    exposed[:30, 11] = False
    user, task = np.nonzero(exposed)
    x = gen.standard_normal((USERS, WIDTH)).astype(np.float32)
    pairs = Pairs(user, task, np.zeros(len(user), bool))
    return Examples(x, pairs, np.arange(30), np.arange(30, 35), TASKS)


@pytest.fixture(scope="module")
def net() -> PreEmbeddingNet:
    made = PreEmbeddingNet(x_dim=WIDTH, heads=HEADS)
    draw_layers(made, torch.Generator().manual_seed(0))
    return made


def users() -> pa.Table:
    return pa.table({"user_id": np.arange(USERS), "sex": ["F", "M", "M", "X"] * 10})


def params(init: Init, **projection: object) -> Params:
    read = load_params(ROOT / "params.yaml", "init", "projection", "labels", "seed")
    wanted = read.projection.model_copy(update={"histogram_label": "sex", **projection})
    labels = {"sex": Label(column="sex")}
    return read.model_copy(update={"init": init, "projection": wanted, "labels": labels})


def started(examples: Examples, net: PreEmbeddingNet, init: Init, **how: object) -> Initialisation:
    wanted = params(init, **how)
    return initialise(
        examples, wanted, users=users(), pre_embedding=net, graph_vectors=graph_vectors(examples)
    )


def graph_vectors(examples: Examples) -> np.ndarray:
    """As if of each task's item."""
    return np.random.default_rng(1).normal(3, 2, (examples.tasks, 6)).astype(np.float32)


def of_task(examples: Examples, task: int) -> list[int]:
    """Training users exposed to the task."""
    pairs = zip(examples.pairs.user.tolist(), examples.pairs.task.tolist(), strict=True)
    return [u for u, t in pairs if t == task and u < 30]


def test_learned_is_equation_4_by_a_slow_loop(examples: Examples, net: PreEmbeddingNet) -> None:
    """The mean of f_s(x) over a task's training exposures, in eval mode, in the order of heads."""
    net.train()  # the mode that it happens to be in must not matter
    made = started(examples, net, "learned", standardise=False)
    assert made.e.shape == (TASKS, HEADS)
    net.eval()
    for task in range(TASKS - 1):
        exposed = of_task(examples, task)
        values = [net(torch.from_numpy(examples.x[u])).detach().numpy() for u in exposed]
        np.testing.assert_allclose(made.e[task], np.mean(values, 0), rtol=1e-5, atol=1e-6)


def test_mean_and_histogram_are_means_of_users(examples: Examples, net: PreEmbeddingNet) -> None:
    mean = started(examples, net, "mean", standardise=False)
    shares = started(examples, net, "histogram", standardise=False)
    sex = np.array(["F", "M", "M", "X"] * 10)
    for task in range(TASKS - 1):
        exposed = of_task(examples, task)
        np.testing.assert_allclose(mean.e[task], examples.x[exposed].mean(0), rtol=1e-5, atol=1e-6)
        by_hand = [(sex[exposed] == code).mean() for code in ("F", "M", "X")]
        np.testing.assert_allclose(shares.e[task], by_hand, rtol=1e-6)


def test_graph_starts_from_the_vectors_of_the_tasks_items(
    examples: Examples, net: PreEmbeddingNet
) -> None:
    raw = graph_vectors(examples)
    np.testing.assert_array_equal(started(examples, net, "graph", standardise=False).e, raw)
    made = started(examples, net, "graph")
    np.testing.assert_allclose(made.e, (raw - raw.mean(0)) / raw.std(0), rtol=1e-4, atol=1e-5)
    assert made.projection is not None  # it places the item of a later task
    np.testing.assert_allclose(made.projection.apply(raw[:1]), made.e[:1], rtol=1e-5)


def test_graph_is_refused_where_it_tells_nothing(examples: Examples, net: PreEmbeddingNet) -> None:
    with pytest.raises(PipelineError, match="init: graph: the items of all 12 tasks have the same"):
        initialise(
            examples,
            params("graph"),
            users=users(),
            pre_embedding=net,
            graph_vectors=np.zeros((TASKS, 4), np.float32),
        )


def test_a_task_without_exposures_gets_the_mean_over_all(examples: Examples) -> None:
    means = task_means(examples.x, examples.learned, TASKS)
    everything = examples.x[examples.learned.user].mean(0)
    np.testing.assert_allclose(means[11], everything, rtol=1e-5)


def test_random_is_standard_normal_and_moves_with_the_seed(
    examples: Examples, net: PreEmbeddingNet
) -> None:
    many = replace(examples, tasks=5000)
    made = started(many, net, "random")
    assert made.e.shape == (5000, 16)
    assert made.projection is None
    np.testing.assert_allclose(made.e.mean(0), 0, atol=0.06)
    np.testing.assert_allclose(made.e.std(0), 1, atol=0.05)
    other = params("random").model_copy(update={"seed": 1})
    moved = initialise(
        many, other, users=users(), pre_embedding=net, graph_vectors=graph_vectors(many)
    )
    assert not np.allclose(made.e, moved.e)


@pytest.mark.parametrize("init", get_args(Init))
def test_embeddings_are_centred_with_unit_variance(
    examples: Examples, net: PreEmbeddingNet, init: Init
) -> None:
    made = started(examples, net, init)
    if init == "random":
        return  # by law, not by construction: the test above
    np.testing.assert_allclose(made.e.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(made.e.std(0), 1, atol=1e-3)


@pytest.mark.parametrize("init", get_args(Init))
def test_every_parameter_gets_a_gradient(
    examples: Examples, net: PreEmbeddingNet, init: Init
) -> None:
    made = started(examples, net, init)
    ratio = RatioNet(x_dim=WIDTH, task_dim=made.e.shape[1])
    draw_layers(ratio, torch.Generator().manual_seed(0))
    model = TaskRatios(ratio, x=torch.from_numpy(examples.x), e=torch.from_numpy(made.e))
    set_masks(model, MaskSource(0, torch.device("cpu")))
    task = torch.arange(TASKS).repeat(50)
    user = torch.randint(USERS, (2, len(task)), generator=torch.Generator().manual_seed(0))
    ratio_loss(model(user, task)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert (model.e.grad.abs().sum(1) > 0).all()  # every task's embedding


def test_frozen_embeddings_stay(examples: Examples) -> None:
    start = torch.ones(TASKS, 2)
    ratio = RatioNet(x_dim=WIDTH, task_dim=2)
    model = TaskRatios(ratio, x=torch.from_numpy(examples.x), e=start, freeze_e=True)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == [
        f"net.{name}" for name, _ in ratio.named_parameters()
    ]


def test_reduced_embeddings_are_principal_components() -> None:
    gen = np.random.default_rng(0)
    wide = gen.standard_normal((300, 3)) @ gen.standard_normal((3, 10)) + 7
    statistic = wide.astype(np.float32)
    projection = Projection.fit(statistic, standardise=True, reduce=3)
    e = projection.apply(statistic)
    assert e.shape == (300, 3)
    np.testing.assert_allclose(np.cov(e.T), np.eye(3), atol=0.02)
    # Three components hold all of it: distances up to a linear map, so a regression is perfect.
    centred = (statistic - projection.mean) / projection.scale
    rest = centred - e @ np.linalg.lstsq(e, centred, rcond=None)[0]
    assert np.abs(rest).max() < 1e-2
    raw = Projection.fit(statistic, standardise=False, reduce=3).apply(statistic)
    spread = raw.std(0)
    assert (spread[:-1] >= spread[1:]).all()


def test_a_projection_written_and_read_places_a_later_task_the_same(
    examples: Examples, net: PreEmbeddingNet, tmp_path: Path
) -> None:
    made = started(examples, net, "learned", reduce=4)
    made.write_projection(tmp_path / "projection.safetensors")
    tensors, config = read_model(tmp_path / "projection.safetensors")
    assert config == {"init": "learned"}
    means = task_means(seed_ratios(net, examples.x), examples.learned, TASKS)
    again = Projection.from_tensors(tensors).apply(means[3:4])
    np.testing.assert_allclose(again[0], made.e[3], rtol=1e-4, atol=1e-5)


def test_random_has_a_projection_file_without_tensors(
    examples: Examples, net: PreEmbeddingNet, tmp_path: Path
) -> None:
    started(examples, net, "random").write_projection(tmp_path / "projection.safetensors")
    assert read_model(tmp_path / "projection.safetensors") == ({}, {"init": "random"})


def test_seed_tasks_are_distinct_sorted_and_have_training_exposures(examples: Examples) -> None:
    draws = [
        random_seed_tasks(examples.learned, 6, np.random.default_rng(seed)) for seed in range(60)
    ]
    for chosen in draws:
        assert len(set(chosen.tolist())) == 6
        assert (np.diff(chosen) > 0).all()
    counts = np.bincount(np.concatenate(draws), minlength=TASKS)
    assert counts[11] == 0
    assert (counts[:11] > 15).all()  # 6 / 11 of 60 draws are expected
