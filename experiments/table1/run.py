"""Rebuild Table 1 with one of the params files beside this one.

`make table1`, `make table1 PARAMS=small`, or with the files at hand: `make table1 RAW=folder`.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from experiments.folder import JobsOption, run_folder
from stages.shell import stage_app

app = stage_app()

FOLDER = Path("experiments/table1")


@app.command()
def main(
    params: Annotated[
        Literal["movielens", "oneseed", "small"], typer.Option(help="Which params file.")
    ] = "movielens",
    raw_dir: Annotated[
        Path | None,
        typer.Option(help="Folder that holds ratings.dat; without it the zip is downloaded."),
    ] = None,
    jobs: JobsOption = 2,
) -> None:
    """Make a params file the present one, run every cell, write metrics/table1/, by its `name`."""
    run_folder(FOLDER, params, raw_dir, jobs)


if __name__ == "__main__":
    app()
