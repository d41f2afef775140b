"""What the groups of a table are called: numbers or text, and their places among those known."""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.utils.validation import column_or_1d

from pipeline.arrays import Ints

Names: TypeAlias = npt.NDArray[Any]  # of groups: numbers or text
PANDAS = (pd.DataFrame, pd.Series)  # what has an index


def task_names(task: npt.ArrayLike | pd.Series | None, n: int, known: Names | None = None) -> Names:
    """The groups of n rows as an array of numbers or text; all one where none are given.

    Args:
        task: (n,) the group of each row.
        n: how many rows there are.
        known: (M,) the groups so far, if there are any: numbers among numbers, text among text.

    Returns:
        The groups, numbers of the kind that the known ones are.

    Raises:
        ValueError: another number of them, a missing one, things that are neither, or another kind
            than the known ones: text for numbers, a truth for a number, a fraction for a whole
            number, the other way round, or a number that theirs cannot hold.
    """
    names: Names = np.zeros(n, np.int64) if task is None else _given(task, n)
    if known is None:
        return _wide(names)
    if known.dtype.kind == names.dtype.kind == "U":
        return names
    text_or_truth = {known.dtype.kind, names.dtype.kind} & {"U", "b"}
    if known.dtype.kind != names.dtype.kind and text_or_truth:
        raise ValueError(f"Groups are {known.dtype} so far. Got {names.dtype}.")
    with np.errstate(invalid="ignore"):  # what they cannot hold comes out as another number
        alike: Names = names.astype(known.dtype)
    strange = (alike != names) | (alike.astype(names.dtype) != names)
    if strange.any():
        raise ValueError(f"Groups are {known.dtype} so far. Got {names[strange][0].item()!r}.")
    return alike


def require_one_order(X: object, task: object) -> None:
    """Raise ValueError if rows and their groups have the same index in two orders.

    They are paired by their places, and of what is no pandas that is all there is. An index with
    other labels, or with one twice, does not tell of another order either.
    """
    if not (isinstance(X, PANDAS) and isinstance(task, PANDAS)):
        return
    rows, given = X.index, task.index
    told = len(rows) == len(given) and rows.is_unique and given.is_unique
    if not told or rows.equals(given):
        return
    place = rows.get_indexer(given)
    moved = place != np.arange(len(place))
    if (place < 0).any() or not moved.any():
        return
    row = int(np.argmax(moved))
    raise ValueError(
        f"X and task have the same index in two orders: row {row} is {rows[row]!r} in X, "
        f"{given[row]!r} in task. Bring them into one order, as task.loc[X.index] does; or, if "
        "they belong together as they stand, give task.to_numpy()."
    )


def _wide(names: Names) -> Names:
    """Numbers as a saved detector has them, wide enough for others of their kind."""
    if names.dtype.kind == "f":
        return names.astype(np.float64)
    if names.dtype.kind == "i" or (names.dtype.kind == "u" and (names < 2**63).all()):
        return names.astype(np.int64)
    return names


def _given(task: npt.ArrayLike | pd.Series, n: int) -> Names:
    if isinstance(task, list | tuple):
        task = np.array(task, object)  # as text, a number or NaN among text would pass for a name
    if isinstance(getattr(task, "dtype", None), pd.api.extensions.ExtensionDtype):
        task = np.asarray(task)  # column_or_1d would make floats of nullable integers
    names: Names = column_or_1d(task)
    if len(names) != n:
        raise ValueError(f"Found {n} rows in X and {len(names)} in task; expected as many.")
    if pd.isna(names).any():
        raise ValueError(f"The group of row {int(pd.isna(names).argmax())} is missing.")
    if names.dtype.kind == "O" and len({isinstance(name, str) for name in names}) == 1:
        names = np.array(names.tolist())
    if names.dtype.kind not in "biufU":
        raise ValueError(f"Unknown label type: groups must be numbers or text. Got {names.dtype}.")
    if names.dtype.kind == "f":
        beyond = np.isfinite(names) & (abs(names) >= 2.0 ** (np.finfo(names.dtype).nmant + 1))
        if beyond.any():
            raise ValueError(
                f"Group {names[beyond.argmax()].item()!r} is too large for a float, where several "
                "numbers become one; give groups as integers or text."
            )
    return names


def add_names(known: Names, names: Names) -> Names:
    """The known groups, then those of `names`, which are of their kind, that are new, sorted."""
    return np.concatenate((known, np.setdiff1d(names, known)))


def places(known: Names, names: Names) -> Ints:
    """The place of each of `names` (n,) among the known groups, -1 for one that is not known."""
    place: Ints = pd.Index(known).get_indexer(pd.Index(names)).astype(np.int64)
    return place
