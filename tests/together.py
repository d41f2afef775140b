"""Several processes that work together, forked from a test."""

import multiprocessing
import tempfile
from collections.abc import Callable
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
        queue = context.SimpleQueue()

        def begin(rank: int) -> None:
            torch.set_num_threads(1)  # the pool of threads has stayed with the parent
            store = dist.FileStore(str(Path(folder) / "store"), size)
            dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
            queue.put((rank, work(Ranks(rank, size, alone=False))))
            dist.destroy_process_group()

        processes = [context.Process(target=begin, args=(rank,)) for rank in range(size)]
        for process in processes:
            process.start()
        results = {}
        while (len(results) < size and any(p.is_alive() for p in processes)) or not queue.empty():
            if not queue.empty():
                rank, result = queue.get()
                results[rank] = result
        for process in processes:
            process.join()
    assert [process.exitcode for process in processes] == [0] * size
    return [results[rank] for rank in range(size)]
