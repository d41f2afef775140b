"""What the groups of a table are called: numbers or text, and their places among those known."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.utils.validation import column_or_1d

from pipeline.arrays import Ints

Names: TypeAlias = npt.NDArray[Any]  # of groups: numbers or text


def task_names(task: npt.ArrayLike | pd.Series | None, n: int, known: Names | None = None) -> Names:
    """The groups of n rows as an array of numbers or text; all one where none are given.

    Args:
        task: (n,) the group of each row.
        n: how many rows there are.
        known: (M,) the groups so far, if there are any: these are of their kind.

    Raises:
        ValueError: another number of them, a missing one, things that are neither, text where the
            known ones are numbers, or numbers where they are text.
    """
    names: Names = np.zeros(n, np.int64) if task is None else _given(task, n)
    if known is not None and (known.dtype.kind == "U") != (names.dtype.kind == "U"):
        raise ValueError(f"Groups are {known.dtype} so far. Got {names.dtype}.")
    return names


def _given(task: npt.ArrayLike | pd.Series, n: int) -> Names:
    if isinstance(task, list | tuple):
        task = np.array(task, object)  # as text, a number or NaN among text would pass for a name
    names: Names = column_or_1d(task)
    if len(names) != n:
        raise ValueError(f"Found {n} rows in X and {len(names)} in task; expected as many.")
    if pd.isna(names).any():
        raise ValueError(f"The group of row {int(pd.isna(names).argmax())} is missing.")
    if names.dtype.kind == "O" and len({isinstance(name, str) for name in names}) == 1:
        names = np.array(names.tolist())
    if names.dtype.kind not in "biufU":
        raise ValueError(f"Unknown label type: groups must be numbers or text. Got {names.dtype}.")
    return names


def add_names(known: Names, names: Names) -> Names:
    """The known groups, then those of `names`, which are of their kind, that are new, sorted."""
    return np.concatenate((known, np.setdiff1d(names, known)))


def places(known: Names, names: Names) -> Ints:
    """The place of each of `names` (n,) among the known groups, -1 for one that is not known."""
    place: Ints = pd.Index(known).get_indexer(pd.Index(names)).astype(np.int64)
    return place
