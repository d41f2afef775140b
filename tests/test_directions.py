"""User vectors by singular value decomposition, against a dense one."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.sparse import csr_array

from pipeline.errors import PipelineError
from pipeline.features.directions import Directions
from pipeline.features.extractor import Extractor
from pipeline.params import Features

USERS, ITEMS = 60, 25


@pytest.fixture(scope="module")
def users() -> pa.Table:
    return pa.table({"user_id": np.arange(USERS) * 3 + 1})


@pytest.fixture(scope="module")
def exposures() -> pa.Table:
    gen = np.random.default_rng(0)
    likes = gen.random((USERS, 1)) * np.linspace(0.2, 1, ITEMS)
    user, item = np.nonzero(gen.random((USERS, ITEMS)) < likes)
    return pa.table({"user_id": user * 3 + 1, "item_id": item * 10})


def dense(exposures: pa.Table) -> np.ndarray:
    user = (exposures["user_id"].to_numpy() - 1) // 3
    item = exposures["item_id"].to_numpy() // 10
    return csr_array((np.ones(len(user)), (user, item)), (USERS, ITEMS)).toarray()


def fit(
    users: pa.Table, exposures: pa.Table, visible: np.ndarray | None = None, **how: object
) -> Directions:
    everybody = np.ones(USERS, bool)
    chosen = everybody if visible is None else visible
    params = Features.model_construct(**{"f_dim": 5, "activity": False, **how})
    return Directions.fit(users, exposures, chosen, params, seed=0)


def test_vectors_are_left_singular_vectors_standardised(
    users: pa.Table, exposures: pa.Table
) -> None:
    u, _, _ = np.linalg.svd(dense(exposures), full_matrices=False)
    u = u[:, :5]
    expected = (u - u.mean(0)) / u.std(0)
    found = fit(users, exposures).vectors(users, exposures)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.abs((found * expected).mean(0)), 1, atol=1e-4)


def test_the_largest_weight_of_each_direction_is_positive(
    users: pa.Table, exposures: pa.Table
) -> None:
    v = fit(users, exposures).v
    assert (v[np.abs(v).argmax(0), range(5)] > 0).all()


def test_activity_comes_last(users: pa.Table, exposures: pa.Table) -> None:
    x = fit(users, exposures, activity=True).vectors(users, exposures)
    count = np.log1p(dense(exposures).sum(1))
    np.testing.assert_allclose(x[:, 5], (count - count.mean()) / count.std(), atol=1e-4)
    np.testing.assert_array_equal(x[:, :5], fit(users, exposures).vectors(users, exposures))


def test_users_who_are_not_visible_move_nothing_and_are_placed_as_the_others(
    users: pa.Table, exposures: pa.Table
) -> None:
    visible = np.arange(USERS) < 40
    known = exposures.filter(pa.array(exposures["user_id"].to_numpy() < 120))
    made, alone = fit(users, exposures, visible), fit(users, known, visible)
    np.testing.assert_array_equal(made.v, alone.v)
    everybody = made.vectors(users, exposures)
    np.testing.assert_allclose(everybody[:40].mean(0), 0, atol=1e-5)
    newcomer = exposures.filter(pa.array(exposures["user_id"].to_numpy() == 151))
    placed = made.vectors(pa.table({"user_id": [151]}), newcomer)
    np.testing.assert_allclose(placed[0], everybody[50], atol=1e-5)


def test_an_unknown_item_says_nothing(users: pa.Table, exposures: pa.Table) -> None:
    made, one = fit(users, exposures), pa.table({"user_id": [1]})
    nothing = pa.table({"user_id": pa.array([], pa.int64()), "item_id": pa.array([], pa.int64())})
    other = pa.table({"user_id": [1], "item_id": [777]})
    np.testing.assert_array_equal(made.vectors(one, other), made.vectors(one, nothing))


@pytest.mark.parametrize("activity", [True, False])
def test_written_and_read_it_gives_the_same_vectors(
    users: pa.Table, exposures: pa.Table, activity: bool, tmp_path: Path
) -> None:
    made, file = fit(users, exposures, activity=activity), tmp_path / "model.safetensors"
    made.write(file)
    again = Directions.read(file).vectors(users, exposures)
    assert again.tobytes() == made.vectors(users, exposures).tobytes()
    with pytest.raises(PipelineError, match="holds no DeepFM"):
        Extractor.read(file, torch.device("cpu"))


def test_more_directions_than_there_are_is_one_line(users: pa.Table, exposures: pa.Table) -> None:
    with pytest.raises(PipelineError, match=r"25 directions .* 60 users to 25 items .* most 24 "):
        fit(users, exposures, f_dim=25)
