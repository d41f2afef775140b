"""How familiar items are to users, in figures that a person can read.

Scores are log ratios in nats: HIGH = common user, LOW = fresh (anomalous) user. Beside each stands
its place among all users and among the item's audience, and a p-value against that audience.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from pipeline.arrays import Bools, Doubles, Ints, Singles
from pipeline.conformal import POOL, Calibration, fewest, thinned
from pipeline.models.ratio import RatioNet
from pipeline.newcomers.stand_ins import StandIns
from pipeline.pairs import Pairs, in_rows
from pipeline.scoring import BLOCK, score_grid

VERDICTS = ("fresh", "typical", "common")
COUNTED_ON = ("pool", "item", "placed")
MOST = 10_000  # pairs that calibrate tasks placed by equally many exposures


@dataclass(frozen=True)
class Audiences:
    """Who met what, by task.

    Attributes:
        user: (E,) rows of users, those of one task together.
        held_out: (E,) whether the pair was shown to nothing that learns.
        start: (M + 1,) where each task begins.
    """

    user: Ints
    held_out: Bools
    start: Ints

    @classmethod
    def of(cls, pairs: Pairs, tasks: int) -> Self:
        """Sort pairs by task."""
        order = np.argsort(pairs.task, kind="stable")
        start = np.searchsorted(pairs.task[order], np.arange(tasks + 1))
        return cls(pairs.user[order], pairs.held_out[order], start)

    def exposed(self, task: int) -> Ints:
        """Rows of all users who met the task."""
        return self.user[self.start[task] : self.start[task + 1]]

    def visible(self, task: int) -> Ints:
        """Rows of the users whose meeting the task may be known to what learns."""
        part = slice(self.start[task], self.start[task + 1])
        return self.user[part][~self.held_out[part]]


class Familiarity:
    """A trained ratio, and whom it is to be compared with.

    Args:
        net: the network.
        x: (U, x_dim) vectors of all users, on the device of `net`.
        e: (M, e_dim) trained embeddings of all tasks.
        pairs: exposures of all users to the tasks.
        valid: rows of the validation users, whose held-out pairs calibrate the p-values.
        size: (M,) training exposures of each task: by it tasks with few such pairs are pooled.
        alpha: false-alarm rate of the verdicts.
        stand_ins: of tasks that came later, of which there are no such pairs.
    """

    def __init__(
        self,
        net: RatioNet,
        *,
        x: Tensor,
        e: Tensor,
        pairs: Pairs,
        valid: Ints,
        size: Ints,
        alpha: float,
        stand_ins: StandIns | None = None,
    ) -> None:
        self.net, self.x, self.e, self.alpha = net.eval(), x, e, alpha
        self.audiences = Audiences.of(pairs, len(e))
        held = pairs.where(pairs.held_out & in_rows(pairs.user, valid, len(x)))
        self.later = np.zeros(len(e), bool) if stand_ins is None else stand_ins.wanted > 0
        self.calibration = self._calibrated(held.where(~self.later[held.task]), size, stand_ins)

    def pairs(self, user: Ints, task: Ints) -> pa.Table:
        """Read the pairs of rows `user` (n,) and `task` (n,), in their order; see `grid`."""
        tasks, of_pair = np.unique(task, return_inverse=True)
        order = np.argsort(of_pair, kind="stable")
        users = np.split(user[order], np.cumsum(np.bincount(of_pair))[:-1])
        by_task = pa.concat_tables(self._read(tasks, users))
        return by_task.take(np.argsort(order))

    def grid(self, users: Ints, tasks: Ints) -> Iterator[pa.Table]:
        """Read every pair of the rows `users` (n,) and `tasks` (m,), a table a task.

        Columns:
            user, task: rows.
            exposed: whether the user is known to have met the item.
            score: the log ratio in nats.
            audience_percentile: percent of the item's visible audience that scores lower; null
                where there is none.
            population_percentile: percent of all users who score lower.
            p_value: against the item's held-out audience; see `pipeline.conformal`.
            calibration: what the p-value was counted on: `item`, or `pool` of items of like size,
                or `placed`, trained items placed by as few exposures as one that came later.
            calibration_pairs: how many held-out pairs that were.
            verdict: `fresh` where the p-value is at most alpha: a false alarm for at most that
                share of the audience. Else `common` where at most a share alpha of all users
                scores as high. Else `typical`.
        """
        return self._read(tasks, [users] * len(tasks))

    def _read(self, tasks: Ints, users: list[Ints]) -> Iterator[pa.Table]:
        """Read the users wanted for each of the tasks, a table a task.

        All users are scored under a task, since each is compared with all. Audiences are ragged,
        hence a task at a time.
        """
        blocks = score_grid(self.net, self.x, self.e[torch.from_numpy(tasks)], BLOCK)
        rows = (row for block in blocks for row in block.cpu().numpy())
        for task, scores, chosen in zip(tasks.tolist(), rows, users, strict=True):
            yield self._read_task(task, scores, chosen)

    def _read_task(self, task: int, scores: Singles, users: Ints) -> pa.Table:
        """Read users (n,) under one task from the scores (U,) of all users."""
        score = scores[users]
        audience = np.sort(scores[self.audiences.visible(task)])
        in_audience = np.searchsorted(audience, score) / max(len(audience), 1)
        lower = np.searchsorted(np.sort(scores), score)
        as_high = (len(scores) - lower) / len(scores)
        p = self.calibration.p_values(task, score)
        verdict = np.where(p <= self.alpha, 0, np.where(as_high <= self.alpha, 2, 1))
        n = len(users)
        counted_on = 2 if self.later[task] else int(self.calibration.own[task])
        no_audience = np.full(n, not len(audience))
        return pa.table(
            {
                "user": users,
                "task": np.full(n, task),
                "exposed": in_rows(users, self.audiences.exposed(task), len(scores)),
                "score": score,
                "audience_percentile": pa.array(percent(in_audience), mask=no_audience),
                "population_percentile": percent(lower / len(scores)),
                "p_value": p,
                "calibration": _words(np.full(n, counted_on), COUNTED_ON),
                "calibration_pairs": np.full(n, self.calibration.count[task], np.int32),
                "verdict": _words(verdict, VERDICTS),
            }
        )

    def _calibrated(self, held: Pairs, size: Ints, stand_ins: StandIns | None) -> Calibration:
        """By pairs of trained tasks; for tasks that came later, by these under their stand-ins."""
        scores, least = self._score(self.e, held.user, held.task), fewest(self.alpha)
        found = Calibration.of(scores, held.task, size, least=least)
        if stand_ins is None:
            return found
        judged, count = [], np.bincount(held.task, minlength=len(size))
        for level in stand_ins.levels(count, max(POOL, least)):
            there = np.flatnonzero(np.isin(held.task, level.task))
            some = there[thinned(len(there), max(MOST, least))]
            e = torch.from_numpy(level.e).to(self.e)
            place = np.searchsorted(level.task, held.task[some])
            judged.append((level.of, self._score(e, held.user[some], place)))
        return found.with_stand_ins(judged)

    @torch.no_grad()
    def _score(self, e: Tensor, user: Ints, task: Ints) -> Singles:
        """Log ratios of pairs of rows, of `x` and of embeddings e, (n,)."""
        parts = [
            self.net.of_pairs(self.x, e, u, t)
            for u, t in zip(
                torch.from_numpy(user).to(self.x.device).split(BLOCK),
                torch.from_numpy(task).to(self.x.device).split(BLOCK),
                strict=True,
            )
        ]
        scores: Singles = torch.cat(parts).cpu().numpy()
        return scores


def unseen(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The pairs of readings that are not known to have met, unknown ones among them."""
    for table in tables:
        met = pc.fill_null(table.column("exposed"), False)
        yield table.filter(pc.invert(met))


def best(
    tables: Iterator[pa.Table], n: int, *, of: Literal["user", "task"], lowest: bool
) -> Iterator[pa.Table]:
    """The `n` highest scores of each user, or of each task, or the lowest; best first.

    Args:
        tables: readings, a table a task.
        n: how many.
        of: for each of whom; what is alike is together in the result.
        lowest: take the lowest scores.
    """
    if of == "user":  # whose pairs are in as many tables as there are tasks
        tables = iter([pa.concat_tables(tables)])
    for table in tables:
        score = table.column("score").to_numpy()
        group = table.column(of).to_numpy()
        order = np.lexsort((score if lowest else -score, group))
        place = np.arange(len(order)) - np.searchsorted(group[order], group[order])
        yield table.take(order[place < n])


def percent(share: Doubles) -> Singles:
    """Shares as percent, in single precision."""
    return (100 * share).astype(np.float32)


def _words(code: Ints | Bools, words: tuple[str, ...]) -> pa.DictionaryArray:
    """Codes (n,) as words, each kept once."""
    return pa.DictionaryArray.from_arrays(pa.array(code.astype(np.int8)), list(words))
