"""How good a task is that comes later and is not trained: its AUC by the number of exposures.

Some items are taken for new: everything is learned as if they were not there. Then each is placed
by its first exposures, and its scores find held-out users as well as they can.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from pipeline.arrays import Bools, Floats, Ints, Singles
from pipeline.auc import Sides, resample_weights, resampled_means, task_aucs
from pipeline.conditional import train_conditional
from pipeline.embeddings import task_means
from pipeline.errors import PipelineError
from pipeline.examples import Examples
from pipeline.features.extraction import CLOSED_FORM, closed_form, extract
from pipeline.initialisation import initialise
from pipeline.models.ratio import PreEmbeddingNet, RatioNet
from pipeline.newcomers.placement import Placement
from pipeline.pairs import Pairs, ids_of, in_rows, rows_of, shown, split_rows, task_pairs
from pipeline.params import Params
from pipeline.pretraining import pretrain
from pipeline.scoring import score_all
from pipeline.seed_tasks import choose_seed_tasks
from pipeline.storage import vectors
from pipeline.training.session import Session
from pipeline.yardsticks import exposure_sides

EVERY = 5  # one task of so many is taken for new


@dataclass(frozen=True)
class Tables:
    """What the pipeline has prepared and extracted."""

    users: pa.Table
    items: pa.Table
    exposures: pa.Table
    splits: pa.Table
    features: pa.Table
    tasks: pa.Table


@dataclass(frozen=True)
class Known:
    """What was learned without the new items.

    Attributes:
        net: the network.
        x: (U, x_dim) vectors of all users.
        placement: of tasks that come later.
    """

    net: RatioNet
    x: Singles
    placement: Placement


@dataclass(frozen=True)
class Point:
    """Mean AUC over the new tasks after so many exposures, and its interval over users."""

    exposures: str  # a number; `all` of them; or `trained`: with all of them, as the pipeline does
    auc: float
    ci95_low: float
    ci95_high: float
    tasks: int


def new_tasks(tables: Tables, most: int) -> Ints:
    """Rows of the tasks to take for new: one in five of those with `most` training exposures.

    Raises:
        PipelineError: there is none.
    """
    enough = np.flatnonzero(tables.tasks.column("train_exposures").to_numpy() >= most)
    if len(enough) < EVERY or tables.tasks.num_rows < 2 * EVERY:
        raise PipelineError(
            f"{len(enough):,} of {tables.tasks.num_rows:,} tasks have {most:,} training exposures; "
            f"the curve needs {EVERY} such tasks and {2 * EVERY} in all: ask for fewer exposures "
            "by --counts."
        )
    return enough[EVERY - 1 :: EVERY]


def learn_without(tables: Tables, new: Ints, params: Params, device: torch.device) -> Known:
    """Learn everything, user vectors included, from tables that lack the items of tasks `new`.

    Reads the params init, seed, features, pretrain, projection, labels and ratio. Vectors that are
    ready-made stay as they are.

    Raises:
        PipelineError: too little is left to learn from; or `init: graph`.
    """
    if params.init == "graph":
        raise PipelineError("init: graph knows new items beforehand; choose another init.")
    old = np.delete(np.arange(tables.tasks.num_rows), new)
    gone = ids_of(tables.tasks, "item_id")[new]
    left = ~np.isin(ids_of(tables.exposures, "item_id"), gone)
    exposures = tables.exposures.filter(pa.array(left))
    features = _features(tables, exposures, params, device)
    examples = Examples.of(features, tables.tasks.take(old), exposures, tables.splits)
    user = rows_of(ids_of(features, "user_id"), ids_of(tables.users, "user_id"), "user")
    start = initialise(
        examples,
        params,
        users=tables.users.take(user),
        pre_embedding=lambda: _pretrained(examples, params, device),
        graph_vectors=lambda: np.zeros((examples.tasks, 0), np.float32),  # never asked
    )
    trained = train_conditional(
        examples,
        start.e,
        params=params.ratio,
        seed=params.seed,
        session=Session(device),
    )
    means = task_means(examples.x, examples.learned, examples.tasks)
    return Known(trained.net, examples.x, Placement.fit(means, trained.e))


def _pretrained(examples: Examples, params: Params, device: torch.device) -> PreEmbeddingNet:
    """The pre-embedding model of seed tasks among those of the examples."""
    made = pretrain(
        examples,
        choose_seed_tasks(examples, params.pretrain, np.random.default_rng(params.seed)),
        base=params.ratio.base,
        params=params.pretrain,
        seed=params.seed,
        session=Session(device),
    )
    return made.net


def _features(
    tables: Tables, exposures: pa.Table, params: Params, device: torch.device
) -> pa.Table:
    wanted = params.features
    ids = tables.users.column("user_id")
    if wanted.model in CLOSED_FORM:
        known = closed_form(tables.users, exposures, tables.splits, wanted, seed=params.seed)
        x = known.vectors(tables.users, shown(exposures))
        return pa.table({"user_id": ids, "x": vectors(x)})
    if wanted.model != "deepfm":
        return tables.features
    made = extract(
        tables.users,
        tables.items,
        exposures,
        tables.splits,
        wanted,
        seed=params.seed,
        session=Session(device),
    )
    return pa.table({"user_id": ids, "x": vectors(made.x)})


def curve(
    known: Known,
    tables: Tables,
    new: Ints,
    test: Ints,
    trained: Floats,
    counts: Sequence[int],
    *,
    resamples: int,
) -> list[Point]:
    """The AUC of the tasks `new` on test users, by the number of exposures that place them.

    Positives are test users with a held-out pair, negatives those without any; see `yardsticks`.

    Args:
        known: what was learned without them.
        tables: all there is.
        new: rows of tasks.
        test: rows of the test users who are measured, (T,).
        trained: (N, T) scores of the same tasks and the test users by the pipeline, which trained
            them with all their exposures.
        counts: numbers of exposures; the first by time where there are timestamps.
        resamples: of the users, behind the intervals.
    """
    pairs = task_pairs(tables.exposures, tables.features, tables.tasks)
    moment = task_moments(tables)
    train = split_rows(tables.splits, tables.features, "train")
    sides = exposure_sides(pairs, test, tables.tasks.num_rows)
    sides = Sides(sides.positive[new], sides.negative[new])
    of_new = in_rows(pairs.task, new, tables.tasks.num_rows)
    of_new &= in_rows(pairs.user, train, tables.features.num_rows)
    learned, place = pairs.where(of_new), _places(pairs.where(of_new), moment[of_new])
    weights = resample_weights(len(test), resamples, np.random.default_rng(0))
    x = torch.from_numpy(known.x[test])

    def placed(first: Bools) -> Floats:
        means = task_means(known.x, learned.where(first), tables.tasks.num_rows)[new]
        return score_all(known.net, x, torch.from_numpy(known.placement.apply(means)))

    rows = {str(n): placed(place < n) for n in counts}
    rows |= {"all": placed(place >= 0), "trained": trained}
    return [_point(name, scores, sides, weights) for name, scores in rows.items()]


def task_moments(tables: Tables) -> Ints:
    """When each of the pairs of `task_pairs` was; a fixed random order where that is not known."""
    items = ids_of(tables.tasks, "item_id")
    of_task = tables.exposures.filter(pa.array(np.isin(ids_of(tables.exposures, "item_id"), items)))
    moment = of_task.column("timestamp")
    if moment.null_count:
        return np.random.default_rng(0).permutation(of_task.num_rows)
    known: Ints = moment.to_numpy()
    return known


def _places(pairs: Pairs, moment: Ints) -> Ints:
    """The place of each pair among those of its task, the earliest 0, (E,)."""
    order = np.lexsort((moment, pairs.task))
    task = pairs.task[order]
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order)) - np.searchsorted(task, task)
    return place


def _point(name: str, scores: Floats, sides: Sides, weights: Singles) -> Point:
    defined = task_aucs(scores, sides).defined
    low, high = np.nanquantile(resampled_means(scores, sides, weights), (0.025, 0.975))
    return Point(name, float(defined.mean()), float(low), float(high), len(defined))
