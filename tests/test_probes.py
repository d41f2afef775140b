"""The ceiling, the leak and the truth that stand beside an AUC."""

from math import log

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from pipeline.auc import Sides, task_aucs
from pipeline.probes import (
    class_chances,
    leak,
    mean_spearman,
    perfect_label_aucs,
    supervised_aucs,
)

CLASSES = np.array([[6, 3, 1], [2, 5, 3], [4, 0, 6], [3, 3, 0]])  # (tasks, classes)
NOMINAL = np.array([0, 1, 2, 0])
ANOMALOUS = np.array([2, 0, 1, 2])


def test_perfect_label_by_hand() -> None:
    """Under base shares .6, .2, .2 the scores of task 1 are log 1/3, log 2.5 and log 1.5."""
    base = np.array([60, 20, 20])
    aucs = perfect_label_aucs(CLASSES, base, NOMINAL, ANOMALOUS)
    assert aucs.tolist() == [1, 1, 1, 1]  # task 0: log 1 against log .5; empty classes: log 1e-12


def test_perfect_label_falls_short_where_the_base_favours_the_nominal_class_more() -> None:
    """Task 0: log(.6/.9) = -.41 for the nominal class, log(.1/.05) = .69 for the anomalous one."""
    aucs = perfect_label_aucs(CLASSES, np.array([90, 5, 5]), NOMINAL, ANOMALOUS)
    assert aucs.tolist() == [0, 1, 1, 1]


def test_perfect_label_is_a_half_where_both_classes_are_as_common_as_in_the_base() -> None:
    aucs = perfect_label_aucs(
        np.array([[4, 2]]), np.array([400, 200]), np.array([0]), np.array([1])
    )
    assert aucs.tolist() == [0.5]


def test_perfect_label_equals_the_auc_of_its_scores() -> None:
    gen = np.random.default_rng(0)
    classes = gen.integers(0, 20, (40, 5))
    base = np.array([500, 60, 30, 20, 10])
    nominal, anomalous = classes.argmax(1), classes.argmin(1)
    codes = gen.integers(0, 5, 200)
    share = np.maximum(classes / classes.sum(1, keepdims=True), 1e-12)
    scores = (np.log(share) - np.log(base / base.sum()))[:, codes]
    sides = Sides(codes == nominal[:, None], codes == anomalous[:, None])
    expected = task_aucs(scores, sides).auc
    assert set(expected) == {0.0, 1.0}
    assert perfect_label_aucs(classes, base, nominal, anomalous).tolist() == expected.tolist()


def leaked(x: np.ndarray, codes: np.ndarray, train: np.ndarray, test: np.ndarray) -> float | None:
    chances = class_chances(x, codes, train, test, classes=4)
    return None if chances is None else leak(chances, codes[test])


def test_a_vector_that_holds_the_label_leaks_it_and_noise_does_not() -> None:
    gen = np.random.default_rng(0)
    codes = gen.integers(0, 3, 600)
    noise = gen.standard_normal((600, 4)).astype(np.float32)
    train, test = np.arange(400), np.arange(400, 600)
    telling = noise.copy()
    telling[:, 0] = 1e4 * (codes == 1)  # whatever its scale
    assert leaked(noise, codes, train, test) == pytest.approx(0.5, abs=0.06)
    assert leaked(telling, codes, train, test) > 0.74  # class 1 at 1, the others above .7


def test_the_leak_is_the_mean_over_classes_that_training_and_test_users_have() -> None:
    """The training users are of classes 0 to 2, the test users of classes 0, 1 and 3."""
    gen = np.random.default_rng(0)
    codes = np.concatenate([gen.integers(0, 3, 90), np.array([0, 1, 3] * 10)])
    x = ((codes[:, None] + gen.standard_normal((120, 3))) * [1, 0.01, 100]).astype(np.float32)
    mean, std = x[:90].mean(0), x[:90].std(0)
    probe = LogisticRegression().fit((x[:90] - mean) / std, codes[:90])
    chance = probe.predict_proba((x[90:] - mean) / std)
    expected = np.mean([roc_auc_score(codes[90:] == k, chance[:, k]) for k in (0, 1)])
    assert leaked(x, codes, np.arange(90), np.arange(90, 120)) == pytest.approx(expected, abs=1e-4)


def test_a_scorer_taught_the_labels_reaches_what_x_tells() -> None:
    """x tells class 2 from the others, and those not from each other."""
    gen = np.random.default_rng(0)
    codes = gen.integers(0, 3, 900)
    x = gen.standard_normal((900, 2)).astype(np.float32)
    x[:, 0] += 9 * (codes == 2)
    train, test = np.arange(600), np.arange(600, 900)
    chances = class_chances(x, codes, train, test, classes=3)
    assert chances is not None
    nominal, anomalous = np.array([2, 0, 0]), np.array([0, 2, 1])
    code = codes[test]
    sides = Sides(code == nominal[:, None], code == anomalous[:, None])
    found = supervised_aucs(chances, nominal, anomalous, sides).auc
    np.testing.assert_allclose(found, [1, 1, 0.5], atol=0.08)


def test_a_class_that_training_users_lack_has_no_chance() -> None:
    codes = np.array([0, 2, 0, 2, 1])
    chances = class_chances(
        np.eye(5, dtype=np.float32), codes, np.arange(4), np.arange(5), classes=4
    )
    assert chances is not None
    assert chances.shape == (4, 5)
    assert not chances[[1, 3]].any()
    np.testing.assert_allclose(chances.sum(0), 1, rtol=1e-6)


def test_the_leak_of_one_class_is_undefined() -> None:
    x = np.zeros((6, 2), np.float32)
    codes = np.array([0, 0, 0, 0, 1, 1])
    assert leaked(x, codes, np.arange(3), np.arange(3, 6)) is None
    assert leaked(x, codes[::-1], np.arange(4), np.arange(4, 6)) is None


def test_the_mean_rank_correlation_equals_scipys() -> None:
    gen = np.random.default_rng(0)
    scores = gen.integers(0, 6, (5, 30)).astype(np.float32)
    truth = gen.standard_normal((5, 30))
    expected = np.mean([spearmanr(a, b).statistic for a, b in zip(scores, truth, strict=True)])
    assert mean_spearman(scores, truth) == pytest.approx(expected, abs=1e-12)
    assert mean_spearman(truth**3, truth) == pytest.approx(1)


def test_a_constant_score_correlates_with_nothing() -> None:
    truth = np.array([[1.0, 2, 3], [1.0, 2, 3]])
    scores = np.array([[5.0, 5, 5], [log(2), log(3), log(4)]])
    assert mean_spearman(scores, truth) == pytest.approx(0.5)
