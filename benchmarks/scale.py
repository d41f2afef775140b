"""The pipeline on simulations of growing size: time and memory of every stage, and how they grow.

`python -m benchmarks.scale 1 3 10` runs 1, 3 and 10 million exposures, keeps what they took in
metrics/scale.csv beside other sizes, and writes the table of docs/scale.md. `--to-convergence
10` runs one with the epochs of params.yaml.
"""

import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks.command import command as run
from benchmarks.page import Section, machine
from benchmarks.stages import ROOT, Cost, main_stages, run_stages, total
from pipeline.files import write_text
from pipeline.params import Params
from pipeline.params_file import load_sections
from pipeline.text_files import read_csv, write_csv

KEPT, PAGE = ROOT / "metrics/scale.csv", ROOT / "docs/scale.md"
START, END = "<!-- by benchmarks.scale -->\n", "<!-- end -->\n"
USERS, ITEMS = 6_250, 1_250  # for every million exposures: 160 a user, 800 an item
MEASURED = 2_000  # validation users, and as many test users
EPOCHS = {"features": 1, "pretrain": 2, "graph": 1, "ratio": 2}
LIMIT = 1.1  # of a slope that is still called linear
TEXT = f"""
{USERS:,} users and {ITEMS:,} items for every million exposures; at most {MEASURED:,} validation and
{MEASURED:,} test users measured (`evaluate.users`); a fixed number of epochs
({", ".join(f"{name} {n}" for name, n in EPOCHS.items())}), since how many it takes to converge is
no matter of size. DeepFM's batch is that of params.yaml, or a quarter of the users where that is
more (50,000 at 32 M; see below). CPU seconds of all threads, the start of Python included; in
parentheses the seconds on the clock, without that start and with what else the machine does; in
brackets the most memory of the stage's process in MB. The slope is that of the logarithm of the
CPU seconds on that of the exposures: 1 is linear, (!) above {LIMIT}. Measured once a size, on
{{machines}}.
"""
Sizes = Mapping[float, Sequence[Cost]]  # by millions of exposures


def main(
    millions: Annotated[list[float] | None, typer.Argument(help="Exposures; 1 and 3.")] = None,
    until: Annotated[
        str | None, typer.Option(help="The last stage to run; what is known of others stays.")
    ] = None,
    to_convergence: Annotated[
        float | None, typer.Option(help="One size with the epochs of params.yaml; only shown.")
    ] = None,
) -> Section:
    """Measure these sizes, keep them, and show all that is kept."""
    if to_convergence is not None:
        return converged(to_convergence)
    millions = millions or [1.0, 3.0]
    for million in millions:
        keep(million, _run(million, EPOCHS, until), _cores(), KEPT)
        page = PAGE.read_text()
        before, rest = page.split(START)
        after = rest.split(END)[1]
        write_text([before, START, str(section(*kept(KEPT))), END, after], PAGE)
    return section(*kept(KEPT))


def _cores() -> str:
    """How many cores a stage uses, of which machine."""
    return f"{torch.get_num_threads()} of the {machine()}"


def section(sizes: Sizes, machines: str) -> Section:
    """A row a stage, a column a size."""
    millions = sorted(sizes)
    found: dict[str, dict[float, Cost]] = {}  # by stage, which one of the sizes may lack
    for million in millions:
        for cost in (*sizes[million], total(sizes[million])):
            found.setdefault(cost.stage, {})[million] = cost
    rows = [
        [
            stage,
            *(_shown(costs[million]) if million in costs else "" for million in millions),
            slope(list(costs), [cost.cpu_seconds for cost in costs.values()]),
        ]
        for stage, costs in found.items()
    ]
    header = ("n = 1", *(f"{million:g} M" for million in millions), "slope")
    command = f"python -m benchmarks.scale {' '.join(f'{million:g}' for million in millions)}"
    return Section("Measured", command, TEXT.format(machines=machines), header, rows)


def _shown(cost: Cost) -> str:
    return f"{cost.cpu_seconds:.1f} ({cost.seconds:.0f}) [{cost.peak_mb:,}]"


def slope(millions: Sequence[float], seconds: Sequence[float]) -> str:
    """Of log seconds on log size, marked where it is more than linear; nothing for one size."""
    if len(millions) < 2:
        return ""
    found = np.polyfit(np.log(millions), np.log(seconds), 1)[0]
    return f"{found:.2f}{' (!)' if found > LIMIT else ''}"


def keep(million: float, costs: Sequence[Cost], on: str, path: Path) -> None:
    """Put the costs of a size in the place of what was known of these stages of it."""
    known = read_csv(path) if path.exists() else []
    rows = {(float(row["millions"]), row["stage"]): row for row in known}
    for cost in costs:
        rows[million, cost.stage] = {
            "millions": f"{million:g}",
            "stage": cost.stage,
            "seconds": f"{cost.seconds:.2f}",
            "cpu_seconds": f"{cost.cpu_seconds:.2f}",
            "peak_mb": str(cost.peak_mb),
            "machine": on,
        }
    write_csv(list(rows.values()), path)


def kept(path: Path) -> tuple[Sizes, str]:
    """What `keep` has put there, and on what machines it was measured."""
    rows = read_csv(path)
    sizes = defaultdict(list)
    for row in rows:
        cost = Cost(
            row["stage"], float(row["seconds"]), float(row["cpu_seconds"]), int(row["peak_mb"])
        )
        sizes[float(row["millions"])].append(cost)
    return sizes, "; ".join(dict.fromkeys(row["machine"] for row in rows))


def converged(million: float) -> Section:
    """One size with the epochs of params.yaml; only shown."""
    costs = _run(million, {})
    rows = [
        [cost.stage, f"{cost.seconds:.0f}", f"{cost.cpu_seconds:.0f}", f"{cost.peak_mb:,}"]
        for cost in [*costs, total(costs)]
    ]
    text = f"{million:g} million exposures, epochs as params.yaml has them, on {_cores()}."
    header = ("n = 1", "seconds", "CPU seconds", "peak memory, MB")
    command = f"python -m benchmarks.scale --to-convergence {million:g}"
    return Section("To convergence", command, text, header, rows)


def batch_size(million: float) -> int:
    """Of DeepFM: that of params.yaml, or a quarter of the users where these are more."""
    usual = load_sections(Params, ROOT / "params.yaml", "features").features.batch_size
    return max(usual, round(million * USERS / 4))


def _run(million: float, epochs: Mapping[str, int], until: str | None = None) -> list[Cost]:
    stages = main_stages()
    if until is not None:
        if until not in stages:
            raise typer.BadParameter(f"--until {until}: the stages are {', '.join(stages)}.")
        stages = stages[: stages.index(until) + 1]
    size = {"users": USERS, "items": ITEMS, "exposures": 1_000_000}
    changes: dict[str, Mapping[str, object]] = {
        "simulation": {name: round(million * count) for name, count in size.items()},
        "evaluate": {"users": MEASURED},
        **{section: {"max_epochs": most} for section, most in epochs.items()},
    }
    changes["features"] = {**changes.get("features", {}), "batch_size": batch_size(million)}
    with tempfile.TemporaryDirectory() as folder:
        return run_stages(Path(folder), changes, stages)


if __name__ == "__main__":
    run(main)
