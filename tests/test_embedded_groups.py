"""Groups that come by `embed`: how many rows place them, and what those that do not tell of it."""

import warnings
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest

from pipeline.estimator import CollaborativeAnomalyDetector


def world(
    groups: int, each: int, seed: int, columns: int = 2, first: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Numbered groups all over a plane, wide and narrow, their law told by the seed alone."""
    law, gen = np.random.default_rng(seed), np.random.default_rng([seed, each])
    centre = 2 * law.standard_normal((groups, columns))
    spread = 0.5 * np.exp(0.3 * law.standard_normal((groups, columns)))
    task = np.repeat(np.arange(groups), each)
    x = centre[task] + spread[task] * gen.standard_normal((len(task), columns))
    return x, task + first


@pytest.fixture(scope="module")
def young() -> CollaborativeAnomalyDetector:
    """Of groups of three rows."""
    return CollaborativeAnomalyDetector(random_state=0).fit(*world(300, 3, seed=0))


def embedded(
    detector: CollaborativeAnomalyDetector, each: int, tmp_path: Path
) -> CollaborativeAnomalyDetector:
    """A copy of the detector that knows forty groups more."""
    detector.save(tmp_path / "detector.safetensors")
    made = CollaborativeAnomalyDetector.load(tmp_path / "detector.safetensors")
    made.embed(*world(40, each, seed=1, first=1000))
    return made


@pytest.mark.parametrize("each", [14, 60])
def test_newcomers_with_more_rows_than_any_group_has_few_false_alarms(
    young: CollaborativeAnomalyDetector, each: int, tmp_path: Path
) -> None:
    """The network knows nothing of groups placed so well: they were 3 to 91 % over four seeds."""
    made = embedded(young, each, tmp_path)
    X, task = world(40, 50, seed=1, first=1000)
    assert (made.predict(X, task) == -1).mean() < 0.08
    assert (made.predict(X, np.roll(task, 50)) == -1).mean() > 0.7


def test_no_newcomer_is_placed_by_more_rows_than_the_largest_group_and_none_is_lost(
    young: CollaborativeAnomalyDetector, tmp_path: Path
) -> None:
    made = embedded(young, 60, tmp_path)
    largest = young.moments_.count.max()
    assert (made.moments_.count[300:] == largest).all()
    kept = np.bincount(made.kept_.calibration.task)[300:]
    assert (kept == 60 - largest).all()
    assert (made.pool_[300:] == "own").all()


def test_a_newcomer_with_fewer_rows_than_the_largest_group_is_placed_by_four_fifths() -> None:
    made = CollaborativeAnomalyDetector(random_state=0, max_epochs=1).fit(*world(20, 60, seed=0))
    made.embed(*world(3, 40, seed=1, first=1000))
    assert made.moments_.count[20:].tolist() == [32] * 3


def test_a_newcomer_with_many_rows_goes_on_once_it_is_learned_from(
    young: CollaborativeAnomalyDetector, tmp_path: Path
) -> None:
    """And so it does in a detector that was saved and loaded meanwhile."""
    made = embedded(young, 60, tmp_path)
    made.save(tmp_path / "more.safetensors")
    X, task = world(40, 50, seed=1, first=1000)
    before = made.moments_.count[300:].copy()
    for detector in (made, CollaborativeAnomalyDetector.load(tmp_path / "more.safetensors")):
        detector.partial_fit(X, task)
        assert (detector.moments_.count[300:] > before + 20).all()
        assert detector.learned_.all()
        assert (detector.predict(*world(40, 30, seed=1, first=1000)) == -1).mean() < 0.1


@pytest.fixture(scope="module")
def wide() -> CollaborativeAnomalyDetector:
    """Of so many columns that thirty groups tell little of how groups differ."""
    return CollaborativeAnomalyDetector(random_state=0).fit(*world(30, 40, seed=0, columns=200))


def test_newcomers_whose_kept_rows_are_outliers_are_warned_of(
    wide: CollaborativeAnomalyDetector,
) -> None:
    made = deepcopy(wide)
    told = r"\d of \d rows kept of group \d+ \(and too many of \d+ more groups\) are outliers at"
    with pytest.warns(UserWarning, match=told):
        made.embed(*world(20, 20, seed=1, columns=200, first=1000))
    X, task = world(20, 10, seed=1, columns=200, first=1000)
    assert (made.predict(X, task) == -1).mean() > 0.5
    with pytest.warns(UserWarning, match=r"\d+ of \d+ rows kept of the 30 new groups are outliers"):
        made.embed(*world(30, 3, seed=2, columns=200, first=2000))


def test_a_newcomer_that_is_like_those_learned_from_is_not_warned_of() -> None:
    """Nor are many of them, whose kept rows are hundreds."""
    made = CollaborativeAnomalyDetector(random_state=0).fit(*world(200, 60, seed=0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for first, groups in ((1000, 1), (2000, 1), (3000, 100)):
            made.embed(*world(groups, 20, seed=first, first=first))


def test_once_it_is_learned_from_a_newcomer_that_was_warned_of_is_as_the_others() -> None:
    """One that is far narrower than all of them."""
    made = CollaborativeAnomalyDetector(random_state=0).fit(*world(200, 60, seed=0))
    x, task = world(1, 60, seed=1, first=1000)
    with pytest.warns(UserWarning, match=r"18 of 18 rows kept of group 1000 are outliers"):
        made.embed(x / 20, task)
    later, its = world(1, 50, seed=1, first=1000)
    assert (made.predict(later / 20, its) == -1).all()
    made.partial_fit(later / 20, its)
    assert (made.predict(x / 20, task) == -1).mean() < 0.2


def test_an_embedded_group_that_is_judged_by_its_own_rows_is_not_warned_of() -> None:
    made = CollaborativeAnomalyDetector(random_state=0).fit(*world(200, 60, seed=0))
    x, task = world(1, 200, seed=1, first=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made.embed(x / 20, task)
    assert made.pool_[-1] == "own"
