"""A logistic regression of its own for every task: its exposed users against the base.

What Algorithm 1 would be if tasks shared nothing and the network were linear in x. All tasks are
solved at once, a block at a time, by Newton's method.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.special import expit

from pipeline.arrays import Bools, Doubles, Ints, Singles
from pipeline.errors import PipelineError
from pipeline.peers.evidence import Evidence
from pipeline.sections import Base

BLOCK = 16  # tasks at a time
STEPS = 30
TOLERANCE = 1e-3  # a step is about the square of the one before: the next would be far smaller


def logistic(evidence: Evidence, users: Ints, *, base: Base, penalty: float) -> Singles:
    """Log ratios log q_t(x)/p(x), linear in x, (M, U); high = common.

    Positives of a task are the exposures to it that are learned from. Negatives are all users whose
    exposures are, of equal weight (`users`) or each as often as it is exposed to tasks
    (`exposures`); together they weigh as much as the positives. A task without exposures scores 0.

    Args:
        evidence: of which x and the pairs to learn from are read.
        users: rows of the users to score, (U,).
        base: which p.
        penalty: half of it times the squared coefficients, but the constant's, is added to the sum
            of the losses.

    Raises:
        PipelineError: Newton's method does not settle.
    """
    examples = evidence.examples
    pairs, train = examples.learned, examples.train
    exposed = np.zeros((examples.tasks, len(train)), bool)
    exposed[pairs.task, np.searchsorted(train, pairs.user)] = True
    weight = exposed.sum(0) if base == "exposures" else np.ones(len(train))
    x = np.column_stack([examples.x, np.ones(len(examples.x), np.float32)])
    coefficients = np.concatenate(
        [
            solve(Regressions.of(x[train], exposed[rows], weight / weight.sum(), penalty))
            for rows in (slice(n, n + BLOCK) for n in range(0, examples.tasks, BLOCK))
        ]
    )
    return (coefficients @ x[users].T).astype(np.float32)


@dataclass(frozen=True)
class Regressions:
    """B logistic regressions over the same users.

    Attributes:
        x: (U, d), its last column constant.
        y: 1 for a positive, (B, U).
        weight: of each user as a positive and as a negative together, (B, U).
        ridge: weight of half of each squared coefficient, (d,).
    """

    x: Singles
    y: Singles
    weight: Singles
    ridge: Doubles

    @classmethod
    def of(cls, x: Singles, exposed: Bools, base: Doubles, penalty: float) -> Self:
        """From who is a positive of each, (B, U), and each user's share of the negatives, (U,)."""
        y = exposed.astype(np.float32)
        weight = y + y.sum(1, keepdims=True) * base.astype(np.float32)
        ridge = np.full(x.shape[1], float(penalty))
        ridge[-1] = 1e-6  # enough to hold the constant of a task without exposures
        return cls(x, y, weight, ridge)

    def newton_step(self, coefficients: Doubles) -> Doubles:
        """The inverse Hessian times the gradient of each, (B, d)."""
        chance = expit(coefficients.astype(np.float32) @ self.x.T)  # (B, U)
        gradient = (self.weight * chance - self.y) @ self.x + self.ridge * coefficients
        curvature = self.weight * chance * (1 - chance)
        hessian = np.matmul(curvature[:, None, :] * self.x.T, self.x) + np.diag(self.ridge)
        step: Doubles = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        return step


def solve(block: Regressions) -> Doubles:
    """The coefficients (B, d) of least loss, by Newton's method from 0."""
    coefficients = np.zeros((len(block.y), block.x.shape[1]))
    for _ in range(STEPS):
        step = block.newton_step(coefficients)
        coefficients -= step
        if np.abs(step).max() < TOLERANCE:
            return coefficients
    raise PipelineError(
        f"the peer `logistic` did not settle in {STEPS} of Newton's steps; raise its penalty."
    )
