"""SimCLR: features of images that are learned without labels.

Paper: Chen et al., "A simple framework for contrastive learning of visual representations", 2020,
with the ResNet-18 that is usual for small images: a 3 x 3 first convolution, no pooling after it
(He et al., 2016; Chen et al., appendix B.9).
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.precision import quick


class Block(nn.Module):
    """Two 3 x 3 convolutions around which the input is led by a shortcut (He et al., figure 2)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.shortcut: nn.Module = nn.Identity()
        if before != after:
            conv = nn.Conv2d(before, after, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.path(x) + self.shortcut(x)
        return y.relu()


class Encoder(nn.Module):
    """ResNet-18 with a linear layer to `features` numbers, and SimCLR's projection on top of them.

    Args:
        channels: of an image.
        width: of the first convolution (ResNet-18: 64).
        features: width of the representation (Bai et al.: 128).

    Shape: images (B, channels, side, side) in [0, 1] -> (B, features).

    Example:
        >>> Encoder(channels=3, width=8).eval()(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 128])
    """

    def __init__(self, *, channels: int, width: int, features: int = 128) -> None:
        super().__init__()
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        blocks: list[nn.Module] = []
        for n, (before, after) in enumerate(pairwise(widths)):
            blocks += [Block(before, after, 1 if n == 0 else 2), Block(after, after, 1)]
        self.trunk = nn.Sequential(
            nn.Conv2d(channels, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            *blocks,
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8 * width, features),
        )
        self.projection = nn.Sequential(
            nn.ReLU(), nn.Linear(features, features), nn.ReLU(), nn.Linear(features, features)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        with quick(x):
            h: Tensor = self.trunk[:-1](x - 0.5)
        features: Tensor = self.trunk[-1](h.float())
        return features

    def project(self, x: Tensor) -> Tensor:
        """What the loss compares; dropped after training: (B, C, side, side) -> (B, features)."""
        z: Tensor = self.projection(self(x))
        return z


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Equation 1 of SimCLR, the mean over all 2 B views; log(2 B - 1) if all views are alike.

    A view must find the other view of its image among all other views of the batch.

    Shape: first and second views (B, d), row by row of the same image -> scalar.
    """
    z = F.normalize(torch.cat([first, second]), dim=1)
    logits = z @ z.T / temperature
    logits = logits.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), -torch.inf)
    partner = torch.arange(len(z), device=z.device).roll(len(first))
    return F.cross_entropy(logits, partner)
