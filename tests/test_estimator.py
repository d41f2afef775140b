"""The detector as a user of scikit-learn meets it."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from safetensors import safe_open
from sklearn.exceptions import NotFittedError, UnsetMetadataPassedError
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from sklearn.utils.validation import check_is_fitted

from pipeline.conformal import Calibration
from pipeline.errors import PipelineError
from pipeline.estimator import CollaborativeAnomalyDetector
from pipeline.estimator.group_names import task_names
from pipeline.estimator.pools import pools
from pipeline.estimator.tabular import mixture_log_ratios
from pipeline.model_files import read_model, write_model
from pipeline.models.ratio import RatioNet

GROUPS = [f"group {i}" for i in range(8)]
EXCEPTIONS = {
    "check_fit_score_takes_y": "the second argument is `task`, which is no target but the group "
    "that each row is to be compared with"
}


def world(rows: int, seed: int, groups: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Rows of two columns: the groups stand on a line, each narrow beside the whole."""
    gen = np.random.default_rng(seed)
    task = np.arange(rows) % groups
    centre = np.stack([3.0 * task, -2.0 * (task % 3)], 1)
    return centre + gen.standard_normal((rows, 2)) * [0.5, 1.0], np.array(GROUPS * 99)[task]


def fitted(**params: object) -> CollaborativeAnomalyDetector:
    return CollaborativeAnomalyDetector(random_state=0, **params).fit(*world(1600, seed=0))


@pytest.fixture(scope="module")
def detector() -> CollaborativeAnomalyDetector:
    return fitted()


@pytest.mark.filterwarnings("ignore:.*rows to calibrate on")
def test_it_passes_scikit_learns_checks_but_for_one() -> None:
    """Short training: the checks ask how it behaves, not how well it learns."""
    results = check_estimator(
        CollaborativeAnomalyDetector(max_epochs=2), expected_failed_checks=EXCEPTIONS
    )
    failed = {r["check_name"] for r in results if r["status"] == "xfail"}
    assert failed == set(EXCEPTIONS)
    assert len(results) > 40


def test_a_row_of_another_group_is_an_outlier_though_common_elsewhere(
    detector: CollaborativeAnomalyDetector,
) -> None:
    X, task = world(800, seed=1)
    own = detector.score_samples(X, task)
    elsewhere = detector.score_samples(X, np.roll(GROUPS * 100, 1)[:800])
    assert (own > elsewhere).mean() > 0.99
    assert (detector.predict(X, np.roll(GROUPS * 100, 1)[:800]) == -1).mean() > 0.98


def test_of_a_groups_own_rows_about_alpha_are_called_outliers() -> None:
    """On new rows, for two alphas and two sizes: each group that stands alone, and pooled ones."""
    X, task = world(16_000, seed=2)
    for alpha, rows, alone in ((0.05, 1600, True), (0.2, 1600, True), (0.05, 320, False)):
        made = CollaborativeAnomalyDetector(alpha=alpha, random_state=0)
        made.fit(*world(rows, seed=0))
        assert made.calibration_.own.all() == alone
        flagged = made.predict(X, task) == -1
        n = len(made.kept_.calibration)
        error = np.sqrt(alpha * (1 - alpha) / n)  # of thresholds from n calibration rows
        assert alpha - 3 * error - 8 / n <= flagged.mean() <= alpha + 3 * error
        if alone:
            own = np.bincount(made.kept_.calibration.task)
            rate = pd.Series(flagged).groupby(task).mean().to_numpy()
            error = np.sqrt(alpha * (1 - alpha) / own)
            # of so few rows skewed to the right: Beta(2, 39) is over this in one case of 6,000
            assert (rate <= alpha + 1 / (own + 1) + 5 * error).all()


def ties(rows: int, seed: int, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows full of ties: a rare flag, two coins and a count; groups alike."""
    gen = np.random.default_rng(seed)
    columns = (gen.random(rows) < 0.03, *gen.integers(0, 2, (2, rows)), gen.poisson(1, rows))
    return np.stack(columns, 1).astype(float), np.arange(rows) % groups


@pytest.mark.parametrize("groups", [1, 4])
def test_rows_with_ties_keep_the_promise(groups: int) -> None:
    """A row is as its equals in the calibration, to the last bit: never just below them."""
    for seed in range(3):
        made = CollaborativeAnomalyDetector(random_state=seed).fit(*ties(6000, seed, groups))
        X, task = ties(20_000, seed + 10, groups)
        for alpha in (0.02, 0.05):
            assert (made.set_params(alpha=alpha).predict(X, task) == -1).mean() < 1.25 * alpha


def test_the_threshold_of_a_group_parts_what_is_predicted(
    detector: CollaborativeAnomalyDetector,
) -> None:
    X, task = world(400, seed=3)
    X = X + np.random.default_rng(0).standard_normal(X.shape)
    code = [detector.tasks_.tolist().index(name) for name in task]
    decision = detector.decision_function(X, task)
    np.testing.assert_allclose(
        decision, detector.score_samples(X, task) - detector.offset_[code], rtol=1e-12
    )
    predicted = detector.predict(X, task)
    assert set(predicted.tolist()) == {-1, 1}
    assert (predicted == np.where(decision < 0, -1, 1)).all()
    assert ((detector.p_values(X, task) <= detector.alpha) == (predicted == -1)).all()


def test_too_few_rows_to_call_any_an_outlier_are_warned_of() -> None:
    X, task = world(100, seed=0)
    with pytest.warns(UserWarning, match=r"too few to call any row an outlier at alpha=0.01"):
        made = CollaborativeAnomalyDetector(alpha=0.01, max_epochs=1).fit(X, task)
    assert (made.predict(X + 100, task) == 1).all()
    with pytest.warns(UserWarning, match=r"too few to call any row an outlier at alpha=0.001"):
        assert (made.set_params(alpha=0.001).predict(X + 100, task) == 1).all()


def test_far_from_every_group_every_row_is_an_outlier(
    detector: CollaborativeAnomalyDetector,
) -> None:
    for far in ([-12.0, 0.0], [40.0, 0.0], [10.0, 15.0], [10.0, -20.0]):
        assert (detector.predict([far] * 8, GROUPS) == -1).all()
        assert detector.predict([far]).tolist() == [-1]


def test_one_group_alone_is_learned_against_the_background() -> None:
    angle = np.linspace(0, 2 * np.pi, 12)
    ring = np.stack([np.cos(angle), np.sin(angle)], 1)
    for seed in range(3):
        X = np.random.default_rng(seed).standard_normal((600, 2))
        made = CollaborativeAnomalyDetector(random_state=seed).fit(X)
        assert (made.predict(6 * ring) == -1).all()
        assert (made.predict(0.5 * ring) == 1).all()


def test_without_a_group_a_row_is_compared_with_all_of_them(
    detector: CollaborativeAnomalyDetector,
) -> None:
    X, _ = world(400, seed=4)
    each = np.stack([detector.score_samples(X, [name] * 400) for name in detector.tasks_])
    share = detector.moments_.count / detector.moments_.count.sum()
    np.testing.assert_allclose(detector.score_samples(X), np.log(share @ np.exp(each)), atol=1e-8)
    moved = X + np.array([1.5, 0.0])  # between two groups
    assert (detector.predict(X) == -1).mean() < 0.15
    assert (detector.predict(moved) == -1).mean() > (detector.predict(X) == -1).mean()
    assert ((detector.p_values(X) <= 0.05) == (detector.predict(X) == -1)).all()


def test_equal_seeds_give_equal_scores_and_a_batch_scores_as_its_rows_do(
    detector: CollaborativeAnomalyDetector,
) -> None:
    X, task = world(50, seed=5)
    scores = detector.score_samples(X, task)
    assert fitted().score_samples(X, task).tolist() == scores.tolist()
    one_by_one = [detector.score_samples(X[i : i + 1], task[i : i + 1])[0] for i in range(50)]
    np.testing.assert_allclose(one_by_one, scores, rtol=1e-12)
    other = CollaborativeAnomalyDetector(random_state=1).fit(*world(1600, seed=0))
    assert (other.score_samples(X, task) != scores).any()


def test_a_row_has_the_p_value_that_it_has_in_a_table() -> None:
    """Where rows are tied the last bit of a score would decide."""
    made = CollaborativeAnomalyDetector(random_state=0).fit(np.ones((100, 2)))
    assert made.p_values(np.ones((3, 2))).tolist() == [1, 1, 1]
    X, task = ties(400, seed=1, groups=4)
    made = CollaborativeAnomalyDetector(random_state=0).fit(*ties(2000, seed=0, groups=4))
    for asked in (task, None):
        together = made.p_values(X, asked).tolist()
        for n in (1, 3, 50):
            blocks = [slice(i, i + n) for i in range(0, 400, n)]
            apart = [made.p_values(X[b], asked if asked is None else asked[b]) for b in blocks]
            assert np.concatenate(apart).tolist() == together


def test_pandas_comes_back_as_pandas() -> None:
    X, task = world(400, seed=0)
    frame = pd.DataFrame(X, columns=["a", "b"], index=[f"row {i}" for i in range(400)])
    named = pd.Series(task, index=frame.index)
    made = CollaborativeAnomalyDetector(random_state=0).fit(frame, named)
    plain = CollaborativeAnomalyDetector(random_state=0).fit(X, task)
    assert made.feature_names_in_.tolist() == ["a", "b"]
    for method in ("score_samples", "decision_function", "predict", "p_values"):
        found = getattr(made, method)(frame, named)
        assert isinstance(found, pd.Series)
        assert found.index.equals(frame.index)
        np.testing.assert_allclose(found, getattr(plain, method)(X, task), atol=1e-9)
    with pytest.raises(ValueError, match="feature names"):
        made.predict(frame.rename(columns={"a": "c"}), named)
    placed = made.embed(frame.iloc[:20] + 100, ["new"] * 10 + ["another"] * 10)
    assert placed.index.tolist() == ["another", "new"]
    assert placed.shape == (2, 6)  # how many, two means, two spreads, a correlation


def test_it_works_at_the_end_of_a_pipeline() -> None:
    X, task = world(1600, seed=0)
    made = make_pipeline(StandardScaler(), CollaborativeAnomalyDetector(random_state=0))
    assert isinstance(made.fit(X, task), Pipeline)
    assert (made.predict(X, task=task) == -1).mean() < 0.1
    assert (made.predict(X, task=np.roll(task, 1)) == -1).mean() > 0.95
    with sklearn.config_context(enable_metadata_routing=True):
        routed = CollaborativeAnomalyDetector(random_state=0)
        routed.set_decision_function_request(task=True)
        made = make_pipeline(StandardScaler(), routed).fit(X, task)
        decision = made.decision_function(X, task=task)
        with pytest.raises(UnsetMetadataPassedError, match="set_predict_request"):
            made.predict(X, task=task)
        routed.set_predict_request(task=True)
        assert (made.predict(X, task=task) == np.where(decision < 0, -1, 1)).all()
    assert (decision < 0).mean() < 0.1


def test_a_grid_search_takes_the_groups_as_y_and_folds_of_all_of_them() -> None:
    X, task = world(800, seed=0)
    order = np.argsort(task)

    def kept(made: CollaborativeAnomalyDetector, rows: np.ndarray, of: np.ndarray) -> float:
        return float((made.predict(rows, of) == 1).mean())

    made, grid = CollaborativeAnomalyDetector(max_epochs=1), {"hidden": [(8,), (16,)]}
    search = GridSearchCV(made, grid, cv=StratifiedKFold(3), scoring=kept)
    search.fit(X[order], task[order])
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def crowd(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sixty numbered groups all over a plane, each narrow beside the whole."""
    centre = 5 * np.random.default_rng(9).standard_normal((60, 2))
    task = np.arange(rows) % 60
    return centre[task] + 0.5 * np.random.default_rng(seed).standard_normal((rows, 2)), task


def test_a_group_it_never_saw_is_placed_by_its_rows_without_training() -> None:
    """Six groups of sixty are left out, then placed by 10 rows each."""
    X, task = crowd(6000, seed=0)
    unseen = task % 10 == 3
    made = CollaborativeAnomalyDetector(random_state=0).fit(X[~unseen], task[~unseen])
    before = made.score_samples(X[~unseen], task[~unseen])
    with pytest.raises(ValueError, match="Group 3 is not among the 54 known ones; embed"):
        made.predict(X[unseen], task[unseen])
    placed = made.embed(X[unseen][:60], task[unseen][:60])
    assert made.tasks_[54:].tolist() == [3, 13, 23, 33, 43, 53]
    np.testing.assert_array_equal(placed, made.embeddings_[54:])
    new, its = crowd(6000, seed=1)
    own = np.isin(its, made.tasks_[54:])
    assert (made.predict(new[own], its[own]) == -1).mean() < 0.15
    assert (made.predict(new[own], np.roll(its[own], 1)) == -1).mean() > 0.7
    assert made.score_samples(X[~unseen], task[~unseen]).tolist() == before.tolist()
    with pytest.raises(ValueError, match="Group 3 is known; partial_fit learns more"):
        made.embed(X[unseen], task[unseen])


def test_a_group_placed_by_few_rows_is_not_called_an_outlier_for_it() -> None:
    """Two hundred groups of like width; the last thirty come later, with six rows each."""
    gen = np.random.default_rng(0)
    centre = 4 * gen.standard_normal((200, 2))

    def rows(groups: np.ndarray, each: int) -> tuple[np.ndarray, np.ndarray]:
        task = np.repeat(groups, each)
        return centre[task] + 0.5 * gen.standard_normal((len(task), 2)), task

    late = np.arange(170, 200)
    made = CollaborativeAnomalyDetector(random_state=0).fit(*rows(np.arange(170), 40))
    made.embed(*rows(late, 6))
    X, task = rows(late, 50)
    assert (made.predict(X, task) == -1).mean() < 0.1
    assert (made.predict(X, np.roll(task, 50)) == -1).mean() > 0.8


def test_an_odd_newcomer_blinds_no_group_that_was_learned_from() -> None:
    """Sixty groups too small for themselves, and one whose second column is far below theirs."""
    made = CollaborativeAnomalyDetector(alpha=0.02, random_state=0).fit(*crowd(6000, seed=0))
    X, task = crowd(600, seed=1)
    before = made.p_values(X, task)
    assert (made.pool_ == "like size").all()
    made.embed(crowd(60, seed=2)[0] * [1, 0] - [0, 20], [99] * 60)
    assert made.p_values(X, task).tolist() == before.tolist()
    assert (made.predict(X - [0, 9], task) == -1).mean() > 0.98
    assert made.pool_[60:].tolist() == ["as few rows"]
    made.partial_fit(crowd(60, seed=3)[0] * [1, 0] - [0, 20], [99] * 60)
    assert made.pool_[60:].tolist() == ["like size"]


def test_a_group_with_rows_enough_is_judged_by_its_own_however_it_came() -> None:
    made = fitted()
    assert (made.pool_ == "own").all()
    made.embed(world(80, seed=1)[0][:, ::-1], ["few"] * 20 + ["fewer"] * 6 + ["many"] * 54)
    made.embed(np.full((300, 2), 50.0), ["enough"] * 300)
    assert made.tasks_[8:].tolist() == ["few", "fewer", "many", "enough"]
    assert made.pool_[8:].tolist() == [*["as few rows"] * 3, "own"]
    count = made.calibration_.count[8:]
    assert count[3] == np.count_nonzero(made.kept_.calibration.task == 11)
    assert (count[:3] == 320).all()  # of all that were learned from


def test_more_rows_are_learned_without_forgetting_those_before() -> None:
    X, task = world(1600, seed=0)
    late = np.isin(task, ["group 6", "group 7"])
    made = CollaborativeAnomalyDetector(random_state=0)
    assert made.partial_fit(X[~late], task[~late]) is made
    epochs, kept = len(made.history_), len(made.kept_.train.rows)
    made.partial_fit(X[late], task[late])
    assert made.tasks_.tolist() == GROUPS
    assert len(made.history_) > epochs
    assert len(made.kept_.train.rows) > kept
    new, its = world(1600, seed=6)
    assert (made.predict(new, its) == -1).mean() == pytest.approx(0.05, abs=0.04)
    assert (made.predict(new, np.roll(its, 1)) == -1).mean() > 0.95


@pytest.mark.parametrize("memory", [0, 100])
def test_a_single_row_more_is_learned_or_kept(memory: int) -> None:
    """Whichever, by chance; where there is none to learn from, nothing is trained."""
    made, (X, task) = fitted(memory=memory, max_epochs=1), world(30, seed=1)
    first = made.moments_.count.sum()
    for n, (row, name) in enumerate(zip(X, task, strict=True), 1):
        epochs, learned = len(made.history_), made.moments_.count.sum()
        made.partial_fit([row], [name])
        assert len(made.history_) - epochs == made.moments_.count.sum() - learned
        assert made.kept_.seen == 1600 + n
        assert len(made.kept_.train.rows) == memory
    assert 0 < made.moments_.count.sum() - first < 30
    assert np.isfinite(made.score_samples(X, task)).all()


def test_rows_that_come_one_by_one_are_divided_as_many_at_once_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, (X, task) = fitted(max_epochs=1), world(200, seed=1)
    before = made.kept_
    monkeypatch.setattr("pipeline.estimator.detector.learn", lambda *args, **options: [])
    for row, name in zip(X, task, strict=True):
        made.partial_fit([row], [name])
    assert made.kept_.seen == before.seen + 200
    assert 15 < len(made.kept_.calibration) - len(before.calibration) < 65
    assert 4 < made.kept_.valid.seen - before.valid.seen < 40


def test_each_call_divides_its_rows_anew() -> None:
    """Equal rows in equal order, and one number as random_state."""
    made, (X, _) = fitted(max_epochs=1), world(40, seed=1)
    chosen = []
    for way, name in (("embed", "a"), ("embed", "b"), ("partial_fit", "c"), ("partial_fit", "c")):
        before = len(made.kept_.calibration)
        getattr(made, way)(X, [name] * 40)
        chosen.append(frozenset(made.kept_.calibration.x[before:, 0].tolist()))
    assert all(len(rows) == 8 for rows in chosen)
    assert len(set(chosen)) == 4


def test_what_is_saved_comes_back_and_goes_on_alike(tmp_path: Path) -> None:
    X, task = world(800, seed=0)
    frame = pd.DataFrame(X, columns=["a", "b"])
    made = CollaborativeAnomalyDetector(random_state=0, hidden=[16], alpha=0.1).fit(frame, task)
    made.embed(frame.iloc[:40] + 50, ["far"] * 40)
    made.save(tmp_path / "detector.safetensors")
    back = CollaborativeAnomalyDetector.load(tmp_path / "detector.safetensors")
    assert back.get_params() == made.get_params() | {"hidden": (16,)}
    assert back.tasks_.tolist() == made.tasks_.tolist()
    assert back.pool_.tolist() == made.pool_.tolist() == ["own"] * 8 + ["as few rows"]
    for method in ("score_samples", "decision_function", "predict", "p_values"):
        found, expected = (getattr(d, method)(frame, task).tolist() for d in (back, made))
        assert found == expected
    assert back.score_samples(frame).tolist() == made.score_samples(frame).tolist()
    assert back.history_ == made.history_
    again = [d.partial_fit(frame, task).score_samples(frame, task) for d in (back, made)]
    np.testing.assert_allclose(again[0], again[1], rtol=1e-6)
    with pytest.raises(ValueError, match="feature names"):
        back.predict(frame.rename(columns={"a": "c"}), task)


def test_the_file_is_read_without_running_code_and_another_is_refused(
    detector: CollaborativeAnomalyDetector, tmp_path: Path
) -> None:
    path = tmp_path / "detector.safetensors"
    detector.save(path)
    with safe_open(path, framework="np") as file:
        assert "moments.sums" in set(file.keys())
    write_model({}, {"kind": "something else"}, path)
    with pytest.raises(PipelineError, match=r"safetensors: holds no CollaborativeAnom"):
        CollaborativeAnomalyDetector.load(path)
    with pytest.raises(PipelineError, match="there is no such file"):
        CollaborativeAnomalyDetector.load(tmp_path / "none.safetensors")


def test_a_file_that_holds_no_whole_detector_is_refused_with_advice_that_helps(
    detector: CollaborativeAnomalyDetector, tmp_path: Path
) -> None:
    path = tmp_path / "detector.safetensors"
    detector.save(path)
    content, (tensors, config) = path.read_bytes(), read_model(path)

    def message() -> str:
        with pytest.raises(PipelineError, match=r"Name one that `Collab.*`") as caught:
            CollaborativeAnomalyDetector.load(path)
        assert "dvc" not in str(caught.value)
        return str(caught.value)

    for name in ("moments.sums", "scaler.mean", "net.first.weight", "calibration.x"):
        write_model({n: t for n, t in tensors.items() if n != name}, config, path)
        assert "holds no whole CollaborativeAnomalyDetector" in message()
    for name in ("params", "tasks", "network", "train", "calibrated_for"):
        write_model(tensors, {n: value for n, value in config.items() if n != name}, path)
        assert "holds no whole CollaborativeAnomalyDetector" in message()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "is damaged" in message()
    path.write_bytes(b"hello")
    assert "is not a model file" in message()
    path.unlink()
    assert "there is no such file" in message()


def test_parameters_of_numpy_are_saved_as_numbers(tmp_path: Path) -> None:
    made = fitted(batch_size=np.int64(512), alpha=np.float32(0.05), lr=np.float64(0.02))
    made.set_params(random_state=np.int64(3)).save(tmp_path / "detector.safetensors")
    back = CollaborativeAnomalyDetector.load(tmp_path / "detector.safetensors").get_params()
    assert back["random_state"] == 3
    assert (back["batch_size"], back["lr"], back["hidden"]) == (512, 0.02, (64, 32))
    assert back["alpha"] == pytest.approx(0.05)


def test_alpha_may_be_changed_once_it_is_fitted() -> None:
    made, (X, task) = fitted(), world(800, seed=1)
    for groups in (task, None):
        strict, loose = (
            (made.set_params(alpha=alpha).predict(X, groups) == -1).sum() for alpha in (0.02, 0.2)
        )
        assert 0 < strict < loose


def test_p_values_take_the_rows_of_each_group_from_wherever_they_stand(
    detector: CollaborativeAnomalyDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, task = world(200, seed=1)
    mixed = np.random.default_rng(0).permutation(200)
    one_by_one = [detector.p_values(X[[i]], task[[i]])[0] for i in mixed]
    looked_at: list[int] = []
    p_values = Calibration.p_values

    def counted(own: Calibration, group: int, score: np.ndarray) -> np.ndarray:
        looked_at.append(len(score))
        return p_values(own, group, score)

    monkeypatch.setattr(Calibration, "p_values", counted)
    assert detector.p_values(X[mixed], task[mixed]).tolist() == one_by_one
    assert looked_at == [25] * 8


@pytest.mark.parametrize("alpha", [0.02, 0.2])
def test_with_another_alpha_it_decides_as_if_fitted_with_it(alpha: float, tmp_path: Path) -> None:
    """The 40 calibration rows of a group are enough at 0.05 and 0.2, and too few at 0.02."""
    made, (X, task) = fitted(), world(800, seed=1)
    p = made.p_values(X, task)
    decision = made.set_params(alpha=alpha).decision_function(X, task)
    fresh = fitted(alpha=alpha)
    assert decision.tolist() == fresh.decision_function(X, task).tolist()
    assert made.offset_.tolist() == fresh.offset_.tolist()
    code = np.searchsorted(made.tasks_, task)
    score = made.score_samples(X, task)
    np.testing.assert_allclose(decision, score - made.offset_[code], rtol=1e-12)
    assert made.p_values(X, task).tolist() == p.tolist()
    made.save(tmp_path / "detector.safetensors")
    back = CollaborativeAnomalyDetector.load(tmp_path / "detector.safetensors")
    assert back.decision_function(X, task).tolist() == decision.tolist()
    assert back.p_values(X, task).tolist() == p.tolist()


def test_an_alpha_out_of_range_is_refused_after_the_fit_too() -> None:
    made, (X, task) = fitted(max_epochs=1).set_params(alpha=0.0), world(40, seed=1)
    with pytest.raises(ValueError, match="alpha must be above 0"):
        made.predict(X, task)
    with pytest.raises(ValueError, match="alpha must be above 0"):
        made.embed(X, ["another"] * 40)
    assert made.tasks_.tolist() == GROUPS


def test_a_first_fit_that_fails_leaves_it_unfitted() -> None:
    X, task = world(800, seed=0)
    made = CollaborativeAnomalyDetector(random_state=0, max_epochs=2, lr=1e30)
    with pytest.raises(ValueError, match="not a finite number"):
        made.fit(X, task)
    with pytest.raises(ValueError, match="Found 4 samples in 4 groups"):
        made.fit(X[:4], task[:4])
    with pytest.raises(NotFittedError):
        check_is_fitted(made)
    made.set_params(lr=0.01).partial_fit(X, task)
    fresh = CollaborativeAnomalyDetector(random_state=0, max_epochs=2).fit(X, task)
    assert made.score_samples(X, task).tolist() == fresh.score_samples(X, task).tolist()
    assert made.history_ == fresh.history_


def test_a_later_fit_that_fails_leaves_it_as_it_was() -> None:
    """Of other columns and groups."""
    made, (X, task) = fitted(max_epochs=2), world(800, seed=1)
    before, history = made.decision_function(X, task), list(made.history_)
    frame = pd.DataFrame({"a": X[:, 0]})
    for rows, lr, message in ((4, 0.01, "Found 4 samples"), (800, 1e30, "not a finite number")):
        with pytest.raises(ValueError, match=message):
            made.set_params(lr=lr).fit(frame[:rows], [f"other {name}" for name in task[:rows]])
        assert made.decision_function(X, task).tolist() == before.tolist()
    assert made.history_ == history
    assert not hasattr(made, "feature_names_in_")


@pytest.mark.parametrize("way", ["embed", "partial_fit"])
@pytest.mark.parametrize("known", [False, True])
def test_rows_that_cannot_be_learned_from_leave_it_as_it_was(way: str, known: bool) -> None:
    if (way, known) == ("embed", True):
        pytest.skip("embed takes new groups only")
    made, (X, task) = fitted(), world(800, seed=1)
    before, tasks = made.score_samples(X, task), made.tasks_.tolist()
    bad, name = X[:100].copy(), "group 1" if known else "another"
    bad[7, 1] = 1e39
    with pytest.raises(ValueError, match="Row 7 lies too far from the others"):
        getattr(made, way)(bad, [name] * 100)
    with pytest.raises(ValueError, match="not a finite number"):
        made.set_params(lr=1e30).partial_fit(X[:100], [name] * 100)
    assert made.tasks_.tolist() == tasks
    np.testing.assert_array_equal(made.score_samples(X, task), before)


def test_a_row_beyond_every_number_is_an_outlier(detector: CollaborativeAnomalyDetector) -> None:
    for row in ([1e39, 0.0], [-1e300, 1e300]):
        assert detector.predict([row], ["group 1"]).tolist() == [-1]
        assert detector.p_values([row], ["group 1"])[0] < 0.05
        assert detector.predict([row]).tolist() == [-1]


def test_numbers_name_groups_as_well_as_text() -> None:
    X, task = world(400, seed=0)
    numbers = np.array([int(name.split()[1]) for name in task])
    made = CollaborativeAnomalyDetector(random_state=0).fit(X, numbers.astype(object))
    assert made.tasks_.tolist() == list(range(8))
    with pytest.raises(ValueError, match="Groups are int64 so far"):
        made.partial_fit(X, task)
    for way in (made.partial_fit, made.embed, made.predict):
        with pytest.raises(ValueError, match=r"Groups are int64 so far\. Got <U"):
            way(X, numbers.astype(str))


@pytest.mark.parametrize("kind", ["int8", "uint64", "float32", "float64"])
def test_a_number_names_one_group_whatever_its_type(kind: str) -> None:
    """Of whatever type those are that it was fitted with."""
    X, task = world(400, seed=0)
    numbers = np.array([int(name.split()[1]) for name in task])
    for first, then in (("int64", kind), (kind, "int64")):
        made = CollaborativeAnomalyDetector(random_state=0, max_epochs=1)
        made.fit(X, numbers.astype(first))
        before = made.tasks_.dtype
        made.partial_fit(X, numbers.astype(then))
        made.embed(X[:20], np.full(20, 100, then))
        assert made.tasks_.tolist() == [*range(8), 100]
        assert made.tasks_.dtype == before
        assert made.predict(X[:2], np.array([100, 7], then)).shape == (2,)


def test_a_number_that_would_name_another_group_is_refused() -> None:
    whole, broken, truth = np.array([1, 2]), np.array([0.5, 1.0]), np.array([True, False])
    for known, names, found in (
        (whole, broken, "int64 so far. Got 0.5"),
        (whole, truth, "int64 so far. Got bool"),
        (truth, whole, "bool so far. Got int64"),
        (whole, np.array([1, 2**64 - 1], np.uint64), "int64 so far. Got 18446744073709551615"),
        (whole, np.array([1, np.inf]), "int64 so far. Got inf"),
        (broken, np.array([2, 2**60 + 1]), "float64 so far. Got 1152921504606846977"),
        (np.array([2**63], np.uint64), np.array([1, -1]), "uint64 so far. Got -1"),
    ):
        with pytest.raises(ValueError, match=f"Groups are {found}"):
            task_names(names, 2, known)
    assert task_names([2, 1], 2, broken).tolist() == [2.0, 1.0]
    assert task_names(np.array([1], np.int8), 1).dtype == np.int64  # 300 may come later


def test_a_list_names_groups_as_an_array_does() -> None:
    for names, kind in (([1, 2], "i"), ([True, False], "b"), ((1, 2.5), "f"), (["a", "b"], "U")):
        found = task_names(names, 2)
        assert found.dtype.kind == kind
        assert found.tolist() == list(names)
    with pytest.raises(ValueError, match="The group of row 1 is missing"):
        task_names([1, float("nan")], 2)
    with pytest.raises(ValueError, match="should be a 1d array"):
        task_names([[1, 2], [3, 4]], 2)


METHODS = ("fit", "fit_predict", "partial_fit", "embed", "score_samples", "predict", "p_values")


@pytest.mark.parametrize("method", METHODS)
def test_rows_and_groups_with_one_index_in_two_orders_are_refused(method: str) -> None:
    X, task = world(400, seed=0)
    frame = pd.DataFrame(X, index=[f"row {n}" for n in range(len(X))])
    named = pd.Series(task, index=frame.index)
    detector = CollaborativeAnomalyDetector(random_state=0, max_epochs=1).fit(frame, named)
    other = named.iloc[::-1]
    if method == "embed":
        other = "new " + other
    told = (
        "X and task have the same index in two orders: row 0 is 'row 0' in X, "
        f"'row {len(X) - 1}' in task. Bring them into one order"
    )
    with pytest.raises(ValueError, match=told):
        getattr(detector, method)(frame, other)
    getattr(detector, method)(frame, other.loc[frame.index])


def test_an_index_with_a_gap_tells_of_another_order_too() -> None:
    X, task = world(400, seed=0)
    frame = pd.DataFrame(X, index=pd.Index([pd.NA, *range(len(X) - 1)], dtype="Int64"))
    other = pd.Series(task, index=frame.index).iloc[::-1]
    with pytest.raises(ValueError, match="row 0 is <NA> in X"):
        CollaborativeAnomalyDetector(random_state=0, max_epochs=1).fit(frame, other)


def test_what_no_index_tells_is_paired_by_its_place() -> None:
    X, task = world(400, seed=0)
    frame, named = pd.DataFrame(X), pd.Series(task)
    detector = CollaborativeAnomalyDetector(random_state=0, max_epochs=1).fit(frame, named)
    expected, turned = detector.predict(X, task), np.arange(len(X))[::-1]
    for one, other in (
        (frame, task),  # no index
        (X, named.set_axis(turned)),
        (frame, named.set_axis(turned + 1)),  # other labels
        (frame, named.set_axis([f"row {n}" for n in turned])),
        (frame, named.set_axis(pd.MultiIndex.from_arrays([turned, turned]))),
        (frame.set_axis(turned // 2), named.set_axis(turned[::-1] // 2)),  # labels twice
        (frame, named.set_axis(turned[::-1].astype(float))),  # equal
    ):
        assert np.array_equal(detector.predict(one, other), expected)


@pytest.mark.parametrize("kind", ["Int64", "UInt64", "boolean", "int64[pyarrow]"])
def test_a_column_that_may_have_gaps_names_groups_as_one_that_may_not(kind: str) -> None:
    names = [True, False] if kind == "boolean" else [2**60, 2**60 + 1]
    assert task_names(pd.Series(names, dtype=kind), 2).tolist() == names
    with pytest.raises(ValueError, match="The group of row 1 is missing"):
        task_names(pd.Series([names[0], None], dtype=kind), 2)


def test_numbers_that_a_float_takes_for_one_are_refused() -> None:
    for names in (np.array([1, 2.0**53]), np.array([1, 2**24], np.float32)):
        with pytest.raises(ValueError, match=r"Group \d+\.0 is too large for a float"):
            task_names(names, 2)
    assert task_names(np.array([1, -(2.0**53) + 1]), 2).tolist() == [1, -(2**53) + 1]


MISTAKES = {
    "too few groups": ({}, [0], "Found 4 rows in X and 1 in task; expected as many"),
    "no group": ({}, ["a", None, "b", "b"], "The group of row 1 is missing"),
    "NaN for a text": ({}, ["a", float("nan"), "b", "b"], "The group of row 1 is missing"),
    "a number in a list of texts": (
        {},
        ["a", 1, "b", "b"],
        "Unknown label type: groups must be",
    ),
    "a number for a text": (
        {},
        np.array(["a", 1, "b", "b"], object),
        "Unknown label type: groups must be",
    ),
    "one row each": (
        {},
        ["a", "b", "c", "d"],
        "Found 4 samples in 4 groups; expected more: some group needs two rows.* ids by mistake",
    ),
    "alpha": ({"alpha": 0}, None, "alpha must be above 0 and at most 0.5. Got 0"),
    "alpha as text": ({"alpha": "x"}, None, "alpha must be above 0 and at most 0.5. Got 'x'"),
    "background": ({"background": 1.0}, None, "background must be above 0 and at most 0.9"),
    "share": ({"calibration_share": 0.7}, None, "calibration_share must be .* Got 0.7"),
    "memory": ({"memory": -1}, None, "memory must be at least 0 rows. Got -1"),
    "lr": ({"lr": 0.0}, None, r"lr must be greater than 0\. Got 0\.0\.$"),
    "lr as text": ({"lr": "x"}, None, "lr must be greater than 0. Got 'x'"),
    "memory as text": ({"memory": "x"}, None, "memory must be a whole number. Got 'x'"),
    "no memory": ({"memory": None}, None, "memory must be a whole number. Got None"),
    "part of a row": ({"batch_size": 1.5}, None, "batch_size must be a whole number. Got 1.5"),
    "epochs": ({"max_epochs": 2.5}, None, "max_epochs must be a whole number. Got 2.5"),
    "hidden": ({"hidden": []}, None, "hidden .* at least 1 item"),
    "one width": ({"hidden": 64}, None, "hidden must be a list of whole numbers.* Got 64"),
    "broken widths": ({"hidden": [64.0]}, None, r"hidden must be a list of .* Got \[64.0\]"),
    "device": ({"device": "nope"}, None, "device must be one that torch has here.* Got 'nope'"),
    "no such CUDA": ({"device": "cuda:99"}, None, "device must be one .* Got 'cuda:99'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_a_value_error_that_says_what_was_found(name: str) -> None:
    params, task, message = MISTAKES[name]
    X = np.arange(8.0).reshape(4, 2)
    with pytest.raises(ValueError, match=message) as caught:
        CollaborativeAnomalyDetector(**params).fit(X, task)
    assert re.search(message, str(caught.value))


def test_newcomers_of_several_sizes_make_no_alarm_possible_that_was_not() -> None:
    """Placed by ever fewer rows, the same few calibration rows would stand in for each size."""
    gen = np.random.default_rng(0)
    detector, few = CollaborativeAnomalyDetector(random_state=0), "too few to call any row"
    with pytest.warns(UserWarning, match=few):
        detector.fit(gen.normal(size=(50, 1)))
    with pytest.warns(UserWarning, match=few):
        detector.embed(gen.normal(size=(10, 1)), [1] * 7 + [2] * 3)
    assert detector.calibration_.count.max() <= len(detector.kept_.calibration)
    assert np.isneginf(detector.offset_).all()


def test_a_row_beyond_all_numbers_scores_minus_infinity() -> None:
    gen = np.random.default_rng(0)
    detector = CollaborativeAnomalyDetector(random_state=0).fit(gen.normal(size=(200, 1)))
    assert np.isneginf(detector.score_samples([[1e300]])).all()


@pytest.mark.parametrize("alpha", [2, "x", None, -1, float("nan")])
@pytest.mark.parametrize("task", [None, ["a"]])
def test_an_alpha_that_is_none_is_refused_whoever_asks(
    alpha: object, task: list[str] | None
) -> None:
    gen = np.random.default_rng(0)
    detector = CollaborativeAnomalyDetector(random_state=0)
    detector.fit(gen.normal(size=(200, 1)), np.repeat(["a", "b"], 100))
    detector.alpha = alpha
    with pytest.raises(ValueError, match=r"alpha must be above 0 and at most 0\.5"):
        detector.predict([[5.0]], task)


def test_rows_without_a_group_are_calibrated_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Until more is learned: every call would score the rows of the calibration anew."""
    made, X = fitted(), world(40, seed=1)[0]
    scored: list[int] = []

    def counted(net: RatioNet, e: np.ndarray, x: np.ndarray, share: np.ndarray) -> np.ndarray:
        scored.append(len(x))
        return mixture_log_ratios(net, e, x, share)

    monkeypatch.setattr("pipeline.estimator.detector.mixture_log_ratios", counted)
    for ask in (made.predict, made.p_values, made.decision_function):
        ask(X)
    assert sorted(scored) == [40, 40, 40, len(made.kept_.calibration)]
    made.embed(X, ["another"] * 40)
    made.predict(X)
    assert sorted(scored[4:]) == [40, len(made.kept_.calibration)]


def test_thresholds_of_another_alpha_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made, (X, task) = fitted(), world(40, seed=1)
    levels: list[int] = []

    def counted(*args: object, least: int, **options: object) -> object:
        levels.append(least)
        return pools(*args, least=least, **options)

    monkeypatch.setattr("pipeline.estimator.detector.pools", counted)
    for alpha in (0.2, 0.2, 0.1, 0.05):
        for _ in range(2):
            made.set_params(alpha=alpha).predict(X, task)
    assert levels == [4, 9]  # 0.05 is that of the fit
    made.set_params(alpha=0.1).partial_fit(X, task)
    made.set_params(alpha=0.2).predict(X, task)
    assert levels == [4, 9, 9, 4]


def test_torchs_own_stream_of_random_numbers_stays_where_it_is(tmp_path: Path) -> None:
    """An application may be training something by it."""
    path = tmp_path / "detector.safetensors"
    with torch.random.fork_rng(devices=[]):
        before = torch.get_rng_state()
        made = fitted(max_epochs=1)
        made.save(path)
        made = CollaborativeAnomalyDetector.load(path)
        X, task = world(40, seed=1)
        made.embed(X, ["another"] * 40)
        made.partial_fit(X, task).predict(X)
        assert torch.equal(torch.get_rng_state(), before)
