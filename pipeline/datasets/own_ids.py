"""Ids in a user's own tables: whole numbers, or text that becomes a number.

A text becomes a number by its hash, not by its place in a list: so its number, and with it the
split it falls into, never changes when others are appended. The text is kept in the column user_key
of the users table, or item_key of the items table.
"""

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.datasets.faults import with_article
from pipeline.datasets.own_table import PADDED, OwnTable
from pipeline.errors import PipelineError

Who = Literal["user", "item"]
TO_TEXT = "If your ids are text, set data.text_ids to true."


def own_ids(own: OwnTable, who: Who, *, text_ids: bool) -> pa.Table:
    """The column user_id or item_id as numbers, and user_key or item_key where ids are text.

    Raises:
        PipelineError: no such column, or a row without an id, or with one that is no whole number
            or begins with a zero where ids are numbers.
    """
    name = f"{who}_id"
    own.require_columns(name)
    if not text_ids:
        return pa.table({name: _whole_ids(own, name)})
    keys = own.text(name)
    # Chunk by chunk, with one dictionary: all texts in one array may pass its 2 GiB.
    coded = keys.dictionary_encode().chunks if len(keys) else []
    texts = coded[0].dictionary.to_pylist() if coded else []
    numbers = np.array([number_of(text) for text in texts], np.int64)
    if len(np.unique(numbers)) < len(numbers):
        raise two_texts(own.path, name)
    rows = pa.chunked_array([chunk.indices for chunk in coded], pa.int32()).to_numpy()
    return pa.table({name: numbers[rows], f"{who}_key": keys})


def _whole_ids(own: OwnTable, name: str) -> pa.ChunkedArray:
    """A column of ids that are numbers, none with a zero before it."""
    raw = own.table.column(name)
    are_text = pa.types.is_string(raw.type)
    if are_text:
        own.require_filled(name, raw)
    column = own.numbers(name, TO_TEXT)
    if are_text:  # 007 may be another id than 7
        bare = pc.invert(pc.match_substring_regex(raw, PADDED)).to_numpy()
        own.require(bare, f"a whole number without zeros before it as {name}", raw, TO_TEXT)
    own.require(column.is_valid().to_numpy(), with_article(name), column)
    return column


def two_texts(path: Path, name: str) -> PipelineError:
    """The error for two texts in the column `name` that have one number."""
    return PipelineError(f"{path}: two values of {name} have one hash; rename one of them.")


def number_of(text: str) -> int:
    """The number of a text id: the first 63 bits of its SHA-256.

    Example:
        >>> number_of("ann")
        2650560824210726935
    """
    content = text.encode(errors="surrogateescape")  # typed bytes that are not UTF-8 are such text
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 1
