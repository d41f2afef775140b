"""The stage as a user meets it: four tables and one line, or one line of error and nothing."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pytest
from typer.testing import CliRunner

from pipeline.schemas import EXPOSURES, ITEMS, SPLITS, USERS
from pipeline.storage import read_table
from stages.prepare import app

ROOT = Path(__file__).parents[1]
TABLES = {"users": USERS, "items": ITEMS, "exposures": EXPOSURES, "splits": SPLITS}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the default params of a tiny simulation, as the working directory."""
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(ROOT / "params.yaml", folder)
    set_params(folder, users="200", items="50", exposures="3000")
    monkeypatch.chdir(folder)
    return folder


def set_params(folder: Path, **values: str) -> None:
    """Give the first line `KEY:` of params.yaml another value."""
    path = folder / "params.yaml"
    text = path.read_text()
    for key, value in values.items():
        text, found = re.subn(rf"(?m)^( +{key}:) [^ \n]+", rf"\g<1> {value}", text, count=1)
        assert found == 1
    path.write_text(text)


def command(folder: Path) -> subprocess.CompletedProcess[str]:
    """What a shell runs."""
    return subprocess.run(
        [sys.executable, "-m", "stages.prepare"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_simulation_becomes_four_tables_and_one_line(project: Path) -> None:
    ran = command(project)
    assert (ran.returncode, ran.stderr) == (0, "")
    tables = {
        name: read_table(project / f"data/prepared/{name}.parquet", schema)
        for name, schema in TABLES.items()
    }
    n = tables["exposures"].num_rows
    assert ran.stdout == (
        f"{n:,} exposures of 200 users to 50 items, from the embedded simulation\n"
    )
    assert n == pytest.approx(3_000, rel=0.1)
    assert tables["users"].column_names == ["user_id", "gender", "age", "occupation", "zip_code"]
    assert tables["splits"]["user_id"].equals(tables["users"]["user_id"])
    held = tables["exposures"].filter(tables["exposures"]["held_out"])["user_id"]
    training = tables["splits"].filter(pc.equal(tables["splits"]["split"], "train"))["user_id"]
    assert len(held) > 0
    assert not pc.any(pc.is_in(held, training.combine_chunks())).as_py()
    facts = json.loads((project / "data/run_info/prepare.json").read_text())
    for path, digest in facts["outputs"].items():
        assert hashlib.sha256((project / path).read_bytes()).hexdigest() == digest


def test_equal_params_give_equal_bytes_and_the_split_seed_moves_the_split_alone(
    project: Path,
) -> None:
    def prepared() -> dict[str, bytes]:
        assert CliRunner().invoke(app, []).exit_code == 0
        return contents(project / "data/prepared")

    first, again = prepared(), prepared()
    set_params(project, split_seed="1")
    moved = prepared()
    assert first == again
    assert {name for name in first if moved[name] != first[name]} == {
        "splits.parquet",
        "exposures.parquet",
    }


def test_the_seed_of_the_training_is_not_seen_here(project: Path) -> None:
    """`seed` moves training only; the stage is not handed it at all."""
    assert CliRunner().invoke(app, []).exit_code == 0
    first = contents(project / "data/prepared")
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("\nseed: 0", "\nseed: 5"))
    assert CliRunner().invoke(app, []).exit_code == 0
    assert contents(project / "data/prepared") == first


def test_movielens_is_prepared_from_the_folder_that_raw_dir_names(
    project: Path, movielens_dir: Path
) -> None:
    set_params(project, source="movielens-1m", raw_dir=str(movielens_dir))
    ran = CliRunner().invoke(app, [])
    assert ran.stdout == (
        f"1,000,209 exposures of 6,040 users to 3,883 items, from MovieLens 1M in {movielens_dir}\n"
    )
    exposures = read_table(project / "data/prepared/exposures.parquet", EXPOSURES)
    splits = read_table(project / "data/prepared/splits.parquet", SPLITS)
    shares = {
        one["values"]: one["counts"] / 6_040 for one in splits["split"].value_counts().to_pylist()
    }
    assert shares == pytest.approx({"test": 0.2, "valid": 0.08, "train": 0.72}, abs=0.02)
    assert pc.mean(exposures["held_out"]).as_py() == pytest.approx(0.2 * 0.28, abs=0.01)
    raw = json.loads((project / "data/run_info/prepare.json").read_text())["raw"]
    assert {Path(path).name: digest for path, digest in raw.items()} == {
        name: hashlib.sha256((movielens_dir / name).read_bytes()).hexdigest()
        for name in ("ratings.dat", "users.dat", "movies.dat")
    }


FAULTS: dict[str, tuple[Callable[[bytes], bytes], str]] = {  # what is done, and the line told
    "cut last row": (lambda c: c[:-9], ":120"),
    "short row": (lambda c: b"1::1::5\n" + c, ":1"),
    "long row": (lambda c: b"1::5::1::978300000::0\n" + c, ":1"),
    "bad number": (lambda c: b"1::5::one::978300000\n" + c, ":1"),
    "rating 9": (lambda c: b"1::5::9::978300000\n" + c, ":1"),
    "unknown user": (lambda c: b"99::5::1::978300000\n" + c, ":1"),
    "unknown movie": (lambda c: b"1::99::1::978300000\n" + c, ":1"),
    "duplicate pair": (lambda c: c + c.splitlines(keepends=True)[0], ":121"),
    "tab": (lambda c: b"1\t5\t1\t978300000\n" + c, ":1"),
    "wrong encoding": (lambda c: c.decode().encode("utf-16"), ":1"),
    "empty file": (lambda _: b"", ""),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_file_ends_in_one_line_and_leaves_everything_as_it_was(
    project: Path, made_movielens: Path, fault: str
) -> None:
    assert CliRunner().invoke(app, []).exit_code == 0
    path = made_movielens / "ratings.dat"
    edit, line = FAULTS[fault]
    path.write_bytes(edit(path.read_bytes()))
    set_params(project, source="movielens-1m", raw_dir=str(made_movielens))
    before = contents(project)
    ran = command(project)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert re.fullmatch(rf"prepare: {re.escape(str(path))}{line}: .+\n", ran.stderr)
    assert contents(project) == before


def test_a_missing_folder_and_an_empty_split_end_in_one_line_too(
    project: Path, made_movielens: Path
) -> None:
    set_params(project, source="movielens-1m", raw_dir=str(project / "nowhere"))
    ran = command(project)
    assert ran.returncode == 1
    assert re.fullmatch(r"prepare: .*nowhere/users.dat: cannot be read .+raw_dir.+\n", ran.stderr)
    set_params(project, raw_dir=str(made_movielens), valid_share="0.000001")
    ran = command(project)
    assert ran.returncode == 1
    assert re.fullmatch(r"prepare: params.yaml: .+ leave the valid split .+\n", ran.stderr)
    assert not (project / "data").exists()


def test_a_simulation_too_dense_to_draw_is_refused(project: Path) -> None:
    set_params(project, exposures="5001")
    ran = CliRunner().invoke(app, [])
    assert ran.exit_code == 1
    assert "exposures (5,001) must be at most half of users x items (10,000)" in ran.stderr


def test_where_nothing_is_held_out_it_says_so_at_once(project: Path) -> None:
    """Of two exposures a fifth rounds to none; else `evaluate` would be the first to tell."""
    (project / "mine").mkdir()
    rows = "".join(f"{user},{item}\n" for user in range(300) for item in (user % 7, 7))
    (project / "mine/exposures.csv").write_text(f"user_id,item_id\n{rows}")
    people = "".join(f"{user},{user % 60},{user % 3},{'FM'[user % 2]}\n" for user in range(300))
    (project / "mine/users.csv").write_text(f"user_id,age,occupation,gender\n{people}")
    set_params(project, source="tables", tables_dir="mine")
    ran = CliRunner().invoke(app, [])
    assert ran.exit_code == 0
    assert ran.stdout.startswith("600 exposures of 300 users to 8 items")
    assert ran.stderr == (
        "prepare: warning: no exposure is held out, and `evaluate` measures by those: of few "
        "exposures data.held_out_share (0.2) rounds to none; raise it, or take users with more.\n"
    )
