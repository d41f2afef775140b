"""Random views of images for contrastive learning, a whole batch at a time on its own device.

SimCLR's recipe for small images (Chen et al., appendix A and B.9): a resized crop, mirroring,
colour jitter of strength 0.5, and grey now and then; no blur. The jitters come in a fixed order.
"""

import math
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST_CROP = 0.2  # share of the image's area; 1 is all of it
ASPECT = 4 / 3  # a crop is at most so much wider than high, or higher than wide
JITTER = 0.4  # brightness, contrast and saturation change by at most this factor
HUE = 0.1  # of a full turn of the colour wheel
JITTERED, GREYED = 0.8, 0.2  # chances
LUMA = (0.299, 0.587, 0.114)


def random_views(images: Tensor, *, flips: bool, gen: torch.Generator) -> Tensor:
    """A view of each image: (B, C, side, side) in [0, 1] -> the same.

    Args:
        images: with three channels, or one, whose colour then cannot change.
        flips: whether half of them are mirrored.
        gen: on the device of the images.
    """
    views = _crop(images, flips, gen)
    jittered = _jitter(views, gen)
    views = torch.where(_chance(JITTERED, images, gen), jittered, views)
    if images.shape[1] == 3:
        grey = _luma(views).expand_as(views)
        views = torch.where(_chance(GREYED, images, gen), grey, views)
    return views


def _uniform(low: float, high: float, images: Tensor, gen: torch.Generator) -> Tensor:
    draws = torch.rand(len(images), generator=gen, device=images.device)
    return low + (high - low) * draws


def _chance(share: float, images: Tensor, gen: torch.Generator) -> Tensor:
    return (_uniform(0, 1, images, gen) < share).view(-1, 1, 1, 1)


def _crop(images: Tensor, flips: bool, gen: torch.Generator) -> Tensor:
    """A random rectangle of each image at the image's own size, by bilinear interpolation."""
    area = _uniform(SMALLEST_CROP, 1, images, gen)
    stretch = _uniform(-math.log(ASPECT), math.log(ASPECT), images, gen).exp().sqrt()
    width, height = (area.sqrt() * stretch).clamp(max=1), (area.sqrt() / stretch).clamp(max=1)
    left = _uniform(-1, 1, images, gen) * (1 - width)  # the centre, from -1 to 1
    top = _uniform(-1, 1, images, gen) * (1 - height)
    if flips:
        width = torch.where(_uniform(0, 1, images, gen) < 0.5, -width, width)
    none = torch.zeros_like(width)
    affine = torch.stack([width, none, left, none, height, top], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def _jitter(images: Tensor, gen: torch.Generator) -> Tensor:
    """Brightness and contrast, and of colour images saturation and hue."""

    def factor() -> Tensor:
        return _uniform(1 - JITTER, 1 + JITTER, images, gen).view(-1, 1, 1, 1)

    images = (images * factor()).clamp(0, 1)
    mean = _luma(images).mean((2, 3), keepdim=True)
    images = torch.lerp(mean, images, factor()).clamp(0, 1)
    if images.shape[1] == 1:
        return images
    images = torch.lerp(_luma(images), images, factor()).clamp(0, 1)
    turn = _uniform(-HUE, HUE, images, gen) * 2 * math.pi
    return torch.einsum("bij,bjhw->bihw", _hue_turns(turn), images).clamp(0, 1)


def _luma(images: Tensor) -> Tensor:
    """Grey of images (B, C, side, side), (B, 1, side, side)."""
    if images.shape[1] == 1:
        return images
    weights = _yiq(images.device)[0][0].view(1, 3, 1, 1)
    return (images * weights).sum(1, keepdim=True)


def _hue_turns(angle: Tensor) -> Tensor:
    """Matrices on RGB that turn the colour plane of YIQ by an angle (B,), (B, 3, 3)."""
    yiq, back = _yiq(angle.device)
    turn = torch.zeros(len(angle), 3, 3, device=angle.device)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 2, 1] = angle.sin()
    turn[:, 1, 2] = -turn[:, 2, 1]
    matrices: Tensor = back @ turn @ yiq
    return matrices


@cache
def _yiq(device: torch.device) -> tuple[Tensor, Tensor]:
    """The matrix from RGB to YIQ and its inverse, brought to `device` once."""
    yiq = torch.tensor([LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])
    return yiq.to(device), torch.linalg.inv(yiq).to(device)
