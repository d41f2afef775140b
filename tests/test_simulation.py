"""The simulated world: its pairs follow the law that it states, and its ratios are the truth."""

import tracemalloc
from dataclasses import fields

import numpy as np
import pytest
from scipy.stats import rankdata

from pipeline.datasets import world as world_module
from pipeline.datasets.codes import AGES, OCCUPATIONS
from pipeline.datasets.simulation import GENRES, draw_world, simulate
from pipeline.datasets.world import TASTE_RADIUS, World, draw_pairs
from pipeline.params import Simulation
from pipeline.schemas import ITEMS, USERS
from pipeline.sections import Base

DEFAULT = Simulation(users=2_000, items=500, exposures=100_000, seed=0)
SMALL = Simulation(users=60, items=12, exposures=200, seed=3)
EVERY = slice(None)


@pytest.fixture(scope="module")
def default() -> World:
    return draw_world(DEFAULT)


@pytest.fixture(scope="module")
def small() -> World:
    return draw_world(SMALL)


@pytest.mark.parametrize(
    "size",
    [
        DEFAULT,
        SMALL,
        SMALL.model_copy(update={"exposures": 360}),
        Simulation(users=3_000, items=10, exposures=1, seed=1),
    ],
)
def test_as_many_distinct_pairs_are_expected_as_the_params_say(size: Simulation) -> None:
    assert draw_world(size).presence(EVERY, EVERY).sum() == pytest.approx(size.exposures, rel=1e-6)


def test_the_drawn_number_of_pairs_is_within_its_spread(default: World) -> None:
    user, _ = draw_pairs(default, np.random.default_rng(8))
    presence = default.presence(EVERY, EVERY)
    spread = np.sqrt((presence * (1 - presence)).sum())  # of a sum of independent pairs
    assert abs(len(user) - DEFAULT.exposures) < 4 * spread


def test_every_pair_is_present_with_its_own_probability_and_independently(
    small: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over 3,000 draws: the share of each pair, the variance of their number, no correlation."""
    monkeypatch.setattr(world_module, "CELLS", 64)  # many blocks a draw
    gen, n = np.random.default_rng(0), 3_000
    present = np.zeros((n, SMALL.users * SMALL.items), np.float32)
    for draw in present:
        user, item = draw_pairs(small, gen)
        draw[user * SMALL.items + item] = 1
    expected = small.presence(EVERY, EVERY).ravel()
    z = (present.mean(0) - expected) / np.sqrt(expected * (1 - expected) / n)
    assert abs(z).max() < 5
    assert z.std() == pytest.approx(1, abs=0.1)
    variance = (expected * (1 - expected)).reshape(SMALL.users, -1).sum(1)  # of a user's number
    found = present.reshape(n, SMALL.users, -1).sum(2).var(0)
    assert (found / variance).mean() == pytest.approx(1, abs=0.02)
    uncertain = (expected > 0.2) & (expected < 0.8)
    correlation = np.corrcoef(present[:, uncertain].T)
    off_diagonal = correlation[np.triu_indices_from(correlation, 1)]
    assert off_diagonal.std() == pytest.approx(1 / np.sqrt(n), rel=0.1)


def test_pairs_are_distinct_and_sorted_whatever_the_size_of_the_blocks(
    default: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cells in (1, 5_000, 2**20):
        monkeypatch.setattr(world_module, "CELLS", cells)
        user, item = draw_pairs(default, np.random.default_rng(1))
        assert (np.diff(user * DEFAULT.items + item) > 0).all()
        assert 0 <= item.min() <= item.max() < DEFAULT.items


def test_tastes_and_appeals_are_bounded_so_the_proposal_is_an_upper_bound(default: World) -> None:
    assert np.linalg.norm(default.taste, axis=1).max() < TASTE_RADIUS
    assert np.linalg.norm(default.appeal, axis=1).max() < TASTE_RADIUS
    bound = TASTE_RADIUS * np.linalg.norm(default.appeal, axis=1)
    assert (default.taste @ default.appeal.T <= bound).all()


def slow_log_ratio(
    world: World, users: np.ndarray, items: np.ndarray, base: Base, pool: np.ndarray
) -> np.ndarray:
    """The definition, entry by entry."""

    def presence(u: int, t: int) -> float:
        affinity = float(world.taste[u] @ world.appeal[t])
        return 1 - np.exp(-np.exp(world.activity[u] + world.popularity[t] + affinity))

    total = {t: sum(presence(u, t) for u in pool) for t in items}
    m = {t: total[t] / sum(total.values()) for t in items}
    ratio = np.empty((len(items), len(users)))
    for column, u in enumerate(users):
        q = {t: presence(u, t) / total[t] for t in items}
        p = sum(m[t] * q[t] for t in items) if base == "exposures" else 1 / len(pool)
        ratio[:, column] = [np.log(q[t] / p) for t in items]
    return ratio


@pytest.mark.parametrize("base", ["exposures", "users"])
@pytest.mark.parametrize("cells", [1, 50, 2**20])
def test_the_log_ratio_is_its_definition(
    small: World, base: Base, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world_module, "CELLS", cells)
    users, items, pool = np.array([3, 41, 0]), np.array([1, 2, 7, 10]), np.arange(5, 50)
    found = small.log_ratio(users, items, base, pool)
    np.testing.assert_allclose(found, slow_log_ratio(small, users, items, base, pool), rtol=1e-9)


def test_the_ratios_of_all_tasks_average_to_one_under_the_paper_s_base(default: World) -> None:
    """p = sum_t m_t q_t, so that sum_t m_t exp(r(u, t)) = 1 for every user."""
    users, items = np.arange(DEFAULT.users), np.arange(0, DEFAULT.items, 3)
    m = default.presence(EVERY, items).sum(0)
    ratio = default.log_ratio(users, items, "exposures")
    np.testing.assert_allclose((m / m.sum()) @ np.exp(ratio), 1, rtol=1e-9)


def test_under_the_users_base_each_ratio_averages_to_one_over_users(default: World) -> None:
    ratio = default.log_ratio(np.arange(DEFAULT.users), np.array([0, 9]), "users")
    np.testing.assert_allclose(np.exp(ratio).mean(1), 1, rtol=1e-9)


def test_another_pool_shifts_each_task_by_a_constant(default: World) -> None:
    users, items = np.arange(100), np.arange(20)
    shift = default.log_ratio(users, items, "exposures") - default.log_ratio(
        users, items, "exposures", np.arange(500, 900)
    )
    np.testing.assert_allclose(shift, shift[:, :1].repeat(100, 1), atol=1e-9)


def test_the_latents_explain_every_intensity(default: World) -> None:
    x = default.latents
    weight = np.column_stack([default.appeal, np.ones(DEFAULT.items)])
    log = x @ weight.T + default.popularity
    np.testing.assert_allclose(np.exp(log), default.intensity(EVERY, EVERY), rtol=1e-9)


def test_the_same_seed_gives_the_same_source_and_another_gives_another() -> None:
    first, again = simulate(SMALL), simulate(SMALL)
    other = simulate(SMALL.model_copy(update={"seed": 4}))
    for field in fields(first):
        assert getattr(first, field.name) == getattr(again, field.name)
    assert not first.exposures.equals(other.exposures)
    assert not first.users.equals(other.users)


def test_ids_are_rows_plus_one_and_everybody_is_in_the_tables(small: World) -> None:
    source = simulate(SMALL)
    USERS.check(source.users, "here")
    ITEMS.check(source.items, "here")
    assert source.users["user_id"].to_pylist() == list(range(1, SMALL.users + 1))
    assert source.items["item_id"].to_pylist() == list(range(1, SMALL.items + 1))
    counts = np.bincount(source.exposures["user_id"].to_numpy(), minlength=SMALL.users + 1)[1:]
    expected = small.presence(EVERY, EVERY).sum(1)
    assert np.corrcoef(counts, expected)[0, 1] > 0.6


def test_labels_have_movielens_codes_and_unequal_shares(default: World) -> None:
    users = default.users
    assert set(users["age"].to_pylist()) == set(AGES)
    assert set(users["gender"].to_pylist()) == {"F", "M"}
    assert set(users["occupation"].to_pylist()) == set(OCCUPATIONS)
    assert all(len(code) == 5 and code.isdigit() for code in users["zip_code"].to_pylist())
    age, occupation = users["age"].to_numpy(), users["occupation"].to_numpy()
    assert age[occupation == 10].max() <= 18  # pupils
    assert age[occupation == 13].min() >= 45  # the retired


def test_items_have_one_to_three_genres_and_a_year(default: World) -> None:
    genres = default.items["genres"].to_pylist()
    assert {len(one) for one in genres} == {1, 2, 3}
    assert {name for one in genres for name in one} == set(GENRES)
    years = [int(title[-5:-1]) for title in default.items["title"].to_pylist()]
    assert 1930 <= min(years) < 1980 < max(years) <= 2000


def test_activity_and_popularity_have_long_tails(default: World) -> None:
    presence = default.presence(EVERY, EVERY)
    for counts in (presence.sum(1), presence.sum(0)):
        assert counts.mean() > 1.1 * np.median(counts)
        assert counts.max() > 3 * np.median(counts)
    assert (presence.sum(0) >= 100).sum() > 250  # enough items for tasks


def auc(high: np.ndarray, low: np.ndarray) -> float:
    rank = rankdata(np.r_[high, low])[: len(high)].sum()
    return (rank - len(high) * (len(high) + 1) / 2) / (len(high) * len(low))


def test_the_true_ratio_tells_an_item_s_commonest_age_from_its_rarest(default: World) -> None:
    age = np.searchsorted([25, 35, 45, 56], default.users["age"].to_numpy(), side="right")
    presence = default.presence(EVERY, EVERY)  # (U, T)
    ratio = default.log_ratio(np.arange(DEFAULT.users), np.arange(DEFAULT.items), "exposures")
    expected = np.stack([presence[age == c].sum(0) for c in range(5)])  # (5, T) exposures a class
    aucs = [
        auc(ratio[t, age == expected[:, t].argmax()], ratio[t, age == expected[:, t].argmin()])
        for t in range(DEFAULT.items)
    ]
    assert np.mean(aucs) > 0.65
    share = expected / expected.sum(0)
    entropy = -(share * np.log(share)).sum(0)
    assert entropy.std() > 0.05  # so that the entropy filter has something to choose by


def measured_peak(size: Simulation) -> tuple[int, int]:
    """Drawn pairs, and the most bytes that were held while drawing them."""
    tracemalloc.start()
    try:
        source = simulate(size)
        return source.exposures.num_rows, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_large_world_is_drawn_without_a_users_by_items_matrix() -> None:
    drawn, peak = measured_peak(Simulation(users=20_000, items=4_000, exposures=400_000, seed=0))
    assert drawn == pytest.approx(400_000, rel=0.01)
    assert peak < 20_000 * 4_000 * 8 / 4  # the matrix of float64 would take four times this


@pytest.mark.full
def test_ten_million_exposures_are_drawn_in_a_gigabyte() -> None:
    size = Simulation(users=100_000, items=10_000, exposures=10_000_000, seed=0)
    drawn, peak = measured_peak(size)
    assert drawn == pytest.approx(size.exposures, rel=0.002)
    assert peak < 2**30


def test_beyond_a_grid_sums_over_all_cells_are_estimated_closely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And no cell is looked at but those of the sample, however many there are."""
    monkeypatch.setattr(world_module, "GRID", 1000)
    with monkeypatch.context() as patch:
        patch.setattr(World, "intensity", lambda *_: pytest.fail("went over all cells"))
        estimated = draw_world(DEFAULT)
    assert estimated.presence(EVERY, EVERY).sum() == pytest.approx(DEFAULT.exposures, rel=3e-3)
    np.testing.assert_array_equal(estimated.popularity, draw_world(DEFAULT).popularity)
