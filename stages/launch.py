"""Start a stage once more, as several processes that train together: torch's own torchrun."""

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from pipeline.errors import PipelineError
from pipeline.torchrun import LAUNCHER, MEETING


def launch(module: str, arguments: Sequence[str], processes: int) -> None:
    """Run `python -m module` with its arguments in so many processes, on this machine.

    They meet by files and talk by the loopback interface: torch's own store listens on every
    network, asks nobody who they are, and torchrun unpickles what it finds there.

    Raises:
        PipelineError: what the first of them that failed had to say, or how it ended.
        KeyboardInterrupt: this process was told to end; the others have been.
    """
    # A core or more for each; torchrun would set 1, and say so.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // processes)))
    os.environ[LAUNCHER] = str(os.getpid())
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    for backend in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{backend}_SOCKET_IFNAME", "lo")
    logging.disable(logging.CRITICAL)  # torchrun's own story; ours is a line
    with tempfile.TemporaryDirectory() as folder:
        os.environ[MEETING] = str(Path(folder) / "meeting")
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            run_id=module,
            rdzv_backend="c10d",
            rdzv_endpoint=str(Path(folder) / "rendezvous"),
            rdzv_configs={"store_type": "file"},
            local_addr="127.0.0.1",
            max_restarts=0,
        )
        try:
            elastic_launch(config, sys.executable)("-m", module, *arguments)
        except ChildFailedError as error:
            raise PipelineError(_reason(error.failures, processes)) from None
        except SignalException:
            raise KeyboardInterrupt from None
        finally:
            logging.disable(logging.NOTSET)


def _reason(failures: Mapping[int, ProcessFailure], processes: int) -> str:
    """Why the processes have ended: the cause, not that others then missed one another."""
    missing_another = (os.EX_TEMPFAIL, -signal.SIGABRT)  # the latter is how NCCL says so
    rank = min(failures, key=lambda one: failures[one].exitcode in missing_another)
    failure = failures[rank]
    if Path(failure.error_file).is_file():
        return str(failure.message)
    how = f"ended with exit code {failure.exitcode}"
    if failure.exitcode < 0:
        how = f"was killed by {signal.Signals(-failure.exitcode).name}"
    return (
        f"one of the {processes} processes (rank {rank}) {how}, and the others were stopped. "
        "Nothing was half-written; run it again: a training goes on from its checkpoint."
    )
