"""docs/data.md says of every table what pipeline/schemas.py says, and no more."""

import re
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline import schemas
from pipeline.datasets.movielens import read_movielens
from pipeline.datasets.simulation import simulate
from pipeline.datasets.tables import read_tables
from pipeline.params import Label, Simulation, Tasks
from pipeline.schemas import VECTOR, Column, Schema
from pipeline.splits import split_users
from pipeline.tasks import select_tasks
from tests.data_dictionary import Section, read_dictionary
from tests.dvc_stages import read_stages
from tests.worlds import count_items

ROOT = Path(__file__).parents[1]
SECTIONS = read_dictionary()
TABLES = [section for section in SECTIONS if section.paths[0].endswith(".parquet")]
SCHEMAS = {s.name: s for s in vars(schemas).values() if isinstance(s, Schema)}


def shown(kind: pa.DataType | str) -> str:
    """A type as the dictionary writes it: list<string>, not list<element: string>."""
    if kind == VECTOR:
        return "fixed_size_list<float>[d]"
    return re.sub(r"\w+: ", "", str(kind))


def described(columns: dict[str, Column]) -> list[tuple[str, ...]]:
    return [
        (name, shown(column.type), "yes" if column.nullable else "no")
        for name, column in columns.items()
    ]


def test_every_file_that_a_stage_writes_has_a_section_and_no_other() -> None:
    written = [path for stage in read_stages(ROOT / "dvc.yaml") for path in stage.outs]
    documented = [path for section in SECTIONS for path in section.paths]
    assert sorted(documented) == sorted([*written, "data/run_info/STAGE.json"])


def test_every_schema_has_a_section() -> None:
    assert {section.schema for section in TABLES} == set(SCHEMAS)


@pytest.mark.parametrize("section", TABLES, ids=lambda section: section.paths[0])
def test_a_section_gives_the_columns_types_and_key_of_its_schema(section: Section) -> None:
    schema = SCHEMAS[section.schema or ""]
    assert [row[:3] for row in section.tables[0]] == described(dict(schema.columns))
    assert section.key == schema.key
    assert schema.open == (len(section.tables) > 1)  # further columns, where there may be
    assert all(row[3] for table in section.tables for row in table)  # a meaning


def further_columns(schema: Schema) -> list[tuple[str, ...]]:
    section = next(section for section in TABLES if section.schema == schema.name)
    return [row[:3] for table in section.tables[1:] for row in table]


@pytest.mark.parametrize("schema", [schemas.USERS, schemas.ITEMS], ids=lambda schema: schema.name)
def test_the_further_columns_of_users_and_items_are_those_of_the_sources(
    schema: Schema, made_movielens: Path, tmp_path: Path
) -> None:
    (tmp_path / "exposures.csv").write_text("user_id,item_id\nann,one\nbob,two\n")
    sources = (
        simulate(Simulation(users=50, items=10, exposures=200, seed=0)),
        read_movielens(made_movielens),
        read_tables(tmp_path, text_ids=True),
    )
    found = {
        field.name: Column(field.type, nullable=bool(table[field.name].null_count))
        for table in (getattr(source, schema.name) for source in sources)
        for field in table.schema
        if field.name not in schema.columns
    }
    assert further_columns(schema) == described(found)


def test_the_further_columns_of_tasks_are_those_of_each_label() -> None:
    source = simulate(Simulation(users=60, items=10, exposures=250, seed=0))
    ids = source.users["user_id"].to_numpy()
    splits = split_users(ids, test_share=0.2, valid_share=0.2, seed=0)
    labels = {name: Label(column=name) for name in ("gender", "occupation")}
    counts = count_items(source.users, source.exposures, splits, labels)
    tasks = select_tasks(counts, Tasks(labels=["gender"], min_exposures=1, keep_share=1.0))
    expected = list(schemas.TASKS.columns)
    further = further_columns(schemas.TASKS)
    for label in labels:
        expected += [name.replace("_L", f"_{label}") for name, *_ in further]
        for name, kind, _ in further:
            assert shown(tasks.schema.field(name.replace("_L", f"_{label}")).type) == kind
    assert tasks.column_names == expected
