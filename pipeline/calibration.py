"""Whether scores are the log ratios that they should be, which an AUC, of the order, cannot tell.

E_p[q_t / p] = 1 whatever q_t, so that the log of a task's mean ratio is 0, in nats: above 0 its
ratios are too high, below 0 too low. And no multiple of the log ratios has a lower loss (equation
3) than they have: above 1 that multiple says that they are too near to 0, below 1 too far from it.
"""

import numpy as np
from scipy.special import expit, logsumexp

from pipeline.arrays import Doubles, Floats, Ints, Singles
from pipeline.platt import fit_platt
from pipeline.unmet import Met

PAIRS = 1 << 18  # behind the slope, at most: then it is .01 off by chance
NEGATIVES = 8  # of each


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


def best_slope(
    scores: Floats,
    task: Ints,
    user: Ints,
    base: Ints,
    weights: Singles,
    gen: np.random.Generator,
    met: Met | None = None,
) -> dict[str, float]:
    """By what the scores must be multiplied to have the lowest loss: 1 is right.

    Args:
        scores: log ratios, (M, U).
        task: of pairs under q_t, (N,); there are some.
        user: of each, (N,).
        base: weight of each user under p, (U,); some are above 0.
        weights: of the bootstrap over users, from `resample_weights`, (U, B).
        gen: of the users drawn from p, and of the pairs where they are too many.
        met: where the pairs are held-out ones, the visible ones: those drawn have not met the item.

    Returns:
        slope; ci95_low and ci95_high, its interval over users, by one step of Newton's method for
        every resample.
    """
    if len(task) > PAIRS:
        some = gen.choice(len(task), PAIRS, replace=False)
        task, user = task[some], user[some]

    def draw() -> Ints:
        return gen.choice(len(base), (NEGATIVES, len(task)), p=base / base.sum())

    drawn = draw() if met is None else met.unmet(draw, task)
    users = np.vstack((user, drawn))
    f = scores[task, users].astype(np.float64)
    common = np.zeros((NEGATIVES + 1, 1))
    common[0] = 1
    base_share = (1 - common) / NEGATIVES
    best = fit_platt(f, common, base_share)
    chance = expit(best.slope * f + best.offset)
    slack = (common + base_share) * chance - common  # the derivatives of each pair's loss
    bend = (common + base_share) * chance * (1 - chance)
    parts = [slack * f, slack, bend * f * f, bend * f, bend, np.ones_like(f)]
    of_common, of_base = (
        _by_user(users[rows], [part[rows] for part in parts], len(base)) @ weights
        for rows in (slice(1), slice(1, None))
    )  # (6, B) each
    # As many pairs under p as under q_t, in a resample too; it may have none.
    of_base *= NEGATIVES * of_common[-1] / np.maximum(of_base[-1], 1)
    by_slope, by_offset, slopes, both, offsets, _ = of_common + of_base
    bent = slopes * offsets - both * both
    tells = bent > 1e-9 * slopes * offsets  # else scores are all alike
    moved = np.divide(
        offsets * by_slope - both * by_offset, bent, out=np.zeros(len(bent)), where=tells
    )
    low, high = np.quantile(best.slope - moved, (0.025, 0.975))
    return {"slope": best.slope, "ci95_low": float(low), "ci95_high": float(high)}


def _by_user(users: Ints, parts: list[Doubles], n: int) -> Doubles:
    """Sums of each part (...) over the pairs of each of n users (...), (parts, n)."""
    return np.array([np.bincount(users.ravel(), part.ravel(), n) for part in parts], np.float64)
