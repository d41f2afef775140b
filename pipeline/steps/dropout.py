"""Dropout whose masks are cut from packed random bits.

`nn.Dropout` on a CPU draws one number an element, one after another: two thirds of a training step
of the paper's networks. Here an element takes one random bit when the rate is 1/2, and at most 16
otherwise. The law is that of dropout, at a rate rounded to a multiple of 2^-16.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

DIGITS = 16
RESOLUTION = 1 << DIGITS
SHIFTS = torch.arange(32, dtype=torch.int32)
APART = 1 << 62  # of the seed: a torch generator of the same one draws the pairs of a training


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
        self._gen = None if device.type == "cpu" else torch.Generator(device)
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Begin anew, as a source made with this seed would."""
        self._bits = np.random.SFC64(seed)
        if self._gen is not None:
            self._gen.manual_seed(seed ^ APART)

    @property
    def generators(self) -> list[torch.Generator]:
        """The torch generator behind it; none on a CPU."""
        return [] if self._gen is None else [self._gen]

    def dropped(self, shape: torch.Size, rate: float) -> Tensor:
        """Which elements are dropped, int32 of `shape`: negative where one is, else 0 or more."""
        if self._gen is not None:
            mask = torch.empty(shape, dtype=torch.int32, device=self.device)
            return mask.bernoulli_(representable(rate), generator=self._gen).neg_()
        count = shape.numel()
        words = torch.from_numpy(self._packed(-(-count // 64), rate).view(np.int32))
        # One bit after the other becomes the sign of an element.
        return (words[:, None] << SHIFTS).view(-1)[:count].view(shape)

    def _packed(self, count: int, rate: float) -> npt.NDArray[np.uint64]:
        """Words each bit of which is 1 with chance `rate`, independently, (count,).

        A bit that is 1 with chance p becomes one of chance p/2 by `and` with a random bit, of
        (1 + p)/2 by `or`: so the rate is put together digit by digit, from the last that is 1.
        """
        chance = round(rate * RESOLUTION)
        if chance == 0:
            return np.zeros(count, np.uint64)
        last = (chance & -chance).bit_length() - 1
        words: Any = self._bits.random_raw((DIGITS - last) * count)
        drawn: npt.NDArray[np.uint64] = words.reshape(-1, count)
        for digit in range(last + 1, DIGITS):
            join = np.bitwise_or if chance >> digit & 1 else np.bitwise_and
            join(drawn[0], drawn[digit - last], out=drawn[0])
        return np.asarray(drawn[0])

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
        words = self._bits.state["state"]["state"]  # (4,), and no half-used word: see `dropped`
        return torch.from_numpy(words.view(np.int64).copy())

    def set_state(self, new_state: Tensor) -> None:
        """Go on from where `get_state` was called."""
        if self._gen is not None:
            self._gen.set_state(new_state)
            return
        state = self._bits.state
        state["state"]["state"] = new_state.numpy().view(np.uint64)
        self._bits.state = state


def drop_(y: Tensor, dropped: Tensor) -> Tensor:
    """Put 0 where `dropped` is negative, in place: y float32 and `dropped` of one shape."""
    bits = y.view(torch.int32)  # as numbers of one kind with the mask, in a single pass
    torch.ops.aten.threshold_backward.grad_input(bits, dropped, -1, grad_input=bits)
    return y


def backward_to(out: Tensor, grad: Tensor, y: Tensor) -> Tensor:
    """Write into `out`, which may be one of the others, `grad` where the activation y is not 0.

    After ReLU and dropout y is positive exactly where z was and the mask let it pass.
    """
    passed: Tensor = torch.ops.aten.threshold_backward.grad_input(grad, y, 0, grad_input=out)
    return passed


class _ReluDropout(torch.autograd.Function):
    """relu(z) * keep / (1 - rate), in place; only the result is kept for the way back."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, dropped: Tensor, scale: float) -> Tensor:  # noqa: ANN401
        drop_(z.relu_(), dropped).mul_(scale)
        ctx.mark_dirty(z)
        ctx.save_for_backward(z)
        ctx.scale = scale
        return z

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (y,) = ctx.saved_tensors
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
        if not self.drops:
            return z.relu()
        dropped = self.source().dropped(z.shape, self.rate)
        out: Tensor = _ReluDropout.apply(z, dropped, self.scale)  # type: ignore[no-untyped-call]
        return out

    def masked_(self, z: Tensor) -> Tensor:
        """As `forward`, in place and without the scale, for who sees to it and to gradients."""
        z.relu_()
        return drop_(z, self.source().dropped(z.shape, self.rate)) if self.drops else z

    @property
    def drops(self) -> bool:
        """Whether it is more than a ReLU."""
        return self.training and self.rate > 0

    @property
    def scale(self) -> float:
        """By which what passes is multiplied, so that the mean stays."""
        return 1 / (1 - representable(self.rate)) if self.drops else 1.0

    def extra_repr(self) -> str:
        return f"rate={self.rate}"


def set_masks(model: torch.nn.Module, masks: MaskSource) -> None:
    """Let every module inside `model` that draws do so from `masks`."""
    for module in model.modules():
        if isinstance(module, Random):
            module.masks = masks
