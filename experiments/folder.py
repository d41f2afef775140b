"""An experiment in a folder of its own: one of its params files made the present one, then run."""

import json
import os
import re
import subprocess
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from graphlib import TopologicalSorter
from pathlib import Path
from shutil import which
from typing import Annotated, NoReturn

import typer

from experiments.runs import no_command, quoted
from experiments.shell import telling
from pipeline.errors import PipelineError
from pipeline.files import write_bytes

RAW_DIR = re.compile(r"^  raw_dir: .*$", re.MULTILINE)
ARROW = re.compile(r'"(.+?)" -> "(.+?)"')
DVC = ("dvc", "--wait-for-lock")
Needs = Mapping[str, set[str]]  # of every target, the targets that must be there before it

JobsOption = Annotated[
    int, typer.Option(min=1, help="Stages at once, each with its share of the CPU's cores.")
]


def run_folder(folder: Path, params: str, raw_dir: Path | None, jobs: int) -> NoReturn:
    """Make `params`.yaml the present params.yaml of `folder`, and run its dvc.yaml.

    Interrupted, it goes on where it stopped: finished stages are not run again, and one that was
    at work goes on after the last epoch that it kept.

    DVC runs one stage after the other. With several jobs so many run at once, each under a `dvc
    repro` of its own, as soon as what they need is there, and in the order of dvc.yaml where there
    is a choice; they wait for one another where DVC keeps its books.

    Args:
        folder: which experiment; each stage of its dvc.yaml comes after those that it needs.
        params: name of a params file in it.
        raw_dir: replaces the file's `data.raw_dir`, if given.
        jobs: how many stages at once.

    Raises:
        typer.Exit: with DVC's exit status, or with 1 after a line on what is wrong with `raw_dir`,
            or that there is no DVC.
    """
    with telling(folder.name):
        if which(DVC[0]) is None:
            raise no_command(DVC[0])
        text = with_raw_dir((folder / f"{params}.yaml").read_text(), raw_dir)
    write_bytes(text.encode(), folder / "params.yaml")
    pipeline = f"{folder}/dvc.yaml"
    if jobs > 1:
        targets = _told("stage", "list", "--name-only", pipeline)
        _note_code(pipeline, targets)
        _run_at_once(_to_run(pipeline, targets), jobs)
    raise typer.Exit(_repro(pipeline).returncode)


def _note_code(pipeline: str, targets: str) -> None:
    """Run the stage `code`, if there is one: what changed is known by its files only then."""
    for target in targets.split():
        if target.startswith(f"{pipeline}:code@") and (status := _repro("-s", target).returncode):
            raise typer.Exit(status)


def _to_run(pipeline: str, targets: str) -> Needs:
    """The stages that changed and those after them, instance by instance, in their order."""
    needs = needed(targets, _told("dag", "--dot", pipeline))
    changed = json.loads(_told("status", "--json", pipeline))
    found: dict[str, set[str]] = {}
    for target, needs_of in needs.items():
        if target in changed or needs_of & found.keys():
            found[target] = needs_of & found.keys()
    return found


def needed(targets: str, dot: str) -> Needs:
    """The targets that DVC lists, each with those that it needs by DVC's graph."""
    needs: dict[str, set[str]] = {target: set() for target in targets.split()}
    for before, after in ARROW.findall(dot):
        if before in needs and after in needs:
            needs[after].add(before)
    return needs


def _told(*command: str) -> str:
    """What a command of DVC prints; where it fails DVC has said why."""
    done = subprocess.run([*DVC, *command], check=False, stdout=subprocess.PIPE, text=True)  # noqa: S603
    if done.returncode:
        raise typer.Exit(done.returncode)
    return done.stdout


def _run_at_once(needs: Needs, jobs: int) -> None:
    """Run all targets, so many at once; after a failure start no more.

    Raises:
        typer.Exit: with the status of one that failed.
    """
    threads = max(1, (os.cpu_count() or 1) // jobs)
    env = {"OMP_NUM_THREADS": str(threads), **os.environ}
    order = {target: place for place, target in enumerate(needs)}
    sorter = TopologicalSorter(needs)
    sorter.prepare()
    ready: list[str] = []
    running: dict[Future[subprocess.CompletedProcess[bytes]], str] = {}
    with ThreadPoolExecutor(jobs) as pool:
        while sorter.is_active():
            ready = sorted([*ready, *sorter.get_ready()], key=order.__getitem__)
            starting, ready = ready[: jobs - len(running)], ready[jobs - len(running) :]
            for target in starting:
                running[pool.submit(_repro, "--single-item", target, env=env)] = target
            for ended in wait(running, return_when=FIRST_COMPLETED).done:
                if status := ended.result().returncode:
                    raise typer.Exit(status)
                sorter.done(running.pop(ended))


def _repro(
    *options: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*DVC, "repro", *options], env=env, check=False)  # noqa: S603


def with_raw_dir(text: str, raw_dir: Path | None) -> str:
    """A params file's text, its `data.raw_dir` replaced if one is given.

    Raises:
        PipelineError: the text has no such line, or the folder is not there.
    """
    if raw_dir is None:
        return text
    if not raw_dir.is_dir():
        raise PipelineError(f"{raw_dir}: is no folder; name the one that holds the raw files.")
    line = f"  raw_dir: {quoted(raw_dir)}"
    changed, count = RAW_DIR.subn(lambda _: line, text)
    if count != 1:
        raise PipelineError(f"the params file has {count} lines `raw_dir:`; one was expected.")
    return changed
