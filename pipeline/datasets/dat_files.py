"""MovieLens' `::`-separated files, read fast, and refused with the line of their first fault."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from pipeline.arrays import Bools, Ints
from pipeline.datasets.faults import first_repeat, shortened
from pipeline.errors import PipelineError
from pipeline.pairs import find

ASCII = bytes([*b"\t\n\r", *range(0x20, 0x7F)])
LETTERS = {"ascii": ASCII, "latin-1": ASCII + bytes(range(0xA0, 0x100))}
MENDING = "The file may be cut short or altered: unpack the publisher's archive again."


@dataclass(frozen=True)
class DatFile:
    """What a file must look like.

    Attributes:
        fields: the publisher's names of the fields, in order.
        columns: our names and types of the same fields; integers and text only.
        encoding: of the text.
    """

    fields: tuple[str, ...]
    columns: Mapping[str, pa.DataType]
    encoding: str = "ascii"


def fault(path: Path, line: int, expected: str, found: object) -> PipelineError:
    """The error for line `line` (from 1) of a file."""
    return PipelineError(f"{path}:{line}: expected {expected}, found {shortened(found)}. {MENDING}")


def read_dat(path: Path, layout: DatFile) -> pa.Table:
    """Read a file; row i of the table is line i + 1, no value is missing.

    pyarrow reads one-byte separators only, so `::` becomes a tab: a million lines in half a second.
    It reads on this thread alone: one of its own may still be letting go of the Python bytes, or
    of the decoder of an encoding, when the interpreter ends, and that aborts the process.

    Raises:
        PipelineError: the file is missing, empty, cut short, in another encoding, or a line has
            another number of fields or no whole number where one belongs.
    """
    content = _read_text(path, layout)
    try:
        return pacsv.read_csv(
            pa.BufferReader(content.replace(b"::", b"\t")),
            read_options=pacsv.ReadOptions(
                column_names=list(layout.columns), encoding=layout.encoding, use_threads=False
            ),
            parse_options=pacsv.ParseOptions(
                delimiter="\t", quote_char=False, ignore_empty_lines=False
            ),
            convert_options=pacsv.ConvertOptions(column_types=layout.columns, null_values=[]),
        )
    except pa.ArrowInvalid as error:
        raise _first_bad_line(content, path, layout) or PipelineError(
            f"{path}: cannot be read ({str(error).splitlines()[0]}). {MENDING}"
        ) from error


def require(good: Bools, path: Path, expected: str, found: pa.ChunkedArray) -> None:
    """Raise the fault of the first line that is not `good` (n,), showing its value in `found`."""
    if not good.all():
        row = int(np.argmin(good))
        raise fault(path, row + 1, expected, repr(found[row].as_py()))


def require_distinct(keys: Ints, path: Path, what: str) -> None:
    """Raise the fault of the first line whose key (n,) an earlier line has."""
    if (rows := first_repeat(keys)) is not None:
        earlier, later = rows
        raise fault(path, later + 1, f"each {what} once", f"that of line {earlier + 1} again")


def require_known(values: pa.ChunkedArray, known: Ints, path: Path, what: str) -> Ints:
    """Rows of `values` (n,) in the sorted ids `known`; raise the fault of the first unknown one."""
    rows = find(values.to_numpy(), known)
    require(rows < len(known), path, what, values)
    return rows


def _read_text(path: Path, layout: DatFile) -> bytes:
    """The file's bytes, once nothing is left that would mislead the parser."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PipelineError(
            f"{path}: cannot be read ({error.strerror}). data.raw_dir must name the folder that "
            "holds ratings.dat, users.dat and movies.dat, or be null to download them."
        ) from error
    if not content:
        raise PipelineError(f"{path}: is empty, expected {'::'.join(layout.fields)}. {MENDING}")
    foreign = _first_foreign_byte(content, layout.encoding)
    if foreign >= 0:
        raise fault(
            path,
            _line_at(content, foreign),
            f"{layout.encoding} text",
            f"the byte 0x{content[foreign]:02x} of another encoding",
        )
    if (tab := content.find(b"\t")) >= 0:
        raise fault(path, _line_at(content, tab), "fields separated by ::", "a tab")
    if not content.endswith(b"\n"):
        last = content.splitlines()[-1].decode(layout.encoding)
        raise fault(path, _line_at(content, len(content)), "a whole last line", repr(last))
    return content


def _first_foreign_byte(content: bytes, encoding: str) -> int:
    """Where the first byte stands that is no letter in `encoding`, or -1.

    Text that is valid UTF-8 is taken for UTF-8, so that an accent in it is foreign to latin-1,
    where any two bytes would do.
    """
    letters = LETTERS["ascii" if _is_utf8(content) else encoding]
    foreign = content.translate(None, letters)
    return content.index(foreign[:1]) if foreign else -1


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _line_at(content: bytes, position: int) -> int:
    return content.count(b"\n", 0, position) + 1


def _first_bad_line(content: bytes, path: Path, layout: DatFile) -> PipelineError | None:
    """Go through the lines one by one, slowly, for what the fast reader stumbled over."""
    for number, line in enumerate(content.splitlines(), start=1):
        values = line.decode(layout.encoding).split("::")
        if len(values) != len(layout.fields):
            names = "::".join(layout.fields)
            return fault(
                path, number, f"{len(layout.fields)} fields {names}", f"{len(values)}: {values}"
            )
        for name, kind, value in zip(layout.fields, layout.columns.values(), values, strict=True):
            if pa.types.is_integer(kind) and not re.fullmatch(r" *-?[0-9]{1,18} *", value):
                return fault(path, number, f"a whole number as {name}", repr(value))
    return None
