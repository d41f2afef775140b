"""Which items become tasks: those with enough exposures and the lowest label entropy.

Paper: section 5.1 keeps the movies with at least 100 exposures and, for each label, the half whose
audience is the least mixed. Two steps: count (items x classes), then decide from the counts alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import PipelineError
from pipeline.labels import label_classes
from pipeline.pairs import in_rows, rows_of, split_rows
from pipeline.params import Label, Tasks

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ItemCounts:
    """How many users, and users of each class, were exposed to each item (held-out pairs too)."""

    item_id: Ints  # (I,) rising
    exposures: Ints  # (I,) by all users
    train_exposures: Ints  # (I,) by users of split train
    classes: Mapping[str, Ints]  # label -> (I, K), over all users
    train_classes: Mapping[str, Ints]  # label -> (I, K), over users of split train


def count_items(
    users: pa.Table, exposures: pa.Table, splits: pa.Table, labels: Mapping[str, Label]
) -> ItemCounts:
    """Count the exposures of every item, by class of every label.

    Raises:
        PipelineError: a label that the users table cannot give, or an exposure of an unknown user.
    """
    item_id, item = np.unique(exposures.column("item_id").to_numpy(), return_inverse=True)
    user = rows_of(
        exposures.column("user_id").to_numpy(), users.column("user_id").to_numpy(), "user"
    )
    learned_from = in_rows(user, split_rows(splits, users, "train"), users.num_rows)
    classes, train_classes = {}, {}
    for name, label in labels.items():
        k = label_classes(users, name, label)
        cell = item * len(k) + k.codes[user]  # (E,) cell of the (I, K) histogram
        shape = (len(item_id), len(k))
        size = len(item_id) * len(k)
        classes[name] = np.bincount(cell, minlength=size).reshape(shape)
        train_classes[name] = np.bincount(cell[learned_from], minlength=size).reshape(shape)
    return ItemCounts(
        item_id=item_id,
        exposures=np.bincount(item, minlength=len(item_id)),
        train_exposures=np.bincount(item[learned_from], minlength=len(item_id)),
        classes=classes,
        train_classes=train_classes,
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
        raise PipelineError(
            f"no item is left as a task: {len(enough):,} of {len(counts.item_id):,} items have at "
            f"least {params.min_exposures} exposures (the most is "
            f"{counts.exposures.max(initial=0):,}); lower tasks.min_exposures."
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


def class_entropy(counts: Ints) -> Floats:
    """Entropy in nats of each row of `counts` (N, K), rows with a positive sum.

    Rounded to 12 digits: equal mixtures tie whatever the last bits of a machine's logarithm.
    """
    share = counts / counts.sum(axis=1, keepdims=True)
    log_share = np.log(share, where=share > 0, out=np.zeros_like(share))
    entropy: Floats = np.round(-(share * log_share).sum(axis=1), 12) + 0.0  # no -0.0
    return entropy


def _lowest(values: Floats, share: float) -> Bools:
    """Mask of the floor(share * N) lowest of `values` (N,); the earlier one wins ties."""
    n = int(np.floor(share * len(values) + 1e-9))  # 0.29 * 100 is 28.999999999999996
    mask = np.zeros(len(values), bool)
    mask[np.argsort(values, kind="stable")[:n]] = True
    return mask
