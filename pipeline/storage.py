"""Artefacts on disk: Parquet tables, small JSON and CSV.

Every write goes to a temporary file beside its target, is flushed to the disk, and then renamed:
a reader finds the old file or the new one, never a part of either.
"""

import csv
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import PipelineError
from pipeline.schemas import Schema

Scalar = str | int | float | bool | None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path; on success it takes the place of `path`, on failure it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.chmod(0o644)
        part.replace(path)
    except OSError as error:
        raise PipelineError(f"{path}: cannot be written ({error.strerror or error}).") from error
    finally:
        part.unlink(missing_ok=True)


def write_bytes(content: bytes, path: Path) -> None:
    """Write `content` to `path` as a whole or not at all."""
    with replacing(path) as part:
        part.write_bytes(content)


def write_text(parts: Iterable[str], path: Path) -> None:
    """Write a text, part by part, to `path` as a whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.writelines(parts)


def vectors(matrix: npt.NDArray[np.float32]) -> pa.FixedSizeListArray:
    """Arrow column of the rows of `matrix` (n, d), as fixed_size_list<float>[d]."""
    flat = pa.array(np.ascontiguousarray(matrix, np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, matrix.shape[1])


def matrix(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    """The (n, d) float32 array of a fixed_size_list column, a writable copy."""
    flat = column.combine_chunks().flatten()
    values: npt.NDArray[np.float32] = flat.to_numpy(zero_copy_only=False).copy()
    return values.reshape(-1, column.type.list_size)


def write_table(table: pa.Table, path: Path, schema: Schema) -> None:
    """Check `table` against `schema` and write it as Parquet, equal tables as equal bytes."""
    schema.check(table, path)
    plain = [f.name for f in table.schema if pa.types.is_fixed_size_list(f.type)]
    plain_leaves = [f"{name}.list.element" for name in plain]
    with replacing(path) as part:
        pq.write_table(
            table.replace_schema_metadata(None),
            part,
            compression="zstd",
            use_dictionary=[f.name for f in table.schema if f.name not in plain],
            use_byte_stream_split=plain_leaves or False,
        )


def read_table(path: Path, schema: Schema) -> pa.Table:
    """Read a Parquet artefact and check it against `schema`."""
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise PipelineError(
            f"{path}: there is no such file. Build it with `dvc repro`, or name another."
        ) from None
    except (pa.ArrowException, OSError) as error:
        raise PipelineError(
            f"{path}: is not a readable Parquet file ({str(error).splitlines()[0]}). "
            "Delete it and run `dvc repro`."
        ) from error
    schema.check(table, path)
    return table


def write_json(content: Mapping[str, object], path: Path) -> None:
    """Write JSON for git: keys in the given order, a final newline, no NaN."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_bytes(text.encode(), path)


def write_csv(rows: Sequence[Mapping[str, Scalar]], path: Path) -> None:
    """Write rows that share their keys as CSV with a header; a missing value is an empty field."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(buffer.getvalue().encode(), path)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read what `write_csv` wrote, every value as text."""
    try:
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        raise PipelineError(
            f"{path}: there is no such file. Build it with `dvc repro`, or name another."
        ) from None


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
