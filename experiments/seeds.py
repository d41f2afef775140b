"""Does a better choice of seed tasks than chance help, and how many does it take?

The paper draws the seed tasks at random and leaves the rest as future work. `make seeds` runs every
`pretrain.seed_method` with every number of seed tasks on MovieLens 1M, and compares with chance.
"""

import csv
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, get_args

import numpy as np
import typer
from matplotlib.figure import Figure

from experiments.runs import counts_of, figure, name_of, quoted, read_from, run_experiment
from experiments.shell import telling
from pipeline.arrays import Doubles
from pipeline.errors import PipelineError
from pipeline.files import write_bytes
from pipeline.markdown import markdown
from pipeline.params import SeedMethod
from pipeline.plots import LINES, as_svg
from pipeline.text_files import write_csv
from stages.shell import stage_app

Key = tuple[str, int]  # a method and a number of seed tasks

app = stage_app()

CHANCE = "random"
LOSS = "loss"
METHODS: tuple[str, ...] = get_args(SeedMethod)


@app.command()
def main(
    fixed: Annotated[
        list[str] | None, typer.Option("-S", help="KEY=VALUE, the same for every run. Repeatable.")
    ] = None,
    counts: Annotated[str, typer.Option(help="Numbers of seed tasks.")] = "10,64,100,252",
    methods: Annotated[str, typer.Option(help="Ways to choose them.")] = ",".join(METHODS),
    seeds: Annotated[str, typer.Option(help="Seeds, with commas between.")] = "0,1,2,3,4",
    raw_dir: Annotated[
        Path | None, typer.Option(help="Folder that holds the raw files; sets data.raw_dir.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Writes here: seeds.csv, seeds.md and seeds.svg.")
    ] = Path("metrics/seeds"),
) -> None:
    """Run every method, number and seed as a DVC experiment; compare each with chance.

    Interrupted, it goes on where it stopped: what was run is not run again.
    """
    settings = [*(fixed or []), *([f"data.raw_dir={quoted(raw_dir)}"] if raw_dir else [])]
    with telling("seeds"):
        rows = compared(_run_all(methods.split(","), counts_of(counts), seeds.split(","), settings))
        table = as_table(rows, len(seeds.split(",")))
        write_csv([asdict(row) for row in rows], out / "seeds.csv")
        write_bytes(table.encode(), out / "seeds.md")
        write_bytes(figure_of(rows).encode(), out / "seeds.svg")
    typer.echo(table)


Outcome = Mapping[str, Doubles]  # by yardstick, the AUC of each task (M,); the loss, (1,)


def _run_all(
    methods: Sequence[str], counts: Sequence[int], seeds: Sequence[str], fixed: Sequence[str]
) -> dict[Key, list[Outcome]]:
    if CHANCE not in methods or not set(methods) <= set(METHODS):
        raise PipelineError(
            f"--methods {','.join(methods)}: expected some of {','.join(METHODS)}, and {CHANCE} "
            "among them, to which the others are compared."
        )
    keys = itertools.product(methods, counts)
    return {key: [run_one(key, seed, fixed) for seed in seeds] for key in keys}


def run_one(key: Key, seed: str, fixed: Sequence[str]) -> Outcome:
    """Run the pipeline once; what came of it."""
    method, count = key
    chosen = [f"pretrain.seed_method={method}", f"pretrain.seed_tasks={count}"]
    settings = [*fixed, *chosen, f"seed={seed}"]
    name = name_of(settings)
    loss = figure(run_experiment(name, settings), "loss.valid")
    outcome: dict[str, list[float]] = {LOSS: [float("nan") if loss is None else loss]}
    for row in csv.DictReader(io.StringIO(read_from(name, "metrics/task_auc.csv"))):
        outcome.setdefault(row["label"], []).append(float(row["auc"] or "nan"))
    return {name: np.array(values) for name, values in outcome.items()}


@dataclass(frozen=True)
class Compared:
    """A method and number of seed tasks by one yardstick.

    Attributes:
        mean: over tasks and seeds; an AUC as a fraction, the loss in nats.
        spread: standard deviation over the seeds.
        gain: mean less that of chance, paired by seed and task.
        noise: the standard error of the gain. It adds up what the gain varies by over seeds and
            over tasks, so it stands for other draws of either.
    """

    method: str
    seed_tasks: int
    figure: str
    mean: float
    spread: float
    gain: float
    noise: float

    @property
    def beyond_noise(self) -> bool:
        """Whether the gain is more than twice its standard error away from none."""
        return abs(self.gain) > 2 * self.noise > 0


def compared(runs: Mapping[Key, Sequence[Outcome]]) -> list[Compared]:
    """Every method and number against chance with the same number, by every yardstick."""
    rows = []
    for (method, count), outcomes in runs.items():
        for name in outcomes[0]:
            own = _defined(outcomes, name)  # (seeds, tasks)
            apart = own - _defined(runs[CHANCE, count], name)
            of_seed = own.mean(1)
            rows.append(
                Compared(
                    method,
                    count,
                    name,
                    mean=float(of_seed.mean()),
                    spread=_deviation(of_seed),
                    gain=float(apart.mean()),
                    noise=float(np.hypot(_error(apart.mean(1)), _error(apart.mean(0)))),
                )
            )
    return rows


def _defined(outcomes: Sequence[Outcome], name: str) -> Doubles:
    """A yardstick's figures, (seeds, tasks), of tasks with an AUC: the same ones in every run."""
    stacked = np.stack([outcome[name] for outcome in outcomes])
    defined: Doubles = stacked[:, ~np.isnan(stacked[0])]
    return defined


def _deviation(values: Doubles) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _error(values: Doubles) -> float:
    return _deviation(values) / math.sqrt(len(values))


def as_table(rows: Sequence[Compared], seeds: int) -> str:
    """The rows in Markdown, AUCs x 100: mean and gain, bold where beyond the noise."""
    names = list(dict.fromkeys(row.figure for row in rows))
    found = {(row.seed_tasks, row.method, row.figure): row for row in rows}
    lines = [
        [str(count), method, *(_cell(found[count, method, name]) for name in names)]
        for count, method in sorted({(row.seed_tasks, row.method) for row in rows}, key=_in_order)
    ]
    header = ["M0", "seed tasks", *(f"{name} (gain)" for name in names)]
    note = (
        f"{seeds} seeds. Gain: over {CHANCE} with as many seed tasks, paired by seed and task, ± "
        "its standard error over both; bold beyond two of them. AUCs x 100; a lower loss is better."
    )
    return f"{markdown(header, lines, left=1)}\n{note}\n"


def _in_order(key: tuple[int, str]) -> tuple[int, int]:
    return key[0], METHODS.index(key[1])


def _cell(row: Compared) -> str:
    scale, digits = (1, 4) if row.figure == LOSS else (100, 2)
    mean = f"{scale * row.mean:.{digits}f} ± {scale * row.spread:.{digits}f}"
    if row.method == CHANCE:
        return mean
    gain = f"{scale * row.gain:+.{digits}f} ± {scale * row.noise:.{digits}f}"
    return f"{mean} (**{gain}**)" if row.beyond_noise else f"{mean} ({gain})"


@as_svg
def figure_of(rows: Sequence[Compared]) -> Figure:
    """Each yardstick against the number of seed tasks, a line a method."""
    names = list(dict.fromkeys(row.figure for row in rows))
    drawn = Figure(figsize=(2.6 * len(names), 2.6), layout="constrained")
    panels = drawn.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        scale = 1 if name == LOSS else 100
        for method, color in zip(METHODS, LINES, strict=True):
            own = [row for row in rows if (row.figure, row.method) == (name, method)]
            axes.errorbar(
                [row.seed_tasks for row in own],
                [scale * row.mean for row in own],
                [scale * row.spread for row in own],
                color=color,
                marker="o",
                markersize=3,
                linewidth=1.2,
                label=method,
            )
        axes.set_xscale("log")
        counts = sorted({row.seed_tasks for row in rows})
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.minorticks_off()
        axes.set_xlabel("seed tasks, M0")
        axes.set_title(name if name == LOSS else f"AUC x 100: {name}", fontsize=8.5)
    drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return drawn


if __name__ == "__main__":
    app()
