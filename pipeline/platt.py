"""Platt scaling: a slope and an offset by which all log ratios are of the right size.

A network that trains under dropout puts log ratios into the right order but makes them too small.
Of all slope * f + offset those are right whose loss (equation 3) is lowest on pairs that nothing
has learned from. No order changes: of users under a task as little as of tasks for a user.

Platt, "Probabilistic outputs for support vector machines", 1999.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from pipeline.arrays import Doubles, Floats

ENOUGH = 1e-12  # nats a pair: a step that lowers the loss by less is the last
MOST = 100  # steps tried; five to ten are usual
# Pairs added up at a time: what comes of them stays in a core's cache, and numpy takes no second
# thread, as it does for 10,000 products, which would then spin beside those that train.
BLOCK = 1 << 13


@dataclass(frozen=True)
class Platt:
    """What is multiplied with a log ratio, and then added to it, in nats."""

    slope: float
    offset: float


UNSCALED = Platt(slope=1.0, offset=0.0)


def fit_platt(
    f: Floats,
    common: Floats,
    base: Floats,
    total: Callable[[Doubles], Doubles] = lambda sums: sums,
) -> Platt:
    """The slope and the offset of the lowest loss, by Newton's method.

    Both are those of standardised f under a normal prior N(0, 1), which a few pairs outweigh: so
    there is a lowest loss too where f tells nothing, or everything. A slope below 0 says that f
    runs the wrong way. Nothing is scaled where some f is no finite number.

    Args:
        f: log ratios of pairs of a user and a task, (..., N).
        common: how many pairs under q_t each stands for; broadcasts with f.
        base: how many under p, as many altogether; broadcasts with f.
        total: adds up what several processes found, each of pairs of its own.
    """
    columns = [np.broadcast_to(column, np.shape(f)) for column in (f, common, base)]
    blocks = [
        [column[..., first : first + BLOCK] for column in columns]
        for first in range(0, np.shape(f)[-1], BLOCK)
    ]

    def add_up(sums: Callable[[Doubles, Doubles, Doubles], Doubles], n: int) -> Doubles:
        flat = ([part.ravel().astype(np.float64) for part in block] for block in blocks)
        return total(sum((sums(*block) for block in flat), np.zeros(n)))

    pairs, once, square = add_up(_moments, 3)
    if not np.isfinite(square) or not pairs:
        return UNSCALED
    mean = once / pairs
    spread = np.sqrt(max(square / pairs - mean**2, 0)) or 1.0

    def loss_at(at: Doubles) -> _Loss:
        return _Loss.of(at, add_up(lambda f, *weights: _sums(at, (f - mean) / spread, *weights), 6))

    at = np.zeros(2)
    here = loss_at(at)
    step = np.linalg.solve(here.second, here.first)
    for _ in range(MOST):
        there = loss_at(at - step)
        if there.value > here.value:
            step = step / 2
            continue
        at, here = at - step, there
        step = np.linalg.solve(here.second, here.first)
        if here.first @ step < ENOUGH * pairs:
            break
    slope = at[0] / spread
    return Platt(float(slope), float(at[1] - slope * mean))


def _moments(f: Doubles, common: Doubles, base: Doubles) -> Doubles:
    """Of some pairs under q_t and p together: how many they are, their sum and sum of squares."""
    with np.errstate(invalid="ignore", over="ignore"):  # of what is no finite number
        weighted = (common + base) * f
        return np.array([(common + base).sum(), weighted.sum(), weighted @ f])


def _sums(at: Doubles, f: Doubles, common: Doubles, base: Doubles) -> Doubles:
    """Of some pairs: their loss, two first and three second derivatives."""
    z, either = at[0] * f + at[1], common + base
    chance = expit(z)
    slack = either * chance - common
    bend = either * chance * (1 - chance)
    softplus = np.maximum(z, 0) - np.log(np.maximum(chance, 1 - chance))
    loss = either @ softplus - common @ z  # common softplus(-z) + base softplus(z)
    first = slack @ f, slack.sum()
    return np.array([loss, *first, bend @ (f * f), bend @ f, bend.sum()])


@dataclass(frozen=True)
class _Loss:
    """Of all pairs and by the prior, with its derivatives by the slope and the offset."""

    value: float
    first: Doubles  # (2,)
    second: Doubles  # (2, 2)

    @classmethod
    def of(cls, at: Doubles, sums: Doubles) -> "_Loss":
        """From `_sums` of all pairs."""
        loss, by_slope, by_offset, *curved = sums
        first = np.array([by_slope, by_offset]) + at
        second = np.array([curved[:2], curved[1:]]) + np.eye(2)
        return cls(loss + at @ at / 2, first, second)
