"""What the long loops found, for people to read: docs/reliability-results.md."""

import os
import platform
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

FILE = Path(__file__).parents[1] / "docs/reliability-results.md"
HEADER = """# What the long loops found

Written by the tests themselves, under `make test-full`; for one section, `python -m pytest -m full`
and the file that it names. What the promises are: [reliability.md](reliability.md).
"""


def record(title: str, test_file: str, lines: Sequence[str]) -> None:
    """Write the section `title`, in the place of an earlier one; the others stay."""
    text = FILE.read_text() if FILE.exists() else ""
    sections = dict(re.findall(r"(?ms)^## ([^\n]+)\n\n(.*?)\n*(?=^## |\Z)", text))
    made = (
        f"`tests/{Path(test_file).name}`, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, torch {version('torch')}, dvc {version('dvc')}."
    )
    sections[title] = "\n".join([made, "", *lines])
    parts = [f"## {name}\n\n{body}\n" for name, body in sorted(sections.items())]
    FILE.write_text("\n".join([HEADER, *parts]))
