"""The peers against slow and obvious forms of themselves, on a small simulated world."""

import importlib.util
from dataclasses import replace
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import csr_array
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.svm import OneClassSVM

from pipeline.auc import task_aucs
from pipeline.datasets.simulation import draw_world, simulate
from pipeline.errors import PipelineError
from pipeline.pairs import shown, split_rows
from pipeline.params import Simulation
from pipeline.peers import settings
from pipeline.peers.als import als
from pipeline.peers.correspondence import correspondence
from pipeline.peers.ease import ease
from pipeline.peers.ecod import fit_ecod
from pipeline.peers.evidence import Evidence
from pipeline.peers.item_knn import item_knn
from pipeline.peers.logistic import logistic
from pipeline.peers.registry import DETECTORS, PEERS, RECOMMENDERS
from pipeline.splits import hold_out, split_users
from pipeline.storage import vectors
from pipeline.yardsticks import exposure_sides

WORLD = Simulation(users=500, items=40, exposures=6000, seed=0)
NOTHING = settings.Nothing()
SETTINGS = settings.Peers(
    ease=settings.Ease(penalty=20),
    als=settings.Als(factors=4, regularisation=1, confidence=2, iterations=5),
    correspondence=settings.Correspondence(dim=4),
    logistic_users=settings.Logistic(penalty=5),
    logistic_exposures=settings.Logistic(penalty=5),
    isolation_forest=settings.IsolationForest(trees=10),
    one_class_svm=settings.OneClassSvm(nu=0.5),
    activity=NOTHING,
    popularity=NOTHING,
    item_knn=NOTHING,
    item_knn_mean=NOTHING,
    ecod=NOTHING,
)


@pytest.fixture(scope="module")
def tables() -> dict[str, pa.Table]:
    """A small world whose every second item is a task, its true tastes as x."""
    source = simulate(WORLD)
    user_ids = source.users["user_id"].to_numpy()
    splits = split_users(user_ids, test_share=0.3, valid_share=0.2, seed=0)
    item_ids = source.items["item_id"].to_numpy()[::2]
    x = draw_world(WORLD).latents.astype(np.float32)
    return {
        "features": pa.table({"user_id": user_ids, "x": vectors(x)}),
        "tasks": pa.table({"task_id": np.arange(20, dtype=np.int32), "item_id": item_ids}),
        "exposures": hold_out(source.exposures, splits, share=0.3, seed=0),
        "splits": splits,
    }


@pytest.fixture(scope="module")
def evidence(tables: dict[str, pa.Table]) -> Evidence:
    return Evidence.of(**tables)


@pytest.fixture(scope="module")
def users(tables: dict[str, pa.Table]) -> np.ndarray:
    return split_rows(tables["splits"], tables["features"], "test")


def scores(name: str, evidence: Evidence, users: np.ndarray) -> np.ndarray:
    return PEERS[name](evidence, users, SETTINGS, 0)


def test_the_evidence_is_every_visible_exposure_to_every_item(
    evidence: Evidence, tables: dict[str, pa.Table]
) -> None:
    shown = tables["exposures"].to_pandas().query("not held_out")
    seen = evidence.seen.tocoo()
    assert evidence.seen.shape == (500, 40)
    assert set(zip(seen.row + 1, seen.col + 1, strict=True)) == set(
        zip(shown.user_id, shown.item_id, strict=True)
    )
    assert evidence.item.tolist() == list(range(0, 40, 2))
    assert (
        evidence.activity.tolist()
        == shown.groupby("user_id").size().reindex(range(1, 501), fill_value=0).tolist()
    )
    assert evidence.popularity.tolist() == shown.groupby("item_id").size().tolist()


@pytest.mark.parametrize("name", sorted(PEERS.keys() - {"popularity", "item_knn_mean"}))
def test_a_peer_scores_the_users_high_who_will_know_the_item(
    name: str, evidence: Evidence, users: np.ndarray
) -> None:
    found = scores(name, evidence, users)
    assert found.dtype == np.float32
    assert found.shape == (20, len(users))
    sides = exposure_sides(evidence.examples.pairs, users, 20)
    assert task_aucs(found, sides).defined.mean() > 0.58


def test_popularity_is_high_for_popular_items_and_the_same_for_all_users(
    evidence: Evidence, users: np.ndarray
) -> None:
    found = scores("popularity", evidence, users)
    assert (found == found[:, :1]).all()
    assert found[:, 0].tolist() == evidence.popularity[::2].tolist()


def test_activity_is_high_for_users_who_saw_much(evidence: Evidence, users: np.ndarray) -> None:
    found = scores("activity", evidence, users)
    assert (found == evidence.activity[users]).all()


@pytest.mark.parametrize("per_item", [False, True])
def test_item_knn_is_the_sum_or_mean_of_cosines_of_columns(
    evidence: Evidence, users: np.ndarray, per_item: bool
) -> None:
    cosine = cosine_similarity(evidence.seen.toarray().T)
    found = item_knn(evidence, users, per_item=per_item)
    for task, item in enumerate(evidence.item):
        for column in range(0, len(users), 7):
            items = np.flatnonzero(evidence.seen[[users[column]]].toarray()[0])
            likeness = sum(cosine[item, other] for other in items if other != item)
            expected = likeness / max(1, len(items)) if per_item else likeness
            assert found[task, column] == pytest.approx(expected, rel=1e-4)


def test_the_mean_of_cosines_is_high_for_users_of_whose_taste_much_is_like_the_item(
    evidence: Evidence,
) -> None:
    """Items 0 and 1 go together, and so do 2 and 3. User 3 has seen 1; user 4 has seen 1 and 2."""
    seen = csr_array(
        np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 0, 0], [0, 1, 1, 0]], np.float32)
    )
    world = Evidence(seen, np.array([0]), evidence.examples)
    users = np.array([3, 4])
    one_item, two_items = item_knn(world, users, per_item=True)[0]
    assert one_item == pytest.approx(2 * two_items)
    assert one_item > 0
    assert len(set(item_knn(world, users, per_item=False)[0])) == 1


def test_ease_is_stecks_code(evidence: Evidence, users: np.ndarray) -> None:
    """The nine lines of his paper."""
    x = evidence.seen.toarray().astype(float)
    gram = x.T @ x
    gram[np.diag_indices(40)] += 20
    p = np.linalg.inv(gram)
    b = p / -np.diag(p)
    b[np.diag_indices(40)] = 0
    expected = (x @ b)[users][:, evidence.item].T
    np.testing.assert_allclose(ease(evidence, users, penalty=20), expected, atol=1e-5)


def test_correspondence_is_the_svd_of_the_table_less_its_margins(
    evidence: Evidence, users: np.ndarray
) -> None:
    table = evidence.seen.toarray().astype(float)
    table /= table.sum()
    margins = np.outer(table.sum(1), table.sum(0))
    scale = np.sqrt(np.maximum(margins, 1e-30))
    left, value, right = np.linalg.svd((table - margins) / scale, full_matrices=False)
    rank_three = left[:, :3] * value[:3] @ right[:3] / scale + 1
    expected = rank_three[users][:, evidence.item].T
    active = evidence.activity[users] > 0
    found = correspondence(evidence, users, dim=3)
    np.testing.assert_allclose(found[:, active], expected[:, active], atol=1e-4)


def test_correspondence_says_how_many_terms_it_can_have(
    evidence: Evidence, users: np.ndarray
) -> None:
    most = min(evidence.seen.shape) - 2
    assert np.isfinite(correspondence(evidence, users, dim=most)).all()
    with pytest.raises(PipelineError, match=f"correspondence.dim: .* lower it to {most}"):
        correspondence(evidence, users, dim=most + 1)


@pytest.mark.parametrize("base", ["users", "exposures"])
def test_logistic_is_scikit_learns_a_task_at_a_time(
    evidence: Evidence, users: np.ndarray, base: str
) -> None:
    examples = evidence.examples
    found = logistic(evidence, users, base=base, penalty=3)
    everyone = examples.train if base == "users" else examples.learned.user
    for task in range(0, 20, 5):
        exposed = examples.learned.user[examples.learned.task == task]
        x = examples.x[np.concatenate([exposed, everyone])]
        y = np.arange(len(x)) < len(exposed)
        weight = np.where(y, 1, len(exposed) / len(everyone))
        oracle = LogisticRegression(C=1 / 3, tol=1e-8).fit(x, y, weight)
        expected = oracle.decision_function(examples.x[users])
        np.testing.assert_allclose(found[task], expected, atol=2e-3)


@pytest.mark.parametrize("base", ["users", "exposures"])
def test_logistic_stands_in_the_table_under_either_base(
    base: str, evidence: Evidence, users: np.ndarray
) -> None:
    expected = logistic(evidence, users, base=base, penalty=5)
    np.testing.assert_array_equal(scores(f"logistic_{base}", evidence, users), expected)


def als_scores(evidence: Evidence, **changes: float) -> np.ndarray:
    chosen = {"factors": 8, "regularisation": 1, "confidence": 1, "iterations": 5, **changes}
    return als(evidence, np.arange(500), seed=0, **chosen)


def test_als_of_much_confidence_brings_what_was_seen_near_one(evidence: Evidence) -> None:
    seen = evidence.seen[:, evidence.item].toarray().T > 0
    assert als_scores(evidence)[seen].mean() < 0.6
    assert 0.8 < als_scores(evidence, confidence=20)[seen].mean() < 1.1


def test_als_of_much_regularisation_brings_all_scores_near_nought(evidence: Evidence) -> None:
    assert np.abs(als_scores(evidence, regularisation=1e4)).max() < 0.01
    assert np.abs(als_scores(evidence)).max() > 0.5


def test_logistic_that_does_not_settle_says_so(
    evidence: Evidence, users: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.peers.logistic.STEPS", 1)
    with pytest.raises(PipelineError, match="did not settle in 1 of Newton's steps; raise"):
        logistic(evidence, users, base="users", penalty=1e-3)


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        ("isolation_forest", IsolationForest(n_estimators=10, random_state=0)),
        ("one_class_svm", OneClassSVM(nu=0.5)),
    ],
)
def test_a_detector_is_fitted_to_the_training_users_of_its_task(
    name: str,
    oracle: IsolationForest | OneClassSVM,
    evidence: Evidence,
    users: np.ndarray,
) -> None:
    found, x = scores(name, evidence, users), evidence.examples.x
    pairs, train = evidence.examples.pairs, set(evidence.examples.train)
    for task in (3, 11):
        exposed = [u for u, t in zip(pairs.user, pairs.task, strict=True) if t == task]
        oracle.fit(x[[user for user in exposed if user in train]])
        np.testing.assert_allclose(
            found[task], oracle.score_samples(x[users]), rtol=1e-4, atol=1e-6
        )


def test_ecod_is_its_definition() -> None:
    """By a loop; whole numbers, so that there are ties."""
    rng = np.random.default_rng(0)
    own = rng.poisson(3, size=(30, 4)).astype(np.float32) * [1, -1, 1, -1]
    x = rng.poisson(3, size=(20, 4)).astype(np.float32) * [1, -1, -1, 1]
    expected = [
        sum(
            np.log((min((column <= at).sum(), (column >= at).sum()) + 1) / 31)
            for column, at in zip(own.T, point, strict=True)
        )
        for point in x
    ]
    found = fit_ecod(own)(x)
    np.testing.assert_allclose(found, expected)
    assert fit_ecod(own)(np.median(own, 0)[None])[0] > found.max()


def test_ecod_is_pyods() -> None:
    """PyOD counts a new point among the known: ours one at a time."""
    pyod = pytest.importorskip("pyod.models.ecod", reason="pip install -r requirements-pyod.txt")
    rng = np.random.default_rng(0)
    own = rng.exponential(size=(60, 4)) * [1, -1, 1, -1]
    x = rng.normal(size=(20, 4))
    oracle = pyod.ECOD().fit(own)
    expected = [-oracle.decision_function(point[None])[0] for point in x]
    np.testing.assert_allclose(fit_ecod(own)(x), expected)


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_is_blind_to_held_out_pairs_and_a_detector_to_others_than_training_users(
    name: str, evidence: Evidence, tables: dict[str, pa.Table], users: np.ndarray
) -> None:
    exposures = tables["exposures"].to_pandas()
    kept = ~exposures.held_out
    if name in DETECTORS:
        kept &= ~exposures.user_id.isin(users + 1)
    less = Evidence.of(**{**tables, "exposures": tables["exposures"].filter(pa.array(kept))})
    np.testing.assert_array_equal(scores(name, less, users), scores(name, evidence, users))


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_beside_a_ratio_that_learns_from_all_users_does_so_too(
    name: str, evidence: Evidence, tables: dict[str, pa.Table], users: np.ndarray
) -> None:
    """From their visible exposures alone."""
    found = scores(name, Evidence.of(**tables, learners="all"), users)
    visible = {**tables, "exposures": shown(tables["exposures"])}
    np.testing.assert_array_equal(
        found, scores(name, Evidence.of(**visible, learners="all"), users)
    )
    assert not np.array_equal(found, scores(name, evidence, users))


@pytest.mark.parametrize("name", PEERS)
def test_a_task_without_exposures_gets_finite_scores(
    name: str, evidence: Evidence, users: np.ndarray
) -> None:
    """And so does a user who has seen nothing."""
    pairs, seen = evidence.examples.pairs, evidence.seen.tolil()
    seen[:, evidence.item[2]] = 0
    seen[users[0]] = 0
    other = pairs.task != 2
    bare = replace(
        evidence,
        seen=csr_array(seen),
        examples=replace(
            evidence.examples,
            pairs=pairs.where(other),
        ),
    )
    found = scores(name, bare, users)
    assert np.isfinite(found).all()
    if name in DETECTORS:
        np.testing.assert_allclose(found[2] - found[2, 0], 0, atol=1e-5)


def test_als_without_its_package_says_which(
    evidence: Evidence, users: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PipelineError, match=r"the peer `als` needs the package implicit: pip"):
        scores("als", evidence, users)


def test_a_seed_decides_what_is_random(evidence: Evidence, users: np.ndarray) -> None:
    for name in ("als", "isolation_forest"):
        first, again, other = (PEERS[name](evidence, users, SETTINGS, s) for s in (0, 0, 1))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()


def test_the_registry_has_every_name_that_params_may_hold() -> None:
    assert set(RECOMMENDERS) == set(get_args(settings.Recommender))
    assert set(DETECTORS) == set(get_args(settings.Detector))
    assert set(PEERS) == set(RECOMMENDERS) | set(DETECTORS) == set(settings.Peers.model_fields)
