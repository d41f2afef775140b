"""How soon can an item be scored that has just come? AUC by the number of its first exposures.

`python -m experiments.new_items` after `dvc repro`: takes a fifth of the tasks for new, learns
everything again as if their items did not exist, and places them without training.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from matplotlib.figure import Figure

from experiments.runs import counts_of
from experiments.shell import telling
from pipeline.files import write_bytes
from pipeline.params import Params, load_params
from pipeline.plots import COMMON, COMMON_SOFT, MUTED, as_svg
from pipeline.text_files import write_csv
from stages.shell import stage_app

if TYPE_CHECKING:
    from pipeline.newcomers.new_items import Point

app = stage_app()
KEYS = ("init", "seed", "features", "pretrain", "projection", "labels", "ratio", "evaluate")


@app.command()
def main(
    data: Annotated[Path, typer.Option(help="Reads: the folder that `dvc repro` filled.")] = Path(
        "data"
    ),
    params: Annotated[Path, typer.Option(help="Reads: the params it was filled by.")] = Path(
        "params.yaml"
    ),
    counts: Annotated[str, typer.Option(help="Numbers of exposures.")] = "5,10,20,50,100",
    out: Annotated[Path, typer.Option(help="Writes here: new_items.csv and new_items.svg.")] = Path(
        "metrics/new_items"
    ),
) -> None:
    """Measure how good tasks are that are placed by their first exposures, without training."""
    with telling("new_items"):
        numbers = counts_of(counts)
        wanted = load_params(params, *KEYS)
        points = [_rounded(point) for point in _measured(data, wanted, numbers)]
        write_csv([asdict(point) for point in points], out / "new_items.csv")
        write_bytes(figure_of(points).encode(), out / "new_items.svg")
    for point in points:
        interval = f"[{100 * point.ci95_low:.1f}, {100 * point.ci95_high:.1f}]"
        typer.echo(f"{point.exposures:>8}: AUC x 100 {100 * point.auc:.1f} {interval}")
    typer.echo(f"{points[0].tasks} new tasks; {out / 'new_items.csv'}, {out / 'new_items.svg'}")


def _measured(data: Path, params: Params, counts: list[int]) -> list["Point"]:
    from pipeline import schemas
    from pipeline.device import prepare_device
    from pipeline.newcomers.new_items import Tables, curve, learn_without, new_tasks
    from pipeline.pairs import ids_of
    from pipeline.score_matrix import score_matrix
    from pipeline.splits import measured_users
    from pipeline.storage import read_table

    tables = Tables(
        users=read_table(data / "prepared/users.parquet", schemas.USERS),
        items=read_table(data / "prepared/items.parquet", schemas.ITEMS),
        exposures=read_table(data / "prepared/exposures.parquet", schemas.EXPOSURES),
        splits=read_table(data / "prepared/splits.parquet", schemas.SPLITS),
        features=read_table(data / "features/users.parquet", schemas.FEATURES),
        tasks=read_table(data / "tasks.parquet", schemas.TASKS),
    )
    scores = read_table(data / "evaluation/scores.parquet", schemas.SCORES)
    ids = ids_of(tables.features, "user_id")
    measured = measured_users(tables.splits, tables.features, params.evaluate.users)
    new = new_tasks(tables, max(counts))
    trained = score_matrix(scores, tables.tasks, ids[measured.rows])[new][:, measured.test_columns]
    known = learn_without(tables, new, params, prepare_device(params.runtime))
    resamples = params.evaluate.bootstrap
    return curve(known, tables, new, measured.test, trained, counts, resamples=resamples)


def _rounded(point: "Point") -> "Point":
    """The point as the table has it: the figure then follows from the table alone."""
    auc, low, high = (round(value, 6) for value in (point.auc, point.ci95_low, point.ci95_high))
    return replace(point, auc=auc, ci95_low=low, ci95_high=high)


@as_svg
def figure_of(points: list["Point"]) -> Figure:
    """The curve, and beside it the tasks as trained."""
    *placed, trained = points
    x = np.arange(len(placed))
    figure = Figure(figsize=(3.6, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.axhspan(
        100 * trained.ci95_low, 100 * trained.ci95_high, color=COMMON_SOFT, alpha=0.35, lw=0
    )
    axes.axhline(100 * trained.auc, color=MUTED, lw=1, label="trained on all of them")
    axes.errorbar(
        x,
        [100 * p.auc for p in placed],
        [
            [100 * (p.auc - p.ci95_low) for p in placed],
            [100 * (p.ci95_high - p.auc) for p in placed],
        ],
        color=COMMON,
        marker="o",
        markersize=3,
        linewidth=1.2,
        label="placed, not trained",
    )
    axes.set_xticks(x, [p.exposures for p in placed])
    axes.set_xlabel("exposures of the new item")
    axes.set_title("AUC x 100 on held-out users", fontsize=8.5)
    axes.legend(loc="lower right")
    return figure


if __name__ == "__main__":
    app()
