"""`prepare` and `filter_tasks` on either engine: seconds and memory, by the number of exposures.

`python -m benchmarks.engines 1 10` runs 1 and 10 million exposures and prints a table.
"""

import filecmp
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from ruamel.yaml import YAML

from benchmarks.command import command as run
from benchmarks.page import Section, machine
from benchmarks.stages import ROOT

STAGES = ("prepare", "filter_tasks")
USERS, ITEMS = 6_250, 1_250  # for every million exposures
PARTITIONS = 8
TEXT = """
A Parquet file of exposures in no order, with repeats, {users:,} users and {items:,} items for every
million rows; `runtime.partitions: {partitions}`, Spark as local[2] with its default memory (1 GB).
CPU seconds of the stage and of all processes that it starts (Java, Spark's workers); in brackets
seconds by the clock, and the most memory of all of them together in MB. The engines' tables were
equal to the byte. Measured once, on {machine}; {load:.0f} other processes wanted the cores too,
which the clock counts.
"""


def main(
    millions: Annotated[list[float] | None, typer.Argument(help="Exposures; 1 and 10.")] = None,
) -> Section:
    """Time both engines: a row an engine and a stage, a column a size."""
    millions = millions or [1.0, 10.0]
    shown: dict[tuple[str, str], list[str]] = {}
    for million in millions:
        with tempfile.TemporaryDirectory() as folder:
            for place, cells in _race(Path(folder), round(million * 1_000_000)).items():
                shown.setdefault(place, []).append(cells)
    header = ("n = 1", *(f"{million:g} M" for million in millions))
    rows = [[f"`{stage}`, {engine}", *cells] for (stage, engine), cells in shown.items()]
    command = f"python -m benchmarks.engines {' '.join(f'{million:g}' for million in millions)}"
    load = max(os.getloadavg()[1] - 1, 0)
    text = TEXT.format(
        users=USERS, items=ITEMS, partitions=PARTITIONS, machine=machine(), load=load
    )
    return Section("Engines", command, text, header, rows)


def _race(folder: Path, rows: int) -> dict[tuple[str, str], str]:
    """What each stage took on each engine."""
    (folder / "tables").mkdir()
    pq.write_table(exposures(rows), folder / "tables/exposures.parquet")
    took: dict[tuple[str, str], str] = {}
    for engine in ("embedded", "spark"):
        (folder / engine).mkdir()
        write_params(folder / engine, folder / "tables", engine)
        for stage in STAGES:
            took[stage, engine] = measured(["-m", f"stages.{stage}"], folder / engine)
    _require_equal(folder / "embedded/data", folder / "spark/data")
    return took


def write_params(folder: Path, tables: Path, engine: str) -> None:
    """The params by which `prepare` in a folder reads these tables, by an engine."""
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    params["data"] |= {"source": "tables", "tables_dir": str(tables)}
    params["runtime"] |= {"engine": engine, "partitions": PARTITIONS}
    params["labels"] = {}
    YAML(typ="safe").dump(params, folder / "params.yaml")


def exposures(rows: int) -> pa.Table:
    """Who met what: some users are more active, and some items better known, than others."""
    gen = np.random.default_rng(0)
    counts = {"user_id": round(USERS * rows / 1e6), "item_id": round(ITEMS * rows / 1e6)}
    columns = {name: (n * gen.random(rows) ** 1.5).astype(np.int64) for name, n in counts.items()}
    return pa.table({**columns, "timestamp": gen.integers(978_300_000, 1_000_000_000, rows)})


def measured(arguments: list[str], folder: Path) -> str:
    """CPU seconds, and in brackets seconds and MB, of a run of Python and all that it starts."""
    command = [sys.executable, *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    started, cpu, peak = time.perf_counter(), dict[int, float](), 0
    with subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL) as process:  # noqa: S603
        while process.poll() is None:
            memory = 0
            with suppress(psutil.NoSuchProcess):
                parent = psutil.Process(process.pid)
                for one in (parent, *parent.children(recursive=True)):
                    with suppress(psutil.NoSuchProcess):
                        cpu[one.pid] = sum(one.cpu_times()[:2])
                        memory += one.memory_info().rss
            peak = max(peak, memory)
            time.sleep(0.1)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    seconds = time.perf_counter() - started
    return f"{sum(cpu.values()):.0f} [{seconds:.0f}, {peak / 1e6:,.0f}]"


def _require_equal(one: Path, other: Path) -> None:
    files = [path.relative_to(one) for path in one.rglob("*.parquet") if path.is_file()]
    differing = [f for f in files if not filecmp.cmp(one / f, other / f, shallow=False)]
    if differing:
        raise ValueError(f"the engines' tables differ: {', '.join(map(str, differing))}")


if __name__ == "__main__":
    run(main)
