"""Negatives of held-out pairs: from p, but nobody who has met the item."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from pipeline import unmet as unmet_module
from pipeline.arrays import Ints
from pipeline.unmet import Met

P = np.array([0.4, 0.1, 0.0, 0.3, 0.2])
PAIRS = ([0, 3, 4, 2], [0, 0, 1, 2])  # users, tasks


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=20),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=20),
)
def test_pairs_are_found_whatever_their_order(
    known: list[tuple[int, int]], asked: list[tuple[int, int]]
) -> None:
    met = Met.of(*np.array(known, np.int64).reshape(-1, 2).T)
    assert met.has(*np.array(asked).T).tolist() == [pair in known for pair in asked]


def test_those_drawn_follow_p_among_the_users_who_have_not_met_the_task() -> None:
    gen = np.random.default_rng(0)
    task = np.tile([0, 1, 2, 3], (8, 2000))
    user = Met.of(*map(np.array, PAIRS)).unmet(lambda: gen.choice(5, task.shape, p=P), task)
    for of, met in enumerate(([0, 3], [4], [2], [])):
        left = np.delete(np.arange(5), met)
        drawn = np.bincount(user[task == of], minlength=5)
        assert drawn[met].sum() == 0
        assert drawn[P == 0].sum() == 0
        possible = left[P[left] > 0]
        law = P[possible] / P[possible].sum()
        assert chisquare(drawn[possible], drawn.sum() * law).pvalue > 0.001


def test_where_all_of_p_have_met_a_task_the_drawing_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unmet_module, "ROUNDS", 3)
    draws = deque([[0, 0], [1, 1], [0, 1], [1, 0]])
    met = Met.of(np.array([0, 1]), np.array([0, 0]))
    user = met.unmet(lambda: np.array(draws.popleft()), np.array([0, 1]))
    assert user.tolist() == [1, 0]  # the last drawn, and the first, who had not met theirs
    assert not draws


def test_a_process_draws_as_often_as_the_one_that_draws_most() -> None:
    draws = iter(range(2, 100))
    left = deque([5, 4, 0])  # of all processes

    def draw() -> Ints:
        return np.array([next(draws)])

    met = Met.of(np.array([2]), np.array([0]))
    assert met.unmet(draw, np.array([0]), lambda _: left.popleft()).tolist() == [3]
    assert not left
    assert next(draws) == 5
