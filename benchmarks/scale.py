"""The pipeline on simulations of growing size: time and memory of every stage, and how they grow.

`python -m benchmarks.scale 1 3 10` runs 1, 3 and 10 million exposures and prints a table.
"""

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.page import Section, machine
from benchmarks.stages import Cost, run_stages, total

USERS, ITEMS = 6_250, 1_250  # for every million exposures: 160 a user, 800 an item
MEASURED = 2_000  # validation users, and as many test users
EPOCHS = {"features": 1, "pretrain": 2, "graph": 1, "ratio": 2}
TEXT = f"""
{USERS:,} users and {ITEMS:,} items for every million exposures; a fixed number of epochs
({", ".join(f"{name} {n}" for name, n in EPOCHS.items())}), since how many it takes to converge is
no matter of size. CPU seconds of all threads, the start of Python included, and in brackets the
most memory of the stage's process in MB. The last column is the slope of the logarithm of the
seconds on that of the exposures: 1 is linear. Measured once a size, on
{{machine}}.
"""


def main(millions: list[float]) -> Section:
    """A row a stage, a column a size."""
    runs = [[*costs, total(costs)] for costs in map(_run, millions)]
    rows = [
        [
            costs[0].stage,
            *(f"{cost.cpu_seconds:.1f} [{cost.peak_mb:,}]" for cost in costs),
            _slope(millions, [cost.cpu_seconds for cost in costs]),
        ]
        for costs in zip(*runs, strict=True)
    ]
    header = ("n = 1", *(f"{million:g} M" for million in millions), "slope")
    command = f"python -m benchmarks.scale {' '.join(f'{million:g}' for million in millions)}"
    return Section("Scale", command, TEXT.format(machine=machine()), header, rows)


def _run(million: float) -> list[Cost]:
    size = {"users": USERS, "items": ITEMS, "exposures": 1_000_000}
    changes: dict[str, Mapping[str, object]] = {
        "simulation": {name: round(million * count) for name, count in size.items()},
        "evaluate": {"users": MEASURED},
        **{section: {"max_epochs": epochs} for section, epochs in EPOCHS.items()},
    }
    with tempfile.TemporaryDirectory() as folder:
        return run_stages(Path(folder), changes)


def _slope(millions: list[float], seconds: list[float]) -> str:
    if len(millions) < 2:
        return ""
    return f"{np.polyfit(np.log(millions), np.log(seconds), 1)[0]:.2f}"


if __name__ == "__main__":
    print(main([float(size) for size in sys.argv[1:] or ["1", "3"]]))
