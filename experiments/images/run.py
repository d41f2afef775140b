"""Run the image experiments with one of the params files beside this one.

`make images`, `make images PARAMS=full`, or with a folder at hand: `make images RAW=path/to/raw`.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from experiments.folder import JobsOption, run_folder
from stages.shell import stage_app

app = stage_app()

FOLDER = Path("experiments/images")


@app.command()
def main(
    params: Annotated[
        Literal["smoke", "small", "half-hour", "full"], typer.Option(help="Which params file.")
    ] = "small",
    raw_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of cifar-10-batches-bin/ and mnist/; without it, a download."),
    ] = None,
    jobs: JobsOption = 2,
) -> None:
    """Make a params file the present one, and run all stages with it."""
    run_folder(FOLDER, params, raw_dir, jobs)


if __name__ == "__main__":
    app()
