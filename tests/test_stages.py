"""Every stage where something is amiss: one line, exit code 1, nothing written."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
from typer.testing import CliRunner

from pipeline.threads import SPINS
from tests.dvc_stages import Stage, read_stages

ROOT = Path(__file__).parents[1]
STAGES = list(read_stages(ROOT / "dvc.yaml"))
READERS = [stage for stage in STAGES if stage.artefacts]  # all but prepare, whose input is a source


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml and nothing else, as the working directory."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    return tmp_path


def command(
    *arguments: str, cwd: Path, stdout: IO[str] | int = subprocess.PIPE, **settings: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **settings},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("stage", READERS, ids=lambda stage: stage.name)
def test_a_missing_input_is_one_line_and_nothing_is_written(stage: Stage, empty: Path) -> None:
    ran = CliRunner().invoke(importlib.import_module(stage.module).app, [])
    assert (ran.exit_code, ran.stdout) == (1, "")
    said, _, rest = ran.stderr.partition("\n")
    assert rest == ""
    named = said.removeprefix(f"{stage.name}: ").partition(": there is no such file.")[0]
    assert named in stage.artefacts
    assert [path.name for path in empty.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize("name", ["project", "report"])
def test_a_stage_that_computes_on_a_cpu_says_so(built: Path, name: str) -> None:
    told = json.loads((built / f"data/run_info/{name}.json").read_text())
    assert told["device"] == "CPU, 1 thread"


@pytest.mark.parametrize("name", ["prepare", "filter_tasks", "evaluate"])
def test_a_stage_that_computes_without_torch_does_not_load_it(
    built: Path, tmp_path: Path, name: str
) -> None:
    """It takes longer to load than the stage has work to do on a small data set."""
    project = Path(shutil.copytree(built, tmp_path / "project"))
    ran = command("-X", "importtime", "-m", f"stages.{name}", cwd=project)
    assert ran.returncode == 0
    loaded = {line.rpartition("|")[2].strip() for line in ran.stderr.splitlines()}
    assert "numpy" in loaded
    assert "torch" not in loaded


def test_so_it_is_in_a_shell(empty: Path) -> None:
    ran = command("-m", "stages.filter_tasks", cwd=empty)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == (
        "filter_tasks: data/prepared/users.parquet: there is no such file. "
        "Build it with `dvc repro`, or name another.\n"
    )


@pytest.mark.parametrize(
    ("module", "options"), [("filter_tasks", []), ("score", ["--user", "1", "--item", "7"])]
)
def test_a_result_that_cannot_be_shown_is_one_line(
    built: Path, tmp_path: Path, module: str, options: list[str]
) -> None:
    project = Path(shutil.copytree(built, tmp_path / "project"))
    with Path("/dev/full").open("w") as full:
        ran = command("-m", f"stages.{module}", *options, cwd=project, stdout=full)
    assert ran.returncode == 1
    assert ran.stderr == (
        f"{module}: stdout: cannot be written (No space left on device). Make room or name another "
        "place, then run it again.\n"
    )


def test_a_reader_that_goes_early_is_told_nothing(built: Path, tmp_path: Path) -> None:
    project = Path(shutil.copytree(built, tmp_path / "project"))
    reader, writer = os.pipe()
    os.close(reader)
    ran = command("-m", "stages.score", "--user", "1", cwd=project, stdout=writer)
    os.close(writer)
    assert (ran.returncode, ran.stderr) == (1, "")


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_wrong_param_is_one_line_too(stage: Stage, empty: Path) -> None:
    params = empty / "params.yaml"
    params.write_text(params.read_text().replace("\nseed: 0", "\nseed: zero"))
    ran = CliRunner().invoke(importlib.import_module(stage.module).app, [])
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert ran.stderr == (
        f"{stage.name}: params.yaml: seed: Input should be a valid integer (found 'zero')\n"
    )


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_torch_is_told_how_long_to_spin_before_it_is_loaded(stage: Stage, empty: Path) -> None:
    asked = (
        f"import os, sys, {stage.module}; "
        "print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT'))"
    )
    told = [
        command("-c", asked, cwd=empty, **settings).stdout.split()
        for settings in ({}, {"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "active"})
    ]
    assert told == [["False", str(SPINS)], ["False", "7"], ["False", "None"]]


def test_an_interpreter_without_the_packages_says_so_in_one_line(empty: Path) -> None:
    """As if `dvc repro` were typed without the environment on PATH; -S leaves site-packages out."""
    ran = command("-S", "-m", "stages.train", cwd=empty)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == (
        f"{sys.executable} lacks this project's packages: run `make setup`, then "
        "`source .venv/bin/activate`.\n"
    )
