"""User vectors by alternating least squares: against the loss itself, and against `implicit`."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array, csr_matrix

from pipeline.errors import PipelineError
from pipeline.features.directions import Directions
from pipeline.features.factors import Factors, item_factors, solve
from pipeline.params import Als, Features

USERS, ITEMS = 50, 20
PARAMS = Als(penalty=2.0, confidence=3.0, iterations=10)
WEIGHTS = {"penalty": PARAMS.penalty, "confidence": PARAMS.confidence}


@pytest.fixture(scope="module")
def seen() -> csr_array:
    gen = np.random.default_rng(0)
    likes = gen.random((USERS, 1)) * np.linspace(0.2, 1, ITEMS)
    return csr_array((gen.random((USERS, ITEMS)) < likes).astype(np.float32))


def loss(seen: csr_array, x: np.ndarray, y: np.ndarray) -> float:
    s = seen.toarray()
    errors = ((1 + PARAMS.confidence * s) * (s - x @ y.T) ** 2).sum()
    return float(errors + PARAMS.penalty * ((x**2).sum() + (y**2).sum()))


@given(st.integers(0, 2**31), st.integers(1, 5))
def test_no_step_away_from_a_solution_lowers_the_loss(seed: int, k: int) -> None:
    gen = np.random.default_rng(seed)
    seen = csr_array((gen.random((7, 6)) < 0.4).astype(np.float32))
    y = gen.normal(size=(6, k)).astype(np.float32)
    x = solve(seen, y, **WEIGHTS)
    best = loss(seen, x, y)
    for scale in (1e-2, 1):
        assert loss(seen, x + scale * gen.normal(size=x.shape), y) > best


def test_many_rows_are_solved_as_one(seen: csr_array, monkeypatch: pytest.MonkeyPatch) -> None:
    y = np.random.default_rng(1).normal(size=(ITEMS, 4)).astype(np.float32)
    at_once = solve(seen, y, **WEIGHTS)
    monkeypatch.setattr("pipeline.features.factors.AT_ONCE", 7)
    np.testing.assert_allclose(solve(seen, y, **WEIGHTS), at_once, atol=1e-6)


def test_the_loss_is_as_low_as_that_of_another_implementation(seen: csr_array) -> None:
    from implicit.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    more = PARAMS.model_copy(update={"iterations": 60})
    y = item_factors(seen, 4, more, seed=0)
    ours = loss(seen, solve(seen, y, **WEIGHTS), y)
    # Its confidence of what was met is alpha itself, where ours is 1 + confidence.
    other = AlternatingLeastSquares(
        factors=4,
        regularization=PARAMS.penalty,
        alpha=1 + PARAMS.confidence,
        iterations=60,
        random_state=0,
        use_gpu=False,
        use_cg=False,
        dtype=np.float64,
    )
    with threadpool_limits(limits=1, user_api="blas"):
        other.fit(csr_matrix(seen), show_progress=False)
    assert ours == pytest.approx(loss(seen, other.user_factors, other.item_factors), rel=0.01)


def test_a_user_s_vector_needs_their_exposures_alone(seen: csr_array, tmp_path: Path) -> None:
    user, item = seen.nonzero()
    users = pa.table({"user_id": np.arange(USERS) * 3})
    exposures = pa.table({"user_id": user * 3, "item_id": item * 10})
    visible = np.arange(USERS) < 40
    params = Features.model_construct(f_dim=4, activity=True, als=PARAMS)
    made = Factors.fit(users, exposures, visible, params, seed=0)
    x = made.vectors(users, exposures)
    assert x.shape == (USERS, 5)
    params = Features.model_construct(f_dim=60, activity=False, als=PARAMS)
    wide = Factors.fit(users, exposures, visible, params, seed=0)
    assert wide.vectors(users, exposures).shape == (USERS, 60)  # of 40 users, which no SVD has
    np.testing.assert_allclose(x[:40].mean(0), 0, atol=1e-5)
    one = exposures.filter(pa.array(exposures["user_id"].to_numpy() == 135))
    made.write(tmp_path / "model.safetensors")
    again = Factors.read(tmp_path / "model.safetensors")
    np.testing.assert_allclose(
        again.vectors(pa.table({"user_id": [135]}), one)[0], x[45], atol=1e-5
    )
    with pytest.raises(PipelineError, match=r"holds no vectors of features.model svd; .*dvc repro"):
        Directions.read(tmp_path / "model.safetensors")
