"""docs/data.md, taken apart: the files it has a section for, and the tables of each."""

import re
from dataclasses import dataclass
from pathlib import Path

DICTIONARY = Path(__file__).parents[1] / "docs" / "data.md"


@dataclass(frozen=True)
class Section:
    """What the dictionary says of one file, or of several.

    Attributes:
        paths: in its heading.
        schema: the name of the schema, for a Parquet table.
        key: the columns of the key.
        config: keys of the metadata `config`, for a safetensors file.
        tables: the rows of each of its tables, cells without backticks.
    """

    paths: tuple[str, ...]
    schema: str | None
    key: tuple[str, ...]
    config: frozenset[str]
    tables: list[list[tuple[str, ...]]]

    def names(self) -> list[str]:
        """The first cell of every row: columns, tensors or keys."""
        return [row[0] for table in self.tables for row in table]


def read_dictionary() -> list[Section]:
    """The sections whose heading names a file."""
    parts = re.split(r"^## ", DICTIONARY.read_text(), flags=re.MULTILINE)[1:]
    return [section for part in parts if (section := _section(part)).paths]


def _section(text: str) -> Section:
    heading, _, body = text.partition("\n")
    schema = re.search(r"^Schema `([^`]+)`, key ([^.]+)\.", body, re.MULTILINE)
    config = re.search(r"`config`: ([^.]+)\.", body)
    return Section(
        paths=tuple(re.findall("`([^`]+)`", heading)),
        schema=schema[1] if schema else None,
        key=tuple(re.findall("`([^`]+)`", schema[2])) if schema else (),
        config=frozenset(re.findall("`([^`]+)`", config[1])) if config else frozenset(),
        tables=[_rows(table) for table in re.findall(r"(?:^\|.*\n?)+", body, re.MULTILINE)],
    )


def _rows(table: str) -> list[tuple[str, ...]]:
    lines = [line.strip("|").split("|") for line in table.strip().splitlines()[2:]]
    return [tuple(cell.strip().strip("`") for cell in line) for line in lines]
