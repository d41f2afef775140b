"""Deep SVDD: a network that maps the images of a task close to one point.

Paper: Ruff et al., "Deep one-class classification", 2018: the soft-boundary-free objective of
equation 4, the LeNet of its CIFAR-10 experiments, and its rules against collapse (section 3.3): no
bias terms, a centre fixed beforehand that has no coordinate near 0, unbounded activations.
"""

import torch
from torch import Tensor, nn

NEAR_ZERO = 0.1  # a coordinate of the centre nearer to 0 is moved so far away from it


class SvddNet(nn.Module):
    """The network and, to give it its first weights, a decoder that undoes it.

    Args:
        channels: of an image.
        width: of the first convolution (Ruff et al.: 32).
        features: width of the output (Ruff et al.: 128); a multiple of 16.

    Shape: images (B, channels, 32, 32) -> their reconstruction, of the same shape.

    Example:
        >>> SvddNet(channels=3, width=4).encode(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 128])
    """

    def __init__(self, *, channels: int, width: int, features: int = 128) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        encoder: list[nn.Module] = []
        for before, after in zip((channels, *widths), widths, strict=False):
            encoder += [*_convolution(before, after), nn.LeakyReLU(), nn.MaxPool2d(2)]
        self.encoder = nn.Sequential(
            *encoder, nn.Flatten(), nn.Linear(16 * widths[-1], features, bias=False)
        )
        decoder: list[nn.Module] = [nn.Unflatten(1, (features // 16, 4, 4)), nn.LeakyReLU()]
        for before, after in zip((features // 16, *widths[::-1]), widths[::-1], strict=False):
            decoder += [*_convolution(before, after), nn.LeakyReLU(), nn.Upsample(scale_factor=2)]
        self.decoder = nn.Sequential(*decoder, nn.Conv2d(width, channels, 5, padding=2, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.decoder(self.encode(x))
        return y

    def encode(self, x: Tensor) -> Tensor:
        """What is to lie near the centre: (B, channels, 32, 32) -> (B, features)."""
        h: Tensor = self.encoder(x)
        return h


def centre_of(outputs: Tensor, weight: Tensor) -> Tensor:
    """The weighted mean of outputs (..., N, d), weights (..., N, 1), away from zero: (..., d)."""
    centre = (outputs * weight).sum(-2)
    sign = torch.where(centre < 0, -1.0, 1.0)
    return torch.where(centre.abs() < NEAR_ZERO, sign * NEAR_ZERO, centre)


def squared_distance(outputs: Tensor, centre: Tensor) -> Tensor:
    """Equation 4 without its weight decay, for each image: (..., N, d), (..., d) -> (..., N)."""
    return (outputs - centre[..., None, :]).square().sum(-1)


def _convolution(before: int, after: int) -> tuple[nn.Module, nn.Module]:
    conv = nn.Conv2d(before, after, 5, padding=2, bias=False)
    return conv, nn.BatchNorm2d(after, affine=False, eps=1e-4)
