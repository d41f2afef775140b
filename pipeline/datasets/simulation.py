"""The embedded source: simulated users with labels, items with genres, and their exposures.

Shaped like MovieLens 1M (columns, codes, long tails), but made up throughout: labels shape the
tastes, genres and years the appeal, and the ratio of every (user, item) is known (`World`).
"""

import numpy as np
import pyarrow as pa

from pipeline.arrays import Doubles, Ints
from pipeline.datasets.codes import AGES, OCCUPATIONS
from pipeline.datasets.source import Source
from pipeline.datasets.world import TASTE_RADIUS, World, calibrated, draw_pairs
from pipeline.errors import PipelineError
from pipeline.params import Simulation

TASTE_DIM = 6
AGE_SHARES = (0.05, 0.18, 0.34, 0.20, 0.09, 0.08, 0.06)
FEMALE_SHARE = 0.3
# fmt: off
OCCUPATION_SHARES = (
    0.12, 0.09, 0.03, 0.03, 0.13, 0.02, 0.04, 0.11, 0.01, 0.02, 0.03,
    0.02, 0.06, 0.02, 0.05, 0.02, 0.04, 0.08, 0.01, 0.01, 0.06,
)
GENRES = (
    "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller",
    "War", "Western",
)
GENRE_SHARES = (
    0.13, 0.07, 0.03, 0.06, 0.31, 0.05, 0.03, 0.41,
    0.02, 0.01, 0.09, 0.03, 0.03, 0.12, 0.07, 0.13,
    0.04, 0.02,
)
# fmt: on
OCCUPATION_BY_AGE = {  # how much more frequent than its share at each of AGES
    4: (0.5, 3.5, 1, 0.2, 0.1, 0.1, 0.05),  # students
    10: (40, 2, 0, 0, 0, 0, 0),  # pupils
    13: (0, 0, 0, 0, 0.3, 2, 20),  # the retired
}
REGION_SHARES = (0.11, 0.10, 0.08, 0.07, 0.08, 0.12, 0.08, 0.09, 0.06, 0.21)
GENRE_COUNTS = (0.5, 0.35, 0.15)  # shares of items with one, two, three genres
# Strength of each influence, in units of taste: lengths, or standard deviations a dimension.
AGE_PULL, GENDER_PULL, OCCUPATION_PULL, REGION_PULL, OWN_TASTE = 1.3, 0.6, 0.35, 0.12, 0.6
GENRE_PULL, YEAR_PULL, OWN_APPEAL = 1.3, 0.8, 0.4
ACTIVITY_SPREAD, POPULARITY_SPREAD = 0.7, 0.9  # of the log, which is cut at two of them


def simulate(size: Simulation) -> Source:
    """The simulated source: the world's users and items, and exposures drawn from it."""
    world = draw_world(size)
    user, item = draw_pairs(world, _generator(size, "exposures"))
    exposures = pa.table(
        {
            "user_id": user + 1,
            "item_id": item + 1,
            "rating": pa.nulls(len(user), pa.int8()),
            "timestamp": pa.nulls(len(user), pa.int64()),
        }
    )
    return Source(world.users, world.items, exposures)


def draw_world(size: Simulation) -> World:
    """The world of a size and seed: the same whenever it is asked for."""
    axes = _axes(_generator(size, "axes"))
    users, taste, activity = _draw_users(size.users, axes, _generator(size, "users"))
    items, appeal, popularity = _draw_items(size.items, axes, _generator(size, "items"))
    world = World(users, items, activity, taste, popularity, appeal)
    return calibrated(world, size.exposures, _generator(size, "cells"))


def world_of(users: pa.Table, size: Simulation) -> World:
    """The world that the users table was drawn from.

    Raises:
        PipelineError: that of `size` is another one.
    """
    world = draw_world(size)
    if not world.users.equals(users):
        raise PipelineError(
            "the users table is not that of the simulated world which `simulation` in the params "
            "describes; make it again: `dvc repro prepare`."
        )
    return world


def _generator(size: Simulation, purpose: str) -> np.random.Generator:
    streams = ("axes", "users", "items", "exposures", "cells")  # apart, so that none shifts another
    return np.random.default_rng([size.seed, streams.index(purpose)])


def _axes(gen: np.random.Generator) -> Doubles:
    """An orthonormal basis of the taste space, (d, d), whose first rows age and gender follow."""
    return np.linalg.qr(gen.standard_normal((TASTE_DIM, TASTE_DIM)))[0]


def _draw_users(
    n: int, axes: Doubles, gen: np.random.Generator
) -> tuple[pa.Table, Doubles, Doubles]:
    """Users with labels; their tastes (n, d), which the labels shape; their log activity (n,)."""
    age = gen.choice(len(AGES), n, p=AGE_SHARES)
    female = gen.random(n) < FEMALE_SHARE
    occupation = _draw_occupations(age, gen)
    region = gen.choice(10, n, p=REGION_SHARES)
    town = (10_000 * gen.random(n) ** 3).astype(np.int64)  # a few towns hold most people
    taste = (
        AGE_PULL * _age_line(age)[:, None] * axes[0]
        + GENDER_PULL * np.where(female, 1, -1)[:, None] * axes[1]
        + OCCUPATION_PULL * gen.standard_normal((len(OCCUPATIONS), TASTE_DIM))[occupation]
        + REGION_PULL * gen.standard_normal((10, TASTE_DIM))[region]
        + OWN_TASTE * gen.standard_normal((n, TASTE_DIM))
    )
    users = pa.table(
        {
            "user_id": np.arange(1, n + 1),
            "gender": np.where(female, "F", "M").tolist(),
            "age": np.array(list(AGES))[age],
            "occupation": occupation,
            "zip_code": [f"{code:05d}" for code in 10_000 * region + town],
        }
    )
    return users, _into_ball(taste), _log_spread(ACTIVITY_SPREAD, n, gen)


def _draw_items(
    n: int, axes: Doubles, gen: np.random.Generator
) -> tuple[pa.Table, Doubles, Doubles]:
    """Items with genres and years; their appeals (n, d); their log popularity (n,)."""
    names = np.array(GENRES)
    count = 1 + gen.choice(len(GENRE_COUNTS), n, p=GENRE_COUNTS)
    # The largest of log share + Gumbel noise: a draw by share, without replacement.
    luck = np.log(GENRE_SHARES) + gen.gumbel(size=(n, len(names)))
    member = luck.argsort(axis=1).argsort(axis=1) >= len(names) - count[:, None]  # (n, genres)
    age = 70 * gen.beta(0.8, 3, n)  # years before 2000
    directions = gen.standard_normal((len(names), TASTE_DIM))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    appeal = (
        GENRE_PULL * (member / count[:, None]) @ directions
        + YEAR_PULL * ((age - age.mean()) / age.std())[:, None] * axes[0]  # the old like the old
        + OWN_APPEAL * gen.standard_normal((n, TASTE_DIM))
    )
    year = (2000 - age).astype(np.int64)
    items = pa.table(
        {
            "item_id": np.arange(1, n + 1),
            "title": [f"Item {i} ({y})" for i, y in enumerate(year.tolist(), start=1)],
            "genres": [names[row].tolist() for row in member],
        }
    )
    return items, _into_ball(appeal), _log_spread(POPULARITY_SPREAD, n, gen)


def _draw_occupations(age: Ints, gen: np.random.Generator) -> Ints:
    """Occupation codes, (n,): students are young and the retired old."""
    chance = np.tile(OCCUPATION_SHARES, (len(AGES), 1))  # (ages, occupations)
    for code, factor in OCCUPATION_BY_AGE.items():
        chance[:, code] *= factor
    upper = np.cumsum(chance / chance.sum(1, keepdims=True), axis=1)
    beyond = upper[age, :-1] < gen.random(len(age))[:, None]  # (n, 20)
    occupation: Ints = beyond.sum(1)
    return occupation


def _age_line(age: Ints) -> Doubles:
    """The age classes as numbers of mean 0 and variance 1 in the population."""
    share = np.array(AGE_SHARES)
    place = np.arange(len(AGES)) - share @ np.arange(len(AGES))
    line: Doubles = (place / np.sqrt(share @ place**2))[age]
    return line


def _into_ball(vectors: Doubles) -> Doubles:
    """Shorten vectors (n, d), long ones the most, so that all lie within TASTE_RADIUS."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    inside: Doubles = vectors / np.sqrt(1 + (length / TASTE_RADIUS) ** 2)
    return inside


def _log_spread(spread: float, n: int, gen: np.random.Generator) -> Doubles:
    """Logs of a log-normal quantity, (n,), cut at two standard deviations."""
    return np.clip(gen.normal(0, spread, n), -2 * spread, 2 * spread)
