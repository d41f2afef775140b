"""Deep SVDD and CSI on raw images, a model for each task, trained together (Table 2, left)."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from pipeline.arrays import Singles
from pipeline.images.params import Csi, Svdd
from pipeline.images.separate import BLOCK, Apart, score_apart, train_apart
from pipeline.images.views import random_views
from pipeline.models.csi import SHIFTS, CsiNet, csi_loss, csi_score, rotations
from pipeline.models.stacked import Stacked
from pipeline.models.svdd import SvddNet, centre_of, squared_distance
from pipeline.training.course import VALID_SEED
from pipeline.training.session import Session

VIEWS = 1  # beside the seed, of the stream that views are drawn from: images are by the seed alone


def svdd_scores(
    data: Apart,
    x: Tensor,
    test: Tensor,
    params: Svdd,
    *,
    seed: int,
    session: Session,
) -> Singles:
    """Minus the squared distance of `test` (U', C, 32, 32) to each task's centre, (M, U').

    The networks start from those of autoencoders; only what follows is kept in a checkpoint, since
    the autoencoders are the shorter part. The centre is kept with it: autoencoders trained again
    may differ in the last bits.

    Args:
        data: the tasks' own images.
        x: standardised images (U, C, 32, 32), on the device of `data`.
        test: those to score.
        params: width and schedules.
        seed: of weights and draws.
        session: how to train.
    """
    tasks = len(data.tasks)
    net = Stacked(
        lambda: SvddNet(channels=x.shape[1], width=params.width),
        tasks,
        torch.Generator().manual_seed(seed),
    )

    def reconstruction(own: Tensor, _: Tensor) -> Tensor:
        error: Tensor = (net(x[own]) - x[own]).square().flatten(1).mean(1)
        return error

    before = params.model_copy(update={"max_epochs": params.autoencoder_epochs})
    train_apart(net, data, reconstruction, before, seed=seed, session=Session(x.device))
    with torch.no_grad():
        outputs = _in_blocks(lambda rows: net.call("encode", x[rows]), data.train.own)
        centre = centre_of(outputs, data.train.weights()[..., None])  # (M, d), fixed from here on
    net.register_buffer("centre", centre)

    def distance(images: Tensor) -> Tensor:
        return squared_distance(net.call("encode", images), net.get_buffer("centre"))

    def loss(own: Tensor, _: Tensor) -> Tensor:
        return distance(x[own]).mean(1)

    train_apart(
        net, data, loss, params, seed=seed, session=session, weight_decay=params.weight_decay
    )
    return score_apart(lambda part: -distance(part), test, tasks)


def csi_scores(
    data: Apart,
    x: Tensor,
    test: Tensor,
    params: Csi,
    *,
    flips: bool,
    seed: int,
    session: Session,
) -> Singles:
    """Scores of `test` (U', C, 32, 32) by each task's CSI, (M, U'); HIGH = nominal.

    Args:
        data: the tasks' own images.
        x: images in [0, 1], (U, C, 32, 32), on the device of `data`.
        test: those to score.
        params: width, temperature and schedule.
        flips: whether views may be mirrored.
        seed: of weights, draws and views.
        session: how to train.
    """
    tasks, device = len(data.tasks), x.device
    own_seed = int(np.random.SeedSequence((seed, VIEWS)).generate_state(1)[0])
    gen = torch.Generator(device).manual_seed(own_seed)
    net = Stacked(
        lambda: CsiNet(channels=x.shape[1], width=params.width),
        tasks,
        torch.Generator().manual_seed(seed),
    )

    def outputs(images: Tensor) -> Tensor:
        """Of every rotation of images (M, B, ...), (M, SHIFTS, B, d + SHIFTS)."""
        turned = rotations(images).transpose(0, 1).flatten(1, 2)  # (M, SHIFTS * B, ...)
        found: Tensor = net(turned).unflatten(1, (SHIFTS, -1))
        return found

    def loss(own: Tensor, _: Tensor) -> Tensor:
        source = gen if net.training else torch.Generator(device).manual_seed(VALID_SEED)
        flat = x[own.flatten()]
        views = [
            outputs(random_views(flat, flips=flips, gen=source).view(*own.shape, *x.shape[1:]))
            for _ in range(2)
        ]
        each: Tensor = torch.vmap(lambda a, b: csi_loss(a, b, params.temperature))(*views)
        return each

    train_apart(net, data, loss, params, seed=seed, session=session, random={"views": gen})
    with torch.no_grad():
        known = _in_blocks(lambda rows: outputs(x[rows]), data.train.own, dim=2)
        parts = [part.expand(tasks, *part.shape) for part in test.split(BLOCK)]
        found = torch.cat([outputs(part) for part in parts], dim=2)  # (M, SHIFTS, U', d + SHIFTS)
        scores = [
            csi_score(found[t], known[t, :, :count])
            for t, count in enumerate(data.train.count.tolist())
        ]
    result: Singles = torch.stack(scores).cpu().numpy()
    return result


def _in_blocks(call: Callable[[Tensor], Tensor], rows: Tensor, dim: int = 1) -> Tensor:
    """`call` on rows (M, N), a block of columns at a time, joined along `dim`."""
    return torch.cat([call(part) for part in rows.split(BLOCK, dim=1)], dim=dim)
