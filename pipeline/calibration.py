"""Whether scores are the log ratios that they should be: under p every ratio has the mean 1.

E_p[q_t / p] = 1 whatever q_t, so that the log of a task's mean ratio is 0, in nats: above 0 its
ratios are too high, below 0 too low. An AUC, which knows only the order, cannot tell.
"""

import numpy as np
from scipy.special import logsumexp

from pipeline.arrays import Doubles, Floats, Ints, Singles


def log_mean_ratios(scores: Floats, base: Ints) -> Doubles:
    """Log of the mean ratio of every task, (M,).

    Args:
        scores: log ratios, (M, U).
        base: weight of each user under p, (U,); some are above 0.
    """
    logs: Doubles = logsumexp(scores, axis=1, b=base) - np.log(base.sum())
    return logs


def calibration(scores: Floats, base: Ints, weights: Singles) -> dict[str, float]:
    """How far the mean ratio under p is from 1, as a log in nats: 0 is right.

    Args:
        scores: log ratios of users that nothing has learned from, (M, U).
        base: weight of each user under p, (U,); some are above 0.
        weights: of the bootstrap over users, from `resample_weights`, (U, B).

    Returns:
        log_mean, of the mean ratio over tasks and users; ci95_low and ci95_high, its interval over
        users; task_median, the median over tasks of each one's own.
    """
    tasks = log_mean_ratios(scores, base)
    user = logsumexp(scores, axis=0) - np.log(len(scores))  # (U,) log of the mean over tasks
    drawn = base[:, None] * weights.astype(np.float64)  # (U, B)
    drawn = drawn[:, drawn.any(axis=0)]  # a resample without any user of p tells nothing
    means = logsumexp(user[:, None], axis=0, b=drawn) - np.log(drawn.sum(axis=0))
    low, high = np.quantile(means, (0.025, 0.975))
    return {
        "log_mean": float(logsumexp(tasks) - np.log(len(tasks))),
        "ci95_low": float(low),
        "ci95_high": float(high),
        "task_median": float(np.median(tasks)),
    }
