"""A model that several processes train: some tables are dealt out, the rest is in each."""

from collections.abc import Collection
from types import TracebackType
from typing import Self

from torch import Tensor, nn

from pipeline.ranks import ALONE, Ranks


class Split:
    """Which parameters of a model are tables that are dealt out over the processes.

    As a context manager it deals them out and, in the end, gives every process the whole again.

    Args:
        model: the same everywhere, before it is dealt out.
        tables: names of its parameters whose rows are dealt out; their gradients are not added up
            here: they are of all pairs already, those of this process or those that `dealt` sends.
        ranks: the processes.
    """

    def __init__(
        self, model: nn.Module, tables: Collection[str] = (), ranks: Ranks = ALONE
    ) -> None:
        self.model = model
        self.tables = frozenset(tables)
        self.ranks = ranks

    def __enter__(self) -> Self:
        if not self.ranks.alone:
            for name in sorted(self.tables):
                table = self.model.get_parameter(name)
                table.data = self.ranks.own(table.data).clone()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and not self.ranks.alone:
            for name in sorted(self.tables):
                table = self.model.get_parameter(name)
                table.data = self.ranks.whole(table.data.cpu()).to(table.device)

    def shared(self) -> list[Tensor]:
        """The gradients of all that is not dealt out."""
        return [
            parameter.grad
            for name, parameter in self.model.named_parameters()
            if name not in self.tables and parameter.grad is not None
        ]

    def whole(self, name: str, tensor: Tensor) -> Tensor:
        """Itself, or a moment of the parameter `name`: the whole, on the process that leads.

        What is put together lies in the host's memory: all of it may be more than a device holds.
        """
        if not self._is_dealt(name, tensor):
            return tensor
        return self.ranks.whole(tensor.cpu(), to_lead=True)

    def own(self, name: str, tensor: Tensor) -> Tensor:
        """The inverse of `whole`: what of it belongs here."""
        return self.ranks.own(tensor).clone() if self._is_dealt(name, tensor) else tensor

    def _is_dealt(self, name: str, tensor: Tensor) -> bool:
        return name in self.tables and tensor.dim() > 0 and not self.ranks.alone
