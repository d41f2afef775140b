"""Where embeddings start, against slow loops; the projection and its inverse on disk."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from pipeline.embeddings import Projection, task_means
from pipeline.errors import PipelineError
from pipeline.initialisation import Initialisation, initialise
from pipeline.model_files import read_model
from pipeline.models.ratio import PreEmbeddingNet, RatioNet, TaskRatios
from pipeline.models.weights import draw_layers
from pipeline.pairs import Pairs
from pipeline.params import Init
from pipeline.steps.dropout import MaskSource, set_masks
from pipeline.steps.pair_loss import ratio_loss
from tests.worlds import SmallWorld, default_params, small_world

CPU = torch.device("cpu")
RAW = {"standardise": False, "reduce": None}


@pytest.fixture(scope="module")
def small() -> SmallWorld:
    return small_world()


@pytest.fixture(scope="module")
def net(small: SmallWorld) -> PreEmbeddingNet:
    """A pre-embedding model of 6 heads, left in training mode."""
    made = PreEmbeddingNet(x_dim=small.examples.x.shape[1], heads=6)
    draw_layers(made, torch.Generator().manual_seed(0))
    return made.train()


def start(
    small: SmallWorld,
    net: PreEmbeddingNet,
    init: Init,
    seed: int = 0,
    wanted: Mapping[str, object] = RAW,
) -> Initialisation:
    params = default_params(seed, projection=wanted).model_copy(update={"init": init})
    return initialise(
        small.examples,
        params,
        users=small.users,
        pre_embedding=lambda: net,
        graph_vectors=lambda: graph_vectors(small),
    )


def graph_vectors(small: SmallWorld) -> np.ndarray:
    """As if of each task's item."""
    size = small.tasks.num_rows, 6
    return np.random.default_rng(1).normal(3, 2, size).astype(np.float32)


def training_users(small: SmallWorld) -> list[list[int]]:
    """Rows of the training users exposed to each task, from the tables of ids."""
    split = dict(zip(*(small.splits[c].to_pylist() for c in ("user_id", "split")), strict=True))
    audience: dict[int, list[int]] = {item: [] for item in small.tasks["item_id"].to_pylist()}
    for user, item in zip(
        *(small.exposures[c].to_pylist() for c in ("user_id", "item_id")), strict=True
    ):
        if split[user] == "train" and item in audience:
            audience[item].append(user - 1)  # ids of the simulation are rows plus one
    return list(audience.values())


def test_learned_embeddings_are_equation_4_over_all_training_exposures(
    small: SmallWorld, net: PreEmbeddingNet
) -> None:
    """The mean of f_1(x), ..., f_M0(x) over a task's training users, without dropout."""
    found = start(small, net, "learned").e
    x = torch.from_numpy(small.examples.x)
    net.eval()
    for task, users in enumerate(training_users(small)):
        with torch.no_grad():
            total = sum(net(x[user]) for user in users)
        np.testing.assert_allclose(found[task], total / len(users), rtol=1e-4, atol=1e-6)


def test_mean_embeddings_are_the_mean_vectors_of_the_training_users(
    small: SmallWorld, net: PreEmbeddingNet
) -> None:
    found = start(small, net, "mean").e
    for task, users in enumerate(training_users(small)):
        np.testing.assert_allclose(found[task], small.examples.x[users].mean(0), atol=1e-6)


def test_histogram_embeddings_are_the_shares_of_the_classes(
    small: SmallWorld, net: PreEmbeddingNet
) -> None:
    """Of age in the bins <25, 25-34, 35-44, 45-55 and 56+."""
    found = start(small, net, "histogram", wanted={**RAW, "histogram_label": "age"}).e
    age = small.users["age"].to_numpy()
    edges = [0, 25, 35, 45, 56, 999]
    for task, users in enumerate(training_users(small)):
        own = age[users]
        shares = [((low <= own) & (own < high)).sum() / len(own) for low, high in pairwise(edges)]
        np.testing.assert_allclose(found[task], shares, atol=1e-6)


def test_graph_embeddings_are_the_vectors_of_the_tasks_items(
    small: SmallWorld, net: PreEmbeddingNet
) -> None:
    raw = graph_vectors(small)
    np.testing.assert_array_equal(start(small, net, "graph").e, raw)
    made = start(small, net, "graph", wanted={})
    np.testing.assert_allclose(made.e, (raw - raw.mean(0)) / raw.std(0), rtol=1e-4, atol=1e-5)
    assert made.projection is not None  # it places the item of a later task


def test_graph_is_refused_where_it_tells_nothing(small: SmallWorld, net: PreEmbeddingNet) -> None:
    tasks = small.tasks.num_rows
    with pytest.raises(PipelineError, match=f"graph: the items of all {tasks} tasks have the same"):
        initialise(
            small.examples,
            default_params().model_copy(update={"init": "graph"}),
            users=small.users,
            pre_embedding=lambda: net,
            graph_vectors=lambda: np.zeros((tasks, 4), np.float32),
        )


def test_random_embeddings_are_standard_normal_and_move_with_the_seed(
    small: SmallWorld, net: PreEmbeddingNet
) -> None:
    wanted = {**RAW, "random_dim": 500}
    once, again, other = (start(small, net, "random", s, wanted) for s in (0, 0, 1))
    assert once.e.shape == (small.tasks.num_rows, 500)
    assert once.e.dtype == np.float32
    assert kstest(once.e.ravel(), "norm").pvalue > 0.001
    assert once.e.tobytes() == again.e.tobytes()
    assert abs(np.corrcoef(once.e.ravel(), other.e.ravel())[0, 1]) < 0.05
    assert once.projection is None


@pytest.mark.parametrize("init", ["learned", "mean", "histogram", "graph"])
def test_only_random_embeddings_move_with_the_seed(
    small: SmallWorld, net: PreEmbeddingNet, init: Init
) -> None:
    assert start(small, net, init, 0).e.tobytes() == start(small, net, init, 1).e.tobytes()


@pytest.mark.parametrize("init", get_args(Init))
def test_no_user_but_those_of_training_moves_an_embedding(
    small: SmallWorld, net: PreEmbeddingNet, init: Init
) -> None:
    """Neither what validation and test users are exposed to, nor what is known of them."""
    examples, others = small.examples, np.concatenate([small.rows("valid"), small.rows("test")])
    x = examples.x.copy()
    x[others] += 5
    gone = ~np.isin(examples.pairs.user, others)
    params = default_params().model_copy(update={"init": init})
    also = {
        "users": small.users,
        "pre_embedding": lambda: net,
        "graph_vectors": lambda: graph_vectors(small),
    }
    moved = initialise(replace(examples, x=x, pairs=examples.pairs.where(gone)), params, **also)
    kept = initialise(examples, params, **also)
    assert moved.e.tobytes() == kept.e.tobytes()


def test_a_task_without_exposures_gets_the_mean_over_all() -> None:
    values = np.array([[1.0, 0], [2, 10], [6, 20]])
    known = Pairs(np.array([0, 1, 2, 2]), np.array([0, 0, 0, 2]), np.zeros(4, bool))
    expected = [[3, 10], [15 / 4, 50 / 4], [6, 20]]
    np.testing.assert_allclose(task_means(values, known, tasks=3), expected, rtol=1e-6)
    assert not task_means(values, known.where(known.task > 9), tasks=2).any()


@pytest.mark.parametrize("init", get_args(Init))
def test_every_parameter_gets_a_gradient(
    small: SmallWorld, net: PreEmbeddingNet, init: Init
) -> None:
    e = torch.from_numpy(start(small, net, init, wanted={}).e)
    x = torch.from_numpy(small.examples.x)
    model = TaskRatios(RatioNet(x_dim=x.shape[1], task_dim=e.shape[1]), x=x, e=e)
    draw_layers(model, torch.Generator().manual_seed(0))
    set_masks(model, MaskSource(0, CPU))
    gen = torch.Generator().manual_seed(0)
    user = torch.randint(len(x), (2, 40 * len(e)), generator=gen)
    ratio_loss(model(user, torch.arange(len(e)).repeat(40))).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert p.grad.any(), name
    assert model.e.grad is not None
    assert model.e.grad.any(1).all()  # of every task


def statistic(tasks: int = 40, d: int = 7) -> np.ndarray:
    """Correlated columns of unlike means and spreads."""
    gen = np.random.default_rng(0)
    mixed = gen.standard_normal((tasks, d)) @ gen.standard_normal((d, d))
    return (mixed * np.geomspace(0.05, 3, d) + np.arange(d)).astype(np.float32)


def fitted(values: np.ndarray, standardise: bool, reduce: int | None) -> Projection:
    return Projection.fit(values, standardise=standardise, reduce=reduce)


def test_standardised_embeddings_have_mean_0_and_variance_1() -> None:
    values = statistic()
    e = fitted(values, True, None).apply(values)
    np.testing.assert_allclose(e.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(e.var(0), 1, atol=1e-5)
    np.testing.assert_allclose(e, (values - values.mean(0)) / values.std(0), atol=1e-4)


def test_a_dimension_in_which_tasks_do_not_differ_becomes_zero() -> None:
    values = statistic()
    values[:, 2] = 0.1
    e = fitted(values, True, None).apply(values)
    np.testing.assert_allclose(e[:, 2], 0, atol=1e-5)
    np.testing.assert_allclose(e[:, 3].std(), 1, atol=1e-5)


def test_raw_embeddings_are_the_statistic() -> None:
    values = statistic()
    np.testing.assert_array_equal(fitted(values, False, None).apply(values), values)


@pytest.mark.parametrize("keep", [7, 8])
def test_keeping_as_many_dimensions_as_there_are_reduces_nothing(keep: int) -> None:
    values = statistic()
    np.testing.assert_array_equal(fitted(values, False, keep).apply(values), values)


@pytest.mark.parametrize("keep", [1, 3, 6])
def test_reduced_embeddings_are_the_first_principal_components_at_unit_variance(keep: int) -> None:
    values = statistic()
    e = fitted(values, True, keep).apply(values)
    assert e.shape == (40, keep)
    np.testing.assert_allclose(np.cov(e.T, bias=True), np.eye(keep), atol=1e-4)
    correlation = np.corrcoef(values.T)
    variance, directions = np.linalg.eigh(correlation)
    scores = (values - values.mean(0)) / values.std(0) @ directions[:, ::-1]
    for k in range(keep):  # in the order of their variance
        assert abs(np.corrcoef(e[:, k], scores[:, k])[0, 1]) == pytest.approx(1, abs=1e-3)
    assert (np.diff(variance) > 0.01).all()  # so that the order is one


def test_reduced_raw_embeddings_keep_their_distances_along_the_components() -> None:
    values = statistic()
    e = fitted(values, False, 3).apply(values)
    variance, directions = np.linalg.eigh(np.cov(values.T.astype(float), bias=True))
    np.testing.assert_allclose(e.var(0), variance[::-1][:3], rtol=1e-3)
    np.testing.assert_allclose(abs(e), abs(values @ directions[:, ::-1][:, :3]), atol=1e-3)


@pytest.mark.parametrize("standardise", [True, False])
def test_the_largest_weight_of_each_component_is_positive(standardise: bool) -> None:
    """Also for the mirrored statistic, whose components are the same: no sign is left open."""
    values = statistic()
    for some in (values, -values):
        components = fitted(some, standardise, 3).components
        largest = components[abs(components).argmax(0), range(3)]
        assert (largest > 0).all()


@pytest.mark.parametrize("standardise", [True, False])
def test_tasks_that_are_all_alike_are_embedded_by_finite_numbers(standardise: bool) -> None:
    values = np.tile(statistic()[:1], (3, 1))
    e = fitted(values, standardise, 2).apply(values)
    assert e.shape == (3, 2)
    assert np.isfinite(e).all()


@pytest.mark.parametrize("reduce", [None, 3])
def test_a_task_that_comes_later_is_placed_as_if_it_had_been_there(reduce: int | None) -> None:
    values = statistic()
    projection = fitted(values, True, reduce)
    e = projection.apply(values)
    np.testing.assert_allclose(projection.apply(values[5:6]), e[5:6], atol=1e-6)
    newcomer = (values[3:4] + values[8:9]) / 2
    np.testing.assert_allclose(projection.apply(newcomer), (e[3:4] + e[8:9]) / 2, atol=1e-4)


@pytest.mark.parametrize("init", get_args(Init))
def test_the_projection_read_back_embeds_the_same(
    small: SmallWorld, net: PreEmbeddingNet, init: Init, tmp_path: Path
) -> None:
    made = start(small, net, init, wanted={"standardise": True, "reduce": 3})
    made.write_projection(tmp_path / "projection.safetensors")
    tensors, config = read_model(tmp_path / "projection.safetensors")
    assert config == {"init": init}
    if made.projection is None:
        assert not tensors
        return
    again = Projection.from_tensors(tensors)
    values = np.ones((2, len(again.mean)), np.float32)
    assert again.apply(values).tobytes() == made.projection.apply(values).tobytes()
