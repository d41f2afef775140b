"""Files of any kind, each written as a whole or not at all.

Every write goes to a temporary file beside its target, is flushed to the disk, and then renamed:
a reader finds the old file or the new one, never a part of either. What a killed writer leaves of
its own the next one removes.
"""

import errno
import fcntl
import glob
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import PipelineError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path; on success it takes the place of `path`, on failure it is removed.

    Raises:
        PipelineError: the disk is full, nothing may be written there, or what is there is a device
            or the like, which a file would take the place of.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise PipelineError(f"{path}: is a device or a pipe; name a file, which is then replaced.")
    with telling_of(path), _temporary(path, _new_file) as part:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.chmod(0o666 & ~umask())
        part.replace(path)


def umask() -> int:
    """What the user takes from the permissions of new files."""
    (line,) = re.findall(r"^Umask:\s*([0-7]+)$", Path("/proc/self/status").read_text(), re.M)
    return int(line, 8)


def missing(path: Path) -> PipelineError:
    """The error for a file that is not there to be read."""
    return PipelineError(
        f"{path}: there is no such file.", "Build it with `dvc repro`, or name another."
    )


@contextmanager
def telling_of(path: Path) -> Iterator[None]:
    """Turn what the system refuses while `path` is written into one line."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else error
        mending = "Make room or give the permission, then run it again."
        if error.errno == errno.EBUSY:
            mending = "It is a mount point, which stays: name another place, or one inside it."
        raise PipelineError(
            f"{path}: cannot be written ({reason}); what was there is unchanged. {mending}"
        ) from error


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Give an empty folder in `parent`, which is gone afterwards."""
    with _temporary(parent / "scratch", tempfile.mkdtemp) as folder:
        yield folder


def remove_left(path: Path) -> None:
    """Remove what killed writers of `path` have left beside it."""
    for part in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(OSError), _handle(part) as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails if its writer lives
            _remove(part)


@contextmanager
def _temporary(path: Path, make: Callable[[str, str, Path], str]) -> Iterator[Path]:
    """Give a new file or folder `.NAME.*.part` beside `path`, which is removed afterwards.

    It is locked meanwhile, by which `remove_left` knows that somebody is at it.
    """
    with telling_of(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_left(path)
        new = Path(make(".new", f".{path.name}.", path.parent))
    part = new.with_suffix(".part")
    with _handle(new) as handle:
        with suppress(OSError):  # some file systems have no locks; nothing is removed there
            fcntl.flock(handle, fcntl.LOCK_EX)
        new.rename(part)
        try:
            yield part
        finally:
            _remove(part)


def _new_file(suffix: str, prefix: str, folder: Path) -> str:
    handle, name = tempfile.mkstemp(suffix, prefix, folder)
    os.close(handle)
    return name


@contextmanager
def _handle(path: Path) -> Iterator[int]:
    """A file or folder, open."""
    handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    """Remove a file or folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_bytes(content: bytes, path: Path) -> None:
    """Write `content` to `path` as a whole or not at all."""
    with replacing(path) as part:
        part.write_bytes(content)


def write_text(parts: Iterable[str], path: Path) -> None:
    """Write a text, part by part, to `path` as a whole or not at all."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.writelines(parts)


def sha256(path: Path) -> str:
    """SHA-256, in hexadecimal, of a file's bytes; of a folder, of its files' names and bytes."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        told = [f"{file.relative_to(path).as_posix()} {sha256(file)}\n" for file in files]
        return hashlib.sha256("".join(told).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
