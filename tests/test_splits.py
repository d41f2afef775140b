"""Splits and held-out pairs: exact, stable, and the same for every engine."""

import math
from collections import Counter
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PipelineError
from pipeline.schemas import EXPOSURES, SPLITS
from pipeline.splits import hold_out, measured_users, split_users

MASK = 2**64 - 1
IDS = st.integers(-(2**63), 2**63 - 1)


def splitmix64(z: int) -> int:
    z = (z + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def slow_hash(*keys: int) -> int:
    """The hash as the module's docstring describes it, in Python's integers."""
    state = 0
    for key in keys:
        state = splitmix64(state ^ (key & MASK))
    return state


def slow_split(user: int, test_share: float, valid_share: float, seed: int) -> str:
    if (slow_hash(0, seed, user) >> 11) / 2**53 < test_share:
        return "test"
    return "valid" if (slow_hash(1, seed, user) >> 11) / 2**53 < valid_share else "train"


def split_by_id(ids: list[int], seed: int = 0) -> dict[int, str]:
    table = split_users(np.array(sorted(ids)), test_share=0.2, valid_share=0.1, seed=seed)
    SPLITS.check(table, "here")
    return dict(zip(table["user_id"].to_pylist(), table["split"].to_pylist(), strict=True))


def exposures(counts: dict[int, int]) -> pa.Table:
    """User u with counts[u] items, numbered from 10 u."""
    pairs = [(u, 10 * u + k) for u in sorted(counts) for k in range(counts[u])]
    return pa.table(
        {
            "user_id": pa.array([u for u, _ in pairs], pa.int64()),
            "item_id": pa.array([i for _, i in pairs], pa.int64()),
            "rating": pa.nulls(len(pairs), pa.int8()),
            "timestamp": pa.nulls(len(pairs), pa.int64()),
        }
    )


def splits(by_id: dict[int, str]) -> pa.Table:
    ids = sorted(by_id)
    return pa.table({"user_id": pa.array(ids, pa.int64()), "split": [by_id[user] for user in ids]})


def held_per_user(table: pa.Table) -> Counter[int]:
    return Counter(table.filter(table["held_out"])["user_id"].to_pylist())


def test_the_reference_hash_is_the_published_splitmix64() -> None:
    assert splitmix64(0) == 0xE220A8397B1DCDAF
    assert splitmix64(1234567) == 6457827717110365317


@given(st.sets(IDS, min_size=1, max_size=5), st.integers(0, 2**32))
def test_a_split_is_what_the_documented_hash_says(ids: set[int], seed: int) -> None:
    crowd = set(range(1, 200)) | ids  # enough users for three splits
    found = split_by_id(list(crowd), seed)
    assert found == {user: slow_split(user, 0.2, 0.1, seed) for user in crowd}


def test_a_users_split_does_not_change_when_others_are_appended() -> None:
    few, many = split_by_id(list(range(1, 300))), split_by_id(list(range(1, 5_000)))
    assert all(many[user] == split for user, split in few.items())


def test_the_splits_have_their_shares_and_move_with_the_seed() -> None:
    first, second = (split_by_id(list(range(20_000)), seed) for seed in (0, 1))
    share = {name: n / 20_000 for name, n in Counter(first.values()).items()}
    assert share == pytest.approx({"test": 0.2, "valid": 0.08, "train": 0.72}, abs=0.01)
    same = sum(first[user] == second[user] for user in first) / 20_000
    assert same == pytest.approx(0.2**2 + 0.08**2 + 0.72**2, abs=0.015)


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(PipelineError, match=r"leave the valid split of 60 users empty.*change"):
        split_users(np.arange(60), test_share=0.2, valid_share=1e-9, seed=3)


@given(
    st.dictionaries(st.integers(1, 50), st.integers(0, 9)).filter(lambda n: any(n.values())),
    st.floats(0.01, 0.99),
    st.integers(0, 9),
    st.randoms(use_true_random=False),
)
def test_held_out_pairs_are_those_of_smallest_hash(
    counts: dict[int, int], share: float, seed: int, random: Random
) -> None:
    by_id = {user: random.choice(["train", "valid", "test"]) for user in counts}
    table = hold_out(exposures(counts), splits(by_id), share=share, seed=seed)
    EXPOSURES.check(table, "here")
    found = set()
    for user, item, held in zip(
        *(table[name].to_pylist() for name in ("user_id", "item_id", "held_out")), strict=True
    ):
        if held:
            found.add((user, item))
    expected = set()
    for user, n in counts.items():
        quota = max(0, min(math.floor(share * n + 0.5), n - 1))
        items = sorted(range(10 * user, 10 * user + n), key=lambda i: slow_hash(2, seed, user, i))
        if by_id[user] != "train":
            expected |= {(user, item) for item in items[:quota]}
    assert found == expected


@pytest.mark.parametrize(
    ("share", "n", "held"), [(0.5, 1, 0), (0.5, 2, 1), (0.5, 3, 2), (0.2, 2, 0), (0.2, 3, 1)]
)
def test_the_share_is_rounded_half_up_and_one_exposure_stays(
    share: float, n: int, held: int
) -> None:
    counts = {1: n, 2: n, 3: n}
    by_id = {1: "train", 2: "valid", 3: "test"}
    table = hold_out(exposures(counts), splits(by_id), share=share, seed=0)
    assert held_per_user(table) == Counter({2: held, 3: held}) - Counter()


def test_what_is_held_out_does_not_depend_on_the_order_of_the_rows() -> None:
    counts, by_id = {1: 9, 2: 9, 3: 9}, {1: "test", 2: "valid", 3: "train"}
    table = exposures(counts)
    shuffled = table.take(np.random.default_rng(0).permutation(table.num_rows))
    first, second = (hold_out(t, splits(by_id), share=0.4, seed=5) for t in (table, shuffled))
    assert first.equals(second.sort_by([("user_id", "ascending"), ("item_id", "ascending")]))


@given(st.sets(IDS, min_size=3, max_size=60), st.integers(1, 40))
def test_a_sample_of_the_measured_is_of_smallest_hash(ids: set[int], most: int) -> None:
    """Of validation and test users alike; rows rise; who asks for as many as there are gets all."""
    by_id = {user: ("train", "valid", "test")[n % 3] for n, user in enumerate(ids)}
    table = splits(by_id)
    found, ordered = measured_users(table, table, most), np.array(sorted(ids))
    for name, rows in (("valid", found.valid), ("test", found.test)):
        whole = [user for user, split in by_id.items() if split == name]
        expected = sorted(sorted(whole, key=lambda user: slow_hash(3, user))[:most])
        assert ordered[rows].tolist() == expected
    assert found.rows.tolist() == sorted([*found.valid.tolist(), *found.test.tolist()])
    everybody = measured_users(table, table, None)
    assert found.is_sample == (len(found.rows) < len(everybody.rows))
    assert not everybody.is_sample


def test_a_sample_says_of_how_many_it_is() -> None:
    table = splits({n: ("train", "valid", "test")[n % 3] for n in range(3000)})
    assert str(measured_users(table, table, None)) == "2,000 validation and test users"
    sample = "a sample of 1,200 of 2,000 validation and test users"
    assert str(measured_users(table, table, 600)) == sample
