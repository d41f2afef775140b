"""A training step as a CUDA graph: launched once as a whole instead of kernel by kernel.

The networks here are small: on a CUDA device a step of a hundred kernels waits for the host to
launch them. Recorded once for each shape of batch, it is replayed on inputs that are copied to
where the first ones lay. What is replayed is what was recorded, so a step must not ask for values.

Of several processes each records its steps in two halves (`InTwo`), between which they meet.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pipeline.training.snapshot import RandomSource

WARM = 3  # steps of a shape before it is recorded: libraries set themselves up, Adam its moments

Step = Callable[..., Tensor]
Shapes = tuple[torch.Size, ...]
Recording = tuple[Tensor, Callable[[], None]]  # where the result lies after what does it


@dataclass(frozen=True)
class InTwo:
    """A step in two halves, between which is done what a recording cannot do.

    Attributes:
        first: of a batch of tensors.
        meet: changes in place what the first half gave.
        second: of what `meet` left.
    """

    first: Step
    meet: Callable[[Tensor], None]
    second: Step

    def __call__(self, *batch: Tensor) -> Tensor:
        given = self.first(*batch)
        self.meet(given)
        return self.second(given)


class Recorder(Protocol):
    """Records steps, and runs those that are not recorded where they could be."""

    def run(self, step: Step, batch: tuple[Tensor, ...]) -> Tensor:
        """The step on `batch`."""

    def record(self, step: Step, batch: tuple[Tensor, ...]) -> Recording:
        """The step on what lies in the tensors of `batch` when the recording is called."""


class Replayed:
    """A step that is recorded for every shape of batch, once it has come up a few times.

    Args:
        step: of a batch of tensors, gives a tensor; waits for no value on the host, or, `InTwo`,
            between its halves alone.
        recorder: how to record it.
    """

    def __init__(self, step: Step, recorder: Recorder) -> None:
        self.step = step
        self.recorder = recorder
        self.seen: Counter[Shapes] = Counter()
        self.recorded: dict[Shapes, tuple[tuple[Tensor, ...], Recording]] = {}

    def __call__(self, *batch: Tensor) -> Tensor:
        shapes = tuple(part.shape for part in batch)
        if shapes not in self.recorded:
            if self.seen[shapes] < WARM:
                self.seen[shapes] += 1
                return self.recorder.run(self.step, batch)
            inputs = tuple(part.clone() for part in batch)
            self.recorded[shapes] = inputs, self._record(inputs)
        inputs, (out, replay) = self.recorded[shapes]
        for place, part in zip(inputs, batch, strict=True):
            place.copy_(part)
        replay()
        return out.clone()

    def _record(self, batch: tuple[Tensor, ...]) -> Recording:
        step, record = self.step, self.recorder.record
        if not isinstance(step, InTwo):
            return record(step, batch)
        given, first = record(step.first, batch)
        out, second = record(step.second, (given,))

        def replay() -> None:
            first()
            step.meet(given)
            second()

        return out, replay


class CudaRecorder:
    """Records CUDA graphs, which share their memory: they must be replayed one at a time.

    Args:
        device: where all of a step lies.
        random: what the steps draw from; a generator on the device gives each replay other draws.
    """

    def __init__(self, device: torch.device, random: Iterable[RandomSource]) -> None:
        self.device = device
        self.generators = list(_generators(random))
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    def run(self, step: Step, batch: tuple[Tensor, ...]) -> Tensor:
        """On the stream that records: what autograd sets up is bound to it."""
        present = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(present)
        with torch.cuda.stream(self.stream):
            out = step(*batch)
        present.wait_stream(self.stream)
        return out.clone()

    def record(self, step: Step, batch: tuple[Tensor, ...]) -> Recording:
        """A replay's result lies where that of the next one will."""
        graph = torch.cuda.CUDAGraph()
        for generator in self.generators:
            graph.register_generator_state(generator)
        with (
            torch.cuda.device(self.device),
            # NCCL looks after its own work meanwhile, from a thread of its own.
            torch.cuda.graph(
                graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"
            ),
        ):
            out = step(*batch)
        return out, graph.replay


def fastest(
    step: Step, device: torch.device, random: Mapping[str, RandomSource], *, capture: bool
) -> Step:
    """The step itself, or on a CUDA device, if it may be captured, its replays."""
    if not capture or device.type != "cuda":
        return step
    return Replayed(step, CudaRecorder(device, random.values()))


def _generators(random: Iterable[RandomSource]) -> Iterable[torch.Generator]:
    """Those on a CUDA device, behind whatever draws from them."""
    for source in random:
        behind = [source] if isinstance(source, torch.Generator) else source.generators
        yield from (generator for generator in behind if generator.device.type == "cuda")
