"""MovieLens 1M: a million ratings, of which only who rated what counts as an exposure.

Harper and Konstan, "The MovieLens Datasets: History and Context" (2015). The publisher permits
research use and no redistribution, so the data is downloaded or read from the user's own copy.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.arrays import Ints
from pipeline.datasets.codes import NAMES
from pipeline.datasets.dat_files import (
    DatFile,
    read_dat,
    require,
    require_distinct,
    require_known,
)
from pipeline.datasets.download import Archive
from pipeline.datasets.source import Source
from pipeline.pairs import ids_of

ARCHIVE = Archive(
    url="https://files.grouplens.org/datasets/movielens/ml-1m.zip",
    sha256="a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
    folder="ml-1m",
    files=("README", "movies.dat", "ratings.dat", "users.dat"),
)
FILES = ("ratings.dat", "users.dat", "movies.dat")

RATINGS = DatFile(
    ("UserID", "MovieID", "Rating", "Timestamp"),
    {"user_id": pa.int64(), "item_id": pa.int64(), "rating": pa.int64(), "timestamp": pa.int64()},
)
USERS = DatFile(
    ("UserID", "Gender", "Age", "Occupation", "Zip-code"),
    {
        **{"user_id": pa.int64(), "gender": pa.string(), "age": pa.int64()},
        **{"occupation": pa.int64(), "zip_code": pa.string()},
    },
)
MOVIES = DatFile(
    ("MovieID", "Title", "Genres"),
    {"item_id": pa.int64(), "title": pa.string(), "genres": pa.string()},
    encoding="latin-1",
)


def read_movielens(folder: Path) -> Source:
    """Read MovieLens 1M from the folder that holds ratings.dat, users.dat and movies.dat.

    Raises:
        PipelineError: a file is missing or malformed; names the file and the line.
    """
    users = _read_users(folder / "users.dat")
    movies = _read_movies(folder / "movies.dat")
    ratings = _read_ratings(
        folder / "ratings.dat",
        ids_of(users, "user_id"),
        ids_of(movies, "item_id"),
    )
    return Source(users, movies, ratings)


def _read_users(path: Path) -> pa.Table:
    table = read_dat(path, USERS)
    _require_ids(table.column("user_id"), path, "UserID")
    for name, field in (("gender", "Gender"), ("age", "Age"), ("occupation", "Occupation")):
        column, allowed = table.column(name), list(NAMES[name])
        good = pc.is_in(column, pa.array(allowed, column.type)).to_numpy()
        require(good, path, f"{field} to be one of {', '.join(map(str, allowed))}", column)
    _require_text(table.column("zip_code"), path, "a Zip-code")
    return table.sort_by("user_id")


def _read_movies(path: Path) -> pa.Table:
    table = read_dat(path, MOVIES)
    _require_ids(table.column("item_id"), path, "MovieID")
    _require_text(table.column("title"), path, "a Title")
    genres = pc.split_pattern(table.column("genres"), "|")
    empty = pc.match_substring_regex(table.column("genres"), r"(^|\|)(\||$)").to_numpy()
    require(~empty, path, "Genres separated by single |", table.column("genres"))
    return table.set_column(2, "genres", genres).sort_by("item_id")


def _read_ratings(path: Path, users: Ints, items: Ints) -> pa.Table:
    table = read_dat(path, RATINGS)
    user = require_known(table.column("user_id"), users, path, "a UserID of users.dat")
    item = require_known(table.column("item_id"), items, path, "a MovieID of movies.dat")
    rating, timestamp = table.column("rating"), table.column("timestamp")
    good = (rating.to_numpy() >= 1) & (rating.to_numpy() <= 5)
    require(good, path, "a Rating from 1 to 5", rating)
    require(timestamp.to_numpy() >= 0, path, "a Timestamp in seconds since 1970", timestamp)
    pair = user * len(items) + item
    require_distinct(pair, path, "pair of UserID and MovieID")
    table = table.set_column(2, "rating", rating.cast(pa.int8()))
    return table.take(np.argsort(pair))


def _require_ids(column: pa.ChunkedArray, path: Path, what: str) -> None:
    require(column.to_numpy() >= 1, path, f"a {what} of at least 1", column)
    require_distinct(column.to_numpy(), path, what)


def _require_text(column: pa.ChunkedArray, path: Path, what: str) -> None:
    require(pc.not_equal(column, "").to_numpy(), path, what, column)
