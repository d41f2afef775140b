"""A stage on every core, alone and beside a process that keeps one of them busy."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.command import command
from benchmarks.page import Section
from benchmarks.stages import main_stages, run_stages
from benchmarks.timing import Spread
from pipeline.threads import SPINS

ROUNDS = 5
STAGE = "train"
GNU = 300_000  # turns after which a thread sleeps, where nothing says otherwise
WAYS = {
    "GNU OpenMP's own": {"GOMP_SPINCOUNT": str(GNU)},
    "this pipeline's": {"GOMP_SPINCOUNT": str(SPINS)},
    "one thread, which never waits": {"OMP_NUM_THREADS": "1"},
}
TEXT = """
Wall-clock seconds of `{stage}` with params.yaml, by how long a thread spins for the others before
it sleeps: on idle cores, and while another process keeps one of them busy. A thread that spins
there holds the core for which the last thread waits.
"""


@contextmanager
def _busy() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main() -> Section:
    """A row a way to wait, a column for each of the two machines."""
    idle: dict[str, list[float]] = {way: [] for way in WAYS}
    beside: dict[str, list[float]] = {way: [] for way in WAYS}
    stages = main_stages()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_stages(folder, {}, stages[: stages.index(STAGE)])
        for _ in range(ROUNDS):
            for way, settings in WAYS.items():
                (alone,) = run_stages(folder, {}, [STAGE], settings)
                idle[way].append(alone.seconds)
                with _busy():
                    (shared,) = run_stages(folder, {}, [STAGE], settings)
                beside[way].append(shared.seconds)
    rows = [[way, *(Spread.of(one[way]).show() for one in (idle, beside))] for way in WAYS]
    header = (f"n = {ROUNDS}", "idle, s", "beside a busy process, s")
    text = TEXT.format(stage=STAGE)
    return Section("On a busy machine", "python -m benchmarks.busy", text, header, rows)


if __name__ == "__main__":
    command(main)
