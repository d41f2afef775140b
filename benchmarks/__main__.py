"""Run every benchmark and write docs/performance.md: `make benchmark`.

One alone, which only prints its table: `python -m benchmarks.training`, and so on.
"""

import subprocess
import sys

from benchmarks.page import render
from benchmarks.stages import ROOT
from pipeline.storage import write_bytes

BENCHMARKS = (
    *("training", "modes", "scoring", "evaluation", "deepfm", "parsing", "memory"),
    "setup --install",
)
PAGE = ROOT / "docs/performance.md"


def main() -> None:
    """Each in a process of its own, so that none leaves its memory to the next."""
    sections = []
    for name in BENCHMARKS:
        command = [sys.executable, "-m", *f"benchmarks.{name}".split()]
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
        print(printed.stdout, flush=True)
        sections.append(printed.stdout.rstrip("\n") + "\n")
        write_bytes(render(sections).encode(), PAGE)  # interrupted, it keeps what is measured


if __name__ == "__main__":
    main()
