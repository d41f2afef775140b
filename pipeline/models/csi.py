"""CSI: contrasting shifted instances.

Paper: Tack et al., "CSI: novelty detection via contrastive learning on distributionally shifted
instances", 2020. The shifts are the four rotations. Equation 4: SimCLR on all rotations of all
images, where a rotated image is another one; equation 5: a classifier tells which rotation it was.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.models.conv_ratio import Trunk
from pipeline.models.simclr import nt_xent

SHIFTS = 4
FLOOR = 0.1  # of a mean that scores are divided by: one near or below 0 would turn them around


class CsiNet(nn.Module):
    """A trunk with a projection, and a classifier of rotations beside it.

    Args:
        channels: of an image.
        width: c_dim of the trunk of Table 4 (Tack et al. have a ResNet-18).
        features: width of the projection.

    Shape: images (B, channels, 32, 32) -> (B, features + SHIFTS), the projection, then the logits.
    """

    def __init__(self, *, channels: int, width: int, features: int = 128) -> None:
        super().__init__()
        self.trunk = Trunk(channels=channels, width=width).layers
        self.projection = nn.Sequential(
            nn.Linear(8 * width, features), nn.ReLU(), nn.Linear(features, features)
        )
        self.shift = nn.Linear(8 * width, SHIFTS)

    def forward(self, x: Tensor) -> Tensor:
        h = self.trunk(x)
        return torch.cat([self.projection(h), self.shift(h)], dim=1)


def rotations(x: Tensor) -> Tensor:
    """All rotations of images (..., C, side, side): (SHIFTS, ..., C, side, side)."""
    return torch.stack([x.rot90(turns, (-2, -1)) for turns in range(SHIFTS)])


def csi_loss(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """Equations 4 and 5, added: outputs of two views of every rotation, (SHIFTS, B, d + SHIFTS)."""
    d = first.shape[-1] - SHIFTS
    flat = [view.flatten(0, 1) for view in (first, second)]
    contrast = nt_xent(flat[0][:, :d], flat[1][:, :d], temperature)
    turn = torch.arange(SHIFTS, device=first.device).repeat_interleave(first.shape[1])
    logits = torch.cat([view[:, d:] for view in flat])
    return contrast + F.cross_entropy(logits, turn.repeat(2))


def csi_score(test: Tensor, train: Tensor) -> Tensor:
    """Equations 6 to 8, of one task: HIGH = nominal.

    Each rotation's part of the score is divided by its mean over the training images.

    Args:
        test: outputs for every rotation, (SHIFTS, U, d + SHIFTS).
        train: of the task's own images, (SHIFTS, N, d + SHIFTS).

    Returns:
        (U,).
    """
    parts = zip(_parts(test, train), _parts(train, train), strict=True)
    scaled = [part / scale.mean(1, keepdim=True).clamp(min=FLOOR) for part, scale in parts]
    return torch.cat(scaled).sum(0)


def _parts(outputs: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """Similarity to the nearest training image times the norm, and the right rotation's logit."""
    d = outputs.shape[-1] - SHIFTS
    z, known = outputs[..., :d], F.normalize(train[..., :d], dim=-1)
    nearest = (F.normalize(z, dim=-1) @ known.transpose(1, 2)).amax(-1)  # (SHIFTS, U)
    right = torch.stack([outputs[turn, :, d + turn] for turn in range(SHIFTS)])
    return nearest * z.norm(dim=-1), right
