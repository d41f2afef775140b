"""The networks of Algorithm 1 for images: those of vectors, on top of a convolutional trunk.

Paper: Bai et al., Table 4 and appendix D.1. Of Figure 4, which joins the trunk and e, no picture is
to be had: here trunk and e are concatenated, then one hidden layer of 256 (our reading; the paper's
pre-embedding model has one of that width).
Outputs are log ratios log q_t(x)/p(x) in nats: HIGH = nominal, LOW = anomalous.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.arrays import Singles
from pipeline.models.precision import quick
from pipeline.models.ratio import PreEmbeddingNet, RatioNet
from pipeline.steps.dropout import Random

MARGIN = 4  # black pixels around an image, out of which it is cropped again
BLOCK = 1 << 10  # images at once where no gradient is wanted


def black(x: Singles) -> list[float]:
    """What a black pixel is in each channel of standardised images (U, channels, side, side)."""
    return [float(darkest) for darkest in x.min((0, 2, 3))]


class Augment(Random):
    """A crop of the image padded with black, mirrored half the time; nothing in eval mode.

    Args:
        black: what a black pixel is in each channel of the images.
        flips: whether images are mirrored.

    Shape: (B, C, side, side) -> the same. Each image has draws of its own.
    """

    black: Tensor

    def __init__(self, *, black: Sequence[float], flips: bool) -> None:
        super().__init__()
        self.flips = flips
        self.register_buffer(
            "black", torch.tensor(black, dtype=torch.float32).view(1, -1, 1, 1), persistent=False
        )

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        masks, (n, channels, side, _) = self.source(), x.shape
        span = torch.arange(side, device=x.device)
        rows = span + masks.integers(n, 2 * MARGIN + 1)[:, None]
        columns = span + masks.integers(n, 2 * MARGIN + 1)[:, None]  # (B, side)
        if self.flips:
            columns = torch.where(masks.integers(n, 2)[:, None] == 1, columns.flip(1), columns)
        padded = self.black.repeat(n, 1, side + 2 * MARGIN, side + 2 * MARGIN)
        padded[..., MARGIN:-MARGIN, MARGIN:-MARGIN] = x
        places = rows[:, :, None] * padded.shape[-1] + columns[:, None]  # (B, side, side)
        wanted = places.view(n, 1, -1).expand(-1, channels, -1)
        return padded.view(n, channels, -1).gather(2, wanted).view_as(x)


class Trunk(nn.Module):
    """The feature extractor of Table 4, augmentation first.

    Args:
        channels: of an image: 3 or 1.
        width: c_dim (Table 4: 64).
        augment: what is done to images in training.

    Shape: (B, channels, 32, 32) -> (B, 8 * width).
    """

    def __init__(self, *, channels: int, width: int, augment: Augment | None = None) -> None:
        super().__init__()
        self.augment = augment or nn.Identity()
        layers: list[nn.Module] = []
        for before, after, kernel, stride, padding in (
            (channels, width, 4, 2, 1),
            (width, 2 * width, 4, 2, 1),
            (2 * width, 4 * width, 5, 1, 0),
            (4 * width, 8 * width, 4, 1, 0),
        ):
            # A bias would be taken away again by the batch normalisation.
            conv = nn.Conv2d(before, after, kernel, stride, padding, bias=False)
            layers += [conv, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers[:-1], nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return torch.cat([self._extract(part) for part in x.split(BLOCK)])
        return self._extract(self.augment(x))

    def of_rows(self, x: Tensor, user: Tensor) -> tuple[Tensor, Tensor]:
        """What it makes of the images of `user` (...), and the row of each in it, (...).

        An image that occurs twice goes through it once: the trunk is nearly all of the work. Not so
        in training, where a step asks for no value, as `capture` wants it; there in bfloat16 where
        that is quick.
        """
        if not self.training:
            images, row = user.unique(return_inverse=True)
            return self(x[images]), row
        with quick(x):
            h = self(x[user.reshape(-1)])
        return h.float(), torch.arange(user.numel(), device=user.device).view(user.shape)

    def _extract(self, x: Tensor) -> Tensor:
        # With the channels last in memory a training step takes two thirds of the time.
        h: Tensor = self.layers(x.contiguous(memory_format=torch.channels_last))
        return h


class ConvRatioNet(RatioNet):
    """f(x, e) of an image x: a RatioNet whose vectors come out of a trunk.

    Args:
        task_dim: width of a task embedding.
        black: what a black pixel is in each channel of an image.
        width: c_dim of the trunk.
        head: width of the hidden layer on trunk and e.
        flips: whether training images are mirrored.

    Shape: x (B, len(black), 32, 32), e (B, task_dim) -> (B,).

    Example:
        >>> net = ConvRatioNet(task_dim=2, black=[0, 0, 0], width=4, head=8, flips=True).eval()
        >>> net(torch.zeros(5, 3, 32, 32), torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(
        self, *, task_dim: int, black: Sequence[float], width: int, head: int, flips: bool
    ) -> None:
        super().__init__(x_dim=8 * width, task_dim=task_dim, hidden=(head,), dropout=(0.0,))
        self.config = {
            "task_dim": task_dim,
            "black": list(black),
            "width": width,
            "head": head,
            "flips": flips,
        }
        augment = Augment(black=black, flips=flips)
        self.trunk = Trunk(channels=len(black), width=width, augment=augment)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        return super().forward(self.trunk(x), e)

    def vectors(self, x: Tensor, user: Tensor) -> tuple[Tensor, Tensor]:
        """What the trunk makes of images x (U, C, 32, 32) that users (...) name."""
        return self.trunk.of_rows(x, user)

    def user_side(self, x: Tensor) -> Tensor:
        """All of f that does not depend on the task: x (U, C, 32, 32) -> (U, head)."""
        return super().user_side(self.trunk(x))


class ConvPreEmbeddingNet(PreEmbeddingNet):
    """f_1(x), ..., f_M0(x) of an image x: a PreEmbeddingNet on top of a trunk.

    Args:
        heads: number of seed tasks, M0.
        black: what a black pixel is in each channel of an image.
        width: c_dim of the trunk.
        head: width of the hidden layer (appendix D.1: 256).
        flips: whether training images are mirrored.

    Shape: x (B, len(black), 32, 32) -> (B, heads).
    """

    def __init__(
        self, *, heads: int, black: Sequence[float], width: int, head: int, flips: bool
    ) -> None:
        super().__init__(x_dim=8 * width, heads=heads, hidden=(head,), dropout=(0.0,))
        self.config = {
            "heads": heads,
            "black": list(black),
            "width": width,
            "head": head,
            "flips": flips,
        }
        augment = Augment(black=black, flips=flips)
        self.trunk = Trunk(channels=len(black), width=width, augment=augment)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.trunk(x))

    def vectors(self, x: Tensor, user: Tensor) -> tuple[Tensor, Tensor]:
        """What the trunk makes of images x (U, C, 32, 32) that users (...) name."""
        return self.trunk.of_rows(x, user)
