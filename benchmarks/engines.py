"""`prepare` and `filter_tasks` on either engine: seconds and memory, by the number of exposures.

`python -m benchmarks.engines 1 10` runs 1 and 10 million exposures and prints a table.
"""

import filecmp
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.page import Section, machine
from benchmarks.stages import run_stages
from pipeline.datasets.simulation import simulate
from pipeline.params import Simulation

STAGES = ("prepare", "filter_tasks")
USERS, ITEMS = 6_250, 1_250  # for every million exposures
REPEATS = 0.1  # of the rows, repeat an earlier pair
TEXT = """
Own tables in Parquet: users with four labels, and exposures in no order, a tenth of them repeats;
{users:,} users and {items:,} items for every million rows, `runtime.partitions: 8`. Seconds by the
clock, the start of Python, Java and Spark included; in brackets the most memory of the stage's own
process in MB, without Spark's. The engines' tables were equal to the byte. Measured once, Spark as
local[2] with its default memory (1 GB), on {machine}.
"""


def main(millions: list[float]) -> Section:
    """A row an engine and a stage, a column a size."""
    shown: dict[tuple[str, str], list[str]] = {}
    for million in millions:
        with tempfile.TemporaryDirectory() as folder:
            for place, cells in _race(Path(folder), round(million * 1_000_000)).items():
                shown.setdefault(place, []).append(cells)
    header = ("n = 1", *(f"{million:g} M" for million in millions))
    rows = [[f"`{stage}`, {engine}", *cells] for (stage, engine), cells in shown.items()]
    command = f"python -m benchmarks.engines {' '.join(f'{million:g}' for million in millions)}"
    text = TEXT.format(users=USERS, items=ITEMS, machine=machine())
    return Section("Engines", command, text, header, rows)


def _race(folder: Path, rows: int) -> dict[tuple[str, str], str]:
    """What each stage took on each engine."""
    _write_tables(folder / "tables", rows)
    took: dict[tuple[str, str], str] = {}
    for engine in ("embedded", "spark"):
        (folder / engine).mkdir()
        for stage in STAGES:
            started = time.perf_counter()
            (cost,) = run_stages(
                folder / engine,
                {
                    "data": {"source": "tables", "tables_dir": str(folder / "tables")},
                    "runtime": {"engine": engine, "partitions": 8},
                },
                [stage],
            )
            seconds = time.perf_counter() - started
            took[stage, engine] = f"{seconds:.1f} [{cost.peak_mb:,}]"
    _require_equal(folder / "embedded/data", folder / "spark/data")
    return took


def _write_tables(folder: Path, rows: int) -> None:
    folder.mkdir()
    million = rows / 1_000_000
    distinct = round(rows * (1 - REPEATS))
    size = Simulation(
        users=round(USERS * million), items=round(ITEMS * million), exposures=distinct, seed=0
    )
    source = simulate(size)
    gen = np.random.default_rng(0)
    n = source.exposures.num_rows
    order = gen.permutation(np.append(np.arange(n), gen.integers(0, n, rows - n)))
    exposures = source.exposures.select(["user_id", "item_id"]).take(order)
    moments = pa.array(gen.integers(978_300_000, 1_000_000_000, rows))
    pq.write_table(exposures.append_column("timestamp", moments), folder / "exposures.parquet")
    pq.write_table(source.users, folder / "users.parquet")


def _require_equal(one: Path, other: Path) -> None:
    files = [path.relative_to(one) for path in one.rglob("*.parquet") if path.is_file()]
    differing = [f for f in files if not filecmp.cmp(one / f, other / f, shallow=False)]
    if differing:
        raise ValueError(f"the engines' tables differ: {', '.join(map(str, differing))}")


if __name__ == "__main__":
    print(main([float(size) for size in sys.argv[1:] or ["1", "10"]]))
