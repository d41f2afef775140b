"""What stands beside an AUC: its ceiling, what x itself gives away, and the known truth."""

import numpy as np
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from pipeline.arrays import Doubles, Floats, Ints, Singles
from pipeline.auc import Sides, TaskAucs, task_aucs

FLOOR = 1e-12  # of a class's share, whose logarithm is taken


def perfect_label_aucs(classes: Ints, base: Ints, nominal: Ints, anomalous: Ints) -> Doubles:
    """AUC of a scorer that knows everybody's label and nothing else, (M,): 1, 1/2 or 0.

    Its score is log share_t(label) - log share_base(label): the true log ratio, were users of a
    class all alike. It can fall short of 1, since classes are picked by raw counts but a ratio
    divides by the base; and it binds no scorer that knows more than the label.

    Args:
        classes: training exposures of each task by class, (M, K).
        base: counts of the base distribution p by class, (K,).
        nominal: the task's class that should score high, (M,).
        anomalous: the task's class that should score low, (M,).
    """
    share = classes / np.maximum(classes.sum(axis=1, keepdims=True), 1)
    score = np.log(np.maximum(share, FLOOR)) - np.log(np.maximum(base / base.sum(), FLOOR))
    task = np.arange(len(classes))
    aucs: Doubles = (1 + np.sign(score[task, nominal] - score[task, anomalous])) / 2
    return aucs


def class_chances(x: Singles, codes: Ints, train: Ints, test: Ints, classes: int) -> Floats | None:
    """Each test user's chance of each class, (K, T), by a multinomial logistic regression on x.

    Args:
        x: user vectors, (U, f_dim).
        codes: class of each user, (U,).
        train: rows of the users it is fitted on.
        test: rows of the users it is asked about, (T,).
        classes: their number, K. One that the training users lack has no chance.

    Returns:
        None where the training users are all of one class.
    """
    known = np.unique(codes[train])
    if len(known) < 2:
        return None
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    chances = np.zeros((classes, len(test)), np.float32)
    # Many small products: on a busy machine a second thread waits far longer than it helps.
    with threadpool_limits(limits=1, user_api="blas"):
        chances[known] = probe.fit(x[train], codes[train]).predict_proba(x[test]).T
    return chances


def leak(chances: Floats, codes: Ints) -> float | None:
    """How well x tells a label: AUC of `chances` (K, T) on users of the classes `codes` (T,).

    One class against the rest, mean over classes; .5 is blind to the label. Classes that the
    training or the test users lack are skipped.

    Returns:
        None where no class is left.
    """
    known = np.flatnonzero(chances.any(axis=1))
    member = codes == known[:, None]
    found = task_aucs(chances[known], Sides(member, ~member)).defined
    return float(found.mean()) if len(found) else None


def supervised_aucs(chances: Floats, nominal: Ints, anomalous: Ints, sides: Sides) -> TaskAucs:
    """AUC of each task of a scorer that is taught the labels and sees x alone, (M,).

    Its score is log P(nominal | x) - log P(anomalous | x), from `chances` (K, T) of classes: what x
    lets a linear model reach that is told of what the yardstick asks. No scorer without labels can
    be expected above it.
    """
    logs = np.log(np.maximum(chances, FLOOR))
    return task_aucs(logs[nominal] - logs[anomalous], sides)


def mean_spearman(scores: Floats, truth: Floats) -> float:
    """Rank correlation of two scores (M, U) over users, mean over tasks; 0 for a constant row."""
    ranks, true_ranks = (rankdata(s, axis=1) - (s.shape[1] + 1) / 2 for s in (scores, truth))
    product = (ranks * true_ranks).sum(axis=1)  # (M,)
    lengths = np.sqrt((ranks**2).sum(axis=1) * (true_ranks**2).sum(axis=1))
    return float(np.divide(product, lengths, where=lengths > 0, out=np.zeros(len(product))).mean())
