"""A publisher's archive: downloaded once, checked, unpacked file by file.

A file takes its name only when it is whole and its checksum is right; until then it has another.
"""

import gzip
import hashlib
import http.client
import tarfile
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from pipeline.errors import PipelineError
from pipeline.files import replacing, sha256, write_bytes

Progress = Callable[[int, int | None], None]  # bytes so far, bytes in all if known

CHUNK = 2**18  # bytes
LARGEST_ARCHIVE = 2**28  # bytes: an answer without end is cut off
LARGEST_FILE = 2**27  # bytes of an unpacked file: so is a zip bomb
SILENCE = 60  # seconds without a byte
UNREADABLE = (  # OSError: also of a damaged zip, which may point to before its beginning
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error),
    *(EOFError, RuntimeError, OSError),
)


@dataclass(frozen=True)
class Archive:
    """An archive on the network: .zip, .tar.gz, or .gz, which is a single file.

    Attributes:
        url: where it is.
        sha256: of its bytes, in hexadecimal.
        folder: the one folder that it holds; for .gz, the one that its file is put into.
        files: the names of all files in that folder; for .gz, the name without the ending.
    """

    url: str
    sha256: str
    folder: str
    files: tuple[str, ...]


def fetch(archive: Archive, into: Path, progress: Progress) -> Path:
    """Give the unpacked folder of `archive` below `into`, downloading it only if it is not there.

    The checked archive is kept beside the folder, and the files are unpacked from it every time:
    nothing rests on a copy that somebody may have altered.

    Raises:
        PipelineError: the network fails, or the archive is not what was expected.
    """
    path = into / archive.url.rpartition("/")[2]
    if not path.exists():
        _download(archive, path, progress)
    elif (found := sha256(path)) != archive.sha256:
        raise PipelineError(
            f"{path}: expected SHA-256 {archive.sha256}, found {found}. "
            "Delete it to have it downloaded again."
        )
    _unpack(path, archive, into / archive.folder)
    return into / archive.folder


def _download(archive: Archive, path: Path, progress: Progress) -> None:
    request = urllib.request.Request(archive.url, headers={"User-Agent": "Python"})  # noqa: S310
    with replacing(path) as part:
        try:
            # The URL is a constant of this project, and its content is checked.
            with urllib.request.urlopen(request, timeout=SILENCE) as answer:  # noqa: S310
                length = answer.headers.get("Content-Length", "")
                total = int(length) if length.isdigit() else None
                found = _copy(answer, part, total, progress)
        except (OSError, http.client.HTTPException) as error:
            raise PipelineError(
                f"{archive.url}: cannot be downloaded ({error}). Check the network, or unpack the "
                "archive yourself and name its folder by data.raw_dir."
            ) from error
        if found != archive.sha256:
            raise PipelineError(
                f"{archive.url}: expected SHA-256 {archive.sha256}, found {found} "
                f"({part.stat().st_size:,} bytes). The transfer was cut, or the file has changed; "
                "try again, or unpack the archive yourself and name its folder by data.raw_dir."
            )


def _copy(source: BinaryIO, target: Path, total: int | None, progress: Progress) -> str:
    """Copy `source` into the file `target` and give the SHA-256 of what came."""
    digest = hashlib.sha256()
    done = 0
    with target.open("wb") as file:
        while (chunk := source.read(CHUNK)) and done < LARGEST_ARCHIVE:
            file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            progress(done, total)
    return digest.hexdigest()


def _unpack(path: Path, archive: Archive, folder: Path) -> None:
    """Write the archive's files to `folder`, if it holds exactly those and the folder's entry."""
    expected = {f"{archive.folder}/{name}" for name in archive.files}
    try:
        with _opened(path, archive) as (entries, member):
            names = [name for name in entries if name.rstrip("/") != archive.folder]
            if sorted(names) != sorted(expected):
                raise PipelineError(
                    f"{path}: expected {', '.join(sorted(expected))} and nothing else, "
                    f"found {', '.join(sorted(names))}. Delete it to have it downloaded again."
                )
            for name in archive.files:
                with member(f"{archive.folder}/{name}") as file:
                    content = file.read(LARGEST_FILE + 1)
                if len(content) > LARGEST_FILE:
                    raise PipelineError(
                        f"{path}: {name} unpacks to more than {LARGEST_FILE:,} bytes. "
                        "Delete the archive to have it downloaded again."
                    )
                write_bytes(content, folder / name)
    except UNREADABLE as error:
        raise PipelineError(
            f"{path}: is not a readable archive ({error}). Delete it to have it downloaded again."
        ) from error


@contextmanager
def _opened(path: Path, archive: Archive) -> Iterator[tuple[list[str], Callable[[str], IO[bytes]]]]:
    """The names of an archive's entries, and what opens one of them."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as opened:
            yield opened.namelist(), opened.open
    elif path.suffixes[-2:] == [".tar", ".gz"]:
        with tarfile.open(path, "r:gz") as tape:

            def member(name: str) -> IO[bytes]:
                file = tape.extractfile(name)
                if file is None:
                    raise tarfile.TarError(f"{name} is no file")
                return file

            yield tape.getnames(), member
    else:  # gzip, which holds one file and may not know its name
        with gzip.open(path) as only:
            yield [f"{archive.folder}/{path.stem}"], lambda _: cast(IO[bytes], only)
