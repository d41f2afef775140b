"""Run the image experiments with one of the params files beside this one.

`make images`, `make images PARAMS=full`, or with a folder at hand: `make images RAW=path/to/raw`.
Interrupted, it goes on where it stopped: finished stages are not run again, and one that was at
work goes on after the last epoch that it kept.
"""

import re
import subprocess
from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.errors import PipelineError
from pipeline.storage import write_bytes

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

FOLDER = Path("experiments/images")
RAW_DIR = re.compile(r"^  raw_dir: .*$", re.MULTILINE)


@app.command()
def main(
    params: Annotated[
        Literal["smoke", "small", "full"], typer.Option(help="Which params file.")
    ] = "small",
    raw_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of cifar-10-batches-bin/ and mnist/; without it, a download."),
    ] = None,
) -> None:
    """Make a params file the present one, and run all stages with it."""
    try:
        text = with_raw_dir((FOLDER / f"{params}.yaml").read_text(), raw_dir)
    except PipelineError as error:
        typer.echo(f"images: {error}", err=True)
        raise typer.Exit(1) from None
    write_bytes(text.encode(), FOLDER / "params.yaml")
    command = ["dvc", "repro", str(FOLDER / "dvc.yaml")]
    raise typer.Exit(subprocess.run(command, check=False).returncode)  # noqa: S603 - no outside part


def with_raw_dir(text: str, raw_dir: Path | None) -> str:
    """A params file's text, its `data.raw_dir` replaced if one is given.

    Raises:
        PipelineError: the text has no such line, or the folder is not there.
    """
    if raw_dir is None:
        return text
    if not raw_dir.is_dir():
        raise PipelineError(f"{raw_dir}: is no folder; name the one that holds mnist/.")
    line = f"  raw_dir: {str(raw_dir.resolve())!r}"
    changed, count = RAW_DIR.subn(lambda _: line, text)
    if count != 1:
        raise PipelineError(f"the params file has {count} lines `raw_dir:`; one was expected.")
    return changed


if __name__ == "__main__":
    app()
