"""Several processes that work together, forked from a test."""

import multiprocessing
import pickle
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist

from pipeline.ranks import Ranks

T = TypeVar("T")


def together(size: int, work: Callable[[Ranks], T]) -> list[T]:
    """What `work` gives in each of so many processes, in their order."""
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:

        def begin(rank: int, end: Connection) -> None:
            torch.set_num_threads(1)  # the pool of threads has stayed with the parent
            store = dist.FileStore(str(Path(folder) / "store"), size)
            dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
            result = work(Ranks(rank, size, alone=False))
            end.send_bytes(pickle.dumps(result))  # by value: its sender ends
            dist.destroy_process_group()

        pipes = [context.Pipe(duplex=False) for _ in range(size)]
        processes = [
            context.Process(target=begin, args=(rank, end)) for rank, (_, end) in enumerate(pipes)
        ]
        for process, (_, end) in zip(processes, pipes, strict=True):
            process.start()
            end.close()
        results = [pickle.loads(start.recv_bytes()) for start, _ in pipes]  # noqa: S301 - ours
        for process in processes:
            process.join()
    return results
