"""AUC by counting, its ROC and its bootstrap, against scikit-learn and slow loops."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score, roc_curve

from pipeline.arrays import Floats
from pipeline.auc import Sides, mean_roc, resample_weights, resampled_means, task_aucs
from pipeline.evaluation import ROC_GRID

USERS = 12


@st.composite
def measured(draw: st.DrawFn) -> tuple[Floats, Sides]:
    """Scores of a few tasks, full of ties, and sides of which some are empty and some equal."""
    tasks = draw(st.integers(1, 5))
    row = st.lists(st.integers(-2, 2), min_size=USERS, max_size=USERS)
    side = st.lists(st.sampled_from([-1, 0, 1]), min_size=USERS, max_size=USERS)
    scores = np.array([draw(row) for _ in range(tasks)], np.float32)
    patterns = [draw(side), draw(side)]
    sides = np.array([draw(st.sampled_from(patterns)) for _ in range(tasks)])
    return scores, Sides(sides > 0, sides < 0)


def sklearn_auc(scores: Floats, sides: Sides, task: int, weight: np.ndarray | None = None) -> float:
    """AUC of one task, NaN where a side is empty or weighs nothing."""
    positive, negative = sides.positive[task], sides.negative[task]
    weight = np.ones(len(positive)) if weight is None else weight
    if not (weight[positive].sum() and weight[negative].sum()):
        return np.nan
    part = (positive | negative) & (weight > 0)
    return roc_auc_score(positive[part], scores[task, part], sample_weight=weight[part])


@given(measured())
def test_auc_equals_sklearns_with_ties(case: tuple[Floats, Sides]) -> None:
    scores, sides = case
    expected = [sklearn_auc(scores, sides, t) for t in range(len(scores))]
    found = task_aucs(scores, sides)
    np.testing.assert_allclose(found.auc, expected, atol=1e-12)
    np.testing.assert_array_equal(np.isnan(found.auc), ~sides.defined)
    assert len(found.defined) == sides.defined.sum()


@given(measured())
def test_ties_are_the_equal_pairs(case: tuple[Floats, Sides]) -> None:
    scores, sides = case
    found = task_aucs(scores, sides)
    for t, row in enumerate(scores):
        positive, negative = row[sides.positive[t]], row[sides.negative[t]]
        assert found.ties[t] == sum(a == b for a in positive for b in negative)
        assert (found.positives[t], found.negatives[t]) == (len(positive), len(negative))


@given(measured())
def test_a_rising_map_changes_nothing_and_a_falling_one_gives_the_complement(
    case: tuple[Floats, Sides],
) -> None:
    scores, sides = case
    auc = task_aucs(scores, sides).auc
    np.testing.assert_array_equal(task_aucs(np.exp(scores) * 3, sides).auc, auc)
    np.testing.assert_allclose(task_aucs(-scores, sides).auc, 1 - auc)
    swapped = Sides(sides.negative, sides.positive)
    np.testing.assert_allclose(task_aucs(scores, swapped).auc, 1 - auc)


@settings(max_examples=20)  # each is up to 100 AUCs by scikit-learn
@given(measured(), st.integers(0, 2**32 - 1))
def test_resampled_means_equal_a_loop_over_tasks_and_resamples(
    case: tuple[Floats, Sides], seed: int
) -> None:
    scores, sides = case
    if not sides.defined.any():
        return
    weights = resample_weights(USERS, 20, np.random.default_rng(seed))
    slow = [[sklearn_auc(scores, sides, t, w) for t in range(len(scores))] for w in weights.T]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a resample without a task
        expected = np.nanmean(slow, axis=1)
    np.testing.assert_allclose(resampled_means(scores, sides, weights), expected, atol=1e-12)


def test_a_task_whose_side_vanishes_leaves_the_resample() -> None:
    """Task 0 (AUC 1) needs user 0 and 1, task 1 (AUC 0) user 2 and 3."""
    scores = np.array([[2, 1, 0, 0], [0, 0, 1, 2]], np.float32)
    positive = np.array([[True, False, False, False], [False, False, True, False]])
    negative = np.array([[False, True, False, False], [False, False, False, True]])
    weights = np.array([[1, 1, 1, 1], [3, 1, 0, 0], [0, 2, 1, 1], [2, 0, 2, 0]], np.float32).T
    means = resampled_means(scores, Sides(positive, negative), weights)
    np.testing.assert_array_equal(means, [0.5, 1, 0, np.nan])


def test_weights_of_one_give_the_mean_auc() -> None:
    gen = np.random.default_rng(0)
    scores, sides = random_case(gen, tasks=30, users=50)
    means = resampled_means(scores, sides, np.ones((50, 1), np.float32))
    assert means == pytest.approx(task_aucs(scores, sides).defined.mean(), abs=1e-12)


def test_sums_stay_exact_for_many_tasks_of_equal_sides() -> None:
    """1,500 tasks x 600 users: entries reach 10^6, sums 10^9, far beyond what float32 counts."""
    gen = np.random.default_rng(0)
    scores = gen.integers(0, 9, (1500, 600)).astype(np.float32)
    positive = np.tile(np.arange(600) < 300, (1500, 1))
    weights = resample_weights(600, 2, gen)
    means = resampled_means(scores, Sides(positive, ~positive), weights)
    high, low = scores[:, :300, None], scores[:, None, 300:]
    wins = (high > low).sum(0) + (high == low).sum(0) / 2  # (300, 300)
    for mean, weight in zip(means, weights.T.astype(np.float64), strict=True):
        pairs = weight[:300].sum() * weight[300:].sum()
        assert mean == pytest.approx(weight[:300] @ wins @ weight[300:] / pairs / 1500, rel=1e-14)


def test_a_resample_draws_as_many_users_as_there_are() -> None:
    weights = resample_weights(40, 500, np.random.default_rng(0))
    assert weights.shape == (40, 500)
    np.testing.assert_array_equal(weights.sum(axis=0), 40)
    np.testing.assert_array_equal(weights, np.round(weights))
    assert weights.var(axis=1).mean() == pytest.approx(39 / 40, abs=0.05)  # n p (1 - p)


def test_the_mean_roc_equals_sklearns_curves() -> None:
    """On a grid between their corners, since at a corner a curve has more than one value."""
    gen = np.random.default_rng(1)
    scores, sides = random_case(gen, tasks=8, users=40)
    grid = np.linspace(0.0013, 0.9987, 57)
    curves = []
    for t in np.flatnonzero(sides.defined):
        part = sides.positive[t] | sides.negative[t]
        fpr, tpr, _ = roc_curve(sides.positive[t, part], scores[t, part], drop_intermediate=False)
        curves.append(np.interp(grid, fpr, tpr))
    np.testing.assert_allclose(mean_roc(scores, sides, grid), np.mean(curves, axis=0), atol=1e-12)


@pytest.mark.parametrize("negatives", [10, 20, 50, 100])
def test_a_step_of_a_curve_that_lies_on_the_grid_is_the_same_step_everywhere(
    negatives: int,
) -> None:
    """One positive user below k of the negatives: the curve rises at k / negatives exactly."""
    for k in range(negatives + 1):
        scores = np.append(np.arange(negatives), negatives - k - 0.5).astype(np.float32)[None]
        positive = np.arange(negatives + 1)[None] == negatives
        roc = mean_roc(scores, Sides(positive, ~positive), ROC_GRID)
        assert roc.tolist() == [float(100 * k <= n * negatives) for n in range(101)]


def test_the_area_under_the_mean_roc_is_the_mean_auc() -> None:
    scores, sides = random_case(np.random.default_rng(2), tasks=20, users=60)
    grid = np.linspace(0, 1, 20_001)
    area = np.trapezoid(mean_roc(scores, sides, grid), grid)
    assert area == pytest.approx(task_aucs(scores, sides).defined.mean(), abs=1e-3)


def random_case(gen: np.random.Generator, *, tasks: int, users: int) -> tuple[Floats, Sides]:
    """Scores with ties, and sides; task 0 is undefined."""
    side = gen.integers(-1, 2, (tasks, users))
    side[0] = 0
    return gen.integers(0, 12, (tasks, users)).astype(np.float32), Sides(side > 0, side < 0)


def test_the_interval_over_users_covers_the_true_auc_as_often_as_it_says() -> None:
    """250 draws of 120 users of two classes, six tasks that score them by one latent taste.

    The true mean AUC is known; 95 % of the intervals hold it, give or take three standard errors.
    """
    gen = np.random.default_rng(0)
    shift = np.array([0.2, 0.5, 0.8, 1.1, 1.4, 1.7])[:, None]
    true = norm.cdf(shift / np.sqrt(1 + 1)).mean()
    covered = 0
    for _ in range(250):
        member = gen.random(120) < 0.4
        common = gen.standard_normal(120) * 0.8  # what tasks share: it widens the interval
        own = gen.standard_normal((6, 120)) * 0.6
        scores = shift * member + common + own
        sides = Sides(np.tile(member, (6, 1)), np.tile(~member, (6, 1)))
        means = resampled_means(scores, sides, resample_weights(120, 150, gen))
        low, high = np.nanquantile(means, (0.025, 0.975))
        covered += low <= true <= high
    assert covered / 250 == pytest.approx(0.95, abs=3 * np.sqrt(0.95 * 0.05 / 250))
