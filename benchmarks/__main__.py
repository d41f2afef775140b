"""Run the benchmarks of docs/performance.md and write it: `make benchmark`.

One alone, which only prints its table: `python -m benchmarks.training`, and so on.
"""

import subprocess
import sys

from benchmarks.command import command
from benchmarks.page import render
from benchmarks.stages import ROOT
from pipeline.files import write_bytes

BENCHMARKS = (
    *("training", "modes", "scoring", "evaluation", "deepfm", "parsing", "memory", "busy"),
    "setup --install",
)
PAGE = ROOT / "docs/performance.md"


def main() -> str:
    """Run the benchmarks of docs/performance.md, each in a process of its own, and write it.

    Those of scale, engines, gpu, distributed, traffic and links have pages of their own.
    """
    sections = []
    for name in BENCHMARKS:
        printed = _run(name)
        print(printed, flush=True)
        sections.append(printed.rstrip("\n") + "\n")
        write_bytes(render(sections).encode(), PAGE)  # interrupted, it keeps what is measured
    return f"{PAGE.relative_to(ROOT)}: {len(sections)} sections"


def _run(name: str) -> str:
    """What a benchmark prints."""
    line = [sys.executable, "-m", *f"benchmarks.{name}".split()]
    return subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603


if __name__ == "__main__":
    command(main)
