"""The peers by name, and what can be set of each: the section `peers` of a params file."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from pipeline.sections import Count, ParamsFile, Positive, Section

Recommender = Literal[
    "activity", "popularity", "item_knn", "item_knn_mean", "ease", "als", "correspondence"
]
Detector = Literal[
    "logistic_users", "logistic_exposures", "isolation_forest", "one_class_svm", "ecod"
]


class Nothing(Section):
    """No settings."""


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
    """A section a peer."""

    activity: Nothing
    popularity: Nothing
    item_knn: Nothing
    item_knn_mean: Nothing
    ease: Ease
    als: Als
    correspondence: Correspondence
    logistic_users: Logistic
    logistic_exposures: Logistic
    isolation_forest: IsolationForest
    one_class_svm: OneClassSvm
    ecod: Nothing


class PeersFile(ParamsFile):
    """Table 1's params file as far as the peers go; `Table1Params` checks the rest."""

    model_config = ConfigDict(extra="ignore")

    peers: Peers
