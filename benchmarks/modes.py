"""Drawn negatives against the full grid: validation loss for CPU seconds.

`python -m benchmarks.modes` trains on the default simulation, `python -m benchmarks.modes DIR` on
the MovieLens 1M that lies in that folder.
"""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated

import torch
import typer

from benchmarks.command import command as run
from benchmarks.page import Section
from benchmarks.stages import main_stages, run_stages
from pipeline import schemas
from pipeline.arrays import Singles
from pipeline.conditional import train_conditional
from pipeline.embedding_matrix import embedding_matrix
from pipeline.examples import Examples
from pipeline.params import Ratio, load_params
from pipeline.storage import read_table
from pipeline.training.history import Row, best_row
from pipeline.training.session import Session

SEEDS = (0, 1, 2)
WAYS: Mapping[str, Mapping[str, object]] = {
    "sampled": {"mode": "sampled"},
    "grid, 16 tasks a step": {"mode": "grid", "grid_tasks": 16},
    "grid, 4 tasks a step": {"mode": "grid", "grid_tasks": 4},
}
TEXT = """
Algorithm 1 on {source}: {pairs:,} training exposures of {users:,} users to {tasks:,} tasks, with
the other params of params.yaml, from the start until the validation loss has stopped falling.
`sampled` draws a negative for each exposure; `grid` takes each task with every user, so that there
is none to draw (`ratio.mode`). CPU seconds with the validations; those in the last column are until
the loss is {target:.4f} or less, which every run reaches. Mean and standard deviation over the
seeds {seeds}.
"""


@dataclass(frozen=True)
class Trained:
    """A training: after each epoch the CPU seconds so far and the epoch's row."""

    seconds: list[float]
    rows: list[Row]

    @property
    def best(self) -> int:
        """The epoch of lowest validation loss, from 0."""
        return self.rows.index(best_row(self.rows))

    def until(self, loss: float) -> float:
        """CPU seconds until the validation loss is no more than this."""
        pairs = zip(self.seconds, self.rows, strict=True)
        return next(spent for spent, row in pairs if row["valid_loss"] <= loss)


def main(
    raw_dir: Annotated[
        str | None, typer.Argument(help="Folder of MovieLens 1M; without it, the simulation.")
    ] = None,
) -> Section:
    """Train with drawn negatives and with all of them: a row a mode."""
    source = "the default simulation" if raw_dir is None else "MovieLens 1M"
    examples, start, params = prepared(raw_dir)
    runs = {
        name: [train(examples, start, params.model_copy(update=dict(changes)), s) for s in SEEDS]
        for name, changes in WAYS.items()
    }
    every = [one for of_mode in runs.values() for one in of_mode]
    target = max(one.rows[one.best]["valid_loss"] for one in every)
    rows = [[name, *_figures(of_mode, target)] for name, of_mode in runs.items()]
    header = (
        f"n = {len(SEEDS)}",
        *("CPU seconds an epoch", "epochs to the lowest loss", "lowest validation loss"),
        *("its AUC x 100", f"CPU seconds until {target:.4f}"),
    )
    command = f"python -m benchmarks.modes{'' if raw_dir is None else ' DIR'}"
    text = TEXT.format(
        source=source,
        pairs=len(examples.learned),
        users=len(examples.train),
        tasks=examples.tasks,
        target=target,
        seeds=", ".join(map(str, SEEDS)),
    )
    return Section("Drawn negatives or all of them", command, text, header, rows)


def prepared(raw_dir: str | None) -> tuple[Examples, Singles, Ratio]:
    """What `train` reads: the stages before it, run in a folder of their own."""
    stages = main_stages()
    changes = {}
    if raw_dir:
        resolved = str(Path(raw_dir).resolve())  # the stages run in another folder
        changes = {"data": {"source": "movielens-1m", "raw_dir": resolved}}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_stages(folder, changes, stages[: stages.index("train")])
        data = folder / "data"
        tasks = read_table(data / "tasks.parquet", schemas.TASKS)
        examples = Examples.of(
            read_table(data / "features/users.parquet", schemas.FEATURES),
            tasks,
            read_table(data / "prepared/exposures.parquet", schemas.EXPOSURES),
            read_table(data / "prepared/splits.parquet", schemas.SPLITS),
        )
        start = read_table(data / "task_init.parquet", schemas.TASK_EMBEDDINGS)
        return (
            examples,
            embedding_matrix(start, tasks),
            load_params(folder / "params.yaml", "ratio").ratio,
        )


def train(examples: Examples, start: Singles, params: Ratio, seed: int) -> Trained:
    """Train once."""
    one, started = Trained([], []), time.process_time()

    def note(row: Row) -> None:
        one.seconds.append(time.process_time() - started)
        one.rows.append(row)

    torch.set_num_threads(1)
    train_conditional(examples, start, params=params, seed=seed, session=Session(report=note))
    return one


def _figures(runs: list[Trained], target: float) -> list[str]:
    best = [one.rows[one.best] for one in runs]
    return [
        _spread([one.seconds[-1] / len(one.rows) for one in runs], ".3g"),
        _spread([row["epoch"] for row in best], ".0f"),
        _spread([row["valid_loss"] for row in best], ".4f"),
        _spread([100 * row["valid_auc"] for row in best], ".2f"),
        _spread([one.until(target) for one in runs], ".3g"),
    ]


def _spread(values: list[float], shape: str) -> str:
    return f"{mean(values):{shape}} ± {stdev(values):{shape}}"


if __name__ == "__main__":
    run(main)
