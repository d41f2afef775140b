"""Readings of pairs: every column recomputed pair by pair."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.by_hand.familiarity import Familiarity, best, unseen
from pipeline.conformal import POOL
from pipeline.models.ratio import RatioNet
from pipeline.pairs import Pairs
from pipeline.scoring import score_all

USERS, TASKS = 60, 7
VALID = np.arange(0, 60, 3)


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    """Tasks met by ever more users; the last is met by nobody visibly."""
    gen = np.random.default_rng(0)
    met = gen.random((USERS, TASKS)) < np.linspace(0.1, 0.9, TASKS)
    met[:, -1] = VALID[0] == np.arange(USERS)
    user, task = np.nonzero(met)
    held_out = (gen.random(len(user)) < 0.5) & (user % 3 < 2)  # of test users too
    held_out[task == TASKS - 1] = True
    return Pairs(user, task, held_out)


def made(pairs: Pairs, alpha: float = 0.2) -> Familiarity:
    """A network of whole numbers, small ones: exact in any order of addition, with ties."""
    gen = torch.Generator().manual_seed(0)
    net = RatioNet(x_dim=3, task_dim=2)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, generator=gen)
        weight.data.round_()
    x = torch.randn(USERS, 3, generator=gen).mul(2).round()
    e = torch.randn(TASKS, 2, generator=gen).mul(2).round()
    size = np.bincount(pairs.task[~pairs.held_out], minlength=TASKS)
    return Familiarity(net, x=x, e=e, pairs=pairs, valid=VALID, size=size, alpha=alpha)


@pytest.fixture(scope="module")
def familiarity(pairs: Pairs) -> Familiarity:
    return made(pairs)


@pytest.fixture(scope="module")
def everything(familiarity: Familiarity) -> pa.Table:
    return pa.concat_tables(familiarity.grid(np.arange(USERS), np.arange(TASKS)))


def test_every_figure_is_what_a_count_over_the_users_gives(
    familiarity: Familiarity, pairs: Pairs, everything: pa.Table
) -> None:
    with torch.no_grad():
        scores = score_all(familiarity.net, familiarity.x, familiarity.e)  # (M, U)
    known = set(zip(pairs.user.tolist(), pairs.task.tolist(), strict=True))
    calibrating = pairs.held_out & np.isin(pairs.user, VALID)
    assert everything.num_rows == USERS * TASKS
    for row in everything.to_pylist():
        user, task = row["user"], row["task"]
        score = scores[task, user]
        assert row["score"] == score
        assert row["exposed"] == ((user, task) in known)
        audience = scores[task, pairs.user[(pairs.task == task) & ~pairs.held_out]]
        if len(audience):
            share = 100 * (audience < score).mean()
            assert row["audience_percentile"] == pytest.approx(share, abs=1e-4)
        else:
            assert row["audience_percentile"] is None
        below = (scores[task] < score).mean()
        assert row["population_percentile"] == pytest.approx(100 * below, abs=1e-4)
        own = row["calibration"] == "item"
        counted = calibrating & ((pairs.task == task) | (not own))
        counted &= np.isin(pairs.task, task if own else poor_tasks(pairs))
        sample = scores[pairs.task[counted], pairs.user[counted]]
        assert row["calibration_pairs"] == len(sample)
        assert row["p_value"] == pytest.approx((1 + (sample <= score).sum()) / (1 + len(sample)))
        as_high = (scores[task] >= score).mean()
        expected = "common" if as_high <= 0.2 else "typical"
        assert row["verdict"] == ("fresh" if row["p_value"] <= 0.2 else expected)
    assert set(everything["verdict"].to_pylist()) == {"fresh", "typical", "common"}


def poor_tasks(pairs: Pairs) -> np.ndarray:
    """Tasks with fewer than the 4 held-out pairs that a p-value of .2 takes; all in one pool."""
    calibrating = pairs.held_out & np.isin(pairs.user, VALID)
    count = np.bincount(pairs.task[calibrating], minlength=TASKS)
    assert 0 < count[count < 4].sum() < POOL
    return np.flatnonzero(count < 4)


def test_of_every_item_no_more_users_than_alpha_are_called_common(pairs: Pairs) -> None:
    for alpha in (0.05, 0.1, 0.3):
        for table in made(pairs, alpha).grid(np.arange(USERS), np.arange(TASKS)):
            called = np.count_nonzero(np.array(table["verdict"].to_pylist()) == "common")
            assert called <= alpha * USERS


def test_pairs_are_read_in_their_order_and_as_in_the_grid(
    familiarity: Familiarity, everything: pa.Table
) -> None:
    gen = np.random.default_rng(1)
    user, task = gen.integers(0, USERS, 200), gen.integers(0, TASKS, 200)
    read = familiarity.pairs(user, task)
    assert read["user"].to_pylist() == user.tolist()
    assert read["task"].to_pylist() == task.tolist()
    assert read.to_pylist() == everything.take(task * USERS + user).to_pylist()


def test_the_best_of_each_task_and_of_each_user_come_best_first(
    familiarity: Familiarity, everything: pa.Table
) -> None:
    def tables() -> list[pa.Table]:
        return list(familiarity.grid(np.arange(USERS), np.arange(TASKS)))

    rows = everything.to_pandas()
    for of, lowest in (("task", False), ("task", True), ("user", False), ("user", True)):
        found = pa.concat_tables(best(iter(tables()), 3, of=of, lowest=lowest)).to_pandas()
        ordered = rows.sort_values([of, "score"], ascending=[True, lowest], kind="stable")
        expected = ordered.groupby(of).head(3)
        assert found[of].tolist() == expected[of].tolist()
        assert found["score"].tolist() == expected["score"].tolist()


def test_unseen_leaves_the_pairs_that_are_not_known(everything: pa.Table) -> None:
    (left,) = unseen(iter([everything]))
    assert 0 < left.num_rows < everything.num_rows
    assert not any(left["exposed"].to_pylist())
    assert left.num_rows + everything["exposed"].to_pylist().count(True) == everything.num_rows
