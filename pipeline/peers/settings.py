"""What can be set of each peer: the section `peers` of a params file."""

from typing import Annotated

from pydantic import Field

from pipeline.params import Count, Positive, Section


class Ease(Section):
    """A linear item-to-item model."""

    penalty: Positive


class Als(Section):
    """Matrix factorisation by alternating least squares."""

    factors: Count
    regularisation: Positive
    confidence: Positive
    iterations: Count


class Correspondence(Section):
    """The linear ratio in closed form."""

    dim: Count


class Logistic(Section):
    """A logistic regression a task."""

    penalty: Positive


class IsolationForest(Section):
    """A forest of random cuts a task."""

    trees: Count


class OneClassSvm(Section):
    """A support vector machine a task."""

    nu: Annotated[float, Field(gt=0, le=1)]


class Peers(Section):
    """Those peers that have something to set."""

    ease: Ease
    als: Als
    correspondence: Correspondence
    logistic: Logistic
    isolation_forest: IsolationForest
    one_class_svm: OneClassSvm
