"""One detector for many groups, beside scikit-learn's: pooled, and one for every group.

`python -m examples.groups`; docs/detector.md shows what it prints. After a stretch of ordinary days
each day brings two broken groups; see `examples.grouped_metrics`.
"""

import warnings
from dataclasses import dataclass
from time import perf_counter
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from sklearn.metrics import roc_auc_score

from examples.grouped_metrics import Bools, World, broken
from examples.ways import Collaborative, PerGroup, Pooled, Way, forest, neighbours, support

ALPHA = 0.01  # false-alarm rate asked for
LATER = 60  # days on which two groups are broken
OURS, QUICKEST = "this detector", "local outlier factor, one a group"
SHOWN = 5  # alarms of the first day
NEW_GROUPS, NEW_DAYS = 30, 14  # groups that come later, and for how long they have been there

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Case:
    """Rows to learn from, and later ones to judge.

    Attributes:
        before: ordinary days.
        ordinary: later days, ordinary too.
        later: the same days with two broken groups each.
        hit: (n,) which rows of these are broken.
    """

    before: pd.DataFrame
    ordinary: pd.DataFrame
    later: pd.DataFrame
    hit: Bools

    @classmethod
    def of(cls, world: World, days: int, more: int, gen: np.random.Generator) -> "Case":
        """Draw the days of a world."""
        first, then = np.arange(days), np.arange(days, days + more)
        before = world.table(world.volumes(first, gen), first, gen)
        usual = world.volumes(then, gen)
        volumes, hit = broken(usual, gen)
        ordinary, later = world.table(usual, then, gen), world.table(volumes, then, gen)
        return cls(before, ordinary, later, hit.ravel())


@dataclass(frozen=True)
class Outcome:
    """How a way did.

    Attributes:
        way: its name.
        auc: of broken against the other rows of the same days, all groups together.
        found: share of the broken rows that are flagged.
        beside: share of the other rows of these days that are flagged.
        ordinary: share of the rows of ordinary days that are flagged.
        worst: the same of the group of which it is the largest.
        seconds: to learn and to judge.
    """

    way: str
    auc: float
    found: float
    beside: float
    ordinary: float
    worst: float
    seconds: float


def ways(batch_size: int, max_epochs: int) -> dict[str, Way]:
    """What is compared, by name."""
    return {
        OURS: Collaborative(ALPHA, batch_size, max_epochs),
        "isolation forest, pooled": Pooled(forest(ALPHA), standardised=False),
        "local outlier factor, pooled": Pooled(neighbours(ALPHA), standardised=False),
        "isolation forest, on z-scores": Pooled(forest(ALPHA), standardised=True),
        "local outlier factor, on z-scores": Pooled(neighbours(ALPHA), standardised=True),
        "isolation forest, one a group": PerGroup(forest(ALPHA)),
        QUICKEST: PerGroup(neighbours(ALPHA)),
        "one-class SVM, one a group": PerGroup(support(ALPHA)),
    }


def measure(name: str, way: Way, case: Case, *, admit: bool = False) -> Outcome:
    """Learn what is usual, and judge the later days; `admit` what is no first lesson."""
    started = perf_counter()
    (way.admit if admit else way.learn)(case.before)
    score, flagged = way.judge(case.later)
    seconds = perf_counter() - started
    auc = float(roc_auc_score(~case.hit, score))
    false = way.judge(case.ordinary)[1]
    return Outcome(
        way=name,
        auc=auc,
        found=flagged[case.hit].mean(),
        beside=flagged[~case.hit].mean(),
        ordinary=false.mean(),
        worst=pd.Series(false).groupby(case.ordinary["group"].to_numpy()).mean().max(),
        seconds=seconds,
    )


def show(title: str, outcomes: list[Outcome]) -> None:
    """Print a table in Markdown; of several worlds the mean, the lowest and the highest."""
    columns = ("AUC", "found", "false alarms", "on ordinary days", "worst group", "seconds")
    typer.echo(f"{title}\n\n| | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    forms = {"auc": ".4f", "found": ".1%", "beside": ".2%", "ordinary": ".2%", "worst": ".1%"}
    forms["seconds"] = ".1f"
    for name in dict.fromkeys(o.way for o in outcomes):
        of_way = [o for o in outcomes if o.way == name]
        cells = [_cell([getattr(o, of) for o in of_way], form) for of, form in forms.items()]
        typer.echo(f"| {name} | {' | '.join(cells)} |")
    typer.echo("")


def _cell(values: list[float], form: str) -> str:
    mean, low, high = (f"{x:{form}}" for x in (np.mean(values), min(values), max(values)))
    return mean if len(values) == 1 else f"{mean} [{low.rstrip('%')}, {high.rstrip('%')}]"


def first_day(way: Way, case: Case) -> str:
    """What is flagged on the first of the later days, the least common first."""
    groups = case.later["group"].nunique()
    day = case.later.iloc[:groups]
    score, flagged = way.judge(day)
    usual = case.before.groupby("group")["events"].median().loc[day["group"]]
    listed = pd.DataFrame(
        {
            "group": day["group"],
            "events": np.expm1(day["events"]).round().astype(int),
            "usual": np.expm1(usual.to_numpy()).round().astype(int),
            "log_ratio": score.round(1),
            "broken": np.where(case.hit[:groups], "yes", ""),
        }
    )
    total = listed["events"].sum()
    alarms = listed[flagged].sort_values("log_ratio").head(SHOWN)
    return (
        f"Day 1: {total:,} events in all; {flagged.sum()} of {groups:,} groups flagged\n\n"
        f"{alarms.to_string(index=False)}\n"
    )


@app.command()
def main(
    groups: Annotated[int, typer.Option(help="How many groups.")] = 90,
    days: Annotated[int, typer.Option(help="Ordinary days to learn from.")] = 540,
    later: Annotated[int, typer.Option(help="Days on which two groups are broken.")] = LATER,
    few: Annotated[bool, typer.Option(help="Leave out all but the quickest rival.")] = False,
    batch_size: Annotated[int, typer.Option(help="Of this detector.")] = 1024,
    max_epochs: Annotated[int, typer.Option(help="Of this detector.")] = 15,
    seed: Annotated[int, typer.Option(help="Of the world.")] = 0,
    worlds: Annotated[int, typer.Option(min=1, help="With this seed and the following.")] = 1,
) -> None:
    """Compare detectors on groups of which two a day are broken while the total stays."""
    warnings.filterwarnings("ignore", message="n_neighbors")  # fewer, where a group is young
    known, young, day = [], [], ""
    for number in range(seed, seed + worlds):
        gen = np.random.default_rng(number)
        case = Case.of(World.of(groups, gen), days, later, gen)
        new = Case.of(World.of(NEW_GROUPS, gen, "new country"), NEW_DAYS, later, gen)
        compared = ways(batch_size, max_epochs)
        if few:
            compared = {name: compared[name] for name in (OURS, QUICKEST)}
        known += [measure(name, way, case) for name, way in compared.items()]
        day = day or first_day(compared[OURS], case)
        young += [measure(name, way, new, admit=True) for name, way in compared.items()]
    many = f"{worlds} worlds, each of " if worlds > 1 else ""
    size = f"{many}{groups:,} groups x {days} days, then {later} days with two broken groups each"
    show(size, known)
    typer.echo(day)
    show(
        f"{NEW_GROUPS} further groups of {NEW_DAYS} days (this detector learns nothing again)",
        young,
    )


if __name__ == "__main__":
    app()
