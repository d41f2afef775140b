"""SimCLR on images: training, features, how much a linear model reads out of them, clusters."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from torch import Tensor

from pipeline.arrays import Bytes, Ints, Singles
from pipeline.datasets.images import CATEGORIES
from pipeline.images.params import Simclr
from pipeline.images.views import random_views
from pipeline.models.simclr import Encoder, nt_xent
from pipeline.models.weights import draw_layers
from pipeline.steps.sampler import batch_count
from pipeline.training.course import VALID_SEED
from pipeline.training.history import Row
from pipeline.training.loop import fit
from pipeline.training.session import Session

BLOCK = 1 << 10  # images that are encoded at once
FEATURES = 128  # or as many as a narrow trunk has channels: of more, some follow from others


@dataclass(frozen=True)
class Contrasts:
    """Images on one device, of which views are drawn.

    Attributes:
        images: (N, C, side, side), bytes.
        flips: whether views may be mirrored.
    """

    images: Tensor
    flips: bool

    def pair(self, rows: Tensor, gen: torch.Generator) -> tuple[Tensor, Tensor]:
        """Two views of each of the images `rows` (B,)."""
        images = self.images[rows].float() / 255
        first = random_views(images, flips=self.flips, gen=gen)
        return first, random_views(images, flips=self.flips, gen=gen)

    def epoch(self, batch_size: int, gen: torch.Generator) -> Iterator[tuple[Tensor]]:
        """Rows of all images, in random order and batches of nearly equal size."""
        order = torch.randperm(len(self.images), generator=gen, device=self.images.device)
        for rows in order.tensor_split(batch_count(len(order), batch_size)):
            yield (rows,)


def train_simclr(
    pixels: Bytes,
    *,
    train: Ints,
    valid: Ints,
    flips: bool,
    params: Simclr,
    seed: int,
    session: Session,
) -> tuple[Encoder, list[Row]]:
    """Train until the loss on fixed views of the validation images is lowest.

    Args:
        pixels: (U, C, side, side).
        train: rows to learn from.
        valid: rows to stop by.
        flips: whether views may be mirrored.
        params: width, temperature and schedule.
        seed: of weights, order and views.
        session: where and how to train.

    Returns:
        The encoder on the CPU, in eval mode, and the history.

    Raises:
        PipelineError: a loss that is not a finite number.
    """
    features = min(FEATURES, 8 * params.width)
    net = Encoder(channels=pixels.shape[1], width=params.width, features=features)
    draw_layers(net, torch.Generator().manual_seed(seed))
    device = session.device
    net.to(device)
    gen = torch.Generator(device).manual_seed(seed)
    learned, stop = (
        Contrasts(torch.from_numpy(pixels[rows]).to(device), flips) for rows in (train, valid)
    )
    valid_gen = torch.Generator(device).manual_seed(VALID_SEED)
    fixed = [stop.pair(*rows, valid_gen) for rows in stop.epoch(params.batch_size, valid_gen)]

    def contrast(first: Tensor, second: Tensor) -> Tensor:
        z = net.project(torch.cat([first, second])).chunk(2)
        return nt_xent(z[0], z[1], params.temperature)

    def validate() -> Row:
        return {"valid_loss": float(torch.stack([contrast(*views) for views in fixed]).mean())}

    history = fit(
        net,
        batches=lambda: learned.epoch(params.batch_size, gen),
        loss=lambda rows: contrast(*learned.pair(rows, gen)),
        validate=validate,
        schedule=params,
        session=session,
        random={"views": gen},
        capture=True,
    )
    return net.cpu().eval(), history


@torch.no_grad()
def encode(net: Encoder, pixels: Bytes, train: Ints, device: torch.device) -> Singles:
    """Features (U, d) of images (U, C, side, side), standardised over the rows `train`."""
    net.to(device).eval()
    parts = torch.from_numpy(pixels).split(BLOCK)
    features = torch.cat([net(part.to(device).float() / 255).cpu() for part in parts])
    net.cpu()
    learned = features[torch.from_numpy(train)]
    features = (features - learned.mean(0)) / learned.std(0).clamp(min=1e-6)
    found: Singles = features.numpy()
    return found


def probe_accuracy(features: Singles, category: Ints, train: Ints, test: Ints) -> float:
    """Share of the test images that a logistic regression on the features classifies right."""
    probe = LogisticRegression(max_iter=300).fit(features[train], category[train])
    return float(probe.score(features[test], category[test]))


def clusters(features: Singles, train: Ints, seed: int) -> Ints:
    """The most likely of ten components of a Gaussian mixture, for each of the images (U,).

    They are the pseudo-labels of Bai et al., table 3, who do not say what their mixture is fitted
    to: here to features (U, d) of the training images, with diagonal covariances.
    """
    mixture = GaussianMixture(CATEGORIES, covariance_type="diag", random_state=seed)
    of_image: Ints = mixture.fit(features[train]).predict(features)
    return of_image
