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

    They are drawn towards 1 and 0 as by one more pair: so there is a lowest loss too where f tells
    nothing, or everything. A slope below 0 says that f runs the wrong way.

    Args:
        f: log ratios of pairs of a user and a task, (...).
        common: how many pairs under q_t each stands for, (...).
        base: how many under p, as many altogether; (...).
        total: adds up what several processes found, each of pairs of its own.
    """
    columns = [np.broadcast_to(column, np.shape(f)).ravel() for column in (f, common, base)]
    pairs = np.array(columns, np.float64)
    blocks = [pairs[:, first : first + BLOCK] for first in range(0, pairs.shape[1], BLOCK)]

    def loss_at(at: Doubles) -> _Loss:
        own = sum((_sums(at, *block) for block in blocks), np.zeros(7))
        return _Loss.of(at, total(own))

    at = np.array([1.0, 0.0])
    here = loss_at(at)
    step = np.linalg.solve(here.second, here.first)
    for _ in range(MOST):
        there = loss_at(at - step)
        if there.value > here.value:
            step = step / 2
            continue
        at, here = at - step, there
        step = np.linalg.solve(here.second, here.first)
        if here.first @ step < ENOUGH * here.pairs:
            break
    return Platt(float(at[0]), float(at[1]))


def _sums(at: Doubles, f: Doubles, common: Doubles, base: Doubles) -> Doubles:
    """Of some pairs: how many they are, their loss, two first and three second derivatives."""
    z, either = at[0] * f + at[1], common + base
    chance = expit(z)
    slack = either * chance - common
    bend = either * chance * (1 - chance)
    softplus = np.maximum(z, 0) - np.log(np.maximum(chance, 1 - chance))
    loss = either @ softplus - common @ z  # common softplus(-z) + base softplus(z)
    first = slack @ f, slack.sum()
    second = bend @ (f * f), bend @ f, bend.sum()
    return np.array([common.sum(), loss, *first, *second])


@dataclass(frozen=True)
class _Loss:
    """Of all pairs, with what draws towards 1 and 0, and its derivatives."""

    pairs: float
    value: float
    first: Doubles  # (2,)
    second: Doubles  # (2, 2)

    @classmethod
    def of(cls, at: Doubles, sums: Doubles) -> "_Loss":
        """From `_sums` of all pairs."""
        pairs, loss, by_slope, by_offset, *curved = sums
        beyond = at - (1, 0)
        first = np.array([by_slope, by_offset]) + beyond
        second = np.array([curved[:2], curved[1:]]) + np.eye(2)
        return cls(pairs, loss + beyond @ beyond / 2, first, second)
