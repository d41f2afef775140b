"""DATASAMPLER: positives once an epoch, negatives from p, each in its own proportion."""

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, chisquare

from pipeline.steps.sampler import PairSampler, shifted

EXPOSED = {0: [0, 1, 2, 3, 4, 5], 1: [0, 1, 4], 2: [5]}  # task -> its users
PAIRS = [(user, task) for task, users in EXPOSED.items() for user in users]
BASES = {
    "exposures": [user for user, _ in PAIRS],  # p = sum_t m_t q_t
    "users": list(range(8)),  # also those who were exposed to nothing
}


def sampler(base: str = "exposures") -> PairSampler:
    user, task = (torch.tensor(column) for column in zip(*PAIRS, strict=True))
    return PairSampler(user, task, torch.tensor(BASES[base]))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_every_positive_pair_comes_once_an_epoch_in_another_order_each() -> None:
    gen, orders = generator(), []
    for _ in range(3):
        batches = list(sampler().epoch(4, gen))
        users, tasks = torch.cat([u for u, _ in batches], 1), torch.cat([t for _, t in batches])
        order = list(zip(users[0].tolist(), tasks.tolist(), strict=True))
        assert sorted(order) == sorted(PAIRS)
        orders.append(order)
    assert len({tuple(order) for order in orders}) == 3


def test_the_order_of_the_pairs_is_uniform() -> None:
    """Each is the first of an epoch equally often: a batch is a draw t ~ m, x ~ q_t, x~ ~ p."""
    gen = generator()
    firsts, negatives = Counter(), np.zeros(6)
    for _ in range(4000):
        users, tasks = next(sampler().epoch(1, gen))
        firsts[int(users[0, 0]), int(tasks[0])] += 1
        negatives[users[1, 0]] += 1
    assert chisquare([firsts[pair] for pair in PAIRS]).pvalue > 0.001
    assert chisquare(negatives, 400 * np.bincount(BASES["exposures"])).pvalue > 0.001


@pytest.mark.parametrize("base", BASES)
def test_negatives_follow_the_base_whatever_the_task(base: str) -> None:
    gen, drawn = generator(), np.zeros((3, 8))
    for _ in range(3000):
        for users, tasks in sampler(base).epoch(5, gen):
            np.add.at(drawn, (tasks.numpy(), users[1].numpy()), 1)
    share = np.bincount(BASES[base], minlength=8) / len(BASES[base])
    possible = share > 0
    assert drawn[:, ~possible].sum() == 0
    total = drawn.sum(0)[possible]
    assert chisquare(total, total.sum() * share[possible]).pvalue > 0.001
    assert chi2_contingency(drawn[:, possible]).pvalue > 0.001  # independent of the task
    tasks_drawn = drawn.sum(1)
    assert (tasks_drawn == 3000 * np.array([6, 3, 1])).all()  # m_t, as for the positives


def test_within_a_batch_a_negative_is_the_user_of_any_other_pair_equally_often() -> None:
    gen, drawn, others = generator(), np.zeros((3, 8)), np.zeros((3, 8))
    of_all = np.bincount(BASES["exposures"], minlength=8)
    for user, task in PAIRS:
        others[task] += of_all - np.eye(8)[user]
    epochs = 4000
    for _ in range(epochs):
        batches = list(sampler().within_batches(4, gen))
        for users, tasks in batches:
            positive, negative = shifted(users)
            assert positive.tolist() == users.tolist()
            assert sorted(negative.tolist()) == sorted(users.tolist())
            np.add.at(drawn, (tasks.numpy(), negative.numpy()), 1)
        positives = torch.cat([users for users, _ in batches]).tolist()
        tasks_in_order = torch.cat([tasks for _, tasks in batches]).tolist()
        assert sorted(zip(positives, tasks_in_order, strict=True)) == sorted(PAIRS)
    expected = others * epochs / (len(PAIRS) - 1)
    for task in EXPOSED:
        possible = expected[task] > 0
        assert drawn[task, ~possible].sum() == 0
        assert chisquare(drawn[task, possible], expected[task, possible]).pvalue > 0.001


@pytest.mark.parametrize("batch_size", [2, 3, 4, 7, 10, 99])
def test_no_batch_is_left_with_one_pair_and_so_without_another(batch_size: int) -> None:
    sizes = [len(tasks) for _, tasks in sampler().within_batches(batch_size, generator())]
    assert sum(sizes) == len(PAIRS)
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) > 1


def test_negatives_are_drawn_anew_each_epoch() -> None:
    gen = generator()
    first, second = (torch.cat([u[1] for u, _ in sampler().epoch(4, gen)]) for _ in range(2))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("pairs", "wanted", "sizes"),
    [
        (1000, 100, [100] * 10),
        (1040, 100, [104] * 10),
        (1060, 100, [97] * 10 + [90]),
        (7, 100, [7]),
    ],
)
def test_batches_are_of_one_size_near_the_wanted_one(
    pairs: int, wanted: int, sizes: list[int]
) -> None:
    column = torch.arange(pairs)
    batches = list(PairSampler(column, column, column).epoch(wanted, generator()))
    assert [len(task) for _, task in batches] == sizes
    assert all(users.shape == (2, len(task)) for users, task in batches)


@pytest.mark.parametrize("base", BASES)
def test_a_validation_set_holds_every_pair_in_its_place_and_a_negative_from_the_base(
    base: str,
) -> None:
    users, tasks = sampler(base).fixed(generator())
    assert list(zip(users[0].tolist(), tasks.tolist(), strict=True)) == PAIRS
    assert set(users[1].tolist()) <= set(BASES[base])
    again, _ = sampler(base).fixed(generator())
    other, _ = sampler(base).fixed(generator(1))
    assert torch.equal(users, again)
    assert not torch.equal(users, other)


def test_equal_generators_give_equal_epochs() -> None:
    once, again, other = (list(sampler().epoch(4, generator(seed))) for seed in (0, 0, 1))
    for (users, tasks), (same_users, same_tasks) in zip(once, again, strict=True):
        assert torch.equal(users, same_users)
        assert torch.equal(tasks, same_tasks)
    assert any(not torch.equal(a, b) for (a, _), (b, _) in zip(once, other, strict=True))


def test_positives_alone_come_once_an_epoch_in_a_uniform_order() -> None:
    gen, firsts = generator(), Counter()
    for _ in range(2000):
        batches = list(sampler().positives(4, gen))
        assert [len(user) for user, _ in batches] == [5, 5]
        users, tasks = (torch.cat(column).tolist() for column in zip(*batches, strict=True))
        assert sorted(zip(users, tasks, strict=True)) == sorted(PAIRS)
        firsts[users[0], tasks[0]] += 1
    assert chisquare([firsts[pair] for pair in PAIRS]).pvalue > 0.001
    assert len(list(sampler().positives(100, gen))) == 1
    one, same, other = (
        next(sampler().positives(100, generator(seed)))[0].tolist() for seed in (0, 0, 1)
    )
    assert one == same != other
