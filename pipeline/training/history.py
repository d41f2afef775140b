"""What a training tells of each epoch, and which epoch it keeps."""

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

from pipeline.sections import Schedule

Figures = TypeVar("Figures", bound=Mapping[str, float] | Mapping[str, str])
Row = dict[str, float]
SCALED = ("slope", "offset", "scaled_valid_loss", "scaled_held_out_loss")  # by Platt scaling
PLATEAU = 1.381  # a loss under this has left the plateau at 2 ln 2
MISS = "valid_miss"  # the share of wrong answers: where a row has it, it judges the epoch
# What tells a plateau from an end. In two made-up shops patience 10 kept epochs 2 and 3, at slopes
# of 3.1 and 2.9, and a longer one found epochs 57 and 58: 3 and 5 points of AUC more. The embedded
# default keeps epoch 11 at a slope of 1.7, MovieLens 1M epoch 57 at 2.2.
EARLY = 5  # the last epoch of those that are
STEEP = 2.0


def judge(row: Mapping[str, object]) -> str:
    """The figure whose lowest value is of the best epoch: `valid_miss`, or else `valid_loss`."""
    return MISS if MISS in row else "valid_loss"


def best_row(history: Sequence[Figures]) -> Figures:
    """The epoch whose weights were kept: the first of the lowest figure that judges it.

    One whose figure is no number, as an overflow leaves it, comes last.
    """

    def figure(row: Figures) -> tuple[bool, float]:
        value = float(row[judge(row)])
        return math.isnan(value), value

    return min(history, key=figure)


def kept_epoch(history: Sequence[Figures], schedule: Schedule) -> str:
    """Which epoch was kept of how many, in words, and whether it was kept less than patience ago.

    Then max_epochs ended the training; it may also have where patience never counted (a plateau).
    """
    epoch, epochs = int(float(best_row(history)["epoch"])), len(history)
    cut = epochs == schedule.max_epochs and epochs - epoch < schedule.patience
    return f"after epoch {epoch} of {epochs}{', which max_epochs ended' if cut else ''}"


def rested_at_chance(history: Sequence[Figures]) -> bool:
    """Whether the validation loss never left the plateau at 2 ln 2: nothing was learned."""
    return min(float(row["valid_loss"]) for row in history) >= PLATEAU


def longer_patience(history: Sequence[Figures], patience: int) -> int | None:
    """What to try where patience may have ended a training on a plateau past that at 2 ln 2.

    So it looks where one of the first epochs was kept, and the log ratios were still far too small.
    None elsewhere, and where no slope is told or another figure than the loss judges.
    """
    if "slope" not in history[0] or judge(history[0]) == MISS:
        return None
    best = best_row(history)
    epoch, slope = float(best["epoch"]), float(best["slope"])
    ended = len(history) - epoch >= patience and float(best["valid_loss"]) < PLATEAU
    return 3 * patience if ended and epoch <= EARLY and slope > STEEP else None


def rounded(history: Sequence[Row]) -> list[Row]:
    """The history to six digits: what follows differs from machine to machine."""
    return [{name: round(value, 6) for name, value in row.items()} for row in history]
