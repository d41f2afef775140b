"""Progress of a training stage, on stderr: a bar on a terminal, elsewhere a line now and then."""

import math
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from tqdm import tqdm

from pipeline.training.history import SCALED

SECONDS_BETWEEN_LINES = 10


class EpochReporter:
    """Called with the figures of every epoch; closes its bar as a context manager.

    The time left is the most it can be: a stage may stop before its last epoch.

    Args:
        stage: what the lines begin with.
        max_epochs: the most epochs there can be.
        silent: show nothing.
    """

    def __init__(self, stage: str, max_epochs: int, *, silent: bool = False) -> None:
        self.stage = stage
        self.max_epochs = max_epochs
        self.started = self.last_line = time.monotonic()
        self.first_epoch: int | None = None  # not 1 where a checkpoint was gone on from
        self.silent = silent
        # None: no bar where stderr is no terminal, which would be flooded by it.
        hidden = True if silent else None
        self.bar = tqdm(total=max_epochs, desc=stage, unit="epoch", leave=False, disable=hidden)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.close()

    def __call__(self, row: Mapping[str, float]) -> None:
        """Report an epoch: its number under `epoch`, and what figures it has but the scaled.

        NaN is no figure: there was nothing to measure.
        """
        if self.silent:
            return
        untold = ("epoch", *SCALED)  # a line has its width
        figures = {
            name: f"{value:.4f}"
            for name, value in row.items()
            if name not in untold and not math.isnan(value)
        }
        done = int(row["epoch"])
        if self.first_epoch is None:
            self.first_epoch = done
        if not self.bar.disable:
            self.bar.set_postfix(figures, refresh=False)
            self.bar.update(done - self.bar.n)
            return
        now = time.monotonic()
        if now - self.last_line < SECONDS_BETWEEN_LINES:
            return
        self.last_line = now
        pace = (now - self.started) / (done - self.first_epoch + 1)
        shown = ", ".join(f"{name} {value}" for name, value in figures.items())
        print(
            f"{self.stage}: epoch {done} of at most {self.max_epochs}, {shown}, "
            f"{pace:.1f} s an epoch, at most {pace * (self.max_epochs - done):.0f} s left",
            file=sys.stderr,
            flush=True,
        )
