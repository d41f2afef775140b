"""Collaborative anomaly detection with the manners of scikit-learn; see docs/detector.md.

One model for all groups (tasks) of a table. Scores are log ratios in nats: HIGH = common in its
group, LOW = anomalous there.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import BaseEstimator, OutlierMixin, clone
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from pipeline.arrays import Doubles, Ints, Singles
from pipeline.conformal import Calibration, fewest, thinned
from pipeline.embeddings import Projection
from pipeline.errors import PipelineError
from pipeline.estimator.cautions import warn_of_few, warn_of_strangers
from pipeline.estimator.files import ADVICE, KIND, fitted_state, restore
from pipeline.estimator.group_moments import GroupMoments
from pipeline.estimator.group_names import (
    Names,
    add_names,
    places,
    require_one_order,
    task_names,
)
from pipeline.estimator.network import drawn
from pipeline.estimator.numeric import finished, single, standardised
from pipeline.estimator.parameters import device_of, require_shares, schedule_of
from pipeline.estimator.pools import AS_FEW, pools
from pipeline.estimator.small_groups import Variants
from pipeline.estimator.tabular import (
    Kept,
    Parts,
    Rows,
    divide,
    learn,
    log_ratios,
    mixture_log_ratios,
)
from pipeline.model_files import MISFITS, read_model, write_model
from pipeline.models.ratio import RatioNet
from pipeline.params import Ratio
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
            outlier by mistake. It is calibrated on rows that nothing learned from; groups with too
            few of them for `alpha` are judged by rows of others (`pool_`), and the promise is then
            over the pool. It may be changed after `fit`.
        hidden: widths of the network's hidden layers.
        background: share of the base p that is spread all around the rows; see `tabular.py`.
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
        pool_: of each of them, whose calibration rows judge it, (M,): its "own"; those of groups of
            "like size", it among them; or those of groups that were learned from, each placed anew
            by "as few rows" as it has. At the `alpha` of the last `fit`, `partial_fit` or `embed`.
        learned_: whether rows of it were learned from, (M,); of one that came by `embed` none were.
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
            ValueError: what cannot be learned from, parameters or rows; all is then as it was.
        """
        schedule, gen = schedule_of(self.get_params()), np.random.default_rng(self._drawn())
        x = validate_data(clone(self), X, dtype=np.float64, ensure_min_samples=2)
        tasks, code = np.unique(_groups(X, task, len(x)), return_inverse=True)
        scaler = StandardScaler().fit(x)
        rows, share = standardised(scaler, x, code), self.calibration_share
        parts = divide(rows, valid=VALID_SHARE, calibration=share, gen=gen)
        if not len(parts.valid):
            raise ValueError(
                f"Found {len(x)} samples in {len(tasks)} groups; expected more: some group needs "
                "two rows. Perhaps task is a column of ids by mistake."
            )
        moments = GroupMoments.of(parts.train, len(tasks))
        variants = Variants.of(parts.train, parts.valid, moments, gen)
        projection = Projection.fit(variants.statistic, standardise=True, reduce=None)
        width = variants.statistic.shape[1]
        net = drawn(x_dim=x.shape[1], task_dim=width, hidden=self.hidden, gen=gen)
        history = self._learn(net, projection, variants, schedule, gen)
        kept = Kept.nothing(x.shape[1], index(self.memory)).add(parts, gen)
        validate_data(self, X, skip_check_array=True)  # only now: it notes the columns
        self.scaler_, self.projection_, self.net_, self.history_ = scaler, projection, net, history
        self.tasks_, self.moments_, self.kept_ = tasks, moments, kept
        self.learned_ = np.ones(len(tasks), bool)
        return self._calibrate(self.alpha)

    def partial_fit(self, X: Table, task: Tasks | None = None) -> Self:
        """Learn from more rows, beside a memory of those before; groups may be new.

        The sums that place a group go on running. Some of the rows are kept for the calibration;
        where that leaves none to learn from, nothing is trained. The first call is `fit`.

        Raises:
            ValueError: parameters or rows that cannot be learned from.
        """
        if not hasattr(self, "net_"):
            return self.fit(X, task)
        schedule, gen = schedule_of(self.get_params()), self._next_generator()
        x = validate_data(self, X, dtype=np.float64, reset=False)
        more = self._admit(x, _groups(X, task, len(x), self.tasks_), gen)
        if len(more.parts.train):
            train = self.kept_.train.rows + more.parts.train
            valid = self.kept_.valid.rows + more.parts.valid
            variants = Variants.of(train, valid, more.moments, gen)
            net = deepcopy(self.net_)
            history = self._learn(net, self.projection_, variants, schedule, gen)
            self.net_, self.history_ = net, self.history_ + history
        self._take_in(more, gen)
        self.learned_[more.parts.train.task] = True
        return self._calibrate(self.alpha)

    def embed(self, X: Table, task: Tasks) -> Singles | pd.DataFrame:
        """Place groups it has never seen, without any training, and know them from here on.

        Equation 4: the embedding of a group is made of means over its rows: of the columns, their
        squares and products (see `group_moments`). A share of the rows is kept for the calibration,
        and judges the group where that is enough; no other group is judged by it. At most as many
        rows place it as place the largest group that was learned from, since the network knows
        nothing of groups that more rows place; what is beyond is kept for the calibration too.

        Args:
            X: (n, d) rows of the new groups.
            task: (n,) the group of each row.

        Returns:
            The embeddings (k, e_dim) of the new groups, in their sorted order; a DataFrame with the
            groups as index where X is one.

        Warns:
            UserWarning: too many of the rows kept of a group that they do not judge are outliers.

        Raises:
            ValueError: a group that it knows, or rows that it cannot take.
        """
        check_is_fitted(self)
        require_shares(self.get_params())
        x = validate_data(self, X, dtype=np.float64, reset=False)
        names = _groups(X, task, len(x), self.tasks_)
        known = np.intersect1d(names, self.tasks_)
        if len(known):
            raise ValueError(f"Group {known[0].item()!r} is known; partial_fit learns more of it.")
        first = len(self.tasks_)
        gen = self._next_generator()
        most = int(self.moments_.count[self.learned_].max())
        self._take_in(self._admit(x, names, gen, valid=0.0, most=most), gen)
        self._calibrate(self.alpha)
        self._check_newcomers(first)
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
            require_shares(self.get_params())
            threshold = self._of_mixture().thresholds(self.alpha)
        else:
            threshold = self.offset_[code]
        return _like(X, self._score(x, code) - threshold)

    def predict(self, X: Table, task: Tasks | None = None) -> Ints | pd.Series:
        """1 for a row that is common in its group, -1 for an outlier, (n,).

        A false alarm for at most a share `alpha` of the group's own rows, or of its pool's: `pool_`
        says which.
        """
        return _like(X, np.where(np.asarray(self.decision_function(X, task)) < 0, -1, 1))

    def p_values(self, X: Table, task: Tasks | None = None) -> Doubles | pd.Series:
        """At most this share of the group's own rows scores as low, (n,); see `conformal`.

        For a group with too few rows to be judged by its own: of the rows of its pool; `pool_` says
        which. Pools are those for the `alpha` of the last `fit`, `partial_fit` or `embed`, whatever
        it was set to since.
        """
        x, code = self._asked(X, task)
        score = self._score(x, code)
        if code is None:
            return _like(X, self._of_mixture().p_values(0, score))
        p = np.empty(len(score))
        order = np.argsort(code, kind="stable")  # the rows of each group together
        groups, first = np.unique(code[order], return_index=True)
        for t, rows in zip(groups, np.split(order, first[1:]), strict=True):
            p[rows] = self.calibration_.p_values(t, score[rows])
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
            PipelineError: no such file, another one, or one without all that was learned.
        """
        tensors, config = read_model(Path(path), missing=ADVICE, damaged=ADVICE)
        if config.get("kind") != KIND:
            raise PipelineError(f"{path}: holds no {KIND}. {ADVICE}")
        detector = cls()
        try:
            restore(detector, tensors, config)
            detector._calibrate(detector.calibrated_for_)
        except MISFITS as error:
            raise PipelineError(f"{path}: holds no whole {KIND} ({error!r}). {ADVICE}") from error
        return detector

    @property
    def offset_(self) -> Doubles:
        """Of each group, the lowest score that is no outlier at the present `alpha`, (M,)."""
        if self.alpha == self.calibrated_for_:
            return self.calibration_.thresholds(self.alpha)
        require_shares(self.get_params())
        least = fewest(self.alpha)
        calibration = self._once("pools", least, lambda: self._pools(self.alpha)[0])
        warn_of_few(calibration, self.alpha)
        return calibration.thresholds(self.alpha)

    def _drawn(self) -> int:
        """Drawn from `random_state`; where that is a number, the same one each time."""
        return int(check_random_state(self.random_state).randint(2**31))

    def _next_generator(self) -> np.random.Generator:
        """For rows that come later: other draws than those before were divided by."""
        return np.random.default_rng([self._drawn(), self.kept_.seen])

    def _admit(
        self,
        x: Doubles,
        names: Names,
        gen: np.random.Generator,
        valid: float = VALID_SHARE,
        most: int | None = None,
    ) -> _Admitted:
        """Divide more rows, and count them in beside those before."""
        tasks = add_names(self.tasks_, names)
        rows = standardised(self.scaler_, x, places(tasks, names))
        parts = divide(
            rows,
            valid=valid,
            calibration=self.calibration_share,
            gen=gen,
            known=len(self.tasks_),
            most=most,
        )
        return _Admitted(tasks, self.moments_.add(parts.train, len(tasks)), parts)

    def _take_in(self, more: _Admitted, gen: np.random.Generator) -> None:
        new = np.zeros(len(more.tasks) - len(self.tasks_), bool)
        self.kept_, self.learned_ = self.kept_.add(more.parts, gen), np.append(self.learned_, new)
        self.tasks_, self.moments_ = more.tasks, more.moments

    def _learn(
        self,
        net: RatioNet,
        projection: Projection,
        variants: Variants,
        schedule: Ratio,
        gen: np.random.Generator,
    ) -> list[Row]:
        try:
            return learn(
                net,
                projection.apply(variants.statistic),
                variants.train,
                variants.valid,
                background=self.background,
                params=schedule,
                gen=gen,
                device=device_of(self.device),
            )
        except PipelineError as error:  # a loss that is not finite
            raise ValueError(str(error)) from error

    def _calibrate(self, alpha: float) -> Self:
        """Place every group by its running sums; set its threshold by rows not learned from."""
        self.embeddings_ = self.projection_.apply(self.moments_.statistic())
        rows = self.kept_.calibration
        self.calibration_scores_ = self._score(rows.x, rows.task)
        (self.calibration_, self.pool_), self.calibrated_for_ = self._pools(alpha), alpha
        self._made: dict[str, tuple[int, Calibration]] = {}  # see `_once`
        warn_of_few(self.calibration_, alpha)
        return self

    def _check_newcomers(self, first: int) -> None:
        """Warn where rows kept of groups from `first` on, which judge nobody, are outliers."""
        task = self.kept_.calibration.task
        kept = (task >= first) & (self.pool_[task] == AS_FEW)
        outlier = self.calibration_scores_[kept] < self.offset_[task[kept]]
        warn_of_strangers(outlier, task[kept] - first, self.tasks_[first:], self.alpha)

    def _pools(self, alpha: float) -> tuple[Calibration, Names]:
        """Scores of rows not learned from that judge each group, and whose they are."""

        def score(moments: GroupMoments, rows: Rows) -> Doubles:
            embeddings = self.projection_.apply(moments.statistic())
            return finished(log_ratios(self.net_, embeddings, rows.x, rows.task), rows.x)

        return pools(
            self.calibration_scores_,
            self.kept_,
            self.moments_,
            self.learned_,
            least=fewest(alpha),
            score=score,
        )

    def _of_mixture(self) -> Calibration:
        """Calibration scores of rows whose group is taken for unknown."""

        def made() -> Calibration:
            rows = self.kept_.calibration
            some = rows.take(thinned(len(rows), ENOUGH))
            score = self._score(some.x, None)
            alone = np.zeros(len(score), np.int64)
            return Calibration.of(score, alone, np.ones(1, np.int64), least=1)

        return self._once("mixture", 1, made)

    def _once(self, kind: str, least: int, made: Callable[[], Calibration]) -> Calibration:
        """A calibration that is made when first asked for, and stays until more is learned.

        Of each kind the last one stays, with the fewest rows that it was made for.
        """
        found = self._made.get(kind)
        if found is None or found[0] != least:
            found = self._made[kind] = (least, made())
        return found[1]

    def _asked(self, X: Table, task: Tasks | None) -> tuple[Singles, Ints | None]:
        """Standardised rows, and their groups; None where these are unknown and may be several."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=np.float64, reset=False)
        z = single(self.scaler_, x)
        if task is None:
            return z, np.zeros(len(x), np.int64) if len(self.tasks_) == 1 else None
        names = _groups(X, task, len(x), self.tasks_)
        code = places(self.tasks_, names)
        if (code < 0).any():
            raise ValueError(
                f"Group {names[np.argmin(code)].item()!r} is not among the {len(self.tasks_)} "
                "known ones; embed or partial_fit makes it known."
            )
        return z, code

    def _score(self, z: Singles, code: Ints | None) -> Doubles:
        if code is not None:
            score = log_ratios(self.net_, self.embeddings_, z, code)
        else:
            share = self.moments_.count / self.moments_.count.sum()
            score = mixture_log_ratios(self.net_, self.embeddings_, z, share)
        return finished(score, z)


def _groups(X: Table, task: Tasks | None, n: int, known: Names | None = None) -> Names:
    """The group of each of the n rows of X; see `group_names`."""
    require_one_order(X, task)
    return task_names(task, n, known)


def _like(X: Table, values: npt.NDArray[Any]) -> npt.NDArray[Any] | pd.Series:
    """The values as X came: a Series with its index for a DataFrame."""
    return pd.Series(values, index=X.index) if isinstance(X, pd.DataFrame) else values
