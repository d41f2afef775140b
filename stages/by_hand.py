"""Scoring by hand: a `Scorer` is asked for what the options name, which is shown or written."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import typer

from pipeline.by_hand import ALPHA
from pipeline.by_hand.formats import Format
from pipeline.errors import PipelineError
from stages.shell import Run, show

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.by_hand.known import Files
    from pipeline.by_hand.naming import Listed
    from pipeline.by_hand.scorer import Scorer

MOST_EXPLAINED = 100  # pairs
ENDINGS = ("", "txt", "csv", "json", "parquet")  # of --to, that say what to write


@dataclass(frozen=True)
class Asked:
    """The options of `score` that ask for something by hand; see there."""

    users: str | None
    items: str | None
    pairs: Path | None
    everything: bool
    top: int | None
    fresh: bool
    unseen: bool
    known: bool
    alpha: float | None
    explain: int | None
    asked_format: Format | None
    to: Path | None
    data: Path | None
    state: Path | None

    @property
    def anything(self) -> bool:
        """Whether any of them is set, sensible or not."""
        return any(option is not None and option is not False for option in vars(self).values())

    @property
    def format(self) -> Format:
        """What the answer looks like: as asked, or as the file to write is called."""
        if self.asked_format is not None:
            return self.asked_format
        return next((known for known in get_args(Format) if known == self._ending), "table")

    @property
    def _ending(self) -> str:
        return self.to.suffix.removeprefix(".") if self.to else ""

    def check(self) -> None:
        """Raise PipelineError unless the options go together."""
        ways = {
            "--users or --items": bool(self.users or self.items),
            "--pairs": self.pairs is not None,
            "--all": self.everything,
        }
        chosen = [way for way, taken in ways.items() if taken]
        if len(chosen) != 1:
            raise PipelineError(
                f"scoring by hand takes one of {', '.join(ways)}; "
                f"found {' and '.join(chosen) or 'none of them'}."
            )
        if self.top is not None and chosen != ["--users or --items"]:
            raise PipelineError("--top picks from what --users or --items name; name either.")
        if self.fresh and self.top is None:
            raise PipelineError("--fresh takes the lowest scores first; say how many by --top.")
        if self.explain is not None and (self.everything or self.top is not None or self.unseen):
            raise PipelineError("--explain takes named pairs: by --users with --items, or --pairs.")
        if self.explain is not None and self.alpha is not None:
            raise PipelineError("--explain gives no verdicts, which --alpha is for; leave it out.")
        if self.to is not None and self.asked_format is None and self._ending not in ENDINGS:
            raise PipelineError(
                f"--to {self.to}: expected a name that ends in .csv, .json, .parquet or .txt, or "
                "what to write by --format."
            )
        if self.to is not None and not self.to.parent.is_dir():
            raise PipelineError(
                f"--to {self.to}: there is no folder {self.to.parent}; make it, or name another."
            )
        if self.to is None and (self.everything or self.format == "parquet"):
            raise PipelineError("that is nothing to show on a screen; name a file by --to.")


def files_of(context: typer.Context) -> "Files":
    """The files that options name, one by one; all others where they lie in the folder --data."""
    from pipeline.by_hand.known import Files

    below = Files.below(context.params["data"] or Path("data"))
    named = {}
    for name in (field.name for field in fields(Files)):
        source = context.get_parameter_source(name)
        if source and source.name != "DEFAULT":  # by name: some typers have a click of their own
            named[name] = context.params[name]
    return replace(below, **named)


def answer(asked: Asked, files: "Files", run: Run) -> None:
    """Score what is asked for, and show or write it.

    Raises:
        PipelineError: options that do not go together, an id that is not known, a faulty file.
    """
    asked.check()
    from pipeline.by_hand.output import as_text, write_parquet
    from pipeline.by_hand.scorer import Scorer
    from pipeline.files import write_text

    alpha = asked.alpha or ALPHA
    device = "cpu" if asked.explain is not None else run.device()
    scorer = Scorer.read(files, state=asked.state, alpha=alpha, device=device)
    if asked.explain is None:
        tables = _chosen(asked, scorer, run)
        share = f"{100 * alpha:g} %"
        legend = (
            f"fresh: at most {share} of an item's own audience is called that by mistake; "
            f"common: at most {share} of all users score as high."
        )
    else:
        tables = _explained(asked, asked.explain, scorer, run)
        legend = "the contributions of a user and item add up to the score, in nats."
    if asked.format == "parquet" and asked.to is not None:
        write_parquet(tables, asked.to)
    elif asked.to is not None:
        write_text(as_text(tables, asked.format), asked.to)
    else:
        for part in as_text(tables, asked.format):
            show(part)
    typer.echo(legend, err=True)


def _chosen(asked: Asked, scorer: "Scorer", run: Run) -> Iterator["pa.Table"]:
    """What is asked for, as tables of one schema."""
    if asked.pairs is not None:
        pairs = _listed(asked, asked.pairs, scorer, run)
        return iter([scorer.pairs(*pairs, unseen=asked.unseen, strict=not asked.known)])
    users, items = _named(asked, scorer, run)
    if asked.top is None:
        return scorer.grid(users, items, unseen=asked.unseen)
    options = {"lowest": asked.fresh, "unseen": asked.unseen}
    if users is not None:
        return iter([scorer.best_items(users, asked.top, items=items, **options)])
    return iter([scorer.best_users(items, asked.top, **options)])


def _explained(asked: Asked, n: int, scorer: "Scorer", run: Run) -> Iterator["pa.Table"]:
    """The scores asked for, taken apart, a table a pair."""
    if asked.pairs is not None:
        users, items = _listed(asked, asked.pairs, scorer, run)
    else:
        users, items = _crossed(asked, scorer, run)
    pairs = list(zip(users, items, strict=True))
    if asked.known:
        known = scorer.catalogue.known(users, items).tolist()
        pairs = [pair for pair, is_known in zip(pairs, known, strict=True) if is_known]
    if len(pairs) > MOST_EXPLAINED:
        raise PipelineError(
            f"--explain takes at most {MOST_EXPLAINED} pairs, found {len(pairs):,}; name fewer."
        )
    for user, item in pairs:
        yield scorer.explain(user, item, n)
    if not pairs:  # the columns of any
        user, item = (kind.names[0].as_py() for kind in (scorer.users, scorer.items))
        yield scorer.explain(user, item, n).slice(0, 0)


def _crossed(asked: Asked, scorer: "Scorer", run: Run) -> tuple["Listed", "Listed"]:
    """The user and the item of every pair of those named, each once."""
    users, items = (
        list(dict.fromkeys(kind.names.to_pylist() if ids is None else ids))
        for ids, kind in zip(_named(asked, scorer, run), (scorer.users, scorer.items), strict=True)
    )
    return users * len(items), [item for item in items for _ in users]


def _named(asked: Asked, scorer: "Scorer", run: Run) -> tuple["Listed | None", "Listed | None"]:
    """The ids in --users and --items; None where the option is not set."""
    users = None if asked.users is None else scorer.users.typed(asked.users)
    items = None if asked.items is None else scorer.items.typed(asked.items)
    if not asked.known:
        return users, items
    if why := [*scorer.users.why_unknown(users or []), *scorer.items.why_unknown(items or [])]:
        run.note(f"left out: {'; '.join(why)}")
    return (
        None if users is None else scorer.users.known(users),
        None if items is None else scorer.items.known(items),
    )


def _listed(asked: Asked, pairs: Path, scorer: "Scorer", run: Run) -> tuple["Listed", "Listed"]:
    """The ids in the two columns of a file."""
    from pipeline.datasets.table_files import read_own

    own = read_own(pairs)
    users, items = scorer.users.in_table(own), scorer.items.in_table(own)
    if asked.known:
        why = [*scorer.users.why_unknown(users), *scorer.items.why_unknown(items)]
        n = int((~scorer.catalogue.known(users, items)).sum())
        if n:
            be = "is" if n == 1 else "are"
            run.note(f"{n:,} of {len(users):,} pairs {be} unknown: {'; '.join(why)}")
    return users, items
