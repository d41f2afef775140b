"""Which tasks the pre-embedding model learns: at random, as the paper does, or spread out.

The paper leaves a better choice than chance as future work. All of these but chance look at the
tasks' mean features and prefer seed tasks whose audiences differ. Distances are Euclidean.
"""

from collections.abc import Callable
from heapq import heapify, heapreplace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from pipeline.arrays import Doubles, Ints
from pipeline.embeddings import task_means
from pipeline.errors import PipelineError
from pipeline.examples import Examples
from pipeline.pairs import Pairs

if TYPE_CHECKING:
    from pipeline.params import Pretrain

Method: TypeAlias = Callable[[Doubles, int, np.random.Generator], Ints]


def choose_seed_tasks(examples: Examples, params: "Pretrain", gen: np.random.Generator) -> Ints:
    """Choose `params.seed_tasks` of the tasks that have a training exposure, or all; rising rows.

    Raises:
        PipelineError: no task has one.
    """
    learned = examples.learned
    tasks = _tasks_with_a_pair(learned, 1)
    wanted = min(params.seed_tasks, len(tasks))
    if params.seed_method == "random":
        return random_seed_tasks(learned, wanted, gen)
    means = task_means(examples.x, learned, examples.tasks)[tasks].astype(np.float64)
    return np.sort(tasks[_METHODS[params.seed_method](means, wanted, gen)])


def random_seed_tasks(pairs: Pairs, wanted: int, gen: np.random.Generator) -> Ints:
    """Draw `wanted` tasks at random among those that have a pair, rising.

    Raises:
        PipelineError: fewer tasks than wanted.
    """
    return np.sort(gen.choice(_tasks_with_a_pair(pairs, wanted), wanted, replace=False))


def _tasks_with_a_pair(pairs: Pairs, wanted: int) -> Ints:
    tasks: Ints = np.unique(pairs.task)
    if wanted > len(tasks):
        raise PipelineError(
            f"pretrain.seed_tasks must be between 1 and {len(tasks):,}, the number of tasks "
            f"with a training exposure. Got {wanted:,}."
        )
    return tasks


def kmeans_pp(points: Doubles, wanted: int, gen: np.random.Generator) -> Ints:
    """Rows of points (n, d) by k-means++: each with chance proportional to its squared distance.

    Arthur and Vassilvitskii, "k-means++: The Advantages of Careful Seeding" (2007). The distance is
    to the nearest row chosen so far; the first row is drawn uniformly.
    """
    return _one_by_one(points, wanted, gen, lambda near: _draw(near, gen))


def farthest(points: Doubles, wanted: int, gen: np.random.Generator) -> Ints:
    """Rows of points (n, d), each the farthest from those chosen so far; the first one at random.

    Gonzalez, "Clustering to Minimize the Maximum Intercluster Distance" (1985).
    """
    return _one_by_one(points, wanted, gen, lambda near: int(near.argmax()))


def facility(points: Doubles, wanted: int, gen: np.random.Generator) -> Ints:
    """Rows of points (n, d) that lie near all the others: greedy facility location.

    Each row added is the one that lowers the sum of squared distances to the nearest chosen row the
    most; before the first, every row is as far as the farthest row is from the mean. What a row
    lowers it by never grows as others are chosen, so an old figure is a bound and most rows need
    not be looked at again (Minoux, "Accelerated Greedy Algorithms", 1978). Nothing is random.
    """
    near = np.full(len(points), _square_distances(points, points.mean(0)).max())
    bound = [(-np.inf, row) for row in range(len(points))]
    heapify(bound)
    chosen: list[int] = []
    while len(chosen) < wanted:
        row = bound[0][1]
        square = _square_distances(points, points[row])
        gain = np.maximum(near - square, 0).sum()
        heapreplace(bound, (-gain, row))
        if bound[0][1] == row:  # no other row can lower it by more
            heapreplace(bound, (np.inf, row))
            near = np.minimum(near, square)
            chosen.append(row)
    return np.array(chosen)


_METHODS: dict[str, Method] = {"kmeans++": kmeans_pp, "farthest": farthest, "facility": facility}


def _one_by_one(
    points: Doubles, wanted: int, gen: np.random.Generator, pick: Callable[[Doubles], int]
) -> Ints:
    """Rows picked by the squared distance (n,) to the nearest row so far, -1 for those rows."""
    near = np.full(len(points), np.inf)
    chosen = [int(gen.integers(len(points)))]
    while len(chosen) < wanted:
        near = np.minimum(near, _square_distances(points, points[chosen[-1]]))
        near[chosen] = -1
        chosen.append(pick(near))
    return np.array(chosen)


def _draw(near: Doubles, gen: np.random.Generator) -> int:
    weight = near.clip(min=0)
    if not weight.any():  # all that is left lies on rows already chosen
        weight = (near == 0).astype(np.float64)
    return int(gen.choice(len(near), p=weight / weight.sum()))


def _square_distances(points: Doubles, point: Doubles) -> Doubles:
    square: Doubles = np.square(points - point).sum(1)
    return square
