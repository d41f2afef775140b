"""Many copies of one network, each with weights of its own, run and trained as one.

The loss is the mean of the copies', and Adam changes each weight by its own gradient alone,
whatever its scale (but for Adam's epsilon, which counts as many times): so training all copies
together is training each by itself, at the cost of a few large operations.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from pipeline.models.weights import draw_layers


class Stacked(nn.Module):
    """`copies` networks as `make` gives them, their tensors stacked.

    Args:
        make: gives one network, the same kind each time.
        copies: how many.
        gen: draws the weights of one copy after the other.

    Shape: inputs (copies, B, ...) -> outputs with `copies` in front, each from its own copy.

    Example:
        >>> net = Stacked(lambda: nn.Linear(3, 2), 5, torch.Generator())
        >>> net(torch.zeros(5, 7, 3)).shape
        torch.Size([5, 7, 2])
    """

    def __init__(self, make: Callable[[], nn.Module], copies: int, gen: torch.Generator) -> None:
        super().__init__()
        models = [make() for _ in range(copies)]
        for model in models:
            draw_layers(model, gen)
        weights, buffers = stack_module_state(models)
        self.copies = copies
        self._names = [*weights, *buffers]
        for name, value in weights.items():
            self.register_parameter(_flat(name), nn.Parameter(value.detach()))
        for name, value in buffers.items():
            self.register_buffer(_flat(name), value)
        self._base = [models[0].to("meta")]  # in a list: its own tensors are none of ours

    def tensors(self) -> dict[str, Tensor]:
        """Weights and buffers by their names in one copy, each (copies, ...)."""
        return {name: getattr(self, _flat(name)) for name in self._names}

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.call(None, *inputs)

    def call(self, method: str | None, *inputs: Tensor) -> Tensor:
        """What `method` of each copy, or the copy itself, gives for its own inputs."""
        base = _Method(self._base[0], method).train(self.training)
        tensors = {f"module.{name}": value for name, value in self.tensors().items()}

        def one(own: dict[str, Tensor], *rest: Tensor) -> Tensor:
            out: Tensor = functional_call(base, own, rest)
            return out

        outputs: Tensor = torch.vmap(one, randomness="error")(tensors, *inputs)
        return outputs


class _Method(nn.Module):
    """A network whose call is that of one of its methods: `functional_call` knows no other way."""

    def __init__(self, module: nn.Module, method: str | None) -> None:
        super().__init__()
        self.module = module
        self.method = method

    def forward(self, *inputs: Tensor) -> Tensor:
        call = self.module if self.method is None else getattr(self.module, self.method)
        out: Tensor = call(*inputs)
        return out


UNKNOWN = 1e6  # stands for a loss that is not finite: far above any, and small beside a double


class EachAtItsBest(nn.Module):
    """Stacked networks, and each of them as it was when its own validation loss was lowest.

    All of it is in the state, so that a training that is kept and gone on with forgets no best.
    """

    lowest: Tensor

    def __init__(self, net: Stacked) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("lowest", torch.full((net.copies,), torch.inf))
        for name, value in net.tensors().items():
            self.register_buffer(f"best_{_flat(name)}", value.detach().clone())

    @torch.no_grad()
    def note(self, loss: Tensor) -> float:
        """Take note of the present losses (copies,); gives the mean of the lowest so far.

        A copy whose loss was never finite counts as `UNKNOWN`, so that the mean falls whenever one
        of them gains; while none has been, the mean is infinite.
        """
        better = loss < self.lowest
        self.lowest[better] = loss[better]
        for name, value in self.net.tensors().items():
            getattr(self, f"best_{_flat(name)}")[better] = value.detach()[better]
        if not self.lowest.isfinite().any():
            return torch.inf
        return float(self.lowest.double().clamp(max=UNKNOWN).mean())

    @torch.no_grad()
    def restore(self) -> None:
        """Put every copy back to its best."""
        for name, value in self.net.tensors().items():
            value.copy_(getattr(self, f"best_{_flat(name)}"))


def _flat(name: str) -> str:
    return name.replace(".", "__")  # a dot has a meaning in the name of a parameter
