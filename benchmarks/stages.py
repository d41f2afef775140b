"""Seconds and peak memory of every stage, each in a process of its own, in a folder of its own."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Cost:
    """What a stage took, by its own run facts, where its start is not in the seconds."""

    stage: str
    seconds: float
    cpu_seconds: float  # of all its threads, its start included
    peak_mb: int


def total(costs: Sequence[Cost]) -> Cost:
    """Of all stages: the sum of the seconds, the greatest memory."""
    return Cost(
        "all",
        sum(cost.seconds for cost in costs),
        sum(cost.cpu_seconds for cost in costs),
        max(cost.peak_mb for cost in costs),
    )


def main_stages() -> list[str]:
    """The stages of dvc.yaml, in their order."""
    return list(YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"])


def run_stages(
    folder: Path,
    changes: Mapping[str, Mapping[str, object]],
    stages: Sequence[str] | None = None,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> list[Cost]:
    """Run the main pipeline in `folder`, with params.yaml but for `changes`; without DVC.

    Or only those of its `stages`, in their order; all with `environment` besides.

    Raises:
        CalledProcessError: a stage fails; its own message stands on stderr.
    """
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    for section, values in changes.items():
        params[section] |= values
    params["data"]["tables_dir"] = str(ROOT / params["data"]["tables_dir"])
    YAML(typ="safe").dump(params, folder / "params.yaml")
    return [_run(stage, folder, environment) for stage in stages or main_stages()]


def _run(stage: str, folder: Path, environment: Mapping[str, str]) -> Cost:
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-m", f"stages.{stage}"]
    before = cpu_seconds()
    subprocess.run(command, cwd=folder, env=env, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    facts = json.loads((folder / f"data/run_info/{stage}.json").read_text())
    return Cost(stage, facts["seconds"], cpu_seconds() - before, facts["peak_memory_mb"])


def cpu_seconds() -> float:
    """Of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
