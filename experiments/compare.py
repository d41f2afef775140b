"""Run the pipeline for every combination of settings, times several seeds; print one table.

`make compare` compares the initialisations: python -m experiments.compare --over 'init=random|mean'
"""

import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from experiments.runs import METRICS, figure, labels, name_of, run_experiment
from experiments.shell import telling
from pipeline.errors import PipelineError
from pipeline.files import write_bytes
from pipeline.markdown import markdown
from stages.shell import stage_app

app = stage_app()

EXPOSURE = ("exposure.auc", "exposure_valid.auc")
AUCS = (  # beside those of the sections `trivial` and `leak`
    *("auc", "ci95_low", "ci95_high", "median", "own_half", "supervised"),
    *("perfect_label", "perfect_label_own_half", "pair_auc"),
)
MISSING = "-"


@app.command()
def main(
    over: Annotated[
        list[str] | None, typer.Option(help="KEY=A|B|C: one run for each value. Repeatable.")
    ] = None,
    fixed: Annotated[
        list[str] | None, typer.Option("-S", help="KEY=VALUE, the same for every run. Repeatable.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, with commas between.")] = "0,1,2",
    figures: Annotated[
        str | None,
        typer.Option(
            help="Keys of metrics/auc.json; AUCs are shown x 100, all else as it is.  "
            "[default: AUCs by labels and exposures]"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Writes the table to this file too.")] = None,
) -> None:
    """Run every combination as a DVC experiment; print the mean and spread over the seeds.

    Interrupted, it goes on where it stopped: what was run is not run again.
    """
    with telling("compare"):
        table = compare(
            [_choices(one) for one in over or ["init=random|learned|mean|histogram"]],
            fixed or [],
            seeds.split(","),
            figures.split(",") if figures else [f"{name}.auc" for name in labels()] + [*EXPOSURE],
        )
    typer.echo(table)
    if out is not None:
        write_bytes(table.encode() + b"\n", out)


def compare(
    over: Sequence[Sequence[str]],
    fixed: Sequence[str],
    seeds: Sequence[str],
    figures: Sequence[str],
) -> str:
    """The table, in Markdown: a row a combination, mean ± standard deviation over the seeds."""
    rows = []
    for combination in itertools.product(*over):
        runs = []
        for seed in seeds:
            settings = [*fixed, *combination, f"seed={seed}"]
            runs.append(run_experiment(name_of(settings), settings))
        cells = [_mean_and_spread(key, [figure(run, key) for run in runs]) for key in figures]
        rows.append([", ".join(combination), *cells])
    for number, key in enumerate(figures, start=1):
        if all(row[number] == MISSING for row in rows):
            raise PipelineError(f"--figures: no run has {key} in {METRICS}.")
    return markdown([f"{len(seeds)} seed{'s' * (len(seeds) > 1)}", *figures], rows).rstrip("\n")


def _choices(over: str) -> list[str]:
    key, equals, values = over.partition("=")
    if not equals or not values:
        raise PipelineError(f"--over {over!r}: expected KEY=A|B|C, such as init=random|learned.")
    return [f"{key}={value}" for value in values.split("|")]


def _mean_and_spread(key: str, values: Sequence[float | None]) -> str:
    """AUCs x 100, everything else as it is; "-" where a run lacks the figure."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return MISSING
    scale, digits = (100, 2) if _is_auc(key) else (1, 4)
    spread = f" ± {scale * statistics.stdev(known):.{digits}f}" if len(known) > 1 else ""
    return f"{scale * statistics.mean(known):.{digits}f}{spread}"


def _is_auc(key: str) -> bool:
    section, _, name = key.partition(".")
    return section in ("trivial", "leak") or (section != "calibration" and name in AUCS)


if __name__ == "__main__":
    app()
