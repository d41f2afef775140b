"""Algorithm 1 on images, from each of the paper's initialisations, and what it comes to.

Paper: Bai et al., section 5.2 and tables 3 and 6. The loss, the loop, the sampler, equation 4 and
the AUC are those of the main pipeline; only the networks and the initialisations are others. The
negatives of a step are its positives (`within_batch`): half as many images go through the trunk.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from pipeline.arrays import Bools, Ints, Singles
from pipeline.auc import Sides, task_aucs
from pipeline.conditional import Conditional, train_network
from pipeline.datasets.images import CATEGORIES, SOURCES
from pipeline.embeddings import Projection, histogram_values, random_embeddings, task_means
from pipeline.examples import Examples
from pipeline.images.params import Dataset, ImageProjection, Network, seed_tasks_of
from pipeline.models.conv_ratio import ConvPreEmbeddingNet, ConvRatioNet, black
from pipeline.models.ratio import PreEmbeddingNet, RatioNet
from pipeline.models.weights import device_of
from pipeline.pretraining import Pretraining, pretrain_network, seed_ratios
from pipeline.scoring import score_all
from pipeline.sections import Schedule
from pipeline.seed_tasks import random_seed_tasks
from pipeline.training.session import Session

BLOCK = 1 << 12  # images that are encoded at once


def pretrain_images(
    examples: Examples,
    seed_tasks: int,
    *,
    dataset: Dataset,
    network: Network,
    schedule: Schedule,
    seed: int,
    session: Session,
) -> Pretraining:
    """Train the pre-embedding model on `seed_tasks` tasks drawn at random, or on all if fewer.

    Of ten tasks (k = 1) or 45 (k = 2) there are no 64 to draw.
    """
    learned = examples.learned
    wanted = min(seed_tasks, len(np.unique(learned.task)))
    chosen = random_seed_tasks(learned, wanted, np.random.default_rng(seed))
    net = ConvPreEmbeddingNet(
        heads=wanted,
        black=black(examples.x),
        width=network.width,
        head=network.head,
        flips=SOURCES[dataset].flips,
    )
    return pretrain_network(
        net,
        examples,
        chosen,
        base="exposures",
        within_batch=True,
        schedule=schedule,
        seed=seed,
        session=session,
    )


def train_images(
    examples: Examples,
    task_init: Singles,
    *,
    watched: Sides,
    freeze_e: bool,
    dataset: Dataset,
    network: Network,
    schedule: Schedule,
    seed: int,
    session: Session,
) -> Conditional:
    """Run Algorithm 1 on all tasks from the embeddings `task_init` (M, e_dim); see `train_network`.

    `watched` are the validation images of active categories against the rest.
    """
    net = ConvRatioNet(
        task_dim=task_init.shape[1],
        black=black(examples.x),
        width=network.width,
        head=network.head,
        flips=SOURCES[dataset].flips,
    )
    return train_network(
        net,
        examples,
        task_init,
        watched=watched,
        base="exposures",
        within_batch=True,
        freeze_e=freeze_e,
        schedule=schedule,
        seed=seed,
        session=session,
    )


def task_statistic(
    init: str,
    examples: Examples,
    *,
    active: Bools,
    cluster: Ints,
    pre_embedding: Callable[[int], PreEmbeddingNet],
) -> Singles:
    """What an initialisation other than `random` knows of each task, (M, d).

    Args:
        init: label (the active categories: extra knowledge), pseudo (the task's shares of the
            clusters) or learned-M0 (equation 4).
        examples: images and their exposures.
        active: (M, CATEGORIES).
        cluster: pseudo-label of each image (U,), see `simclr.clusters`.
        pre_embedding: gives the model of M0 seed tasks, for `learned-M0`.
    """
    if init == "label":
        return active.astype(np.float32)
    if init == "pseudo":
        values = histogram_values(cluster, CATEGORIES)
        return task_means(values, examples.learned, examples.tasks)
    wanted = seed_tasks_of(init)
    if wanted is None:
        raise ValueError(f"init must be label, pseudo or learned-M0. Got {init!r}.")
    return project_images(pre_embedding(wanted), examples)


def project_images(net: PreEmbeddingNet, examples: Examples) -> Singles:
    """Equation 4: the mean of f_1(x), ..., f_M0(x) over each task's training images, (M, M0)."""
    return task_means(image_values(net, examples.x), examples.learned, examples.tasks)


def image_values(net: PreEmbeddingNet, x: Singles) -> Singles:
    """f_1(x), ..., f_M0(x) of images (U, channels, side, side): (U, M0)."""
    return seed_ratios(net, x, BLOCK)


def start(
    statistic: Singles | None, tasks: int, params: ImageProjection, seed: int
) -> tuple[Singles, Projection | None]:
    """Embeddings to start from, (tasks, e_dim), and what places a new task: None for `random`."""
    if statistic is None:
        gen = np.random.default_rng(seed)
        return random_embeddings(tasks, params.random_dim, gen), None
    projection = Projection.fit(statistic, standardise=params.standardise, reduce=None)
    return projection.apply(statistic), projection


@dataclass(frozen=True)
class Learned:
    """What was learned on the tasks of one k: enough to place tasks of another, without training.

    Attributes:
        values: f_1(x), ..., f_M0(x) of every image by its pre-embedding model, (U, M0).
        projection: from these means to an embedding, fitted to the k's own tasks.
        net: the ratio.
    """

    values: Singles
    projection: Projection
    net: RatioNet

    def auc_on(self, unseen: Examples, x: Singles, sides: Sides) -> float:
        """Mean AUC on tasks never trained on, on the images x (U, ...) of `sides`."""
        e = self.projection.apply(task_means(self.values, unseen.learned, unseen.tasks))
        return mean_auc(self.net, x, e, sides)


def mean_auc(net: RatioNet, x: Singles, e: Singles, sides: Sides) -> float:
    """Mean AUC over the tasks of e (M, e_dim), on the images x (U, ...) of `sides`.

    Scored on the device of `net`.
    """
    scores = score_all(net, *(torch.from_numpy(of).to(device_of(net)) for of in (x, e)))
    return float(task_aucs(scores, sides).defined.mean())
