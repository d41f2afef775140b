"""What the messages about a faulty file have in common."""

import numpy as np

from pipeline.arrays import Ints

LONGEST_FOUND = 80  # letters of what was found


def shortened(found: object) -> str:
    """What was found, no longer than a line takes."""
    shown = str(found)
    return shown if len(shown) <= LONGEST_FOUND else f"{shown[:LONGEST_FOUND]}…"


def with_article(name: str) -> str:
    """A name of a column as a sentence takes it.

    Example:
        >>> with_article("item_id"), with_article("user_id")
        ('an item_id', 'a user_id')
    """
    return f"an {name}" if name.startswith(("a", "e", "i", "o")) else f"a {name}"


def first_repeat(keys: Ints) -> tuple[int, int] | None:
    """The first row whose key (n,) an earlier row has: that earlier row, and it.

    Example:
        >>> first_repeat(np.array([5, 3, 4, 3, 5]))
        (1, 3)
    """
    order = np.argsort(keys, kind="stable")
    again = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    if not len(again):
        return None
    place = again[np.argmin(order[again + 1])]
    return int(order[place]), int(order[place + 1])
