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


@dataclass(frozen=True)
class Platt:
    """What is multiplied with a log ratio, and then added to it, in nats."""

    slope: float
    offset: float


UNSCALED = Platt(slope=1.0, offset=0.0)


@dataclass(frozen=True)
class _Sums:
    """Over all pairs: their number, the loss, and its derivatives by the slope and the offset."""

    pairs: float
    loss: float
    first: Doubles  # (2,)
    second: Doubles  # (2, 2)


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
    logits, of_q, of_p = (
        np.broadcast_to(part, np.shape(f)).astype(np.float64) for part in (f, common, base)
    )

    def sums(at: Doubles) -> _Sums:
        return _sums(at, logits, of_q, of_p, total)

    at = np.array([1.0, 0.0])
    here = sums(at)
    step = np.linalg.solve(here.second, here.first)
    for _ in range(MOST):
        there = sums(at - step)
        if there.loss > here.loss:
            step = step / 2
            continue
        at, here = at - step, there
        step = np.linalg.solve(here.second, here.first)
        if here.first @ step < ENOUGH * here.pairs:
            break
    return Platt(float(at[0]), float(at[1]))


def _sums(
    at: Doubles, f: Doubles, common: Doubles, base: Doubles, total: Callable[[Doubles], Doubles]
) -> _Sums:
    z = at[0] * f + at[1]
    chance, either = expit(z), common + base
    slack, bend = either * chance - common, either * chance * (1 - chance)
    loss = either * np.logaddexp(0, z) - common * z  # common softplus(-z) + base softplus(z)
    parts = (common, loss, slack * f, slack, bend * f * f, bend * f, bend)
    pairs, lost, by_slope, by_offset, *curved = total(np.array([part.sum() for part in parts]))
    beyond = at - (1, 0)
    first = np.array([by_slope, by_offset]) + beyond
    second = np.array([curved[:2], curved[1:]]) + np.eye(2)
    return _Sums(pairs, lost + beyond @ beyond / 2, first, second)
