"""The engine Spark: the tables, refusals and numbers of the embedded one. `make test-spark`."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from pipeline import schemas
from pipeline.datasets import pieces
from pipeline.errors import PipelineError
from pipeline.parts import write_exposures
from pipeline.spark import exposures as on_spark
from pipeline.spark.session import spark_session
from pipeline.spark.tables import OwnRows
from pipeline.storage import read_table
from tests.projects import ROOT, contents, invoke, set_params, small_project
from tests.test_own_tables import FILES, READ_FAULTS, Fault

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark


@pytest.fixture(scope="session", autouse=True)
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator["SparkSession"]:
    """One session for all tests: the stages use the one that is there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_TOOL_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
        patch.chdir(tmp_path_factory.mktemp("spark"))
        with spark_session("local[2]") as spark:
            yield spark


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return small_project(tmp_path / "project")


def run(project: Path, stage: str, engine: str) -> Result:
    set_params(project, {"runtime": {"engine": engine}})
    return invoke(project, stage)


def both(project: Path, *stages: str) -> None:
    """Run stages on either engine: the same files to the byte, and the same lines."""
    found: dict[str, tuple[dict[str, bytes], list[str]]] = {}
    for engine in ("embedded", "spark"):
        shutil.rmtree(project / "data", ignore_errors=True)
        ran = [run(project, stage, engine) for stage in stages]
        assert [one.exit_code for one in ran] == [0] * len(stages), ran[-1].output
        found[engine] = contents(project), [one.stdout for one in ran]
    assert found["spark"][1] == found["embedded"][1]
    assert found["spark"][0].keys() == found["embedded"][0].keys()
    differing = [n for n, b in found["spark"][0].items() if found["embedded"][0][n] != b]
    assert not differing


def exposures(seed: int, n: int = 3_000) -> pa.Table:
    """Exposures with repeats, ties and gaps, in no order, with ids of either sign and any size."""
    gen = np.random.default_rng(seed)
    users = gen.integers(-(2**62), 2**62, 90)
    items = np.append(gen.integers(-5, 40, 30), 2**53 + np.arange(3))
    moment = gen.integers(0, 9, n)
    return pa.table(
        {
            "user_id": gen.choice(users, n),
            "item_id": gen.choice(items, n),
            "rating": pa.array(gen.integers(-128, 128, n), mask=gen.random(n) < 0.2),
            "timestamp": pa.array(moment, mask=moment == 8),
        }
    )


@pytest.mark.parametrize("partitions", [1, 3])
def test_the_simulation_is_the_same_to_the_byte(project: Path, partitions: int) -> None:
    set_params(project, {"runtime": {"partitions": partitions}})
    both(project, "prepare", "filter_tasks")


def test_so_is_movielens(project: Path, made_movielens: Path) -> None:
    set_params(
        project,
        {
            "data": {"source": "movielens-1m", "raw_dir": str(made_movielens)},
            "tasks": {"min_exposures": 1},
        },
    )
    both(project, "prepare", "filter_tasks")


def own(project: Path, *, labels: str = "{}", **data: object) -> Path:
    """Let a project read its own tables: the folder, still empty."""
    folder = project / "mine"
    folder.mkdir()
    own_data = {"source": "tables", "tables_dir": str(folder), **data}
    set_params(project, {"data": own_data, "tasks": {"min_exposures": 1}})
    path = project / "params.yaml"
    path.write_text(re.sub(r"(?s)\nlabels:.*?\n\n", f"\nlabels: {labels}\n\n", path.read_text()))
    return folder


def test_own_tables_with_users_items_and_labels_are_the_same(project: Path) -> None:
    labels = "{age: {column: age, bins: [25, 45]}, country: {column: country}}"
    shutil.copytree(ROOT / "examples/tables", own(project, labels=labels), dirs_exist_ok=True)
    set_params(project, {"tasks": {"labels": ["age"]}, "evaluate": {"labels": ["country"]}})
    set_params(project, {"projection": {"histogram_label": "age"}})
    both(project, "prepare", "filter_tasks")


@pytest.mark.parametrize("seed", [0, 1])
def test_repeats_ties_and_gaps_in_many_row_groups_and_files_are_the_same(
    project: Path, seed: int
) -> None:
    folder = own(project) / "exposures.parquet"
    folder.mkdir()
    met = exposures(seed)
    for k, start in enumerate(range(0, met.num_rows, 1_000)):
        part = met.slice(start, 1_000)
        pq.write_table(part, folder / f"{k}.parquet", row_group_size=300)
    both(project, "prepare", "filter_tasks")


def test_a_csv_is_cut_at_its_lines_and_text_ids_keep_their_texts(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pieces of a few lines each, with empty lines, dates, quotes and letters of several bytes."""
    monkeypatch.setattr(pieces, "PIECE_BYTES", 300)
    folder = own(project, text_ids=True)
    gen = np.random.default_rng(0)
    rows = [
        f'"ä {u}, {u}",{i},{"" if i % 3 else f"2024-01-{1 + u % 28:02d}"}'
        for u, i in gen.integers(0, 60, (400, 2)).tolist()
    ]
    rows[7:7] = ["", ""]
    (folder / "exposures.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]))
    both(project, "prepare", "filter_tasks")


def test_seconds_in_pieces_that_could_be_dates_are_the_same(project: Path) -> None:
    """As long as in another piece is one that could not."""
    met = exposures(0).slice(0, 60)
    moment = pa.array([None, *[20240131] * 58, 20240132])
    path = own(project) / "exposures.parquet"
    pq.write_table(met.set_column(3, "timestamp", moment), path, row_group_size=20)
    both(project, "prepare")


OF_EXPOSURES = [fault for fault in READ_FAULTS if fault.file.startswith("exposures")]


@pytest.mark.parametrize("fault", OF_EXPOSURES, ids=lambda fault: fault.name)
def test_a_faulty_table_is_refused_in_the_same_line(
    project: Path, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 20)
    folder = own(project)
    for name in ("exposures", "users", "items"):
        (folder / f"{name}.csv").write_text(FILES[name])
    if not fault.file.endswith(".csv"):
        (folder / "exposures.csv").unlink()
    if fault.content is None:
        (folder / fault.file).unlink()
    elif isinstance(fault.content, bytes):
        (folder / fault.file).write_bytes(fault.content)
    else:
        pq.write_table(fault.content, folder / fault.file)
    embedded, spark = (run(project, "prepare", engine) for engine in ("embedded", "spark"))
    assert embedded.exit_code == spark.exit_code == 1
    assert spark.stderr == embedded.stderr
    assert re.search(fault.message, spark.stderr)
    assert not contents(project)


def test_a_fault_far_down_is_told_with_its_row(project: Path) -> None:
    folder = own(project) / "exposures.parquet"
    folder.mkdir()
    met = exposures(0)
    rating = met["rating"].to_pylist()
    rating[2_345] = 300
    met = met.set_column(2, "rating", pa.array(rating))
    for k, start in enumerate(range(0, met.num_rows, 1_000)):
        pq.write_table(met.slice(start, 1_000), folder / f"{k}.parquet", row_group_size=300)
    embedded, spark = (run(project, "prepare", engine) for engine in ("embedded", "spark"))
    assert f"{folder}, row 2346: expected a rating from -128 to 127, found 300." in spark.stderr
    assert spark.stderr == embedded.stderr


def test_a_folder_divided_by_a_key_is_refused_in_the_same_line(project: Path) -> None:
    folder = own(project) / "exposures.parquet" / "year=2024"
    folder.mkdir(parents=True)
    pq.write_table(exposures(0), folder / "a.parquet")
    embedded, spark = (run(project, "prepare", engine) for engine in ("embedded", "spark"))
    assert f"{folder}: expected only files NAME.parquet in the folder" in spark.stderr
    assert spark.stderr == embedded.stderr


def test_a_user_without_a_label_is_refused_in_the_same_line(project: Path) -> None:
    folder = own(project, labels="{country: {column: country}}")
    shutil.copytree(ROOT / "examples/tables", folder, dirs_exist_ok=True)
    set_params(project, {"tasks": {"labels": ["country"]}, "evaluate": {"labels": []}})
    set_params(project, {"projection": {"histogram_label": "country"}})
    users = folder / "users.csv"
    users.write_text(users.read_text().replace('1,45,"DE"\n', "1,45,\n", 1))
    embedded, spark = (run(project, "prepare", engine) for engine in ("embedded", "spark"))
    assert (spark.exit_code, embedded.exit_code) == (1, 1)
    assert "user 1 has no value for country" in spark.stderr
    assert spark.stderr == embedded.stderr
    assert not list(project.glob("data/prepared/*"))


def test_that_nothing_is_held_out_is_warned_of_alike(project: Path) -> None:
    rows = "".join(f"{user},{item}\n" for user in range(300) for item in (user % 7, 7))
    (own(project) / "exposures.csv").write_text(f"user_id,item_id\n{rows}")
    embedded, spark = (run(project, "prepare", engine) for engine in ("embedded", "spark"))
    assert embedded.exit_code == spark.exit_code == 0
    assert spark.stderr.startswith("prepare: warning: no exposure is held out")
    assert spark.stderr == embedded.stderr


def test_a_value_over_several_lines_is_refused_and_not_cut(project: Path) -> None:
    path = own(project) / "exposures.csv"
    path.write_text('user_id,item_id,note\n1,10,a\n2,20,"one\ntwo"\n')
    assert run(project, "prepare", "embedded").exit_code == 1  # an empty split: all else is well
    told = run(project, "prepare", "spark").stderr
    assert told == (
        f"prepare: {path}, row 2: expected a row on one line, found '2,20,\"one'. "
        "Write the table as Parquet, or set runtime.engine to embedded.\n"
    )


def test_two_texts_of_one_hash_are_refused(session: "SparkSession") -> None:
    rows = session.createDataFrame(
        [(5, "ann"), (5, "bob"), (6, "ann")], "user_id long, user_key string"
    )
    own = OwnRows(Path("exposures.csv"), [], rows, text_ids=True)
    with pytest.raises(PipelineError, match=r"exposures.csv: two values of user_id have one hash"):
        own.require_one_text("user")
    OwnRows(Path("exposures.csv"), [], rows.where("user_key = 'ann'"), True).require_one_text(
        "user"
    )


@pytest.mark.parametrize("partitions", [1, 4])
def test_an_unknown_user_and_a_damaged_file_are_told_alike(project: Path, partitions: int) -> None:
    assert run(project, "prepare", "embedded").exit_code == 0
    path = project / "data/prepared/exposures.parquet"
    met = read_table(path, schemas.EXPOSURES)
    strange = pc_set(met, user_id=[*met["user_id"].to_pylist()[:-2], 777, 778])
    write_exposures(strange, path, partitions)
    spark = run(project, "filter_tasks", "spark")
    assert "user 777 is not among the 200 known ones (2 such rows)" in spark.stderr
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert run(project, "filter_tasks", "spark").stderr == (
        "filter_tasks: data/prepared/exposures.parquet: there is no such file. "
        "Build it with `dvc repro`, or name another.\n"
    )
    path.write_bytes(b"PAR1")
    embedded, spark = (run(project, "filter_tasks", one) for one in ("embedded", "spark"))
    assert spark.stderr == embedded.stderr
    pq.write_table(met.drop_columns("held_out"), path)
    embedded, spark = (run(project, "filter_tasks", one) for one in ("embedded", "spark"))
    assert spark.stderr == embedded.stderr


def pc_set(table: pa.Table, **columns: list) -> pa.Table:
    for name, values in columns.items():
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(values, table.schema.field(name).type))
    return table


def test_an_empty_split_is_refused_and_nothing_is_written(project: Path) -> None:
    set_params(project, {"data": {"valid_share": 1e-9}})
    embedded, spark = (run(project, "prepare", engine) for engine in ("embedded", "spark"))
    assert spark.stderr == embedded.stderr
    assert "leave the valid split" in spark.stderr
    assert not contents(project)


def test_what_a_worker_cannot_do_is_one_line(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: object, *, folder: str) -> Iterator[pa.RecordBatch]:
        if folder:
            raise PipelineError("no room")
        yield pa.record_batch({})

    monkeypatch.setattr(on_spark, "_write_batches", refuse)
    ran = run(project, "prepare", "spark")
    assert (ran.exit_code, ran.stderr) == (1, "prepare: Spark at local[2] failed: no room\n")
    assert not contents(project)


def test_a_folder_that_workers_do_not_see_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a cluster whose machines share no disk."""
    shutil.copytree(ROOT / "examples/tables", own(project), dirs_exist_ok=True)
    elsewhere = [pieces.Piece("here", "/nowhere/exposures.csv", 0, 9)]
    monkeypatch.setattr(on_spark, "pieces_of", lambda _: elsewhere)
    set_params(project, {"data": {"source": "simulated"}})
    told = run(project, "prepare", "spark").stderr
    assert re.match(
        "prepare: Spark at local.* what the driver can read, Spark's workers cannot", told
    )


def test_a_java_that_does_not_run_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = tmp_path / "bin/java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\nexit 1\n")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    refused = pytest.raises(PipelineError, match=rf"but {java} does not run; install it")
    with refused, spark_session("local[2]"):
        pass


def test_without_java_it_says_what_to_install(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(project / "nowhere"))
    ran = run(project, "prepare", "spark")
    assert ran.exit_code == 1
    assert ran.stderr == (
        "prepare: params.yaml: runtime.engine is spark, which needs Java 17 or newer, but found "
        f"none in JAVA_HOME {project / 'nowhere'}; install it (Debian: apt-get install "
        "default-jre-headless), or set it to embedded.\n"
    )
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(project))
    with pytest.raises(PipelineError, match="found no java on PATH"), spark_session("local[2]"):
        pass
