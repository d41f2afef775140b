"""Stages that are killed, interrupted or out of disk: they go on, and nothing is half-written."""

import ast
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result

from pipeline.lock import held
from pipeline.training import checkpoint as checkpoint_module
from pipeline.training.checkpoint import BUSY
from stages.checkpoint import KEPT_DAYS
from stages.imports import import_closure
from stages.progress import EpochReporter
from tests.projects import (
    ROOT,
    contents,
    invoke,
    kill,
    run,
    set_params,
    small_repository,
    started,
)

TRAINING = {  # a stage, and the folder that it writes
    "extract_features": "data/features",
    "pretrain": "data/pretrain",
    "graph": "data/graph",
    "train": "data/ratio",
}
CHANCE = random.SystemRandom()


@pytest.fixture
def project(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the built project, in which every epoch of this process is kept."""
    monkeypatch.setattr(checkpoint_module, "LEAST_WORK", 0)
    return Path(shutil.copytree(built, tmp_path / "project"))


def remove_outputs(project: Path, stage: str) -> None:
    """Remove what a stage writes, as DVC does before it runs one."""
    shutil.rmtree(project / TRAINING[stage], ignore_errors=True)


def interrupt(project: Path, stage: str, epoch: int, patch: pytest.MonkeyPatch) -> Result:
    """Run a training stage in this process and interrupt it right after `epoch` is kept."""
    remove_outputs(project, stage)

    def call(self: EpochReporter, row: dict[str, float]) -> None:
        if row["epoch"] == epoch + 1:
            raise KeyboardInterrupt

    with patch.context() as patched:
        patched.setattr(EpochReporter, "__call__", call)
        return invoke(project, stage)


def kept(project: Path) -> list[Path]:
    return sorted((project / ".checkpoints").glob("*.safetensors"))


@pytest.mark.parametrize("stage", TRAINING)
def test_an_interrupted_stage_says_so_and_ends_as_an_unbroken_one(
    built: Path, project: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch = CHANCE.randint(1, 30)
    stopped = interrupt(project, stage, epoch, monkeypatch)
    assert stopped.exit_code == 130
    told = "interrupted; nothing was half-written; the next run goes on after epoch"
    assert stopped.stderr == f"{stage}: {told} {epoch}.\n"
    assert not (project / TRAINING[stage]).exists()
    again = invoke(project, stage)
    assert again.exit_code == 0
    told = f"{stage}: goes on after epoch {epoch}, which an earlier run reached.\n"
    assert again.stderr.startswith(told)
    assert contents(project) == contents(built)
    assert not any((project / ".checkpoints").iterdir())


def test_another_learning_rate_starts_afresh(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(project, "train", 3, monkeypatch)
    set_params(project, {"ratio": {"lr": 0.003}})
    result = invoke(project, "train")
    assert (result.exit_code, result.stderr) == (0, "")
    assert len(kept(project)) == 1  # that of the first rate, for whoever returns to it


def test_a_damaged_checkpoint_is_told_and_left_aside(
    built: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(project, "pretrain", 3, monkeypatch)
    (file,) = kept(project)
    file.write_bytes(file.read_bytes()[:-8])
    again = invoke(project, "pretrain")
    name = file.relative_to(project)
    told = f"pretrain: warning: {name} is damaged; the training starts afresh.\n"
    assert (again.exit_code, again.stderr) == (0, told)
    assert contents(project) == contents(built)


def test_the_second_of_two_trainers_stops_in_one_line_that_names_the_first(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(project, "train", 3, monkeypatch)
    (file,) = kept(project)
    with held(file.with_suffix(".lock"), BUSY):
        second = invoke(project, "train")
    assert second.exit_code == 1
    assert f"process {os.getpid()} trains the same model on the same data" in second.stderr
    assert second.stderr.count("\n") == 1
    assert kept(project) == [file]


def test_whatever_the_training_follows_from_names_its_checkpoint(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def name() -> str:
        interrupt(project, "pretrain", 1, monkeypatch)
        (file,) = kept(project)
        file.unlink()
        return file.name

    first = name()
    set_params(project, {"runtime": {"checkpoint_seconds": 0.001}})
    set_params(project, {"ratio": {"lr": 0.5}})  # pretrain does not read it
    assert name() == first
    names = {first}
    set_params(project, {"seed": 1})
    names.add(name())
    set_params(project, {"seed": 0, "data": {"split_seed": 1}})
    invoke(project, "prepare")
    names.add(name())
    monkeypatch.setattr("stages.checkpoint.version", lambda package: "0.0")
    names.add(name())
    monkeypatch.setattr("stages.checkpoint._code", dict)
    names.add(name())
    assert len(names) == 5


def test_a_checkpoint_that_nobody_went_on_with_goes_after_a_while(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(project, "train", 1, monkeypatch)
    set_params(project, {"seed": 1})
    interrupt(project, "train", 1, monkeypatch)
    old, young = sorted(kept(project), key=lambda file: file.stat().st_mtime)
    then = time.time() - (KEPT_DAYS + 1) * 86_400
    os.utime(old, (then, then))
    assert invoke(project, "pretrain").exit_code == 0
    assert kept(project) == [young]
    os.utime(young, (then, then))
    assert "goes on after epoch 1" in invoke(project, "train").stderr  # its own it goes on with


@pytest.mark.parametrize(
    ("stage", "library"),
    [
        ("extract_features", "pipeline.features.extraction"),
        ("pretrain", "pipeline.pretraining"),
        ("train", "pipeline.conditional"),
    ],
)
def test_the_code_that_names_a_checkpoint_is_all_that_the_training_imports(
    built: Path, stage: str, library: str
) -> None:
    """Asked for before its imports, a checkpoint would be gone on with by other code."""
    code = f"""
import stages.checkpoint
ask = stages.checkpoint._code
def told():
    found = ask()
    print(*sorted(found))
    raise KeyboardInterrupt
stages.checkpoint._code = told
from stages.{stage} import app
app()
"""
    with started(built, sys.executable, "-c", code) as process:
        printed, _ = process.communicate()
    assert process.returncode == 130
    assert import_closure(library, ROOT) | {f"stages/{stage}.py"} <= set(printed.split())


def too_late(tree: ast.Module) -> Iterator[str]:
    """What a stage's functions import, or may, after they asked for a checkpoint."""
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    importing = {function.name for function in functions if any(imports(function))}
    for function in functions:
        nodes = [*ast.walk(function)]
        calls = [node for node in nodes if isinstance(node, ast.Call)]
        asked = [call.lineno for call in calls if getattr(call.func, "id", "") == "open_session"]
        if not asked:
            continue
        done = {id(call.func) for call in calls if call.lineno < min(asked)}
        for line in imports(function):
            if line > min(asked):
                yield f"{function.name}: the import of line {line}"
        for node in nodes:
            if isinstance(node, ast.Name) and node.id in importing and id(node) not in done:
                yield f"{function.name}: {node.id}, which imports, at line {node.lineno}"


def imports(function: ast.FunctionDef) -> Iterator[int]:
    """The lines on which a function imports."""
    for node in ast.walk(function):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node.lineno


ASKING = [
    path.relative_to(ROOT).as_posix()
    for path in sorted((ROOT / "stages").rglob("*.py"))
    if "import open_session\n" in path.read_text()
]


@pytest.mark.parametrize("file", ASKING)
def test_a_stage_asks_for_its_checkpoint_after_all_its_imports(file: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    assert not [*too_late(tree)]
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert any(getattr(call.func, "id", "") == "open_session" for call in calls)


def test_a_signal_ends_a_stage_in_one_line(project: Path) -> None:
    set_params(project, {"ratio": {"max_epochs": 100_000, "patience": 100_000}})
    for number in (signal.SIGINT, signal.SIGTERM):
        with started(project, sys.executable, "-m", "stages.train") as process:
            wait_for_checkpoint(project, process)
            process.send_signal(number)
            printed, errors = process.communicate()
        assert process.returncode == 130
        assert printed == ""
        last = errors.splitlines()[-1]
        assert last.startswith("train: interrupted; nothing was half-written; the next run goes on")
        assert "Traceback" not in errors
        assert [path.suffix for path in (project / ".checkpoints").iterdir()] == [".safetensors"]
        (file,) = kept(project)
        file.unlink()


def wait_for_checkpoint(project: Path, process: subprocess.Popen[str]) -> None:
    while not kept(project):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def kill_while_training(project: Path, *command: str) -> None:
    """Start a command and kill it and its children at a random moment after a first checkpoint."""
    with started(project, *command) as process:
        wait_for_checkpoint(project, process)
        time.sleep(CHANCE.random() / 2)
        assert process.poll() is None, "it ended before it was killed; make the training longer"
        kill(process)
        process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("stage", TRAINING)
def test_a_stage_killed_at_a_random_moment_goes_on_to_the_same_bytes(
    stage: str, built: Path, project: Path
) -> None:
    remove_outputs(project, stage)
    kill_while_training(project, sys.executable, "-m", f"stages.{stage}")
    assert f"{stage}: goes on after epoch " in run(project, sys.executable, "-m", f"stages.{stage}")
    assert contents(project) == contents(built)


def test_dvc_repro_killed_at_a_random_moment_goes_on_to_the_same_bytes(
    built: Path, tmp_path: Path
) -> None:
    repository = small_repository(tmp_path / "repository")
    for folder in ("data", "metrics"):
        shutil.copytree(built / folder, repository / folder)
    command = ("dvc", "repro", "--single-item", "train")
    kill_while_training(repository, *command)
    assert not (repository / "data/ratio/model.safetensors").exists()
    assert "train: goes on after epoch " in run(repository, *command)
    assert contents(repository) == contents(built)
    status = run(repository, "git", "status", "--porcelain")
    assert {line.split()[-1] for line in status.splitlines()} == {"dvc.lock", "metrics/"}


def out_of_disk(file: str, reason: str) -> str:
    return (
        f"filter_tasks: {file}: cannot be written ({reason}); what was there is unchanged. "
        "Make room or give the permission, then run it again.\n"
    )


def test_a_file_over_the_limit_is_one_line_and_the_old_one_stays(project: Path) -> None:
    before = contents(project)
    set_params(project, {"tasks": {"min_exposures": 30}})
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))}
    with started(project, sys.executable, "-m", "stages.filter_tasks", **limit) as process:
        printed, errors = process.communicate()
    assert (process.returncode, printed) == (1, "")
    assert errors == out_of_disk("data/tasks.parquet", "File too large")
    assert contents(project) == before


ON_A_FULL_DISK = """
mount -t tmpfs -o size=64k tmpfs full && cp data/tasks.parquet full || exit 77
head -c 1000000 /dev/zero > full/filler 2> /dev/null
python -m stages.filter_tasks --out full/tasks.parquet
status=$?
cmp data/tasks.parquet full/tasks.parquet && ls -A full
exit $status
"""


def test_a_full_disk_is_one_line_and_the_old_file_stays(project: Path) -> None:
    """On a file system of 64 KiB, in a name space of its own, where that may be mounted."""
    set_params(project, {"tasks": {"min_exposures": 30}})
    (project / "full").mkdir()
    apart = ("unshare", "--user", "--map-root-user", "--mount")
    if not shutil.which("unshare") or subprocess.run([*apart, "true"], check=False).returncode:
        pytest.skip("this system gives no name space to mount a small disk in")
    with started(project, *apart, "sh", "-c", ON_A_FULL_DISK) as process:
        printed, errors = process.communicate()
    if process.returncode == 77:
        pytest.skip(f"a small disk cannot be mounted here: {errors}")
    assert (process.returncode, printed) == (1, "filler\ntasks.parquet\n")
    assert errors == out_of_disk("full/tasks.parquet", "No space left on device")
