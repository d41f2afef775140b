"""Reading ratings.dat, against pandas."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.command import command
from benchmarks.page import Section
from benchmarks.timing import race
from pipeline.datasets.dat_files import read_dat
from pipeline.datasets.movielens import RATINGS

LINES, ROUNDS = 500_000, 7
NAMES = ["user", "item", "rating", "timestamp"]
TEXT = f"""
A file of {LINES:,} lines such as `1::1193::5::978300760`, every field a whole number, every fault
refused with its line by ours and none by pandas. pandas splits at `::` in its Python engine only;
its C engine needs a separator of one letter, so `:` leaves empty columns to drop.
"""


def main() -> Section:
    """Lines a second three ways."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ratings.dat"
        gen = np.random.default_rng(0)
        columns = [gen.integers(1, below, LINES) for below in (6041, 3953, 6, 10**9)]
        lines = zip(*(column.tolist() for column in columns), strict=True)
        path.write_text("".join(f"{u}::{i}::{r}::{t}\n" for u, i, r, t in lines))
        jobs = {
            "pandas, Python engine": lambda: pd.read_csv(
                path, sep="::", engine="python", names=NAMES
            ),
            "pandas, C engine": lambda: pd.read_csv(
                path, sep=":", usecols=[0, 2, 4, 6], header=None
            ),
            "this pipeline": lambda: read_dat(path, RATINGS),
        }
        result = race({name: (job, LINES) for name, job in jobs.items()}, ROUNDS)
    rows = [
        [name, result.rate(name, 1e-6).show(), *(result.ratio(by, name).show() for by in jobs)][:4]
        for name in jobs
    ]
    header = (f"n = {ROUNDS}", "million lines/s", "x Python engine", "x C engine")
    return Section("Reading ratings", "python -m benchmarks.parsing", TEXT, header, rows)


if __name__ == "__main__":
    command(main)
