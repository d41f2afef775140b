"""Whose calibration rows judge a group: its own, those of like size, or groups placed anew.

A group with enough of its own for `alpha` stands by itself. The others that were learned from are
pooled with those of like size (`pipeline.conformal`). Where these have too few even together, and
for groups that came by `embed`, learned groups stand in: each is placed anew by as few rows as the
group has, and judged so. A group that few rows place lies a little beside where it should; so do
these, and their scores are as low. An embedded group feeds no pool: an odd one blinds no other.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pipeline.arrays import Bools, Doubles, Ints
from pipeline.conformal import Calibration, thinned
from pipeline.estimator.group_moments import GroupMoments
from pipeline.estimator.tabular import Kept, Rows

OWN, LIKE_SIZE, AS_FEW = "own", "like size", "as few rows"
MOST = 10_000  # rows of stand-ins that are scored for groups of one size

Score = Callable[[GroupMoments, Rows], Doubles]  # of rows, under groups that these place


def pools(
    scores: Doubles, kept: Kept, moments: GroupMoments, learned: Bools, *, least: int, score: Score
) -> tuple[Calibration, npt.NDArray[np.str_]]:
    """Calibration scores for every group, and which they are.

    Args:
        scores: of the calibration rows of `kept`.
        kept: rows of all groups.
        moments: of the groups, by all the rows they ever had.
        learned: (M,) which of them the network has learned from.
        least: a group with fewer calibration rows does not stand by itself.
        score: scores rows under groups that are placed otherwise.

    Returns:
        The calibration, and for each group one of OWN, LIKE_SIZE and AS_FEW.
    """
    task, size = kept.calibration.task, moments.count
    count = np.bincount(task, minlength=len(size))
    own = count >= least
    alike = learned & ~own
    if count[alike].sum() < least:
        alike[:] = False
    few = ~own & ~alike
    rows, calibrates, place = _in_groups(kept, learned)
    level, of_level = np.unique(np.frexp(size[few])[1], return_inverse=True)
    wanted = [_rows_to_place(1 << e - 1, place[calibrates], least) for e in level.tolist()]
    n, of_n = np.unique(np.array(wanted, np.int64), return_inverse=True)
    stand_ins = []
    for number, few_rows in enumerate(n.tolist()):
        left = np.flatnonzero(calibrates & (place >= few_rows))
        some = left[thinned(len(left), max(MOST, least))]
        placed = moments.anew(rows.take(place < few_rows), len(learned))
        groups = np.flatnonzero(few)[of_n[of_level] == number]
        stand_ins.append((groups, score(placed, rows.take(some))))
    used = ~few[task]
    found = Calibration.of(scores[used], task[used], size, least=least).with_stand_ins(stand_ins)
    kind = np.select([own, alike], [OWN, LIKE_SIZE], AS_FEW)
    return found, kind


def _in_groups(kept: Kept, learned: Bools) -> tuple[Rows, Bools, Ints]:
    """All rows group by group: which of them calibrate learned groups, and each one's place."""
    rows = kept.train.rows + kept.calibration
    order = np.argsort(rows.task, kind="stable")  # a group's rows are in random order as they are
    rows, calibrates = rows.take(order), order >= len(kept.train.rows)
    count = np.bincount(rows.task, minlength=len(learned))
    place = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)  # within the group
    return rows, calibrates & learned[rows.task], place


def _rows_to_place(n: int, places: Ints, least: int) -> int:
    """How many rows place a stand-in: n, or fewer where too few would be left to calibrate.

    Args:
        n: rows of the group that it stands for.
        places: within their groups, of the rows that may calibrate.
        least: how many should be left.
    """
    while n > 1 and np.count_nonzero(places >= n) < least:
        n //= 2
    return n
