"""An experiment in a folder of its own: one of its params files made the present one, then run."""

import os
import re
import subprocess
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from pipeline.errors import PipelineError
from pipeline.storage import write_bytes

RAW_DIR = re.compile(r"^  raw_dir: .*$", re.MULTILINE)
DVC = ("dvc", "--wait-for-lock")

JobsOption = Annotated[
    int, typer.Option(min=1, help="Stages at once, each with its share of the CPU's cores.")
]


def run_folder(folder: Path, params: str, raw_dir: Path | None, jobs: int) -> NoReturn:
    """Make `params`.yaml the present params.yaml of `folder`, and run its dvc.yaml.

    Interrupted, it goes on where it stopped: finished stages are not run again, and one that was
    at work goes on after the last epoch that it kept.

    DVC runs one stage after the other. With several jobs, the instances of each stage's matrix are
    dealt out to as many `dvc repro`, which wait for one another where DVC keeps its books.

    Args:
        folder: which experiment; each stage of its dvc.yaml comes after those that it needs.
        params: name of a params file in it.
        raw_dir: replaces the file's `data.raw_dir`, if given.
        jobs: how many stages at once.

    Raises:
        typer.Exit: with DVC's exit status, or with 1 after a line on what is wrong with `raw_dir`.
    """
    try:
        text = with_raw_dir((folder / f"{params}.yaml").read_text(), raw_dir)
    except PipelineError as error:
        typer.echo(f"{folder.name}: {error}", err=True)
        raise typer.Exit(1) from None
    write_bytes(text.encode(), folder / "params.yaml")
    pipeline = str(folder / "dvc.yaml")
    if jobs > 1:
        listed = subprocess.run(  # noqa: S603 - no outside part
            [*DVC, "stage", "list", "--name-only", pipeline],
            check=True,
            capture_output=True,
            text=True,
        )
        for targets in by_stage(listed.stdout.split()):
            if len(targets) > 1:
                _run([["--single-item", *targets[job::jobs]] for job in range(jobs)], jobs)
            else:
                _run([targets], 1)
    _run([[pipeline]], 1)
    raise typer.Exit


def by_stage(targets: Iterable[str]) -> list[list[str]]:
    """Targets such as folder/dvc.yaml:train@cell0-random-0, in order, those of a stage together."""
    return [list(group) for _, group in groupby(targets, key=lambda name: name.split("@")[0])]


def _run(options: list[list[str]], jobs: int) -> None:
    """Run `dvc repro` with each of the options at once; wait for all, then exit if one failed."""
    threads = max(1, (os.cpu_count() or 1) // jobs)
    env = {"OMP_NUM_THREADS": str(threads), **os.environ} if jobs > 1 else dict(os.environ)
    running = [
        subprocess.Popen([*DVC, "repro", *chosen], env=env)  # noqa: S603 - no outside part
        for chosen in options
    ]
    statuses = [process.wait() for process in running]
    if any(statuses):
        raise typer.Exit(max(statuses, key=abs))


def with_raw_dir(text: str, raw_dir: Path | None) -> str:
    """A params file's text, its `data.raw_dir` replaced if one is given.

    Raises:
        PipelineError: the text has no such line, or the folder is not there.
    """
    if raw_dir is None:
        return text
    if not raw_dir.is_dir():
        raise PipelineError(f"{raw_dir}: is no folder; name the one that holds the raw files.")
    line = f"  raw_dir: {str(raw_dir.resolve())!r}"
    changed, count = RAW_DIR.subn(lambda _: line, text)
    if count != 1:
        raise PipelineError(f"the params file has {count} lines `raw_dir:`; one was expected.")
    return changed
