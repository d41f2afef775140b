"""What the detector warns of, as of the line that called it."""

from inspect import currentframe
from warnings import warn

from pipeline.conformal import Calibration, fewest

INSIDE = ("pipeline.estimator.", "sklearn.", "joblib.")  # modules between the user and a warning


def warn_of_few(calibration: Calibration, alpha: float) -> None:
    """Where the calibration has too few rows for any alarm at all."""
    rows = calibration.count.max()
    if rows < fewest(alpha):
        _warn(
            f"{rows} rows to calibrate on are too few to call any row an outlier at "
            f"alpha={alpha}; {fewest(alpha)} are needed."
        )


def _warn(message: str) -> None:
    """Warn of the user's line: that of the first caller outside of here and of scikit-learn."""
    frame, level = currentframe(), 1
    while frame and f"{frame.f_globals.get('__name__')}.".startswith(INSIDE):
        frame, level = frame.f_back, level + 1
    warn(message, stacklevel=level)
