"""The processes that train one model together, as torchrun started them; most often only one.

Row n of what is dealt out (a task, a user) lies on process n modulo their number. Library code is
written for one process that holds rows of its own, and asks here for what is of all of them.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.arrays import Doubles
from pipeline.errors import PipelineError
from pipeline.torchrun import MEETING, under_torchrun

TIMEOUT = timedelta(minutes=10)  # without a word from another process; gloo misses a killed one


class Rows(Protocol):
    """An array or a tensor."""

    def __getitem__(self, rows: slice, /) -> Self: ...


R = TypeVar("R", bound=Rows)


class LostRankError(PipelineError):
    """Another process is gone, or does something else: this one cannot go on."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    All of them call each method but `own` at the same time, and all are given the same, unless it
    goes `to_lead`: then that process is, and the others keep what they have.

    Attributes:
        rank: its number; the process of number 0 leads: it reports and writes.
        size: how many there are.
        alone: whether torchrun had no part in it. Then nothing is dealt out and nothing sent, and
            random draws are those of one stream.
        deal_out: whether the tables that each could hold are dealt out too, and their rows fetched.
    """

    rank: int = 0
    size: int = 1
    alone: bool = True
    deal_out: bool = False

    @property
    def leads(self) -> bool:
        """Whether this is the process that reports and writes."""
        return self.rank == 0

    def own(self, rows: R) -> R:
        """Those rows of a table that lie on this process."""
        return rows[self.rank :: self.size]

    def add_(self, tensor: Tensor) -> Tensor:
        """Add a tensor up over all processes, in place."""
        if not self.alone:
            with _others():
                dist.all_reduce(tensor)
        return tensor

    def total(self, count: int) -> int:
        """A count, added up."""
        return int(self.add_(torch.tensor(count)))

    def most(self, count: int) -> int:
        """The greatest of the counts."""
        return int(torch.cat(self.gather(torch.tensor([count]))).max())

    def mean(self, value: float, count: int) -> float:
        """The mean of means, each of `count` values; NaN where there is no value at all.

        Added up in the order of the processes: where one decides by it, all decide alike.
        """
        if self.alone:
            return value
        own = np.array([value * count if count else 0.0, count], np.float64)
        of_all, counts = self.sums(own).tolist()
        return of_all / counts if counts else float("nan")

    def sums(self, values: Doubles) -> Doubles:
        """Values (n,), each added up in the order of the processes; see `mean`."""
        if self.alone:
            return values
        parts = self.gather(torch.from_numpy(values)[None])
        added: Doubles = torch.cat(parts).sum(0).numpy()
        return added

    def gather(self, part: Tensor, *, to_lead: bool = False) -> list[Tensor]:
        """Each process's tensor, in their order; they may differ in length, (n, ...)."""
        if self.alone:
            return [part]
        lengths = torch.zeros(self.size, dtype=torch.int64)
        lengths[self.rank] = len(part)
        self.add_(lengths)
        padded = part.new_zeros(int(lengths.max()), *part.shape[1:])
        padded[: len(part)] = part
        given = self.leads or not to_lead
        parts = [torch.empty_like(padded) for _ in range(self.size if given else 0)]
        with _others():
            if to_lead:
                dist.gather(padded, parts or None)
            else:
                dist.all_gather(parts, padded)
        if not parts:
            return [part]
        return [one[:n] for one, n in zip(parts, lengths.tolist(), strict=True)]

    def whole(self, rows: Tensor, *, to_lead: bool = False) -> Tensor:
        """The table of which every process holds its `own` rows."""
        parts = self.gather(rows, to_lead=to_lead)
        if len(parts) < self.size or self.alone:
            return rows
        table = rows.new_empty(sum(map(len, parts)), *rows.shape[1:])
        for rank, part in enumerate(parts):
            table[rank :: self.size] = part
        return table

    def exchange(self, rows: Tensor, sent: Sequence[int], given: Sequence[int]) -> Tensor:
        """Send each process some of the rows here, and be given what each has for this one.

        Args:
            rows: (n, ...), those for process 0 first.
            sent: how many are for each; they add up to n.
            given: how many each has for this one, see `lengths`.

        Returns:
            (sum of `given`, ...), those of process 0 first.
        """
        if self.alone:
            return rows
        got = rows.new_empty(sum(given), *rows.shape[1:])
        with _others():
            dist.all_to_all_single(got, rows, [*given], [*sent])
        return got

    def lengths(self, sent: Sequence[int]) -> list[int]:
        """How many rows each process has for this one, which has `sent` for them."""
        each = [1] * self.size
        return self.exchange(torch.tensor(sent), each, each).tolist()

    def from_lead(self, tensor: Tensor) -> Tensor:
        """What the tensor, of one shape everywhere, holds on the process that leads."""
        if not self.alone:
            with _others():
                dist.broadcast(tensor, src=0)
        return tensor

    def told(self, text: str) -> str:
        """The text of the process that leads."""
        if self.alone:
            return text
        encoded = torch.frombuffer(bytearray(text.encode() + b" "), dtype=torch.uint8)
        length = int(self.from_lead(torch.tensor(len(encoded))))
        sent = encoded if self.leads else encoded.new_empty(length)
        return bytes(self.from_lead(sent).tolist())[:-1].decode()

    def require_alike(self, what: str) -> None:
        """Raise PipelineError, in all processes, unless `what` is the same text in each."""
        differs = int(self.told(what) != what)
        odd = torch.cat(self.gather(torch.tensor([differs]))).nonzero().flatten().tolist()
        if odd:
            raise PipelineError(
                f"process {odd[0]} differs from process 0 in its code, params, inputs, packages, "
                "kind of device or runtime.deal_out; those that work together need the same, "
                "wherever they run."
            )


ALONE = Ranks()


def join_ranks(device: torch.device, *, deal_out: bool = False) -> Ranks:
    """Meet the other processes that torchrun started; ALONE without it.

    Tensors travel by gloo from a CPU, by NCCL from a CUDA device. Processes that a stage started
    find one another by a file, others at the address that torchrun was given.

    Raises:
        PipelineError: they cannot be reached.
    """
    if not under_torchrun():
        return ALONE
    backend = "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"
    meeting: dict[str, Any] = {}
    if MEETING in os.environ:
        rank, size = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE"))
        meeting = {
            "init_method": f"file://{os.environ[MEETING]}",
            "rank": rank,
            "world_size": size,
        }
    try:
        dist.init_process_group(backend, timeout=TIMEOUT, **meeting)
    except RuntimeError as error:
        raise PipelineError(
            f"the processes cannot meet ({str(error).splitlines()[0]}); look at the address and "
            "port that torchrun was given, and at GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME."
        ) from error
    return Ranks(dist.get_rank(), dist.get_world_size(), alone=False, deal_out=deal_out)


def leave_ranks(*, failed: bool = False) -> None:
    """Part from the others; having failed, without waiting for them, as NCCL would.

    They miss this process once it has ended, which frees whatever it holds.
    """
    if dist.is_initialized() and not failed:
        dist.destroy_process_group()


@contextmanager
def _others() -> Iterator[None]:
    """What the network says of processes that are gone, as an error of ours."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:  # torch's own errors are such
        reason = str(error).splitlines()[0]
        raise LostRankError(
            f"another of the processes that train together is gone ({reason}). Nothing was "
            "half-written; run it again: a training goes on from its checkpoint."
        ) from error
