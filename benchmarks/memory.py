"""Time and peak memory of every stage on the default simulation."""

import tempfile
from pathlib import Path

from benchmarks.page import Section
from benchmarks.stages import run_stages

TEXT = """
The pipeline of params.yaml, each stage once, by the run facts that it writes: seconds of work,
without the start of Python, and the most memory that its process held.
"""


def main() -> Section:
    """A row a stage."""
    with tempfile.TemporaryDirectory() as folder:
        costs = run_stages(Path(folder), {})
    rows = [[f"`{cost.stage}`", f"{cost.seconds:.1f}", f"{cost.peak_mb:,}"] for cost in costs]
    total = sum(cost.seconds for cost in costs)
    rows.append(["all", f"{total:.1f}", f"{max(cost.peak_mb for cost in costs):,}"])
    header = ("n = 1", "seconds", "peak memory, MB")
    return Section("Stages", "python -m benchmarks.memory", TEXT, header, rows)


if __name__ == "__main__":
    print(main())
