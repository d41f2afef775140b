"""One process at a time: a file that is locked as long as a process lives, and names it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from pipeline.errors import PipelineError


@contextmanager
def held(path: Path, busy: str) -> Iterator[None]:
    """Hold the file `path` as no other process can; in the end it is removed.

    Args:
        path: of the file, which need not be there.
        busy: what another process that holds it does, and what to do about it.

    Raises:
        PipelineError: another process holds it, which is named; or it cannot be written.
    """
    with _hold(path, busy):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _hold(path: Path, busy: str) -> IO[str]:
    """Open the file and lock it until it is closed, or this process ends."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
        while not _locked(file, path, busy):  # its last holder removed it after we had opened it
            file.close()
            file = path.open("a+")
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
    except OSError as error:
        raise PipelineError(f"{path}: cannot be written ({error.strerror}).") from error
    return file


def _locked(file: IO[str], path: Path, busy: str) -> bool:
    """Lock the open file; False if it no longer lies at `path`."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with file:
            file.seek(0)
            raise PipelineError(f"{path}: process {file.read()} {busy}") from None
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
