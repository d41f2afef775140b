"""AUCs of all tasks and their bootstrap, against loops around scikit-learn."""

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.command import command
from benchmarks.data import TASKS, USERS
from benchmarks.page import Section
from benchmarks.timing import Race, race
from pipeline.arrays import Floats
from pipeline.auc import Sides, resample_weights, resampled_means, task_aucs

ROUNDS, TEST_USERS, CLASSES, RESAMPLES = 9, USERS // 5, 5, 1000
PLAIN_TASKS = 60  # whose AUCs a round of the slow way takes
TEXT = f"""
{TEST_USERS:,} test users in {CLASSES} classes, {TASKS:,} tasks, each of which should score one
class above another. AUCs: one a task. Bootstrap: the mean AUC under {RESAMPLES:,} reweightings of
the users; plain is `roc_auc_score` with `sample_weight`, a task and a resample at a time, measured
on {PLAIN_TASKS} of them. A unit is a task's AUC (under one resample).
"""


def main() -> Section:
    """AUCs a second both ways."""
    gen = np.random.default_rng(0)
    scores = gen.standard_normal((TASKS, TEST_USERS), np.float32)
    group = gen.integers(CLASSES, size=TEST_USERS)
    high = gen.integers(CLASSES, size=TASKS)
    low = (high + gen.integers(1, CLASSES, size=TASKS)) % CLASSES
    sides = Sides(group == high[:, None], group == low[:, None])
    weights = resample_weights(TEST_USERS, RESAMPLES, gen)
    some = slice(PLAIN_TASKS)
    aucs = race(
        {
            "plain": (lambda: _plain(scores[some], sides), PLAIN_TASKS),
            "ours": (lambda: task_aucs(scores, sides), TASKS),
        },
        ROUNDS,
    )
    bootstrap = race(
        {
            "plain": (lambda: _plain(scores[some], sides, weights[:, 0]), PLAIN_TASKS),
            "ours": (lambda: resampled_means(scores, sides, weights), TASKS * RESAMPLES),
        },
        ROUNDS,
    )
    rows = [_row("AUCs", aucs), _row("bootstrap", bootstrap)]
    header = (f"n = {ROUNDS}", "scikit-learn, thousand/s", "this pipeline, thousand/s", "ratio")
    return Section("Evaluation", "python -m benchmarks.evaluation", TEXT, header, rows)


def _plain(scores: Floats, sides: Sides, weight: np.ndarray | None = None) -> list[float]:
    aucs = []
    for score, positive, negative in zip(scores, sides.positive, sides.negative, strict=False):
        of_either = positive | negative
        of_weight = None if weight is None else weight[of_either]
        aucs.append(roc_auc_score(positive[of_either], score[of_either], sample_weight=of_weight))
    return aucs


def _row(name: str, result: Race) -> list[str]:
    rates = [result.rate(way, 1e-3).show() for way in ("plain", "ours")]
    return [name, *rates, result.ratio("plain", "ours").show()]


if __name__ == "__main__":
    command(main)
