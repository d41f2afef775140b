"""Whom a task finds familiar and whom fresh, and whether these users had met its item.

Scores are log ratios in nats: HIGH = common, LOW = fresh.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline.arrays import Ints, Singles
from pipeline.datasets.codes import CODED, code_name
from pipeline.labels import label_classes
from pipeline.pairs import ids_of, rows_of
from pipeline.params import Params
from pipeline.report.artefacts import Artefacts
from pipeline.score_matrix import score_matrix
from pipeline.splits import measured_users

MET = ("never", "visible", "held out")
VISIBLE, HELD_OUT = 1, 2


@dataclass(frozen=True)
class Person:
    """A test user as one task sees them."""

    score: float
    who: str  # the id, and the labels in words
    exposures: int  # visible ones, to all items
    met: str  # one of MET


@dataclass(frozen=True)
class Portrait:
    """One task and its test users.

    Attributes:
        title: of the item.
        genres: of the item.
        exposures: of all users to the item.
        classes: for each label its nominal and its anomalous class, in words.
        spread: scores of the users by how they met the item, for each of MET that holds a user.
        familiar: the users of the highest scores, the highest first.
        fresh: the users of the lowest scores, the lowest first.
    """

    title: str
    genres: list[str]
    exposures: int
    classes: Mapping[str, tuple[str, str]]
    spread: Mapping[str, Singles]
    familiar: list[Person]
    fresh: list[Person]

    @property
    def medians(self) -> dict[str, float]:
        """The median score of each group of `spread`."""
        return {met: float(np.median(scores)) for met, scores in self.spread.items()}


@dataclass(frozen=True)
class TestUsers:
    """The test users, and what is known of them."""

    ids: Ints  # (T,) rising
    scores: Singles  # (M, T)
    who: list[str]  # (T,) ids, and labels in words
    exposures: Ints  # (T,) visible ones

    @classmethod
    def of(cls, artefacts: Artefacts, params: Params) -> "TestUsers":
        """The test users of a run."""
        users = artefacts.users
        ids = ids_of(users, "user_id")
        measured = measured_users(artefacts.splits, users, params.evaluate.users)
        scores = score_matrix(artefacts.scores, artefacts.tasks, ids[measured.rows])
        exposed = rows_of(ids_of(artefacts.exposures, "user_id"), ids, "user")
        visible = exposed[~artefacts.exposures.column("held_out").to_numpy()]
        return cls(
            ids=ids[measured.test],
            scores=scores[:, measured.test_columns],
            who=_in_words(users.take(measured.test), params),
            exposures=np.bincount(visible, minlength=len(ids))[measured.test],
        )

    def met(self, item_id: int, exposures: pa.Table) -> Ints:
        """How each of them met the item, as a place in MET, (T,)."""
        mine = exposures.filter(ids_of(exposures, "item_id") == item_id)
        user, held_out = (mine.column(name).to_numpy() for name in ("user_id", "held_out"))
        return VISIBLE * np.isin(self.ids, user[~held_out]) + HELD_OUT * np.isin(
            self.ids, user[held_out]
        )


def portray(
    row: int, users: TestUsers, artefacts: Artefacts, params: Params, n: int = 6
) -> Portrait:
    """The item of task `row`, its classes, and the `n` test users at either end."""
    task = artefacts.tasks.slice(row, 1).to_pylist()[0]
    item = artefacts.task_items.slice(row, 1).to_pylist()[0]
    scores, met = users.scores[row], users.met(task["item_id"], artefacts.exposures)

    def people(order: Ints) -> list[Person]:
        return [
            Person(float(scores[at]), users.who[at], int(users.exposures[at]), MET[met[at]])
            for at in order[:n].tolist()
        ]

    return Portrait(
        title=item["title"],
        genres=item["genres"],
        exposures=task["exposures"],
        classes={
            name: (words[task[f"nominal_{name}"]], words[task[f"anomalous_{name}"]])
            for name in params.evaluate.labels
            if (words := _class_names(artefacts.users, name, params))
        },
        spread={name: scores[met == how] for how, name in enumerate(MET) if how in met},
        familiar=people(np.argsort(-scores, kind="stable")),
        fresh=people(np.argsort(scores, kind="stable")),
    )


def _in_words(users: pa.Table, params: Params) -> list[str]:
    """Who each user is, and the columns behind the labels."""
    columns = list(dict.fromkeys(label.column for label in params.labels.values()))
    identity = "user_key" if "user_key" in users.column_names else "user_id"

    def told(column: str, value: int | str) -> str:
        if params.data.source in CODED:
            return code_name(column, value)
        return f"{column} {value}"

    return [
        ", ".join([str(user[identity]), *(told(name, user[name]) for name in columns)])
        for user in users.to_pylist()
    ]


def _class_names(users: pa.Table, name: str, params: Params) -> list[str]:
    """The classes of a label in words, by their codes."""
    label = params.labels[name]
    if label.bins is not None or params.data.source not in CODED:
        return label_classes(users, name, label).names
    values = np.unique(users.column(label.column).to_numpy()).tolist()
    return [code_name(label.column, value) for value in values]
