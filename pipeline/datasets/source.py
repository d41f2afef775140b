"""What every source of exposures gives."""

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Source:
    """Three tables, each sorted by its ids, without duplicates.

    Attributes:
        users: user_id and raw label columns; of the simulation and MovieLens gender string, age
            int64, occupation int64, zip_code string.
        items: item_id, title, genres; also of items that nobody was exposed to.
        exposures: user_id, item_id, rating, timestamp; one row a distinct pair. What is held
            out is decided later, the same way for every source (`pipeline.splits`).
        repeats: rows of the source that repeated an earlier pair, and were left out.
    """

    users: pa.Table
    items: pa.Table
    exposures: pa.Table
    repeats: int = 0
