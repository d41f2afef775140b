"""Trained tasks stand in for those that came later: placed by as few exposures, judged by them."""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.by_hand.familiarity import Familiarity
from pipeline.conditional import train_conditional
from pipeline.datasets.source import Source
from pipeline.embeddings import task_means
from pipeline.examples import Examples
from pipeline.models.ratio import RatioNet
from pipeline.newcomers.running import Running
from pipeline.newcomers.stand_ins import Level, StandIns
from pipeline.newcomers.update import update
from pipeline.pairs import Pairs, ids_of, split_rows, task_pairs
from pipeline.training.session import Session
from tests.worlds import default_params, small_world

NEW = 20  # items that training had not


@dataclass(frozen=True)
class Later:
    """What is known when some items came after the training, and what there is beyond it."""

    now: Running
    net: RatioNet
    splits: pa.Table
    unseen: Pairs  # of the items that came later, by rows of now

    def familiarity(self, stand_ins: StandIns | None, alpha: float = 0.1) -> Familiarity:
        tasks, features = self.now.tasks, self.now.features
        return Familiarity(
            self.net,
            x=torch.from_numpy(self.now.x),
            e=torch.from_numpy(self.now.e),
            pairs=task_pairs(self.now.exposures, features, tasks),
            valid=split_rows(self.splits, features, "valid"),
            size=tasks.column("train_exposures").to_numpy(),
            alpha=alpha,
            stand_ins=stand_ins,
        )


def came_later(exposures: int) -> Later:
    """A training of some items on true tastes, and others placed by a few exposures each."""
    world = small_world(users=1500, items=80, exposures=30_000, least=60)
    params = default_params(
        ratio={"batch_size": 256, "max_epochs": 15, "dropout": [0.1, 0.1, 0.1], "lr": 0.01}
    ).ratio
    rows = np.random.default_rng(0).permutation(world.tasks.num_rows)
    tasks = world.tasks.take(np.sort(rows[NEW:]))
    tasks = tasks.set_column(0, "task_id", pa.array(np.arange(len(tasks), dtype=np.int32)))
    new = ids_of(world.tasks, "item_id")[np.sort(rows[:NEW])]
    of_new = np.isin(ids_of(world.exposures, "item_id"), new)
    known = world.exposures.filter(pa.array(~of_new))
    examples = Examples.of(world.features, tasks, known, world.splits)
    start = task_means(examples.x, examples.learned, examples.tasks)
    ratio = train_conditional(examples, start, params=params, seed=0, session=Session())
    old = world.world.items.filter(pa.array(~np.isin(ids_of(world.world.items, "item_id"), new)))
    before = Running.of(world.users, old, known, world.splits, world.features, tasks, ratio.e)
    rest = world.exposures.filter(pa.array(of_new))
    by_learned = np.isin(ids_of(rest, "user_id"), before.learned)
    gen, first = np.random.default_rng(1), np.zeros(len(rest), bool)
    for item in new:
        of_item = np.flatnonzero(by_learned & (ids_of(rest, "item_id") == item))
        first[gen.choice(of_item, exposures, replace=False)] = True
    taken, items = rest.filter(pa.array(first)), world.world.items
    source = Source(
        users=pa.table({"user_id": np.unique(ids_of(taken, "user_id"))}),
        items=items.filter(pa.array(np.isin(ids_of(items, "item_id"), new))),
        exposures=taken.drop_columns("held_out"),
    )
    now, _ = update(before, source, ratio.net, base="exposures", fold=None)
    unseen = task_pairs(rest.filter(pa.array(~first)), now.features, now.tasks)
    return Later(now, ratio.net, world.splits, unseen)


@pytest.fixture(scope="module")
def later() -> Later:
    return came_later(5)


@pytest.mark.parametrize("alpha", [0.05, 0.1])
def test_of_the_audience_of_an_item_that_came_later_no_more_than_alpha_are_called_fresh(
    later: Later, alpha: float
) -> None:
    def false_alarms(stand_ins: StandIns | None) -> float:
        read = later.familiarity(stand_ins, alpha).pairs(later.unseen.user, later.unseen.task)
        return float((read.column("p_value").to_numpy() <= alpha).mean())

    assert len(later.unseen) > 3000
    assert false_alarms(StandIns.of(later.now)) == pytest.approx(alpha, abs=0.4 * alpha)
    assert false_alarms(None) > 1.4 * alpha


@pytest.mark.parametrize("alpha", [0.1, 0.002])  # the latter takes 499 pairs
def test_trained_items_are_judged_as_without_those_that_came_later(
    later: Later, alpha: float
) -> None:
    users, trained = np.arange(0, 1500, 50), np.flatnonzero(~later.now.later)
    with_them, without = (later.familiarity(some, alpha) for some in (StandIns.of(later.now), None))
    for one, other in zip(
        with_them.grid(users, trained), without.grid(users, trained), strict=True
    ):
        assert one.equals(other)
    kinds = {
        kind
        for table in with_them.grid(users, np.flatnonzero(later.now.later))
        for kind in table.column("calibration").to_pylist()
    }
    assert kinds == {"placed"}


def test_a_stand_in_is_placed_by_users_of_its_own_drawn_once_each(later: Later) -> None:
    made = StandIns.of(later.now)
    (level,) = made.levels(np.ones(later.now.tasks.num_rows), 1)
    assert level.of.tolist() == np.flatnonzero(later.now.later).tolist()
    assert not later.now.later[level.task].any()
    exposures = later.now.exposures.to_pandas()
    ids = ids_of(later.now.features, "user_id")
    for task, e in zip(level.task.tolist(), level.e, strict=True):
        item = later.now.tasks.column("item_id")[task].as_py()
        audience = exposures[(exposures.item_id == item) & ~exposures.held_out].user_id
        users = made.user[(made.task == task) & (made.place < 5)]
        assert len(set(users.tolist())) == 5
        assert set(ids[users]) <= set(audience) & set(later.now.learned.tolist())
        mean = later.now.x[users].astype(np.float64).mean(0, keepdims=True)
        assert later.now.placement.apply(mean)[0] == pytest.approx(e, abs=1e-5)


def levels(later: Later, wanted: list[int], least: int) -> list[Level]:
    """Of tasks that came later by so many exposures, by trained ones of three pairs each."""
    made = StandIns.of(later.now)
    some = np.zeros(len(made.wanted), np.int64)
    some[np.flatnonzero(later.now.later)[: len(wanted)]] = wanted
    return list(replace(made, wanted=some).levels(np.full(len(some), 3), least))


def test_a_level_is_of_no_more_exposures_than_a_task_has_and_of_half_as_many_at_least(
    later: Later,
) -> None:
    found = levels(later, [5, 9, 10, 19, 20, 41], least=3)
    of = np.flatnonzero(later.now.later)
    assert [level.of.tolist() for level in found] == [
        of[:2].tolist(),
        of[2:4].tolist(),
        of[4:5].tolist(),
        of[5:6].tolist(),
    ]


def test_a_level_goes_down_until_its_stand_ins_have_enough_pairs(later: Later) -> None:
    made = StandIns.of(later.now)
    have = np.bincount(made.task, minlength=len(made.wanted))
    trained = int(np.count_nonzero(~later.now.later))
    for least in (3, 3 * (trained // 2), 3 * trained):
        (level,) = levels(later, [10**6, 10**5], least)
        assert len(level.of) == 2
        assert 3 * len(level.task) >= least
        n = have[level.task].min()  # no more exposures than any stand-in has
        more = int(np.count_nonzero(have >= 2 * n))
        assert 3 * more < least or more == len(level.task)
    (level,) = levels(later, [10**6], 10**6)  # more than there are
    assert len(level.task) == trained
