"""Exposures as one file or as a folder of parts: the same table, replaced as a whole."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import storage
from pipeline.errors import PipelineError
from pipeline.files import sha256
from pipeline.parts import (
    part_of,
    read_exposures_to,
    read_visible,
    replacing_parts,
    write_exposures,
)
from pipeline.schemas import EXPOSURES, SPLITS, USERS, Schema
from pipeline.storage import RowGroups, read_table, write_table, write_tables
from pipeline.tasks import Crowd, count_groups
from tests.projects import (
    STAGES,
    contents,
    invoke,
    run,
    set_params,
    small_project,
    small_repository,
)
from tests.test_splits import exposures as pairs_of
from tests.test_splits import slow_hash
from tests.worlds import count_items, default_params

IDS = st.integers(-(2**63), 2**63 - 1)


def exposures(pairs: set[tuple[int, int]]) -> pa.Table:
    rows = sorted(pairs)
    return pa.table(
        {
            "user_id": pa.array([user for user, _ in rows], pa.int64()),
            "item_id": pa.array([item for _, item in rows], pa.int64()),
            "rating": pa.nulls(len(rows), pa.int8()),
            "timestamp": pa.nulls(len(rows), pa.int64()),
            "held_out": pa.array([user % 3 == 0 for user, _ in rows]),
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parts")


@settings(max_examples=25)
@given(st.sets(st.tuples(IDS, IDS), min_size=1, max_size=30), st.integers(1, 9), st.integers(1, 9))
def test_whatever_the_number_of_parts_the_table_is_the_same(
    folder: Path, pairs: set[tuple[int, int]], first: int, then: int
) -> None:
    """One form takes the place of another, and all exposures to an item are in one part."""
    table, path = exposures(pairs), folder / "exposures.parquet"
    for partitions in (first, then):
        write_exposures(table, path, partitions)
        assert read_table(path, EXPOSURES).equals(table)
        assert path.is_dir() == (partitions > 1)
        groups = [*RowGroups(path, EXPOSURES)]
        assert pa.concat_tables(groups).sort_by([(k, "ascending") for k in EXPOSURES.key]) == table
        some = np.array(sorted({item for _, item in pairs})[::2])
        mine = table.filter(pa.array(np.isin(table["item_id"], some)))
        assert read_exposures_to(some, path).equals(mine)
        shown = table.filter(pa.array(~table["held_out"].to_numpy()))
        assert read_visible(path).equals(shown.drop_columns(["rating", "timestamp"]))
        items = [set(group["item_id"].to_pylist()) for group in groups]
        assert sum(map(len, items)) == len(set().union(*items))
    assert [one.name for one in folder.iterdir()] == ["exposures.parquet"]


@given(st.lists(IDS, min_size=1, max_size=9), st.integers(1, 50))
def test_the_part_of_an_item_is_what_the_documented_hash_says(items: list[int], n: int) -> None:
    assert part_of(np.array(items), n).tolist() == [slow_hash(4, item) % n for item in items]


def test_a_part_has_its_number_as_its_name(tmp_path: Path) -> None:
    table, path = (
        pairs_of({1: 9, 2: 9}).append_column("held_out", pa.array([False] * 18)),
        tmp_path / "e",
    )
    write_exposures(table, path, 4)
    for file in path.iterdir():
        part = part_of(read_table(file, EXPOSURES)["item_id"].to_numpy(), 4)
        assert {file.name} == {f"part-{k:05d}.parquet" for k in part.tolist()}


def test_a_single_file_is_written_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is hashed, nothing chosen."""
    monkeypatch.setattr("pipeline.parts.part_of", lambda *_: pytest.fail("items were hashed"))
    table = exposures({(1, 1), (1, 2), (2, 1)})
    write_exposures(table, tmp_path / "e.parquet", 1)
    write_table(table, tmp_path / "table.parquet", EXPOSURES)
    assert (tmp_path / "e.parquet").read_bytes() == (tmp_path / "table.parquet").read_bytes()


def test_a_stream_has_the_bytes_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it is cut, into row groups that end where those of the whole end."""
    monkeypatch.setattr(storage, "ROW_GROUP", 7)
    table = exposures({(user, item) for user in range(9) for item in range(user)})
    write_table(table, tmp_path / "whole", EXPOSURES)
    for size in (1, 3, 7, 20, 99):
        cut = (table.slice(start, size) for start in range(0, table.num_rows, size))
        assert write_tables(cut, tmp_path / "stream", EXPOSURES) == table.num_rows
        assert (tmp_path / "stream").read_bytes() == (tmp_path / "whole").read_bytes()
    assert pq.ParquetFile(tmp_path / "whole").num_row_groups == 6


def test_a_row_group_has_the_bytes_of_one_chunk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However a table was put together; of so many rows that they fill pages."""
    monkeypatch.setattr(storage, "ROW_GROUP", 200_000)
    table = exposures({(user, 1) for user in range(300_000)})
    pieces = pa.concat_tables([table.slice(0, 777), table.slice(777)])
    write_table(table, tmp_path / "chunk", EXPOSURES)
    write_table(pieces, tmp_path / "pieces", EXPOSURES)
    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "chunk").read_bytes()


def test_a_folder_of_other_things_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.mkdir()
    (path / "thesis.txt").write_text("years of work")
    for partitions in (1, 2):
        with pytest.raises(PipelineError, match=r"mine: is a folder that holds thesis.txt, so"):
            write_exposures(exposures({(1, 1), (1, 2)}), path, partitions)
    assert [file.name for file in tmp_path.rglob("*")] == ["mine", "thesis.txt"]


@pytest.mark.parametrize("before", [0, 1, 3])
@pytest.mark.parametrize("partitions", [1, 3])
def test_what_was_there_stands_until_the_new_is_whole(
    tmp_path: Path, before: int, partitions: int
) -> None:
    path = tmp_path / "exposures.parquet"
    if before:
        write_exposures(exposures({(1, 1), (2, 2), (2, 5)}), path, before)
    was = {str(file): file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}

    def fail() -> None:
        with replacing_parts(path, partitions) as folder:
            (folder / "part-00000.parquet").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    found = {str(file): file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert found == was
    assert len([*tmp_path.iterdir()]) == bool(before)


def test_no_exposures_are_refused_by_the_schema(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="the exposures table has no rows"):
        write_exposures(exposures(set()), tmp_path / "e.parquet", 2)
    assert not [*tmp_path.iterdir()]


def test_the_hash_of_a_folder_is_of_its_names_and_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "b").write_text("2")
    (folder / "a").write_text("1")
    one, two = (hashlib.sha256(text).hexdigest() for text in (b"1", b"2"))
    expected = hashlib.sha256(f"a {one}\nb {two}\n".encode()).hexdigest()
    assert sha256(folder) == expected
    (folder / "b").rename(folder / "c")
    assert sha256(folder) != expected


def test_a_damaged_or_missing_part_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    write_exposures(exposures({(u, i) for u in range(3) for i in range(9)}), path, 3)
    part = sorted(path.iterdir())[1]
    part.write_bytes(b"PAR1")
    with pytest.raises(PipelineError, match=r"e.parquet.*: is not a readable Parquet file"):
        read_table(path, EXPOSURES)
    with pytest.raises(PipelineError, match=rf"{part}: is not a readable Parquet file"):
        [*RowGroups(path, EXPOSURES)]
    shutil.rmtree(path)
    path.mkdir()
    with pytest.raises(PipelineError, match=r"e.parquet: holds no Parquet file\. Rebuild it"):
        read_visible(path)
    path.rmdir()
    with pytest.raises(PipelineError, match=r"e.parquet: there is no such file"):
        [*RowGroups(path, EXPOSURES)]


def test_counts_of_groups_add_up_to_those_of_the_whole(built: Path) -> None:
    data = built / "data/prepared"
    users, splits, met = (
        read_table(data / f"{name}.parquet", schema)
        for name, schema in (("users", USERS), ("splits", SPLITS), ("exposures", EXPOSURES))
    )
    labels = default_params().labels
    whole = count_items(users, met, splits, labels)
    groups = [met.slice(start, 300) for start in range(0, met.num_rows, 300)]
    found = count_groups(Crowd.of(users, splits, labels), groups)
    for name in ("item_id", "exposures", "train_exposures"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    for name in labels:
        np.testing.assert_array_equal(found.classes[name], whole.classes[name])
        np.testing.assert_array_equal(found.train_classes[name], whole.train_classes[name])


@pytest.mark.parametrize(
    "stages",
    [
        ["prepare", "filter_tasks", "project", "evaluate", "report"],  # they train nothing
        pytest.param(STAGES, marks=pytest.mark.full),
    ],
    ids=["some", "all"],
)
def test_a_stage_gives_the_same_from_eight_parts(
    built: Path, tmp_path: Path, stages: list[str]
) -> None:
    project = small_project(tmp_path / "project")
    set_params(project, {"runtime": {"partitions": 8}})
    if stages != STAGES:
        for folder in ("data", "metrics"):
            shutil.copytree(built / folder, project / folder)
    for stage in stages:
        ran = invoke(project, stage)
        assert ran.exit_code == 0, ran.output
    one, eight = contents(built), contents(project)
    parts = {name for name in eight if name.startswith("data/prepared/exposures.parquet/")}
    assert 1 < len(parts) <= 8
    assert eight.keys() - parts == one.keys() - {"data/prepared/exposures.parquet"}
    assert not [n for n in eight.keys() - parts if eight[n] != one[n]]


@pytest.mark.parametrize("stage", ["graph", "project"])
def test_a_stage_that_needs_few_exposures_or_none_does_not_read_the_whole(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Of the models of a graph only ktup looks at exposures, and `project` at those to tasks."""
    project = Path(shutil.copytree(built, tmp_path / "project"))
    read, names = storage.read_table, []

    def spy(path: Path, schema: Schema) -> pa.Table:
        names.append(schema.name)
        return read(path, schema)

    monkeypatch.setattr(storage, "read_table", spy)
    ran = invoke(project, stage)
    assert ran.exit_code == 0, ran.output
    assert ("splits" in names) == (stage == "project")
    assert "exposures" not in names
    assert contents(project) == contents(built)


@pytest.mark.full
def test_dvc_goes_from_a_file_to_a_folder_and_back(tmp_path: Path) -> None:
    project = small_repository(tmp_path / "project")
    path = project / "data/prepared/exposures.parquet"
    ran = []
    for partitions in (1, 4, 1):
        set_params(project, {"runtime": {"partitions": partitions}})
        run(project, "dvc", "repro", "--force", "prepare")
        assert path.is_dir() == (partitions > 1)
        ran.append(run(project, "dvc", "repro", "filter_tasks"))
    assert ["Running stage 'filter_tasks'" in printed for printed in ran] == [True, True, False]
    assert "is cached - skipping run" in ran[2]
