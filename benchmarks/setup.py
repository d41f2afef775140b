"""Where the seconds of `make repro` from a clean clone go, and those of a second `dvc repro`.

`python -m benchmarks.setup --install` also makes an environment of its own, as `make setup` does.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.command import command as run
from benchmarks.page import Section
from benchmarks.stages import ROOT, cpu_seconds, main_stages

IMPORTS = ("torch", "pyarrow", "sklearn", "matplotlib", "dvc.repo")
INSTALL = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
FILES = ("requirements.txt", "requirements-peers.txt", "requirements-dev.txt")
REQUIRED = (*(f"-r{file}" for file in FILES), "-c", "constraints.txt")
TEXT = """
What `make repro` does in a clean clone, step by step, once each; packages come from pip's cache
where it has them. A stage's work is what its run facts tell; the rest of `dvc repro` is DVC itself
and, for each stage, the start of Python and the imports of which some follow. `evaluate` has
nothing to do where all comes out as committed, since metrics/ is in git.
"""


def main(
    *, install: Annotated[bool, typer.Option("--install", help="With an environment.")] = False
) -> Section:
    """Time what `make repro` does: a row a step."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        clone = Path(name) / "clone"
        rows.append(["clone", *_seconds(Path(name), "git", "clone", "--quiet", str(ROOT), "clone")])
        if install:
            own = str(clone / ".venv/bin/python")
            rows.append(["environment", *_seconds(clone, sys.executable, "-m", "venv", ".venv")])
            rows.append(["packages", *_seconds(clone, own, *INSTALL, *REQUIRED)])
        whole = _seconds(clone, "dvc", "repro", "--quiet")
        files = [clone / f"data/run_info/{stage}.json" for stage in main_stages()]
        facts = [json.loads(file.read_text()) for file in files if file.exists()]
        work = sum(fact["seconds"] for fact in facts)
        rows.append(["`dvc repro`", *whole])
        rows.append([f"- of it the work of its {len(facts)} stages", f"{work:.1f}", ""])
        rows.append(["a second `dvc repro`", *_seconds(clone, "dvc", "repro", "--quiet")])
        rows.append(["start of Python", *_seconds(clone, sys.executable, "-c", "pass")])
        rows += [
            [
                f"- and `import {package}`",
                *_seconds(clone, sys.executable, "-c", f"import {package}"),
            ]
            for package in IMPORTS
        ]
        help_command = (sys.executable, "-m", "stages.train", "--help")
        rows.append(["`python -m stages.train --help`", *_seconds(clone, *help_command)])
    header = ("n = 1", "seconds", "CPU seconds")
    command = f"python -m benchmarks.setup{' --install' if install else ''}"
    return Section("Set-up and overhead", command, TEXT, header, rows)


def _seconds(folder: Path, *command: str) -> tuple[str, str]:
    """On the clock, and of the CPU, that a command takes."""
    bin_first = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": bin_first, "DVC_NO_ANALYTICS": "1"}
    used, started = cpu_seconds(), time.perf_counter()
    subprocess.run(command, cwd=folder, env=env, check=True, stdout=subprocess.PIPE)  # noqa: S603
    return f"{time.perf_counter() - started:.1f}", f"{cpu_seconds() - used:.1f}"


if __name__ == "__main__":
    run(main)
