"""Time and peak memory of every stage on the default simulation."""

import tempfile
from pathlib import Path

from benchmarks.command import command
from benchmarks.page import Section
from benchmarks.stages import run_stages, total

TEXT = """
The pipeline of params.yaml, each stage once, by the run facts that it writes: seconds of work
without the start of Python, and the most memory that its process held. CPU seconds are of all its
threads, the start included; other load moves them too (see below).
"""


def main() -> Section:
    """A row a stage."""
    with tempfile.TemporaryDirectory() as folder:
        costs = run_stages(Path(folder), {})
    rows = [
        [cost.stage, f"{cost.seconds:.1f}", f"{cost.cpu_seconds:.1f}", f"{cost.peak_mb:,}"]
        for cost in (*costs, total(costs))
    ]
    header = ("n = 1", "seconds", "CPU seconds", "peak memory, MB")
    return Section("Stages", "python -m benchmarks.memory", TEXT, header, rows)


if __name__ == "__main__":
    command(main)
