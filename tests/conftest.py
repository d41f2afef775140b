"""What several test files share."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.projects import STAGES, invoke, small_project

LOOPBACK = ("127.", "::1", "localhost")
NOWHERE = "http://127.0.0.1:9"  # a proxy that refuses: for what tests start as processes

settings.register_profile("calm", deadline=None)  # a busy machine is no failure
settings.load_profile("calm")


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """Nothing that a test runs reaches another machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if self.family != socket.AF_UNIX and not str(address[0]).startswith(LOOPBACK):
            raise OSError(f"tests reach no other machine, not even {address}")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded)
        for name in ("http_proxy", "https_proxy"):
            patch.setenv(name, NOWHERE)
            patch.setenv(name.upper(), NOWHERE)
        yield


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """A shell's background job ignores SIGINT, and so would every process that a test starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def packed_data() -> Path:
    """The folder of the packed real data, which CAD_DATA names; without it the test is skipped."""
    packed = os.environ.get("CAD_DATA")
    if not packed:
        pytest.skip("CAD_DATA is unset: it names the folder of the packed real data")
    if not (Path(packed) / "unpack.py").exists():
        pytest.skip(f"CAD_DATA holds no unpack.py: {packed}")
    return Path(packed)


@pytest.fixture(scope="session")
def movielens_dir(packed_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the real MovieLens 1M, unpacked from the packed copy below CAD_DATA."""
    unpack = packed_data / "unpack.py"
    target = tmp_path_factory.mktemp("raw")
    subprocess.run([sys.executable, unpack, "ml-1m", target], check=True, stdout=subprocess.DEVNULL)
    return target / "ml-1m"


@pytest.fixture
def made_movielens(tmp_path: Path) -> Path:
    """A folder in MovieLens' own format: 60 users, 5 movies, 120 ratings, all made up."""
    folder = tmp_path / "made-ml"
    folder.mkdir()
    users = [
        f"{u}::{'FM'[u % 2]}::{(1, 18, 56)[u % 3]}::{u % 21}::{90_000 + u}" for u in range(1, 61)
    ]
    movies = [
        "1::Amélie (2001)::Comedy|Romance",
        "2::Se7en (1995)::Crime",
        '3::"Great" Escape, The (1963)::War',
        "5::Star Wars: Episode IV (1977)::Sci-Fi",
        "4::Nobody Saw It (1999)::Drama",
    ]
    rated = [(u, m) for u in range(1, 61) for m in (1, 2, 3, 5)[: 1 + u % 3]]
    ratings = [f"{u}::{m}::{1 + (u + m) % 5}::{978_300_000 + u}" for u, m in rated]
    for name, lines in (("users", users), ("movies", movies), ("ratings", ratings)):
        text = "".join(f"{line}\n" for line in lines)
        (folder / f"{name}.dat").write_bytes(text.encode("latin-1"))
    return folder


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project in which every stage has run, undisturbed. Not to be changed: copy it."""
    import torch

    threads = torch.get_num_threads()
    folder = small_project(tmp_path_factory.mktemp("built") / "project")
    for stage in STAGES:
        result = invoke(folder, stage)
        assert result.exit_code == 0, result.output
    torch.set_num_threads(threads)
    return folder
