"""Why a user is familiar with an item: contributions of what they met, and did not, that add up.

A score is f(x, e). Three steps take it apart, and nothing is left over:

* From the average user to this one, f changes by the gradient of f, averaged along the straight way
  between the two, times what their vectors differ by (integrated gradients: Sundararajan, Taly,
  Yan, "Axiomatic Attribution for Deep Networks", 2017).
* What the vectors differ by is put down to exposures, as far as it is a linear function of them
  over all users (ridge regression; a user's exposures count one over the root of their number).
  An item that most have met speaks by its absence too.
* What exposures do not say of a vector is the rest of x.

Contributions are in nats: positive speaks for common, negative for fresh.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import torch
from scipy.sparse import csr_array
from sklearn.linear_model import Ridge
from sklearn.metrics.pairwise import cosine_similarity
from torch import Tensor

from pipeline.arrays import Bools, Doubles, Ints
from pipeline.embedding_matrix import embedding_matrix
from pipeline.models.ratio import RatioNet
from pipeline.pairs import exposure_matrix, ids_of, rows_of, shown
from pipeline.storage import matrix

STEPS = 4096  # of the way from the average user
RIDGE = 0.1  # of the mean square of a user's row of exposures
LEAST = 1e-9  # of that, which is 0 but for rounding where all have met the same
TOLERANCE = 1e-6  # of the regression; what it leaves undone goes to the rest of x


@dataclass(frozen=True)
class Explanation:
    """One score, taken apart.

    Attributes:
        score: the log ratio; the sum of `average`, all `contribution` and `rest`.
        average: the score of the average user.
        contribution: (I,) of each item's having been met, or not.
        met: (I,) whether the user has visibly met it: a held-out pair is none.
        likeness: (I,) cosine of its embedding and that of the item in question, both less the mean
            of all tasks; NaN for an item that is no task.
        rest: of what x says beyond exposures.
    """

    score: float
    average: float
    contribution: Doubles
    met: Bools
    likeness: Doubles
    rest: float

    def table(self, n: int) -> pa.Table:
        """Contributions as rows, which add up to the score.

        Args:
            n: how many items to name that speak for, and how many against; the largest first.

        Columns:
            part: `average user`; `met` or `not met` for a named item; `other items met` and
                `other items not met`, the sums of those not named; `rest of x`.
            item: row of the item; null where the part is of no single one.
            likeness: see above; null where there is none.
            contribution: in nats.
        """
        order = np.argsort(self.contribution, kind="stable")
        named = np.concatenate((order[::-1][:n], order[:n][::-1]))
        named = named[np.sort(np.unique(named, return_index=True)[1])]  # each once, in this order
        other = np.ones(len(order), bool)
        other[named] = False
        sums = {
            "other items met": self.contribution[other & self.met].sum(),
            "other items not met": self.contribution[other & ~self.met].sum(),
            "rest of x": self.rest,
        }
        words = [("met" if self.met[item] else "not met") for item in named]
        none: list[None] = [None] * len(sums)
        likeness = [None if np.isnan(v) else v for v in self.likeness[named].tolist()]
        contribution = [self.average, *self.contribution[named].tolist(), *sums.values()]
        return pa.table(
            {
                "part": ["average user", *words, *sums],
                "item": pa.array([None, *named.tolist(), *none], pa.int64()),
                "likeness": pa.array([None, *likeness, *none], pa.float64()),
                "contribution": pa.array(contribution, pa.float64()),
            }
        )


@dataclass(frozen=True)
class Explainer:
    """What explains the scores of a trained ratio.

    Attributes:
        net: the network, in double precision.
        x: (U, x_dim) vectors of all users.
        e: (M, e_dim) embeddings of all tasks.
        met: (U, I) one where a user visibly met an item.
        item: (M,) the column of `met` of each task.
        weighted: `met`, each row divided by the root of its sum.
        usual: (I,) the mean of the rows of `weighted`.
    """

    net: RatioNet
    x: Tensor
    e: Tensor
    met: csr_array
    item: Ints
    weighted: csr_array
    usual: Doubles

    @classmethod
    def from_tables(
        cls,
        net: RatioNet,
        features: pa.Table,
        tasks: pa.Table,
        task_embeddings: pa.Table,
        exposures: pa.Table,
        items: pa.Table,
    ) -> Self:
        """From a network and the tables of a run; rows of users, items and tasks are theirs.

        Raises:
            PipelineError: tables that do not belong together.
        """
        visible = shown(exposures)
        things = ids_of(items, "item_id")
        met = exposure_matrix(visible, ids_of(features, "user_id"), things).astype(np.float64)
        x = torch.from_numpy(matrix(features.column("x")))
        e = torch.from_numpy(embedding_matrix(task_embeddings, tasks))
        return cls.of(net, x, e, met, rows_of(ids_of(tasks, "item_id"), things, "item"))

    @classmethod
    def of(cls, net: RatioNet, x: Tensor, e: Tensor, met: csr_array, item: Ints) -> Self:
        """From a network, vectors and embeddings, and who met what."""
        count = np.asarray(met.sum(axis=1)).ravel()
        weighted = csr_array(met.multiply(1 / np.sqrt(np.maximum(count, 1))[:, None]))
        usual = np.asarray(weighted.mean(axis=0)).ravel()
        exact = deepcopy(net).cpu().double().eval()
        return cls(exact, x.cpu().double(), e.cpu().double(), met, item, weighted, usual)

    def explain(self, user: int, task: int) -> Explanation:
        """Take the score of a row of users and a row of tasks apart."""
        average = self.x.mean(0)
        with torch.no_grad():
            ends = self.net(torch.stack((average, self.x[user])), self.e[task].expand(2, -1))
        slope = self._mean_gradient(average, self.x[user], task)
        weight = self._weights(((self.x - average) @ slope).numpy())
        row = self.weighted[[user]].toarray()[0]
        contribution = (row - self.usual) * weight
        low, high = ends.tolist()
        return Explanation(
            score=high,
            average=low,
            contribution=contribution,
            met=row > 0,
            likeness=self._likeness(task),
            rest=high - low - contribution.sum(),
        )

    def _mean_gradient(self, start: Tensor, end: Tensor, task: int) -> Tensor:
        """The gradient in x, averaged along the straight way from `start` to `end`, (x_dim,)."""
        along = (torch.arange(STEPS, dtype=torch.float64) + 0.5) / STEPS
        points = (start + along[:, None] * (end - start)).requires_grad_()
        total = self.net(points, self.e[task].expand(STEPS, -1)).sum()
        (gradient,) = torch.autograd.grad(total, points)
        return gradient.mean(0)

    def _weights(self, target: Doubles) -> Doubles:
        """Ridge regression of `target` (U,) on the centred exposures: a weight an item, (I,)."""
        mean_square = self.weighted.power(2).sum() / len(target) - self.usual @ self.usual
        penalty = RIDGE * max(float(mean_square), LEAST)
        ridge = Ridge(penalty, solver="sparse_cg", tol=TOLERANCE, max_iter=500)
        weights: Doubles = ridge.fit(self.weighted, target).coef_
        return weights

    def _likeness(self, task: int) -> Doubles:
        e = self.net.seen(self.e)
        centred = (e - e.mean(0)).numpy()
        likeness = np.full(self.met.shape[1], np.nan)
        likeness[self.item] = cosine_similarity(centred, centred[[task]])[:, 0]
        return likeness
