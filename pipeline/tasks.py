"""Which items become tasks: those with enough exposures and the lowest label entropy.

Paper: section 5.1 keeps the movies with at least 100 exposures and, for each label, the half whose
audience is the least mixed. Two steps: count (items x classes), then decide from the counts alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa

from pipeline.arrays import Bools, Doubles, Ints
from pipeline.errors import PipelineError
from pipeline.labels import Classes, label_classes
from pipeline.pairs import ids_of, in_rows, rows_of, split_rows
from pipeline.params import Label, Tasks


@dataclass(frozen=True)
class ItemCounts:
    """How many users, and users of each class, were exposed to each item (held-out pairs too)."""

    item_id: Ints  # (I,) rising
    exposures: Ints  # (I,) by all users
    train_exposures: Ints  # (I,) by users of split train
    classes: Mapping[str, Ints]  # label -> (I, K), over all users
    train_classes: Mapping[str, Ints]  # label -> (I, K), over users of split train


@dataclass(frozen=True)
class Crowd:
    """What is to be known of the users whose exposures are counted."""

    user_id: Ints  # (U,) rising
    training: Bools  # (U,)
    labels: Mapping[str, Classes]

    @classmethod
    def of(cls, users: pa.Table, splits: pa.Table, labels: Mapping[str, Label]) -> Self:
        """The crowd of a users table.

        Raises:
            PipelineError: a label that the users table cannot give.
        """
        rows = np.arange(users.num_rows)
        return cls(
            ids_of(users, "user_id"),
            in_rows(rows, split_rows(splits, users, "train"), users.num_rows),
            {name: label_classes(users, name, label) for name, label in labels.items()},
        )


def count_groups(crowd: Crowd, groups: Iterable[pa.Table]) -> ItemCounts:
    """Count the exposures to every item, in all and by class.

    They come in groups, which are gone through twice, and held one at a time.

    Raises:
        PipelineError: an exposure of an unknown user.
    """
    item_id = np.zeros(0, np.int64)
    for group in groups:
        item_id = np.union1d(item_id, ids_of(group, "item_id"))
    exposed, trained = (np.zeros(len(item_id), np.int64) for _ in range(2))
    sizes = {name: len(item_id) * len(k) for name, k in crowd.labels.items()}
    classes, train_classes = (
        {name: np.zeros(size, np.int64) for name, size in sizes.items()} for _ in range(2)
    )
    for group in groups:
        item = np.searchsorted(item_id, ids_of(group, "item_id"))
        user = rows_of(ids_of(group, "user_id"), crowd.user_id, "user")
        learned_from = crowd.training[user]
        np.add.at(exposed, item, 1)
        np.add.at(trained, item[learned_from], 1)
        for name, k in crowd.labels.items():
            cell = item * len(k) + k.codes[user]  # (E,) cell of the (I, K) histogram
            np.add.at(classes[name], cell, 1)
            np.add.at(train_classes[name], cell[learned_from], 1)
    shape = (len(item_id), -1)
    return ItemCounts(
        item_id=item_id,
        exposures=exposed,
        train_exposures=trained,
        classes={name: cells.reshape(shape) for name, cells in classes.items()},
        train_classes={name: cells.reshape(shape) for name, cells in train_classes.items()},
    )


def select_tasks(counts: ItemCounts, params: Tasks) -> pa.Table:
    """The tasks table: the items that at least one of `params.labels` keeps, in order of item id.

    Without any in `params.labels` all items with enough exposures are tasks. Every label gets its
    columns, also one that keeps nothing in the table (age7 beside age).
    The nominal class is the most frequent among the exposed training users, the anomalous one the
    least frequent, where zero is allowed and the smallest code wins ties.

    Raises:
        PipelineError: no item is left.
    """
    enough = np.flatnonzero(counts.exposures >= params.min_exposures)  # (N,) rows of items
    entropy = {name: class_entropy(table[enough]) for name, table in counts.classes.items()}
    kept_by = {name: _lowest(values, params.keep_share) for name, values in entropy.items()}
    kept = np.full(len(enough), not params.labels)
    for name in params.labels:
        kept |= kept_by[name]
    if not kept.any():
        advice = "raise tasks.keep_share or empty tasks.labels, so that more of them are kept"
        raise PipelineError(
            f"no item is left as a task: {len(enough):,} of {len(counts.item_id):,} items have at "
            f"least {params.min_exposures} exposures (the most is "
            f"{counts.exposures.max(initial=0):,}); "
            f"{advice if len(enough) else 'lower tasks.min_exposures'}."
        )
    item = enough[kept]  # (M,)
    columns = {
        "task_id": np.arange(len(item), dtype=np.int32),
        "item_id": counts.item_id[item],
        "exposures": counts.exposures[item],
        "train_exposures": counts.train_exposures[item],
    }
    for name, table in counts.train_classes.items():
        columns[f"entropy_{name}"] = entropy[name][kept]
        columns[f"kept_by_{name}"] = kept_by[name][kept]
        columns[f"nominal_{name}"] = table[item].argmax(axis=1).astype(np.int32)
        columns[f"anomalous_{name}"] = table[item].argmin(axis=1).astype(np.int32)
    return pa.table(columns)


def class_entropy(counts: Ints) -> Doubles:
    """Entropy in nats of each row of `counts` (N, K), rows with a positive sum.

    Rounded to 12 digits: equal mixtures tie whatever the last bits of a machine's logarithm.
    """
    share = counts / counts.sum(axis=1, keepdims=True)
    log_share = np.log(share, where=share > 0, out=np.zeros_like(share))
    entropy: Doubles = np.round(-(share * log_share).sum(axis=1), 12) + 0.0  # no -0.0
    return entropy


def _lowest(values: Doubles, share: float) -> Bools:
    """Mask of the floor(share * N) lowest of `values` (N,); the earlier one wins ties."""
    n = int(np.floor(share * len(values) + 1e-9))  # 0.29 * 100 is 28.999999999999996
    mask = np.zeros(len(values), bool)
    mask[np.argsort(values, kind="stable")[:n]] = True
    return mask
