"""SIGKILL in loops: of writers, and of everything that DVC runs, at random moments."""

import random
import shutil
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from pipeline.files import sha256
from tests.projects import (
    STAGES,
    contents,
    kill,
    run,
    set_params,
    small_project,
    small_repository,
    started,
)
from tests.results import record

CHANCE = random.SystemRandom()
WRITER = """
import sys
from pathlib import Path
import numpy as np, pyarrow as pa
from pipeline.schemas import SCORES
from pipeline.storage import write_table

def table(value):
    n = 100_000
    scores = np.random.default_rng(value).random(n, np.float32)
    ids = {"task_id": pa.array(np.zeros(n), pa.int32()), "user_id": pa.array(range(n))}
    return pa.table({**ids, "score": scores})

tables = [table(0), table(1)]
for number, name in enumerate(sys.argv[1:3]):
    write_table(tables[number], Path(name), SCORES)
while True:
    for one in tables:
        write_table(one, Path(sys.argv[3]), SCORES)
        print("written", flush=True)
"""


def kill_writers(folder: Path, kills: int) -> Counter[str]:
    """Kill a process that never stops writing a table, time after time; count what is found."""
    found: Counter[str] = Counter()
    names = ("old.parquet", "new.parquet", "target.parquet")
    for _ in range(kills):
        with started(folder, sys.executable, "-c", WRITER, *names) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "written\n", process.communicate()
            time.sleep(CHANCE.random() / 10)
            kill(process)
            process.wait()
        target = sha256(folder / "target.parquet")
        known = {sha256(folder / name): name for name in names[:2]}
        found[known.get(target, "neither")] += 1
        parts = [*folder.glob(".*.part")]
        found["a write was under way"] += bool(parts)
        for part in parts:
            part.unlink()
    return found


def test_a_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    assert kill_writers(tmp_path, kills=2)["neither"] == 0


@pytest.mark.full
def test_fifty_killed_writers_leave_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    found = kill_writers(tmp_path, kills=50)
    assert found["neither"] == 0
    assert found["a write was under way"] > 10
    record(
        "Writers killed",
        __file__,
        [
            f"A process that writes two tables to one path in turn, killed {50} times by SIGKILL: "
            f"{found['old.parquet']} times the one table was found whole, "
            f"{found['new.parquet']} times the other, {found['neither']} times anything else. "
            f"In {found['a write was under way']} cases it was killed in the middle of a write."
        ],
    )


@pytest.mark.full
@pytest.mark.parametrize(
    ("command", "kills"),
    [
        (("dvc", "repro"), 20),
        (("dvc", "exp", "run"), 20),
        (("dvc", "exp", "run", "--temp", "--name", "killed"), 10),
    ],
    ids=["repro", "exp run", "exp run --temp"],
)
def test_dvc_killed_at_random_moments_ends_with_the_bytes_of_an_unbroken_run(
    tmp_path: Path, command: tuple[str, ...], kills: int
) -> None:
    settings = ["-S", "seed=1"] if "exp" in command else []
    reference, seconds = unbroken(tmp_path / "unbroken", seed=len(settings) // 2)
    repository = small_repository(tmp_path / "repository")
    killed: Counter[str] = Counter()
    resumed = passes = first = 0
    while killed.total() < kills or (not resumed and killed.total() < 3 * kills):
        wanted = CHANCE.choice(STAGES[first:])
        trains = STAGES.index(wanted) <= STAGES.index("train")  # or what follows it does
        in_training = trains and CHANCE.random() < 0.5  # a stage starts for longer than it trains
        moment = (0.3 if in_training else 1.2 * seconds[wanted]) * CHANCE.random()
        whole = [*command, *settings, STAGES[-1]]
        stage, errors = kill_in(wanted, repository, whole, moment, in_training=in_training)
        resumed += errors.count("goes on after epoch")
        if stage is not None:
            killed[stage] += 1
            first = STAGES.index(stage)  # what lies before has run
            continue
        check_and_forget(repository, command, reference)
        passes, first = passes + 1, 0
    resumed += run(repository, *command, *settings, STAGES[-1]).count("goes on after epoch")
    check_and_forget(repository, command, reference)
    assert resumed > 0
    stages = ", ".join(f"{name} {killed[name]}" for name in STAGES if killed[name])
    record(
        f"`{' '.join(command)}` killed",
        __file__,
        [
            f"DVC and the stage under it, killed {killed.total()} times by SIGKILL ({stages}). "
            f"Trainings went on from a checkpoint {resumed} times. "
            f"All {len(reference)} artefacts and metrics of the {passes + 1} completed runs "
            "were equal, byte for byte, to those of an unbroken run."
        ],
    )


def unbroken(folder: Path, seed: int) -> tuple[dict[str, bytes], dict[str, float]]:
    """What the stages write when nobody disturbs them, and the seconds that each one takes."""
    small_project(folder)
    set_params(folder, {"seed": seed})
    seconds = {}
    for stage in STAGES:
        started = time.monotonic()
        run(folder, sys.executable, "-m", f"stages.{stage}")
        seconds[stage] = time.monotonic() - started
    return contents(folder), seconds


def kill_in(
    wanted: str, repository: Path, command: list[str], moment: float, *, in_training: bool
) -> tuple[str | None, str]:
    """Run DVC and kill it with all its children `moment` seconds after the stage `wanted` began.

    If `in_training`, after the first checkpoint of that stage or of a later one.

    Returns:
        The stage that was killed, which may be a later one, or None if DVC came to its end first;
        what stood on stderr.
    """
    with started(repository, *command) as process:
        while process.poll() is None and running_stage(process.pid) != wanted:
            time.sleep(0.02)
        before = newest_checkpoint(repository)
        while in_training and process.poll() is None and newest_checkpoint(repository) == before:
            time.sleep(0.005)
        until = time.monotonic() + moment
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        stage = running_stage(process.pid)
        while process.poll() is None and stage is None:
            stage = running_stage(process.pid)
        if process.poll() is None:
            kill(process)
        _, errors = process.communicate()
    if process.returncode == -signal.SIGKILL:
        return stage, errors
    assert process.returncode == 0, errors
    return None, errors


def newest_checkpoint(repository: Path) -> int:
    """When the newest one was written, in nanoseconds; 0 without any."""
    times = [0]
    for file in (repository / ".checkpoints").glob("*.safetensors"):
        with suppress(FileNotFoundError):  # its training has just ended
            times.append(file.stat().st_mtime_ns)
    return max(times)


def running_stage(pid: int) -> str | None:
    """The stage that a child of the process is at, if any."""
    try:
        for child in psutil.Process(pid).children(recursive=True):
            for argument in child.cmdline():
                if argument.startswith("stages."):
                    return argument.removeprefix("stages.")
    except psutil.NoSuchProcess:
        pass
    return None


def check_and_forget(
    repository: Path, command: tuple[str, ...], reference: dict[str, bytes]
) -> None:
    """Compare what a completed run made with `reference`; then go back to where nothing is made."""
    if "--temp" in command:
        run(repository, "dvc", "exp", "apply", "killed")
    assert contents(repository) == reference
    assert not any((repository / ".checkpoints").iterdir())
    run(repository, "git", "checkout", "--quiet", "--force", "main")
    run(repository, "git", "clean", "--quiet", "--force", "-d")
    if "exp" in command:
        run(repository, "dvc", "exp", "remove", "--all-commits")
    for name in ("data", "metrics", ".dvc/cache"):
        shutil.rmtree(repository / name, ignore_errors=True)
