"""Three ways to judge rows of groups: one model of all, one detector pooled, one for each."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
import pandas as pd
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM

from examples.grouped_metrics import COLUMNS, Bools, Floats
from pipeline.estimator import CollaborativeAnomalyDetector

Verdicts: TypeAlias = tuple[Floats, Bools]  # (n,) scores, high = common; (n,) flagged
Detector: TypeAlias = Any  # of scikit-learn
Make: TypeAlias = Callable[[], Detector]


class Way(Protocol):
    """What is compared. Tables have the columns of `grouped_metrics`, and `group`."""

    def learn(self, before: pd.DataFrame) -> None:
        """Learn what is usual in each group."""

    def admit(self, before: pd.DataFrame) -> None:
        """Learn, afterwards, what is usual in further groups."""

    def judge(self, later: pd.DataFrame) -> Verdicts:
        """Score and flag rows of groups it has learned of."""


@dataclass
class Collaborative:
    """One model of all groups; groups that come later are placed by their rows, untrained."""

    alpha: float
    batch_size: int
    max_epochs: int

    def learn(self, before: pd.DataFrame) -> None:
        """See Way."""
        self.detector = CollaborativeAnomalyDetector(
            alpha=self.alpha,
            batch_size=self.batch_size,
            max_epochs=self.max_epochs,
            random_state=0,
        )
        self.detector.fit(before[COLUMNS], before["group"])

    def admit(self, before: pd.DataFrame) -> None:
        """See Way."""
        self.detector.embed(before[COLUMNS], before["group"])

    def judge(self, later: pd.DataFrame) -> Verdicts:
        """See Way."""
        rows, group = later[COLUMNS], later["group"]
        score = np.asarray(self.detector.score_samples(rows, group))
        return score, np.asarray(self.detector.predict(rows, group)) < 0


@dataclass
class Pooled:
    """A detector that knows nothing of groups, or sees each group's columns standardised."""

    make: Make
    standardised: bool
    before: pd.DataFrame = field(default_factory=pd.DataFrame)  # all that it has learned from

    def learn(self, before: pd.DataFrame) -> None:
        """See Way."""
        self.admit(before)

    def admit(self, before: pd.DataFrame) -> None:
        """See Way."""
        self.before = pd.concat([self.before, before])
        by_group = self.before.groupby("group")[COLUMNS]
        self.mean, self.spread = by_group.mean(), by_group.std()
        self.detector = self.make().fit(self._columns(self.before))

    def judge(self, later: pd.DataFrame) -> Verdicts:
        """See Way."""
        rows = self._columns(later)
        return self.detector.score_samples(rows), self.detector.predict(rows) < 0

    def _columns(self, rows: pd.DataFrame) -> Floats:
        columns: Floats = rows[COLUMNS].to_numpy()
        if not self.standardised:
            return columns
        mean, spread = (of.loc[rows["group"]].to_numpy() for of in (self.mean, self.spread))
        scores: Floats = (columns - mean) / spread
        return scores


@dataclass
class PerGroup:
    """A detector for every group."""

    make: Make
    detectors: dict[str, Detector] = field(default_factory=dict)

    def learn(self, before: pd.DataFrame) -> None:
        """See Way."""
        for name, rows in before.groupby("group"):
            self.detectors[str(name)] = self.make().fit(rows[COLUMNS].to_numpy())

    def admit(self, before: pd.DataFrame) -> None:
        """See Way."""
        self.learn(before)

    def judge(self, later: pd.DataFrame) -> Verdicts:
        """See Way."""
        score, flagged = np.empty(len(later)), np.empty(len(later), bool)
        for name, places in later.groupby("group").indices.items():
            rows, detector = later[COLUMNS].to_numpy()[places], self.detectors[str(name)]
            score[places] = detector.score_samples(rows)
            flagged[places] = detector.predict(rows) < 0
        return score, flagged


def forest(alpha: float) -> Make:
    """Makes isolation forests that flag a share `alpha` of what they learn from."""
    return lambda: IsolationForest(contamination=alpha, random_state=0)


def neighbours(alpha: float) -> Make:
    """Makes local outlier factors that flag a share `alpha` of what they learn from."""
    return lambda: make_pipeline(
        StandardScaler(), LocalOutlierFactor(novelty=True, contamination=alpha)
    )


def support(alpha: float) -> Make:
    """Makes one-class SVMs that flag at most a share `alpha` of what they learn from."""
    return lambda: make_pipeline(StandardScaler(), OneClassSVM(nu=alpha))
