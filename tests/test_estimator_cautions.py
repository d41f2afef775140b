"""Where a warning of the detector points: to the line that called it."""

import inspect
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.estimator import CollaborativeAnomalyDetector

FEW = np.random.default_rng(0).standard_normal((60, 2))
GROUP = np.repeat(["a", "b"], 30)


def line_of(function: Callable[[], object]) -> int:
    return inspect.getsourcelines(function)[1]


def made() -> CollaborativeAnomalyDetector:
    return CollaborativeAnomalyDetector(alpha=0.01, max_epochs=1, random_state=0)


def fitted() -> CollaborativeAnomalyDetector:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return made().fit(FEW, GROUP)


def test_a_warning_shows_the_line_that_called_the_detector(tmp_path: Path) -> None:
    """Through whichever method, and through a pipeline of scikit-learn too."""
    detector, path = fitted(), tmp_path / "detector.safetensors"
    detector.save(path)
    changed = fitted().set_params(alpha=0.02)
    calls = (
        lambda: made().fit(FEW, GROUP),
        lambda: made().fit_predict(FEW, GROUP),
        lambda: make_pipeline(StandardScaler(), made()).fit(FEW, GROUP),
        lambda: detector.embed(FEW, ["c"] * 60),
        lambda: detector.partial_fit(FEW[:9], ["a"] * 9),
        lambda: changed.predict(FEW, GROUP),
        lambda: changed.offset_,
        lambda: CollaborativeAnomalyDetector.load(path),
    )
    for call in calls:
        with pytest.warns(UserWarning, match="rows to calibrate on are too few") as caught:
            call()
        assert [Path(one.filename) for one in caught] == [Path(__file__)] * len(caught)
        assert {one.lineno for one in caught} == {line_of(call)}
