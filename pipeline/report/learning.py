"""How the networks learned: their losses by epoch, and the epoch that was kept."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.arrays import Doubles
from pipeline.report.artefacts import Artefacts, Rows
from pipeline.training.history import MISS, best_row

COLUMNS = {"train": "train_loss", "validation": "valid_loss", "held out": "held_out_loss"}


@dataclass(frozen=True)
class Learning:
    """How one network learned.

    Attributes:
        name: of the network.
        losses: (epochs,) each.
        best: the epoch whose weights were kept, from 1.
        by_auc: whether that is the one of the best AUC, and not of the lowest validation loss.
    """

    name: str
    losses: Mapping[str, Doubles]
    best: int
    by_auc: bool


def learned(artefacts: Artefacts) -> list[Learning]:
    """The networks that were trained, in their order; features need none where x is given."""
    histories = {
        "DeepFM, which makes x": artefacts.features_history,
        "Pre-embedding model": artefacts.pretrain_history,
        "Ratio, all tasks": artefacts.ratio_history,
    }
    return [_learning(name, rows) for name, rows in histories.items() if "valid_loss" in rows[0]]


def _learning(name: str, rows: Rows) -> Learning:
    losses = {
        shown: np.array([float(row[column]) for row in rows])
        for shown, column in COLUMNS.items()
        if column in rows[0]
    }
    kept = {shown: loss for shown, loss in losses.items() if np.isfinite(loss).any()}
    return Learning(name, kept, rows.index(best_row(rows)) + 1, MISS in rows[0])
