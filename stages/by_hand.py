"""Scoring by hand: reads what `score` reads, gives the pairs asked for, shows or writes them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import typer

from pipeline.by_hand.formats import Format
from pipeline.errors import PipelineError
from stages.shell import Run, show

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.by_hand.familiarity import Familiarity
    from pipeline.by_hand.naming import Catalogue

ALPHA = 0.05  # unless another is asked for
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
    alpha: float | None
    explain: int | None
    asked_format: Format | None
    to: Path | None
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
        if self.to is None and (self.everything or self.format == "parquet"):
            raise PipelineError("that is nothing to show on a screen; name a file by --to.")


@dataclass(frozen=True)
class Known:
    """Whom the trained ratio knows: tables; see `schemas`."""

    task_embeddings: "pa.Table"
    features: "pa.Table"
    tasks: "pa.Table"
    exposures: "pa.Table"
    users: "pa.Table"
    items: "pa.Table"


@dataclass(frozen=True)
class Files:
    """Where the trained ratio lies, and whom it knows."""

    model: Path
    task_embeddings: Path
    features: Path
    tasks: Path
    splits: Path
    exposures: Path
    users: Path
    items: Path

    def read(self) -> Known:
        """What `dvc repro` has left.

        Raises:
            PipelineError: a file is missing or damaged.
        """
        from pipeline import schemas
        from pipeline.storage import read_table

        return Known(
            read_table(self.task_embeddings, schemas.TASK_EMBEDDINGS),
            read_table(self.features, schemas.FEATURES),
            read_table(self.tasks, schemas.TASKS),
            read_table(self.exposures, schemas.EXPOSURES),
            read_table(self.users, schemas.USERS),
            read_table(self.items, schemas.ITEMS),
        )

    def read_as_of_now(self, state: Path) -> Known:
        """What `update` has left in the folder `state`.

        Raises:
            PipelineError: nothing is there, it is damaged, or it belongs to another training.
        """
        from pipeline.embedding_matrix import embedding_table
        from pipeline.files import sha256
        from pipeline.newcomers.running import Running

        if not Running.is_in(state):
            raise PipelineError(
                f"{state}: nothing came later yet; `python -m stages.update NEW` takes new "
                "exposures in. Without --state the tables of `dvc repro` are read."
            )
        now, model = Running.read(state)
        if not self.model.exists() or model != sha256(self.model):
            raise PipelineError(
                f"{state}: belongs to another training than {self.model}; delete it, and take in "
                "again by `python -m stages.update` whatever `dvc repro` has not seen."
            )
        e = embedding_table(now.e, now.tasks)
        return Known(e, now.features, now.tasks, now.exposures, now.users, now.items)


def answer(asked: Asked, files: Files, run: Run) -> None:
    """Score what is asked for, and show or write it.

    Raises:
        PipelineError: options that do not go together, an id that is not known, a faulty file.
    """
    asked.check()
    known = files.read() if asked.state is None else files.read_as_of_now(asked.state)
    alpha = asked.alpha or ALPHA
    from pipeline.by_hand.output import as_text, write_parquet
    from pipeline.files import write_text

    tables: Iterator[pa.Table]
    if asked.explain is None:
        familiarity, catalogue = _read(files, known, alpha, run)
        tables = (catalogue.named(table) for table in _chosen(asked, familiarity, catalogue))
        share = f"{100 * alpha:g} %"
        legend = (
            f"fresh: at most {share} of an item's own audience is called that by mistake; "
            f"common: at most {share} of all users score as high."
        )
    else:
        tables = _explained(asked, asked.explain, files, known)
        legend = "the contributions of a user and item add up to the score, in nats."
    if asked.format == "parquet" and asked.to is not None:
        write_parquet(tables, asked.to)
    elif asked.to is not None:
        write_text(as_text(tables, asked.format), asked.to)
    else:
        for part in as_text(tables, asked.format):
            show(part)
    typer.echo(legend, err=True)


def _read(files: Files, known: Known, alpha: float, run: Run) -> tuple["Familiarity", "Catalogue"]:
    """The trained ratio with whom it compares, and what users and items are called."""
    import torch

    from pipeline import schemas
    from pipeline.by_hand.familiarity import Familiarity
    from pipeline.by_hand.naming import Catalogue
    from pipeline.embedding_matrix import embedding_matrix
    from pipeline.model_files import read_network
    from pipeline.models.ratio import RatioNet
    from pipeline.pairs import split_rows, task_pairs
    from pipeline.storage import matrix, read_table

    features, tasks = known.features, known.tasks
    device = run.device()
    x = torch.from_numpy(matrix(features.column("x"))).to(device)
    e = torch.from_numpy(embedding_matrix(known.task_embeddings, tasks)).to(device)
    familiarity = Familiarity(
        read_network(RatioNet, files.model, x_dim=x.shape[1], task_dim=e.shape[1]).to(device),
        x=x,
        e=e,
        pairs=task_pairs(known.exposures, features, tasks),
        valid=split_rows(read_table(files.splits, schemas.SPLITS), features, "valid"),
        size=tasks.column("train_exposures").to_numpy(),
        alpha=alpha,
    )
    return familiarity, Catalogue.of(features, tasks, known.users, known.items)


def _chosen(
    asked: Asked, familiarity: "Familiarity", catalogue: "Catalogue"
) -> Iterator["pa.Table"]:
    """What is asked for, as rows of users and tasks."""
    from pipeline.by_hand.familiarity import best, unseen
    from pipeline.datasets.table_files import read_own

    if asked.pairs is not None:
        own = read_own(asked.pairs)
        tables = iter([familiarity.pairs(*catalogue.pairs(own))])
    else:
        tables = familiarity.grid(*catalogue.product(asked.users, asked.items))
    if asked.unseen:
        tables = unseen(tables)
    if asked.top is not None:
        of: Literal["user", "task"] = "user" if asked.users else "task"
        tables = best(tables, asked.top, of=of, lowest=asked.fresh)
    return tables


def _explained(asked: Asked, n: int, files: Files, known: Known) -> Iterator["pa.Table"]:
    """The scores asked for, taken apart into named contributions, a table a pair."""
    import numpy as np

    from pipeline.by_hand.explanation import Explainer
    from pipeline.by_hand.naming import Catalogue
    from pipeline.datasets.table_files import read_own
    from pipeline.model_files import read_network
    from pipeline.models.ratio import RatioNet

    catalogue = Catalogue.of(known.features, known.tasks, known.users, known.items)
    if asked.pairs is not None:
        user, task = catalogue.pairs(read_own(asked.pairs))
    else:
        each, under = catalogue.product(asked.users, asked.items)
        user, task = np.tile(each, len(under)), np.repeat(under, len(each))
    if len(user) > MOST_EXPLAINED:
        raise PipelineError(
            f"--explain takes at most {MOST_EXPLAINED} pairs, found {len(user):,}; name fewer."
        )
    explainer = Explainer.from_tables(
        read_network(RatioNet, files.model),
        known.features,
        known.tasks,
        known.task_embeddings,
        known.exposures,
        known.items,
    )
    for one, of in zip(user.tolist(), task.tolist(), strict=True):
        yield catalogue.explained(one, of, explainer.explain(one, of).table(n), known.items)
