"""An experiment in a folder of its own: one of its params files made the present one, then run."""

import json
import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
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

    DVC runs one stage after the other. With several jobs, of each stage's matrix so many instances
    run at once, each under a `dvc repro` of its own; they wait for one another where DVC keeps its
    books.

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
    pipeline = f"{folder}/dvc.yaml"
    if jobs > 1:
        for stage in stages(_told("stage", "list", "--name-only", pipeline).split()):
            changed = json.loads(_told("status", "--json", stage))
            _run_at_once([["--single-item", target] for target in changed], jobs)
    _run_at_once([[pipeline]], 1)
    raise typer.Exit


def stages(targets: Iterable[str]) -> list[str]:
    """The stages of targets such as folder/dvc.yaml:train@cell0-random-0, in their order."""
    return list(dict.fromkeys(target.split("@")[0] for target in targets))


def _told(*command: str) -> str:
    """What a command of DVC prints; where it fails DVC has said why."""
    done = subprocess.run([*DVC, *command], check=False, stdout=subprocess.PIPE, text=True)  # noqa: S603
    if done.returncode:
        raise typer.Exit(done.returncode)
    return done.stdout


def _run_at_once(options: Sequence[Sequence[str]], jobs: int) -> None:
    """Run `dvc repro` with each of the options, so many at once; after a failure start no more.

    Raises:
        typer.Exit: with the status of one that failed.
    """
    threads = max(1, (os.cpu_count() or 1) // jobs)
    env = {"OMP_NUM_THREADS": str(threads), **os.environ} if jobs > 1 else None
    failed: list[int] = []

    def run(chosen: Sequence[str]) -> None:
        if not failed:
            done = subprocess.run([*DVC, "repro", *chosen], env=env, check=False)  # noqa: S603
            failed.extend([done.returncode] if done.returncode else [])

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run, options))
    if failed:
        raise typer.Exit(failed[0])


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
