"""docs/performance.md: a section a benchmark, and what they were measured on."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from pipeline.markdown import markdown

PREFACE = """# Performance

Written by `make benchmark`; do not edit. Every figure is a median with its middle half in
brackets, over the rounds that the table names. The contestants of a table take turns within each
round, and a ratio is taken within a round. Where nothing else is said they have one thread, and a
second is one of CPU time: so what else the machine does moves the figures little. The stages and
the set-up run once, on every core.

Measured on {machine}.
"""


@dataclass(frozen=True)
class Section:
    """A table of the page and what to know about it."""

    title: str
    command: str
    text: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        table = markdown(self.header, self.rows)
        return f"## {self.title}\n\n`{self.command}`\n\n{self.text.strip()}\n\n{table}"


def render(sections: Sequence[str]) -> str:
    """The whole page, from its sections as text."""
    return "\n".join([PREFACE.format(machine=machine()), *sections])


def machine() -> str:
    """The processor, and the versions that matter."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "pyarrow"))
    return f"{_processor()}, Python {platform.python_version()}, {versions}"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} cores of {names[0]}" if names else platform.machine()
