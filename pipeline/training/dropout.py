"""Dropout whose masks are cut from packed random bits.

`nn.Dropout` on a CPU draws one number an element, one after another: two thirds of a training step
of the paper's networks. Here 64 elements share one random word when the rate is 1/2, and 4 share
one otherwise. The law is that of dropout, at a rate rounded to a multiple of 2^-16.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

RESOLUTION = 1 << 16


def representable(rate: float) -> float:
    """The nearest rate that the masks can have: a multiple of 2^-16 (0.3 becomes 0.3000031)."""
    return round(rate * RESOLUTION) / RESOLUTION


class MaskSource:
    """Draws dropout masks; on a CPU from a NumPy bit stream, elsewhere from a torch generator.

    Args:
        seed: the masks follow from it, from the device, and from the order of the calls.
        device: where the masks are wanted.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.device = device
        self._bits = np.random.SFC64(seed)
        self._gen = torch.Generator(device).manual_seed(seed) if device.type != "cpu" else None

    def keep(self, shape: torch.Size, rate: float) -> Tensor:
        """Mask of `shape`: 1 where an element is kept, 0 where it is dropped, as float32."""
        if self._gen is not None:
            mask = torch.empty(shape, device=self.device)
            return mask.bernoulli_(1 - representable(rate), generator=self._gen)
        count = shape.numel()
        if representable(rate) == 0.5:
            words: Any = self._bits.random_raw(-(-count // 64))
            flat = np.unpackbits(words.view(np.uint8), count=count)
        else:
            words = self._bits.random_raw(-(-count // 4))
            flat = words.view(np.uint16)[:count] >= round(rate * RESOLUTION)
        return torch.from_numpy(flat).view(shape).float()

    def integers(self, count: int, below: int) -> Tensor:
        """`count` whole numbers, each from 0 to `below` - 1 with equal chance (to 2^-50), int64."""
        if self._gen is not None:
            return torch.randint(below, (count,), generator=self._gen, device=self.device)
        words: Any = self._bits.random_raw(count)
        return torch.from_numpy((words % np.uint64(below)).astype(np.int64))

    def get_state(self) -> Tensor:
        """Where the stream of masks is, as a tensor on the CPU."""
        if self._gen is not None:
            return self._gen.get_state()
        words = self._bits.state["state"]["state"]  # (4,), and no half-used word: see `keep`
        return torch.from_numpy(words.view(np.int64).copy())

    def set_state(self, new_state: Tensor) -> None:
        """Go on from where `get_state` was called."""
        if self._gen is not None:
            self._gen.set_state(new_state)
            return
        state = self._bits.state
        state["state"]["state"] = new_state.numpy().view(np.uint64)
        self._bits.state = state


class _ReluDropout(torch.autograd.Function):
    """relu(z) * keep / (1 - rate), in place; only the result is kept for the way back."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, keep: Tensor, scale: float) -> Tensor:  # noqa: ANN401
        z = z.relu_().mul_(keep.mul_(scale))
        ctx.mark_dirty(z)
        ctx.save_for_backward(z)
        ctx.scale = scale
        return z

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (y,) = ctx.saved_tensors
        # The result is positive exactly where z was and the mask let it pass.
        return torch.ops.aten.threshold_backward(grads[0], y, 0).mul_(ctx.scale), None, None


class Random(torch.nn.Module):
    """A module that draws in training mode, from a `MaskSource` in `masks`.

    The training loop sets it (`set_masks`), so that randomness is never global.
    """

    masks: MaskSource | None = None

    def source(self) -> MaskSource:
        """Where to draw from."""
        if self.masks is None:
            name = type(self).__name__
            raise RuntimeError(f"{name} draws from a MaskSource; call set_masks(model, ...)")
        return self.masks


class ReluDropout(Random):
    """ReLU followed by dropout, as each hidden layer of Table 5 has them; in eval mode a ReLU.

    Args:
        rate: share of the elements that are dropped.

    Shape: any -> the same. Works in place in training mode.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, z: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return z.relu()
        keep = self.source().keep(z.shape, self.rate)
        scale = 1 / (1 - representable(self.rate))
        out: Tensor = _ReluDropout.apply(z, keep, scale)  # type: ignore[no-untyped-call]
        return out

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


def set_masks(model: torch.nn.Module, masks: MaskSource) -> None:
    """Let every module inside `model` that draws do so from `masks`."""
    for module in model.modules():
        if isinstance(module, Random):
            module.masks = masks
