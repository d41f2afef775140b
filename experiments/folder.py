"""An experiment in a folder of its own: one of its params files made the present one, then run."""

import re
import subprocess
from pathlib import Path
from typing import NoReturn

import typer

from pipeline.errors import PipelineError
from pipeline.storage import write_bytes

RAW_DIR = re.compile(r"^  raw_dir: .*$", re.MULTILINE)


def run_folder(folder: Path, params: str, raw_dir: Path | None) -> NoReturn:
    """Make `params`.yaml the present params.yaml of `folder`, and run its dvc.yaml.

    Interrupted, it goes on where it stopped: finished stages are not run again, and one that was
    at work goes on after the last epoch that it kept.

    Args:
        folder: which experiment.
        params: name of a params file in it.
        raw_dir: replaces the file's `data.raw_dir`, if given.

    Raises:
        typer.Exit: with DVC's exit status, or with 1 after a line on what is wrong with `raw_dir`.
    """
    try:
        text = with_raw_dir((folder / f"{params}.yaml").read_text(), raw_dir)
    except PipelineError as error:
        typer.echo(f"{folder.name}: {error}", err=True)
        raise typer.Exit(1) from None
    write_bytes(text.encode(), folder / "params.yaml")
    command = ["dvc", "repro", str(folder / "dvc.yaml")]
    status = subprocess.run(command, check=False).returncode  # noqa: S603 - no outside part
    raise typer.Exit(status)


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
