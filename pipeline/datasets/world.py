"""A world of users and items whose likelihood ratios are known exactly.

User u meets item t N_ut ~ Poisson(lambda_ut) times, lambda_ut = a_u b_t exp(z_u . w_t). Only
distinct pairs are kept, so a pair is present with pi_ut = 1 - exp(-lambda_ut), independently of
all others. The users exposed to t are then distributed as q_t(u) = pi_ut / sum_u pi_ut.

Every z_u lies in a ball of radius TASTE_RADIUS, so that lambda_ut has a rank-one upper bound from
which pairs are drawn by thinning, in time that grows with their number. Nothing here ever holds
a users x items matrix, and beyond GRID cells nothing goes over all of them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa

from pipeline.arrays import Doubles, Ints
from pipeline.sections import Base

TASTE_RADIUS = 2.0  # of the balls in which tastes and appeals lie: |z_u . w_t| < 4
CELLS = 2**20  # (user, item) cells, or proposed pairs, in memory at a time
GRID = 2**24  # cells, up to which sums over all of them are exact


@dataclass(frozen=True)
class World:
    """All that is true of a simulated world. The user in row u has user_id u + 1; so have items.

    Attributes:
        users: user_id and labels, U rows.
        items: item_id, title, genres, T rows.
        activity: log a_u, (U,).
        taste: z_u, (U, d), each within TASTE_RADIUS of the origin.
        popularity: log b_t, (T,).
        appeal: w_t, (T, d), each within TASTE_RADIUS of the origin.
    """

    users: pa.Table
    items: pa.Table
    activity: Doubles
    taste: Doubles
    popularity: Doubles
    appeal: Doubles

    @property
    def latents(self) -> Doubles:
        """The true x of every user: taste and log activity, (U, d + 1)."""
        return np.column_stack([self.taste, self.activity])

    def intensity(self, users: Ints | slice, items: Ints | slice) -> Doubles:
        """lambda_ut for rows of users (A,) and of items (B,): (A, B)."""
        # Not `@`: BLAS threads gain nothing at this width, and the last bits would depend on them.
        appeal = np.ascontiguousarray(self.appeal[items].T)  # (d, B)
        log: Doubles = np.einsum("ad,db->ab", self.taste[users], appeal)
        log += self.activity[users, None]
        log += self.popularity[items]
        return np.exp(log, out=log)

    def presence(self, users: Ints | slice, items: Ints | slice) -> Doubles:
        """pi_ut, the chance that the pair is present, for rows of users and items: (A, B)."""
        return -np.expm1(-self.intensity(users, items))

    def log_ratio(self, users: Ints, items: Ints, base: Base, pool: Ints | None = None) -> Doubles:
        """The truth that `ratio` learns: log q_t(u)/p(u) in nats, HIGH = common, LOW = fresh.

        Args:
            users: rows of the users to score, (A,).
            items: rows of the items that are tasks, (B,).
            base: p is the mixture of the tasks' q_t weighted by their expected exposures m_t
                (`exposures`, Proposition 1), or the same for every user (`users`).
            pool: rows of the users over whom q_t and p are normalised; None takes all. Another
                pool adds a constant to each task, and no more.

        Returns:
            (B, A), a row a task.
        """
        everyone = np.arange(len(self.activity)) if pool is None else pool
        total = np.empty(len(items))  # (B,) sum of pi over the pool: proportional to m_t
        for part in _parts(len(items), len(everyone)):
            total[part] = self.presence(everyone, items[part]).sum(0)
        presence = self.presence(users, items).T  # (B, A)
        if base == "users":
            p = np.full(len(users), 1 / len(everyone))
        else:
            p = presence.sum(0) / total.sum()  # sum_t m_t q_t(u), m_t = total_t / total
        ratio: Doubles = np.log(presence) - np.log(total)[:, None] - np.log(p)
        return ratio


def calibrated(world: World, pairs: int, gen: np.random.Generator) -> World:
    """The world with its popularity scaled so that `pairs` distinct pairs are expected.

    Newton's method on s in sum_ut (1 - exp(-s lambda_ut)) = pairs. The sum is concave in s and
    below s sum(lambda), so that from pairs / sum(lambda) the steps rise towards the root. In a
    world of more than GRID cells the sums are estimated from CELLS of them, within .3 %.
    """
    cells = _weighted_cells(world, gen)
    scale = pairs / sum((weight * intensity).sum() for intensity, weight in cells())
    for _ in range(100):
        count = slope = 0.0
        for intensity, weight in cells():
            absent = np.exp(-scale * intensity)
            count += (weight * (1 - absent)).sum()
            slope += (weight * intensity * absent).sum()
        scale += (pairs - count) / slope
        if abs(count - pairs) < 1e-6 * pairs:
            break
    return replace(world, popularity=world.popularity + np.log(scale))


def _weighted_cells(
    world: World, gen: np.random.Generator
) -> Callable[[], Iterator[tuple[Doubles, Doubles]]]:
    """Intensities and weights by which they add up to sums over all cells, part by part.

    All cells once, or CELLS of them drawn in proportion to the rank-one bound of `draw_pairs`.
    """
    if len(world.activity) * len(world.popularity) <= GRID:
        one = np.ones(())
        return lambda: ((world.intensity(part, slice(None)), one) for part in _user_parts(world))
    log_item = world.popularity + _taste_bound(world)
    of_users, of_items = np.cumsum(np.exp(world.activity)), np.cumsum(np.exp(log_item))
    user = np.searchsorted(of_users, gen.random(CELLS) * of_users[-1])
    item = np.searchsorted(of_items, gen.random(CELLS) * of_items[-1])
    bound = np.exp(world.activity[user] + log_item[item])
    affinity = np.einsum("nd,nd->n", world.taste[user], world.appeal[item])
    intensity = np.exp(world.activity[user] + world.popularity[item] + affinity)
    return lambda: iter([(intensity, of_users[-1] * of_items[-1] / (CELLS * bound))])


def _taste_bound(world: World) -> Doubles:
    """R |w_t|, R the radius of tastes, (T,): at least z_u . w_t."""
    bound: Doubles = TASTE_RADIUS * np.linalg.norm(world.appeal, axis=1)
    return bound


def draw_pairs(world: World, gen: np.random.Generator) -> tuple[Ints, Ints]:
    """Draw the distinct pairs that are present: rows of users and of items, sorted by both.

    Proposals come from the rank-one bound a_u b_t exp(R |w_t|), R the radius of tastes, and are
    kept with probability exp(z_u . w_t - R |w_t|): a thinned Poisson process is one of the product
    intensity. Users are taken in blocks of about CELLS proposals.
    """
    bound = _taste_bound(world)
    cumulative = np.cumsum(np.exp(world.popularity + bound))
    proposed = gen.poisson(np.exp(world.activity) * cumulative[-1])  # (U,)
    block = np.cumsum(proposed) // CELLS
    edges = np.flatnonzero(np.diff(block, prepend=-1, append=block[-1] + 1))
    kept_users, kept_items = [], []
    for start, stop in pairwise(edges.tolist()):
        user = np.repeat(np.arange(start, stop), proposed[start:stop])
        item = np.searchsorted(cumulative, gen.random(len(user)) * cumulative[-1])
        affinity = np.einsum("nd,nd->n", world.taste[user], world.appeal[item])
        kept = gen.random(len(user)) < np.exp(affinity - bound[item])
        pair = np.unique(user[kept] * len(bound) + item[kept])
        kept_users.append(pair // len(bound))
        kept_items.append(pair % len(bound))
    return np.concatenate(kept_users), np.concatenate(kept_items)


def _user_parts(world: World) -> Iterator[slice]:
    return _parts(len(world.activity), len(world.popularity))


def _parts(rows: int, columns: int) -> Iterator[slice]:
    """Slices of `rows` that hold about CELLS cells of `columns` each."""
    step = max(1, CELLS // columns)
    return (slice(start, start + step) for start in range(0, rows, step))
