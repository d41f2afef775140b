"""Every peer by name."""

from collections.abc import Callable, Mapping

from pipeline.arrays import Ints, Singles
from pipeline.peers.activity import activity
from pipeline.peers.als import als
from pipeline.peers.correspondence import correspondence
from pipeline.peers.ease import ease
from pipeline.peers.ecod import ecod
from pipeline.peers.evidence import Evidence
from pipeline.peers.isolation_forest import isolation_forest
from pipeline.peers.item_knn import item_knn
from pipeline.peers.logistic import logistic
from pipeline.peers.one_class_svm import one_class_svm
from pipeline.peers.popularity import popularity
from pipeline.peers.settings import Peers

Peer = Callable[[Evidence, Ints, Peers, int], Singles]

RECOMMENDERS: Mapping[str, Peer] = {  # they see who has seen what, and no x
    "activity": lambda seen, users, _, seed: activity(seen, users),
    "popularity": lambda seen, users, _, seed: popularity(seen, users),
    "item_knn": lambda seen, users, _, seed: item_knn(seen, users, per_item=False),
    "item_knn_mean": lambda seen, users, _, seed: item_knn(seen, users, per_item=True),
    "ease": lambda seen, users, set_to, seed: ease(seen, users, **set_to.ease.model_dump()),
    "als": lambda seen, users, set_to, seed: als(seen, users, seed=seed, **set_to.als.model_dump()),
    "correspondence": lambda seen, users, set_to, seed: correspondence(
        seen, users, **set_to.correspondence.model_dump()
    ),
}
DETECTORS: Mapping[str, Peer] = {  # they see x, and who trained on what
    "logistic_users": lambda seen, users, set_to, seed: logistic(
        seen, users, base="users", **set_to.logistic_users.model_dump()
    ),
    "logistic_exposures": lambda seen, users, set_to, seed: logistic(
        seen, users, base="exposures", **set_to.logistic_exposures.model_dump()
    ),
    "isolation_forest": lambda seen, users, set_to, seed: isolation_forest(
        seen, users, seed=seed, **set_to.isolation_forest.model_dump()
    ),
    "one_class_svm": lambda seen, users, set_to, seed: one_class_svm(
        seen, users, **set_to.one_class_svm.model_dump()
    ),
    "ecod": lambda seen, users, _, seed: ecod(seen, users),
}
PEERS = {**RECOMMENDERS, **DETECTORS}
