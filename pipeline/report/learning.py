"""How the networks learned: their losses by epoch, and the epoch that was kept."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.arrays import Doubles
from pipeline.params import Params
from pipeline.report.artefacts import Artefacts, Rows
from pipeline.sections import Schedule
from pipeline.training.history import MISS, best_row, kept_epoch, rested_at_chance

COLUMNS = {"train": "train_loss", "validation": "valid_loss", "held out": "held_out_loss"}


@dataclass(frozen=True)
class Learning:
    """How one network learned.

    Attributes:
        name: of the network.
        losses: (epochs,) each.
        best: the epoch whose weights were kept, from 1.
        by_auc: whether that is the one of the best AUC, and not of the lowest validation loss.
        kept: which epoch that is of how many, in words, and whether max_epochs ended them.
        rested: whether the loss never left 2 ln 2: nothing was learned.
    """

    name: str
    losses: Mapping[str, Doubles]
    best: int
    by_auc: bool
    kept: str
    rested: bool


def learned(artefacts: Artefacts, params: Params) -> list[Learning]:
    """The networks that were trained, in their order; features need none where x is given."""
    histories = {
        "DeepFM, which makes x": (artefacts.features_history, params.features),
        "Pre-embedding model": (artefacts.pretrain_history, params.pretrain),
        "Ratio, all tasks": (artefacts.ratio_history, params.ratio),
    }
    return [_learning(name, *of) for name, of in histories.items() if "valid_loss" in of[0][0]]


def _learning(name: str, rows: Rows, schedule: Schedule) -> Learning:
    losses = {
        shown: np.array([float(row[column]) for row in rows])
        for shown, column in COLUMNS.items()
        if column in rows[0]
    }
    kept = {shown: loss for shown, loss in losses.items() if np.isfinite(loss).any()}
    best = rows.index(best_row(rows)) + 1
    told = kept_epoch(rows, schedule)
    return Learning(name, kept, best, MISS in rows[0], told, rested_at_chance(rows))
