"""Why one user is familiar with one item: the parts of the score, in words."""

from dataclasses import dataclass

import numpy as np

from pipeline.by_hand.explanation import Explainer
from pipeline.pairs import ids_of, rows_of
from pipeline.report.artefacts import Artefacts
from pipeline.report.portraits import TestUsers

NAMED = 4  # items that speak for, and items that speak against


@dataclass(frozen=True)
class Reason:
    """A part of a score.

    Attributes:
        part: what it is; see `explanation.Explanation.table`.
        title: of the item, or empty.
        likeness: cosine of its task's embedding and the one explained, both less the mean of all
            tasks; None where there is none.
        contribution: in nats.
    """

    part: str
    title: str
    likeness: float | None
    contribution: float


@dataclass(frozen=True)
class Why:
    """The score of one user and item, and all its parts, which add up to it."""

    who: str
    score: float
    reasons: list[Reason]


def explain_most_familiar(
    row: int, users: TestUsers, artefacts: Artefacts, explainer: Explainer
) -> Why:
    """Take apart the highest score of a test user under task `row`."""
    best = int(np.argmax(users.scores[row]))
    known = ids_of(artefacts.features, "user_id")
    found = explainer.explain(int(rows_of(users.ids[best : best + 1], known, "user")[0]), row)
    titles = artefacts.items.column("title")
    reasons = [
        Reason(
            part["part"],
            "" if part["item"] is None else titles[part["item"]].as_py(),
            part["likeness"],
            part["contribution"],
        )
        for part in found.table(NAMED).to_pylist()
    ]
    return Why(users.who[best], found.score, reasons)
