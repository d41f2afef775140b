"""Small JSON and CSV, which git keeps: figures, and the losses of each epoch."""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pipeline.errors import PipelineError
from pipeline.files import missing, write_bytes

Scalar = str | int | float | bool | None
Field: TypeAlias = Literal[  # of a CSV
    "whole number", "number", "number or nan", "number or nothing", "text"
]


def write_json(content: Mapping[str, object], path: Path) -> None:
    """Write JSON for git: keys in the given order, a final newline, no NaN."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    write_bytes(text.encode(), path)


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote."""
    try:
        with _reading(path):
            content: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise PipelineError(
            f"{path}: is not JSON ({error}). Delete it and run `dvc repro`."
        ) from error
    if not isinstance(content, dict):
        raise _damaged(path, "holds no names with values")
    return content


def write_csv(rows: Sequence[Mapping[str, Scalar]], path: Path) -> None:
    """Write rows that share their keys as CSV with a header; a missing value is an empty field."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(buffer.getvalue().encode(), path)


def read_csv(path: Path, columns: Mapping[str, Field] | None = None) -> list[dict[str, str]]:
    """Read what `write_csv` wrote: at least one row, every value as text.

    Args:
        path: of the file.
        columns: those that must be there, and what they hold in every row.

    Raises:
        PipelineError: no such file, or a damaged one; names the line.
    """
    try:
        with _reading(path), path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise _damaged(path, f"is not readable as CSV ({error})") from error
    if not rows:
        raise _damaged(path, "holds no rows")
    for line, row in enumerate(rows, start=2):
        if None in row or None in row.values():  # more fields than names, or fewer
            raise _damaged(f"{path}:{line}", "has another number of fields than the first line")
    _check(rows, columns or {}, path)
    return rows


def _check(rows: Sequence[Mapping[str, str]], columns: Mapping[str, Field], path: Path) -> None:
    """Raise PipelineError unless every row holds in `columns` what it should."""
    if missing := [name for name in columns if name not in rows[0]]:
        raise _damaged(path, f"lacks the column {', '.join(missing)}")
    for line, row in enumerate(rows, start=2):
        for name, kind in columns.items():
            if not FIELDS[kind](row[name]):
                raise _damaged(f"{path}:{line}", f"expected a {kind} as {name}, found {row[name]}")


def read_history(path: Path, *needs: str) -> list[dict[str, str]]:
    """Read the losses of each epoch; where nothing was trained a history holds `epoch` alone.

    Args:
        path: of the file.
        needs: further columns that must be there.

    Raises:
        PipelineError: no such file, or another than a history.
    """
    rows = read_csv(path)
    figures: dict[str, Field] = dict.fromkeys((*rows[0], *needs), "number or nan")
    trained: dict[str, Field] = {} if len(figures) == 1 else {"valid_loss": "number"}
    _check(rows, figures | {"epoch": "number"} | trained, path)
    return rows


def read_links(path: Path) -> list[dict[str, str]]:
    """Read how well triples were predicted; where there was no graph, their number alone.

    Raises:
        PipelineError: no such file, or another.
    """
    rows = read_csv(path)
    figures: dict[str, Field] = dict.fromkeys(rows[0], "number or nan")
    made: dict[str, Field] = {} if len(figures) == 1 else {"relation": "text", "mrr": "number"}
    _check(rows, figures | {"triples": "number"} | made, path)
    return rows


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what the system refuses while `path` is read into one line."""
    try:
        yield
    except FileNotFoundError:
        raise missing(path) from None
    except OSError as error:
        raise _damaged(path, f"cannot be read ({error.strerror})") from error


def _damaged(place: object, what: str) -> PipelineError:
    return PipelineError(f"{place}: {what}. Delete the file and run `dvc repro`.")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


FIELDS: Mapping[Field, Callable[[str], bool]] = {
    "whole number": lambda text: re.fullmatch(r"-?[0-9]{1,19}", text) is not None,
    "number": lambda text: _is_number(text) and math.isfinite(float(text)),
    "number or nan": _is_number,
    "number or nothing": lambda text: not text or FIELDS["number"](text),
    "text": lambda text: True,
}
