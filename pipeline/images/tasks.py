"""Tasks made of categories: every choice of k active categories out of ten is a task.

Paper: Bai et al., section 5.2. An image is exposed to one task only, drawn at random among those in
which its category is active: the more tasks there are, the fewer images each has. A test image is
nominal in a task if its category is active there, and anomalous otherwise.
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pyarrow as pa
import torch

from pipeline.arrays import Bools, Bytes, Ints, Singles
from pipeline.auc import Sides
from pipeline.datasets.images import CATEGORIES, Images
from pipeline.errors import PipelineError
from pipeline.examples import Examples
from pipeline.pairs import split_rows, task_pairs


@dataclass(frozen=True)
class TaskSet:
    """The tasks of one k, and which image is exposed to which.

    Attributes:
        tasks: TASKS with `active`, the list of a task's active categories.
        exposures: EXPOSURES, one row for each training and validation image.
    """

    tasks: pa.Table
    exposures: pa.Table


def choices(k: int) -> Ints:
    """Every choice of `k` categories out of ten, in lexicographic order: (C(10, k), k).

    Example:
        >>> [len(choices(k)) for k in range(1, 6)]
        [10, 45, 120, 210, 252]
    """
    return np.array(list(combinations(range(CATEGORIES), k)), np.int64)


def active_categories(tasks: pa.Table) -> Bools:
    """Whether each category is active in each task, (M, CATEGORIES)."""
    lists = tasks.column("active").combine_chunks()
    active = np.zeros((len(lists), CATEGORIES), bool)
    active[lists.value_parent_indices().to_numpy(), lists.flatten().to_numpy()] = True
    return active


def expose(category: Ints, k: int, gen: np.random.Generator) -> Ints:
    """One task for each image, drawn among those in which its category (N,) is active: (N,)."""
    task, place = np.divmod(np.arange(choices(k).size), k)
    of_category = choices(k)[task, place]
    active = np.stack([task[of_category == c] for c in range(CATEGORIES)])  # (10, C(9, k - 1))
    return active[category, gen.integers(active.shape[1], size=len(category))]


def make_tasks(users: pa.Table, splits: pa.Table, k: int, seed: int) -> TaskSet:
    """Make all tasks of `k` active categories, and expose training and validation images to them.

    Args:
        users: the images: user_id, category.
        splits: their splits; test images are exposed to nothing.
        k: number of active categories.
        seed: of the exposures.
    """
    train, valid = (split_rows(splits, users, name) for name in ("train", "valid"))
    shown = np.sort(np.concatenate([train, valid]))
    category = users.column("category").to_numpy()
    gen = np.random.default_rng((seed, k))
    task = expose(category, k, gen)
    active = choices(k)
    ids = np.arange(len(active))
    tasks = pa.table(
        {
            "task_id": ids.astype(np.int32),
            "item_id": ids,
            "exposures": np.bincount(task[shown], minlength=len(ids)),
            "train_exposures": np.bincount(task[train], minlength=len(ids)),
            "active": pa.array(active.tolist(), pa.list_(pa.int64())),
        }
    )
    unknown = pa.nulls(len(shown))
    exposures = pa.table(
        {
            "user_id": users.column("user_id").to_numpy()[shown],
            "item_id": task[shown],
            "rating": unknown.cast(pa.int8()),
            "timestamp": unknown.cast(pa.int64()),
            "held_out": np.zeros(len(shown), bool),
        }
    )
    return TaskSet(tasks, exposures)


def split_images(
    images: Images,
    *,
    train: int | None,
    valid: int,
    test: int | None,
    seed: int,
) -> tuple[Ints, pa.Table]:
    """Draw the images that take part, and give each its split.

    Args:
        images: all of them.
        train: of the publisher's training part, besides `valid`; None takes all that are left.
        valid: likewise.
        test: of the publisher's test part; None takes all.
        seed: of the draw.

    Returns:
        Rows of the images that take part, rising, and their splits; an image's id is its row.

    Raises:
        PipelineError: more images are wanted than there are.
    """
    gen = np.random.default_rng(seed)
    for part, wanted in ((~images.test, valid + (train or 1)), (images.test, test or 1)):
        if wanted > part.sum():
            raise PipelineError(
                f"data: {wanted:,} images are wanted of a part that has {part.sum():,}; lower "
                "data.train_images, data.valid_images or data.test_images."
            )
    learn = gen.permutation(np.flatnonzero(~images.test))
    judge = gen.permutation(np.flatnonzero(images.test))[:test]
    stop = None if train is None else valid + train
    split = np.full(len(images.test), "", dtype="<U5")
    split[learn[:valid]], split[learn[valid:stop]], split[judge] = "valid", "train", "test"
    rows = np.flatnonzero(split != "")
    return rows, pa.table({"user_id": rows, "split": split[rows]})


def standardised(pixels: Bytes, train: Ints) -> Singles:
    """Pixels with mean 0 and variance 1 in each channel over the images `train`.

    Shape: (U, channels, side, side) -> the same.
    """
    of_train = torch.from_numpy(pixels[train])
    value = torch.arange(256, dtype=torch.float64)
    count = torch.stack([part.flatten().bincount(minlength=256) for part in of_train.unbind(1)])
    n = count[0].sum()
    mean = (count * value).sum(1) / n
    variance = (count * (value - mean[:, None]).square()).sum(1) / (n - 1)
    x = torch.from_numpy(pixels).float()
    x -= mean.float().view(-1, 1, 1)
    x /= variance.sqrt().float().view(-1, 1, 1)
    standard: Singles = x.numpy()
    return standard


def image_examples(x: Singles, users: pa.Table, splits: pa.Table, task_set: TaskSet) -> Examples:
    """What Algorithm 1 learns from; x are pixels or features of the images `users`, by row."""
    return Examples(
        x,
        task_pairs(task_set.exposures, users, task_set.tasks),
        split_rows(splits, users, "train"),
        split_rows(splits, users, "valid"),
        task_set.tasks.num_rows,
    )


def category_sides(active: Bools, category: Ints) -> Sides:
    """Images of active categories against the rest: active (M, CATEGORIES), category (U,)."""
    nominal = active[:, category]
    return Sides(nominal, ~nominal)
