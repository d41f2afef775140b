"""Raw codes of users (ids, ages, zip codes) as rows of an embedding table, and back."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from pipeline.arrays import Codes, Ints
from pipeline.errors import PipelineError


def raw_codes(users: pa.Table, field: str) -> Codes:
    """The column `field` of the users table, (U,), as whole numbers or text.

    Raises:
        PipelineError: no such column, a user without a value, or another type.
    """
    if field not in users.column_names:
        raise PipelineError(
            f"features.user_fields: the users table has no column {field!r}; "
            f"its columns are {', '.join(users.column_names)}."
        )
    column = users.column(field)
    if column.null_count:
        raise PipelineError(
            f"features.user_fields: {column.null_count:,} of {len(column):,} users have no "
            f"{field}; fill it in, or leave the field out."
        )
    if pa.types.is_integer(column.type):
        numbers: Ints = column.to_numpy().astype(np.int64)
        return numbers
    if pa.types.is_string(column.type):
        text: npt.NDArray[np.str_] = column.to_numpy(zero_copy_only=False).astype(str)
        return text
    raise PipelineError(
        f"features.user_fields: column {field} is of type {column.type}; "
        "only whole numbers and text are codes."
    )


def distinct_codes(users: pa.Table, field: str, min_users: int = 1) -> Codes:
    """The codes that at least `min_users` users have in `field`, sorted: its vocabulary."""
    codes: Codes = raw_codes(users, field)
    _, first, count = np.unique(codes, return_index=True, return_counts=True)
    return codes[first[count >= min_users]]


def as_tensor(vocabulary: Codes) -> Tensor:
    """A vocabulary for a model file: numbers as such, text as UTF-8, a zero byte after each."""
    if vocabulary.dtype.kind == "i":
        return torch.from_numpy(vocabulary)
    text = "".join(f"{code}\0" for code in vocabulary.tolist())
    return torch.from_numpy(np.frombuffer(bytearray(text, "utf-8"), np.uint8))  # maybe none


def from_tensor(tensor: Tensor) -> Codes:
    """What `as_tensor` was given."""
    if tensor.dtype == torch.int64:
        return tensor.numpy()
    return np.array(tensor.numpy().tobytes().decode().split("\0")[:-1], str)
