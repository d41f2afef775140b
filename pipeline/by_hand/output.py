"""Readings for people and programs: as a text table, CSV, JSON or Parquet, streamed if possible."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from pipeline.by_hand.formats import Format
from pipeline.files import replacing
from pipeline.one_line import one_line
from pipeline.storage import grouped

ROW_GROUP = 1 << 18  # rows of a Parquet file that are written together
DIGITS = 6  # of numbers in JSON: single precision knows no more
SHORT: Mapping[str, tuple[str, Callable[[object], str]]] = {  # heading and value in a text table
    "exposed": ("exposed", lambda value: "yes" if value else "no"),
    "score": ("score", "{:.3f}".format),
    "audience_percentile": ("audience%", "{:.1f}".format),
    "population_percentile": ("all%", "{:.1f}".format),
    "p_value": ("p_value", "{:.4f}".format),
    "likeness": ("likeness", "{:.2f}".format),
    "contribution": ("contribution", "{:+.3f}".format),
    "calibration": ("counted on", str),
    "calibration_pairs": ("pairs", "{:,}".format),
}


def as_text(tables: Iterable[pa.Table], wanted: Format) -> Iterator[str]:
    """The rows of tables of one schema as parts of one text; a text table needs all rows first."""
    if wanted == "csv":
        for number, table in enumerate(tables):
            yield _csv(table, header=number == 0)
    elif wanted == "json":
        before = "[\n "
        for row in (row for table in tables for row in table.to_pylist()):
            yield before + json.dumps({name: _rounded(value) for name, value in row.items()})
            before = ",\n "
        yield "[]\n" if before.startswith("[") else "\n]\n"
    else:
        yield from _text_table(pa.concat_tables(tables))


def write_parquet(tables: Iterable[pa.Table], path: Path) -> None:
    """Write tables of one schema, at least one, as one Parquet file, a row group at a time."""
    every = iter(tables)
    first = next(every)  # its columns are written where no table has a row, too
    with replacing(path) as part, pq.ParquetWriter(part, first.schema, compression="zstd") as file:
        for group in grouped(chain([first], every), ROW_GROUP):
            file.write_table(group)


def _csv(table: pa.Table, *, header: bool) -> str:
    sink = pa.BufferOutputStream()
    options = pacsv.WriteOptions(include_header=header, quoting_style="needed")
    pacsv.write_csv(_plain(table), sink, options)
    text: str = sink.getvalue().to_pybytes().decode()
    return text


def _plain(table: pa.Table) -> pa.Table:
    """The table with its words as text, which a CSV writer understands."""
    fields = [
        pa.field(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type)
        for f in table.schema
    ]
    return table.cast(pa.schema(fields))


def _rounded(value: object) -> object:
    return round(value, DIGITS) if isinstance(value, float) else value


def _text_table(table: pa.Table) -> Iterator[str]:
    """Columns side by side, numbers to the right; nothing where there is none."""
    columns = []
    for field in table.schema:
        heading, show = SHORT.get(field.name, (field.name, str))
        cells = [
            heading,
            *(
                "" if value is None else one_line(show(value))
                for value in table.column(field.name).to_pylist()
            ),
        ]
        width = max(map(len, cells))
        number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        columns.append([cell.rjust(width) if number else cell.ljust(width) for cell in cells])
    for row in zip(*columns, strict=True):
        yield f"{'  '.join(row).rstrip()}\n"
