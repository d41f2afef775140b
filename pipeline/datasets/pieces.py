"""A user's own exposures in pieces that many machines can read, each with the code of the whole."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.datasets.own_table import OwnTable
from pipeline.datasets.table_files import no_rows, open_own, parquet_files, parse_csv

PIECE_BYTES = 1 << 25  # of a CSV
UNCUT = "Write the table as Parquet, or set runtime.engine to embedded."


@dataclass(frozen=True)
class Piece:
    """Rows of a table that follow one another: a row group of Parquet, or lines of a CSV.

    Attributes:
        path: the table, a file or a folder of Parquet files, which messages name.
        file: the file that the rows are in, its whole path: workers stand elsewhere. A link keeps
            its own name, whose ending tells what the file is.
        start: the row group; or the byte at or after which the first of the lines starts.
        end: the byte at or after which the first line of the next piece starts.
    """

    path: str
    file: str
    start: int
    end: int

    def read(self, before: int = 0) -> OwnTable:
        """The rows; `before` of the table come before them, which only messages tell.

        Raises:
            PipelineError: they are not readable.
        """
        path, file = Path(self.path), Path(self.file)
        if file.suffix == ".parquet":
            return open_own(path, lambda: _row_group(file, self.start), before)
        content = io.BytesIO(_header(file)[0] + self._lines(before))
        return open_own(path, lambda: parse_csv(path, content, before=before), before)

    def before(self, pieces: list["Piece"]) -> int:
        """How many rows come before those of this one of `pieces`."""
        if Path(self.file).suffix == ".csv":
            with Path(self.file).open("rb") as file:
                file.seek(_header(Path(self.file))[1])
                return sum(1 for place, line in _placed(file) if place < self.start and _row(line))
        earlier = pieces[: pieces.index(self)]
        return sum(
            pq.ParquetFile(one.file).metadata.row_group(one.start).num_rows for one in earlier
        )

    def _lines(self, before: int) -> bytes:
        with Path(self.file).open("rb") as file:
            if self.start:
                file.seek(self.start - 1)
                file.readline()  # to the end of the line that began before
            content = file.read(max(self.end - file.tell(), 0))
            if content and not content.endswith(b"\n"):
                content += file.readline()
        if b'"' in content:
            lines = [line for line in content.split(b"\n") if _row(line)]
            row = next((i for i, line in enumerate(lines) if line.count(b'"') % 2), None)
            if row is not None:
                raise OwnTable(Path(self.path), pa.table({}), before).fault(
                    row, "a row on one line", repr(lines[row].decode(errors="replace")), UNCUT
                )
        return content


def pieces_of(path: Path) -> list[Piece]:
    """The pieces of a table, in the order of its rows.

    Raises:
        PipelineError: it is not readable, or has no rows.
    """
    pieces: list[Piece] = []

    def cut() -> pa.Table:
        pieces.extend(_of_csv(path) if path.suffix == ".csv" else _of_parquet(path))
        return pa.table({})

    open_own(path, cut)  # tells what is not readable
    if not pieces:
        raise no_rows(path)
    return pieces


def _of_csv(path: Path) -> Iterator[Piece]:
    start, size = _header(path)[1], path.stat().st_size
    file = str(path.absolute())
    for at in range(start, max(size, start + 1), PIECE_BYTES):
        yield Piece(str(path), file, at, at + PIECE_BYTES)


def _of_parquet(path: Path) -> Iterator[Piece]:
    for file in parquet_files(path):
        groups, place = pq.ParquetFile(file).metadata, str(file.absolute())
        for i in range(groups.num_row_groups):
            if groups.row_group(i).num_rows:
                yield Piece(str(path), place, i, 0)


def _row_group(file: Path, group: int) -> pa.Table:
    table = pq.ParquetFile(file, page_checksum_verification=True).read_row_group(group)
    table.validate(full=True)
    return table


def _header(path: Path) -> tuple[bytes, int]:
    """The line with the names, and where the next one starts."""
    with path.open("rb") as file:
        line = next((line for line in file if _row(line)), b"")
        return line, file.tell()


def _row(line: bytes) -> bool:
    """Whether a line holds a row: empty ones do not count."""
    return bool(line.strip(b"\r\n"))


def _placed(file: io.BufferedReader) -> Iterator[tuple[int, bytes]]:
    place = file.tell()
    for line in file:
        yield place, line
        place += len(line)
