"""Which tasks stand for all of them: well-known films of MovieLens, then the most exposed."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipeline.arrays import Ints
from pipeline.params import Source

WELL_KNOWN: Sequence[int] = (  # MovieLens' ids, kind by kind
    *(260, 1196, 1210),  # Star Wars: A New Hope, The Empire Strikes Back, Return of the Jedi
    *(589, 1240, 2571),  # Terminator 2, The Terminator, The Matrix
    *(1214, 1387, 1219),  # Alien, Jaws, Psycho
    *(858, 1221, 1252, 913),  # The Godfather, its Part II, Chinatown, The Maltese Falcon
    *(1721, 2858),  # Titanic, American Beauty
    *(2706, 2683),  # American Pie, Austin Powers: The Spy Who Shagged Me
    *(1, 588, 595, 364, 2081),  # Toy Story, Aladdin, Beauty and the Beast, Lion King, Mermaid
)
PORTRAYED: Sequence[int] = (2571, 588, 913)  # The Matrix, Aladdin, The Maltese Falcon


def compared_tasks(tasks: pa.Table, source: Source, n: int = 18) -> Ints:
    """Rows of the tasks whose embeddings are compared.

    Of MovieLens: the well-known films that are tasks, in the order of their list, and the most
    exposed others where these are few. Of another source: its `n` most exposed.
    """
    known = _known(tasks, WELL_KNOWN if source == "movielens-1m" else ())
    popular = _most_exposed(tasks)
    others = popular[~np.isin(popular, known)]
    return np.concatenate((known, others[: max(0, n - len(known))]))


def portrayed_tasks(tasks: pa.Table, source: Source, n: int = 3) -> Ints:
    """Rows of the `n` tasks whose users are shown: well-known ones first, then the most exposed."""
    known = _known(tasks, PORTRAYED if source == "movielens-1m" else ())
    popular = _most_exposed(tasks)
    return np.concatenate((known, popular[~np.isin(popular, known)]))[:n]


def _known(tasks: pa.Table, item_ids: Sequence[int]) -> Ints:
    """Rows of those of the items that are tasks, in the order of `item_ids`."""
    ids = tasks.column("item_id").to_pylist()
    return np.array([ids.index(item) for item in item_ids if item in ids], np.int64)


def _most_exposed(tasks: pa.Table) -> Ints:
    """Rows of all tasks, the most exposed first, equal ones by item."""
    return np.argsort(-tasks.column("exposures").to_numpy(), kind="stable")
