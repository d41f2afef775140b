"""Run the pipeline on MovieLens 1M as a named experiment, and commit its figures.

`make movielens`, or with a folder at hand: `make movielens RAW=path/to/ml-1m`.
"""

from pathlib import Path
from typing import Annotated

import typer

from experiments.runs import METRICS, figure, git, name_of, quoted, read_from, run_experiment
from experiments.shell import telling
from pipeline.files import write_bytes
from stages.shell import stage_app

app = stage_app()

NAME = "movielens"
KEPT = Path("metrics/movielens/auc.json")


@app.command()
def main(
    raw_dir: Annotated[
        Path | None,
        typer.Option(help="Folder that holds ratings.dat; without it the zip is downloaded."),
    ] = None,
) -> None:
    """Run MovieLens 1M with the present params; commit metrics/movielens/auc.json."""
    settings = ["data.source=movielens-1m"]
    if raw_dir is not None:
        settings.append(f"data.raw_dir={quoted(raw_dir)}")
    with telling(NAME):
        name = name_of(settings, NAME)  # with more where not all is committed
        metrics = run_experiment(name, settings)
        write_bytes(read_from(name, METRICS).encode(), KEPT)
        git("add", str(KEPT))
        if git("status", "--porcelain", str(KEPT)):
            git("commit", "--quiet", "-m", "Measure MovieLens 1M", "--", str(KEPT))
    shown = ", ".join(
        f"{key} {100 * value:.1f}"
        for key in ("age", "age7", "occupation", "exposure")
        if (value := figure(metrics, f"{key}.auc")) is not None
    )
    typer.echo(f"AUC x 100: {shown}; committed as {KEPT}.")
    typer.echo(f"Its report: `dvc exp apply {name}`, then data/report/report.html.")


if __name__ == "__main__":
    app()
