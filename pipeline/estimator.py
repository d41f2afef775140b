"""Collaborative anomaly detection with the manners of scikit-learn; see docs/detector.md.

One model for all groups (tasks) of a table. Scores are log ratios in nats: HIGH = common in its
group, LOW = anomalous there.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any, Self, TypeAlias
from warnings import warn

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from pydantic import ValidationError
from sklearn.base import BaseEstimator, OutlierMixin
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from pipeline.arrays import Doubles, Floats, Ints, Singles
from pipeline.conformal import Calibration, fewest
from pipeline.embeddings import Projection
from pipeline.errors import PipelineError
from pipeline.estimator_files import fitted_state, restore
from pipeline.group_moments import GroupMoments
from pipeline.group_names import Names, add_names, places, task_names
from pipeline.model_files import read_model, write_model
from pipeline.models.ratio import RatioNet
from pipeline.models.weights import draw_layers
from pipeline.params import Ratio
from pipeline.small_groups import Variants
from pipeline.tabular import Kept, Parts, Rows, divide, learn, log_ratios, mixture_log_ratios
from pipeline.training.history import Row

Table: TypeAlias = npt.ArrayLike | pd.DataFrame
Tasks: TypeAlias = npt.ArrayLike | pd.Series
VALID_SHARE = 0.1  # of the rows of a group, to stop by
ENOUGH = 1000  # calibration rows that are scored under every group


@dataclass(frozen=True)
class _Admitted:
    """More rows, divided, and what the detector knows of groups with them; it is as it was."""

    tasks: Names
    moments: GroupMoments
    parts: Parts


class CollaborativeAnomalyDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]
    """Finds rows that are anomalous in their group, with one model for all groups.

    Args:
        alpha: false-alarm rate of `predict`: at most this share of a group's own rows is called an
            outlier by mistake. It is calibrated on rows that nothing learned from.
        hidden: widths of the network's hidden layers.
        background: share of the base p that is spread all around the rows; see `pipeline.tabular`.
        lr: Adam's learning rate.
        batch_size: rows a step, at most.
        max_epochs: passes over the rows, at most.
        patience: passes without a lower validation loss that end the training.
        calibration_share: of the rows of each group, kept for the calibration.
        memory: rows kept for `partial_fit` to learn from once more beside new ones.
        device: where to train, as torch calls it.
        random_state: of all randomness.

    Attributes:
        tasks_: the groups it knows, (M,).
        embeddings_: of each of them, (M, e_dim).
        offset_: of each of them, the lowest score that is no outlier, (M,).
        history_: the losses of each epoch.

    Example:
        >>> gen = np.random.default_rng(0)
        >>> task = np.repeat(["low", "high"], 200)
        >>> X = np.where(task == "high", 5.0, 0.0)[:, None] + gen.normal(size=(400, 1))
        >>> detector = CollaborativeAnomalyDetector(random_state=0).fit(X, task)
        >>> detector.predict([[5.0], [5.0]], ["high", "low"]).tolist()
        [1, -1]
    """

    def __init__(
        self,
        *,
        alpha: float = 0.05,
        hidden: Sequence[int] = (64, 32),
        background: float = 0.2,
        lr: float = 0.01,
        batch_size: int = 1024,
        max_epochs: int = 15,
        patience: int = 5,
        calibration_share: float = 0.2,
        memory: int = 20_000,
        device: str = "cpu",
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.alpha = alpha
        self.hidden = hidden
        self.background = background
        self.lr = lr
        self.batch_size = batch_size
        self.max_epochs = max_epochs
        self.patience = patience
        self.calibration_share = calibration_share
        self.memory = memory
        self.device = device
        self.random_state = random_state

    def fit(self, X: Table, task: Tasks | None = None) -> Self:
        """Learn log q_t(x) / p(x) of all groups together (Algorithm 1).

        Args:
            X: (n, d) finite numbers.
            task: (n,) the group of each row, numbers or text; without it all rows are one group.

        Raises:
            ValueError: parameters or rows that cannot be learned from.
        """
        schedule, gen = self._schedule(), self._generator()
        x = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        self.tasks_, code = np.unique(task_names(task, len(x)), return_inverse=True)
        self.scaler_ = StandardScaler().fit(x)
        parts = self._divide(self._rows(x, code), gen)
        if not len(parts.valid):
            raise ValueError(f"Found {len(x)} samples in {len(self.tasks_)} groups; expected more.")
        self.moments_ = GroupMoments.of(parts.train, len(self.tasks_))
        variants = Variants.of(parts.train, parts.valid, self.moments_, gen)
        self.projection_ = Projection.fit(variants.statistic, standardise=True, reduce=None)
        self.net_ = RatioNet(
            x_dim=x.shape[1],
            task_dim=variants.statistic.shape[1],
            hidden=self.hidden,
            dropout=[0.0] * len(self.hidden),
        )
        draw_layers(self.net_, torch.Generator().manual_seed(int(gen.integers(2**31))))
        self.kept_ = Kept.nothing(x.shape[1], self.memory)
        self.history_: list[Row] = []
        self._learn(self.net_, variants, schedule, gen)
        return self._keep(parts, gen)

    def partial_fit(self, X: Table, task: Tasks | None = None) -> Self:
        """Learn from more rows, beside a memory of those before; groups may be new.

        The sums that place a group go on running. The first call is `fit`.

        Raises:
            ValueError: parameters or rows that cannot be learned from.
        """
        if not hasattr(self, "net_"):
            return self.fit(X, task)
        schedule, gen = self._schedule(), self._generator()
        x = validate_data(self, X, dtype=np.float64, reset=False)
        names = task_names(task, len(x))
        more = self._admit(x, names, gen)
        train = self.kept_.train.rows + more.parts.train
        valid = self.kept_.valid.rows + more.parts.valid
        net = deepcopy(self.net_)
        self._learn(net, Variants.of(train, valid, more.moments, gen), schedule, gen)
        self.net_ = net
        return self._take_in(more, gen)

    def embed(self, X: Table, task: Tasks) -> Singles | pd.DataFrame:
        """Place groups it has never seen, without any training, and know them from here on.

        Equation 4: the embedding of a group is made of means over its rows: of the columns, their
        squares and products (see `group_moments`). A share of the rows is kept
        for the calibration; a group of few rows is calibrated with groups of like size.

        Args:
            X: (n, d) rows of the new groups.
            task: (n,) the group of each row.

        Returns:
            The embeddings (k, e_dim) of the new groups, in their sorted order; a DataFrame with the
            groups as index where X is one.

        Raises:
            ValueError: a group that it knows.
        """
        check_is_fitted(self)
        x = validate_data(self, X, dtype=np.float64, reset=False)
        names = task_names(task, len(x))
        known = np.intersect1d(names, self.tasks_)
        if len(known):
            raise ValueError(f"Group {known[0].item()!r} is known; partial_fit learns more of it.")
        first = len(self.tasks_)
        gen = self._generator()
        self._take_in(self._admit(x, names, gen, valid=0.0), gen)
        new = self.embeddings_[first:]
        return pd.DataFrame(new, index=self.tasks_[first:]) if isinstance(X, pd.DataFrame) else new

    def score_samples(self, X: Table, task: Tasks | None = None) -> Doubles | pd.Series:
        """Log ratios log q_t(x) / p(x) in nats, (n,): HIGH = common in its group, LOW = anomalous.

        Args:
            X: (n, d) rows.
            task: (n,) the group of each row. Without it, where there are several, the group is
                taken for unknown: the ratio of the mixture of all groups, sum_t m_t q_t / p.

        Returns:
            An array, or where X is a DataFrame a Series with its index.

        Raises:
            ValueError: a group that it does not know.
        """
        return _like(X, self._score(*self._asked(X, task)))

    def decision_function(self, X: Table, task: Tasks | None = None) -> Doubles | pd.Series:
        """The score less the threshold of the group, (n,): negative for an outlier."""
        x, code = self._asked(X, task)
        if code is None:
            threshold = self._of_mixture().thresholds(self.alpha)
        else:
            threshold = self.calibration_.thresholds(self.alpha)[code]
        return _like(X, self._score(x, code) - threshold)

    def predict(self, X: Table, task: Tasks | None = None) -> Ints | pd.Series:
        """1 for a row that is common in its group, -1 for an outlier, (n,)."""
        return _like(X, np.where(np.asarray(self.decision_function(X, task)) < 0, -1, 1))

    def p_values(self, X: Table, task: Tasks | None = None) -> Doubles | pd.Series:
        """At most this share of the group's own rows scores as low, (n,); see `conformal`."""
        x, code = self._asked(X, task)
        score = self._score(x, code)
        if code is None:
            return _like(X, self._of_mixture().p_values(0, score))
        p = np.empty(len(score))
        for t in np.unique(code):
            p[code == t] = self.calibration_.p_values(t, score[code == t])
        return _like(X, p)

    def fit_predict(self, X: Table, task: Tasks | None = None) -> Ints | pd.Series:
        """Learn from rows, then predict them."""
        return self.fit(X, task).predict(X, task)

    def save(self, path: str | Path) -> None:
        """Write all that was learned as safetensors, which holds numbers and runs no code."""
        check_is_fitted(self)
        write_model(*fitted_state(self), Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            PipelineError: no such file, or another one.
        """
        tensors, config = read_model(Path(path))
        detector = cls()
        restore(detector, tensors, config)
        return detector._calibrate()

    def _schedule(self) -> Ratio:
        for name, value, high in (
            ("alpha", self.alpha, 0.5),
            ("background", self.background, 0.9),
            ("calibration_share", self.calibration_share, 0.5),
        ):
            if not 0 < value <= high:
                raise ValueError(f"{name} must be above 0 and at most {high}. Got {value!r}.")
        if self.memory < 0:
            raise ValueError(f"memory must be at least 0 rows. Got {self.memory!r}.")
        try:
            return Ratio(
                base="exposures",
                visible="train",
                hidden=[index(width) for width in self.hidden],
                dropout=[0.0] * len(self.hidden),
                freeze_e=False,
                lr=float(self.lr),
                batch_size=index(self.batch_size),
                max_epochs=index(self.max_epochs),
                patience=index(self.patience),
            )
        except ValidationError as error:
            first = error.errors()[0]
            what = first["msg"].replace("Input should be", "must be")
            raise ValueError(f"{first['loc'][0]} {what}. Got {first['input']!r}.") from None

    def _generator(self) -> np.random.Generator:
        return np.random.default_rng(check_random_state(self.random_state).randint(2**31))

    def _rows(self, x: Doubles, code: Ints) -> Rows:
        with np.errstate(over="ignore"):
            z = self.scaler_.transform(x).astype(np.float32)
        beyond = ~np.isfinite(z).all(1)
        if beyond.any():
            raise ValueError(
                f"Row {np.argmax(beyond)} lies too far from the others to be learned from: "
                "standardised, it is beyond single precision."
            )
        return Rows(z, code)

    def _divide(self, rows: Rows, gen: np.random.Generator, valid: float = VALID_SHARE) -> Parts:
        return divide(rows, valid=valid, calibration=self.calibration_share, gen=gen)

    def _admit(
        self, x: Doubles, names: Names, gen: np.random.Generator, valid: float = VALID_SHARE
    ) -> _Admitted:
        """Divide more rows, and count them in beside those before."""
        tasks = add_names(self.tasks_, names)
        parts = self._divide(self._rows(x, places(tasks, names)), gen, valid)
        return _Admitted(tasks, self.moments_.add(parts.train, len(tasks)), parts)

    def _take_in(self, more: _Admitted, gen: np.random.Generator) -> Self:
        self.tasks_, self.moments_ = more.tasks, more.moments
        return self._keep(more.parts, gen)

    def _learn(
        self, net: RatioNet, variants: Variants, schedule: Ratio, gen: np.random.Generator
    ) -> None:
        try:
            self.history_ += learn(
                net,
                self.projection_.apply(variants.statistic),
                variants.train,
                variants.valid,
                background=self.background,
                params=schedule,
                gen=gen,
                device=torch.device(self.device),
            )
        except PipelineError as error:  # a loss that is not finite
            raise ValueError(str(error)) from error

    def _keep(self, parts: Parts, gen: np.random.Generator) -> Self:
        self.kept_ = self.kept_.add(parts, gen)
        return self._calibrate()

    def _calibrate(self) -> Self:
        """Place every group by its running sums; set its threshold by rows not learned from."""
        self.embeddings_ = self.projection_.apply(self.moments_.statistic())
        rows = self.kept_.calibration
        score = self._score(rows.x, rows.task)
        size, least = self.moments_.count, fewest(self.alpha)
        self.calibration_ = Calibration.of(score, rows.task, size, least=least)
        if len(rows) < least:
            warn(
                f"{len(rows)} rows to calibrate on are too few to call any row an outlier at "
                f"alpha={self.alpha}; {least} are needed.",
                stacklevel=2,
            )
        self.offset_ = self.calibration_.thresholds(self.alpha)
        return self

    def _of_mixture(self) -> Calibration:
        """Calibration scores of rows whose group is taken for unknown."""
        rows = self.kept_.calibration
        some = rows.take(np.linspace(0, len(rows) - 1, min(len(rows), ENOUGH)).astype(np.int64))
        score = self._score(some.x, None)
        return Calibration.of(score, np.zeros(len(score), np.int64), np.ones(1, np.int64), least=1)

    def _asked(self, X: Table, task: Tasks | None) -> tuple[Doubles, Ints | None]:
        """Standardised rows, and their groups; None where these are unknown and may be several."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=np.float64, reset=False)
        z = self.scaler_.transform(x)
        if task is None:
            return z, np.zeros(len(x), np.int64) if len(self.tasks_) == 1 else None
        names = task_names(task, len(x))
        code = places(self.tasks_, names)
        if (code < 0).any():
            raise ValueError(
                f"Group {names[np.argmin(code)].item()!r} is not among the {len(self.tasks_)} "
                "known ones; embed or partial_fit makes it known."
            )
        return z, code

    def _score(self, z: Floats, code: Ints | None) -> Doubles:
        if code is not None:
            score = log_ratios(self.net_, self.embeddings_, z, code)
        else:
            share = self.moments_.count / self.moments_.count.sum()
            score = mixture_log_ratios(self.net_, self.embeddings_, z, share)
        return np.nan_to_num(score, nan=-np.inf)  # so far away that the network overflows


def _like(X: Table, values: npt.NDArray[Any]) -> npt.NDArray[Any] | pd.Series:
    """The values as X came: a Series with its index for a DataFrame."""
    return pd.Series(values, index=X.index) if isinstance(X, pd.DataFrame) else values
