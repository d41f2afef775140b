"""A training run's snapshots in one file, for one process at a time.

The file is replaced as a whole: a process killed at any moment leaves the newest whole snapshot.
"""

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from pipeline.errors import PipelineError
from pipeline.files import remove_left
from pipeline.lock import held
from pipeline.model_files import read_model, write_model
from pipeline.training.snapshot import Snapshot

BUSY = (
    "trains the same model on the same data. "
    "Wait until it is done, or stop it, which loses nothing."
)
LEAST_WORK = 20  # times as long as keeping a snapshot takes, training goes on before the next


class CheckpointFile:
    """A `Checkpoint` in the file `path`; as a context manager it keeps other processes away.

    Args:
        path: of the file. Its name must stand for all that the training follows from (code, params,
            inputs): whoever asks for the same path is given the same run to go on with.
        seconds: at least so long between two snapshots.
        tell: called with a line when the training goes on, or when the file is damaged.

    Attributes:
        epoch: that the file holds; 0 where there is none.
        resumed_after: the epoch after which the training went on; 0 if it began afresh.
    """

    def __init__(self, path: Path, *, seconds: float, tell: Callable[[str], None]) -> None:
        self.path = path
        self.seconds = seconds
        self.tell = tell
        self.epoch = self.resumed_after = 0
        self._not_before = time.monotonic() + seconds
        self._alone: AbstractContextManager[None] = held(path.with_suffix(".lock"), BUSY)

    def __enter__(self) -> Self:
        self._alone.__enter__()
        remove_left(self.path)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._alone.__exit__(kind, error, trace)

    def load(self) -> Snapshot | None:
        """What an earlier process left there; None, and a word about it, if that is damaged."""
        if not self.path.exists():
            return None
        try:
            tensors, config = read_model(self.path)
        except PipelineError:
            config = {}
        if config.get("name") != self.path.name:
            self.tell(f"warning: {self.path} is damaged; the training starts afresh")
            return None
        snapshot = Snapshot(tensors, *json.loads(cast(str, config["record"])))
        self.epoch = self.resumed_after = snapshot.epoch
        self.tell(f"goes on after epoch {self.epoch}, which an earlier run reached")
        return snapshot

    def due(self) -> bool:
        """Whether it is time to keep another snapshot."""
        return time.monotonic() >= self._not_before

    def save(self, take: Callable[[], Snapshot]) -> None:
        """Keep a snapshot, unless one was kept a moment ago."""
        if not self.due():
            return
        started = time.monotonic()
        snapshot = take()
        record = json.dumps([snapshot.history, snapshot.lowest, snapshot.waited])
        write_model(snapshot.tensors, {"name": self.path.name, "record": record}, self.path)
        self.epoch = snapshot.epoch
        ended = time.monotonic()
        self._not_before = ended + max(self.seconds, LEAST_WORK * (ended - started))

    def remove(self) -> None:
        """Forget the run: it has come to its end, and its results are written."""
        self.path.unlink(missing_ok=True)
        self.epoch = 0
