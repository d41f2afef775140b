"""What the detector warns of, as of the line that called it."""

from inspect import currentframe
from warnings import warn

import numpy as np
from scipy.stats import binom

from pipeline.arrays import Bools, Ints
from pipeline.conformal import Calibration, fewest
from pipeline.estimator.group_names import Names

INSIDE = ("pipeline.estimator.", "sklearn.", "joblib.")  # modules between the user and a warning
CHANCE = 0.001  # what would be as likely or less by chance is warned of
TWICE = 2  # times alpha: fewer outliers than that are not worth a warning


def warn_of_few(calibration: Calibration, alpha: float) -> None:
    """Where the calibration has too few rows for any alarm at all."""
    rows = calibration.count.max()
    if rows < fewest(alpha):
        _warn(
            f"{rows} rows to calibrate on are too few to call any row an outlier at "
            f"alpha={alpha}; {fewest(alpha)} are needed."
        )


def warn_of_strangers(outlier: Bools, task: Ints, names: Names, alpha: float) -> None:
    """Where so many rows kept of new groups are outliers that it is no chance.

    A binomial test of each group, and one of all together, where each has few rows.

    Args:
        outlier: (n,) which of the rows are.
        task: (n,) place of each one's group among `names`.
        names: (k,) of the new groups.
        alpha: the share that is to be expected.
    """
    rows = np.bincount(task, minlength=len(names))
    found = np.bincount(task[outlier], minlength=len(names))
    p = np.where(found > TWICE * alpha * rows, binom.sf(found - 1, rows, alpha), 1.0)
    strange, worst = np.count_nonzero(p * len(names) < CHANCE), int(p.argmin())
    n, m = int(rows.sum()), int(found.sum())
    if strange:
        n, m = int(rows[worst]), int(found[worst])
        more = f" (and too many of {strange - 1} more groups)" if strange > 1 else ""
        which = f"group {names[worst].item()!r}{more}"
    elif m > TWICE * alpha * n and binom.sf(m - 1, n, alpha) < CHANCE:
        which = f"the {len(names)} new groups"
    else:
        return
    _warn(
        f"{m} of {n} rows kept of {which} are outliers at alpha={alpha}, more than chance "
        "explains: like no group learned from, or placed badly. partial_fit with more rows "
        "learns of it."
    )


def _warn(message: str) -> None:
    """Warn of the user's line: that of the first caller outside of here and of scikit-learn."""
    frame, level = currentframe(), 1
    while frame and f"{frame.f_globals.get('__name__')}.".startswith(INSIDE):
        frame, level = frame.f_back, level + 1
    warn(message, stacklevel=level)
