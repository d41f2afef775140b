"""The publisher's archive: checked, kept, downloaded once, never taken for whole when cut."""

import gzip
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from typer.testing import CliRunner

from pipeline.datasets import download, movielens
from pipeline.datasets.download import Archive, fetch
from pipeline.errors import PipelineError
from stages.prepare import app

FILES = {"README": b"read me", "ratings.dat": b"1::1::5::9\n" * 50_000}


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("made/", b"")
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


GOOD = zipped({f"made/{name}": content for name, content in FILES.items()})


@dataclass
class Server:
    """A server on the loopback interface, and what it is to answer."""

    url: str
    content: bytes = GOOD
    path: str = "/made.zip"
    missing: int = 0  # bytes that it promises and does not send
    asked: list[str] = field(default_factory=list)

    def archive(self) -> Archive:
        digest = hashlib.sha256(self.content).hexdigest()
        return Archive(f"{self.url}{self.path}", digest, "made", tuple(FILES))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(self.path)
            if self.path != served.path:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(served.content)))
            self.end_headers()
            self.wfile.write(served.content[: len(served.content) - served.missing])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        served = Server(f"http://127.0.0.1:{http.server_address[1]}")
        Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield served
        http.shutdown()


def silent(done: int, total: int | None) -> None:
    """No progress."""


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_archive_is_unpacked_and_kept_and_progress_is_told(
    server: Server, tmp_path: Path
) -> None:
    told: list[tuple[int, int | None]] = []
    folder = fetch(server.archive(), tmp_path, lambda *now: told.append(now))
    assert folder == tmp_path / "made"
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert names(tmp_path) == ["made.zip", "made/README", "made/ratings.dat"]
    assert told[-1] == (len(GOOD), len(GOOD))


def test_a_kept_archive_is_not_downloaded_again(server: Server, tmp_path: Path) -> None:
    folder = fetch(server.archive(), tmp_path, silent)
    (folder / "ratings.dat").write_bytes(b"altered")
    (folder / "README").unlink()
    fetch(server.archive(), tmp_path, silent)
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    assert server.asked == ["/made.zip"]


def test_another_checksum_is_refused_and_nothing_kept(server: Server, tmp_path: Path) -> None:
    other = replace(server.archive(), sha256="0" * 64)
    with pytest.raises(
        PipelineError, match=rf"made.zip: expected SHA-256 0+, found .*{len(GOOD):,} bytes"
    ):
        fetch(other, tmp_path, silent)
    assert names(tmp_path) == []


def test_a_cut_transfer_is_refused_and_the_next_one_succeeds(
    server: Server, tmp_path: Path
) -> None:
    server.missing = 1
    with pytest.raises(PipelineError, match="The transfer was cut"):
        fetch(server.archive(), tmp_path, silent)
    assert names(tmp_path) == []
    server.missing = 0
    assert names(fetch(server.archive(), tmp_path, silent)) == ["README", "ratings.dat"]


def test_an_interrupted_download_leaves_nothing(server: Server, tmp_path: Path) -> None:
    def interrupt(done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(server.archive(), tmp_path, interrupt)
    assert names(tmp_path) == []


def test_an_answer_without_end_is_cut_off(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.content = bytes(5_000_000)
    monkeypatch.setattr(download, "LARGEST_ARCHIVE", 1_000_000)
    told: list[int] = []
    with pytest.raises(PipelineError, match="expected SHA-256"):
        fetch(server.archive(), tmp_path, lambda done, _: told.append(done))
    assert told[-1] < 2_000_000


def test_a_refusing_or_absent_server_is_told_with_what_to_do(
    server: Server, tmp_path: Path
) -> None:
    gone = replace(server.archive(), url=f"{server.url}/gone.zip")
    with pytest.raises(PipelineError, match=r"gone.zip: cannot be downloaded \(.*404.*raw_dir"):
        fetch(gone, tmp_path, silent)
    absent = replace(server.archive(), url="http://127.0.0.1:9/made.zip")
    with pytest.raises(PipelineError, match=r"cannot be downloaded \(.*refused.*raw_dir"):
        fetch(absent, tmp_path, silent)


def test_a_kept_archive_that_was_altered_is_refused(server: Server, tmp_path: Path) -> None:
    fetch(server.archive(), tmp_path, silent)
    (tmp_path / "made.zip").write_bytes(GOOD[:-1])
    with pytest.raises(PipelineError, match=r"made.zip: expected SHA-256 .*Delete it"):
        fetch(server.archive(), tmp_path, silent)


@pytest.mark.parametrize(
    "members",
    [
        {"made/README": b"", "made/ratings.dat": b"", "made/../../evil": b"x"},
        {"made/README": b"", "made/ratings.dat": b"", "/tmp/evil": b"x"},  # noqa: S108
        {"made/README": b"", "made/ratings.dat": b"", "made/extra": b"x"},
        {"README": b"", "ratings.dat": b""},
        {"made/README": b""},
    ],
    ids=["upwards", "absolute", "extra", "no folder", "incomplete"],
)
def test_an_archive_with_other_members_is_refused(
    server: Server, tmp_path: Path, members: dict[str, bytes]
) -> None:
    server.content = zipped(members)
    with pytest.raises(
        PipelineError, match=r"made.zip: expected made/README, made/ratings.dat and"
    ):
        fetch(server.archive(), tmp_path / "raw", silent)
    assert names(tmp_path) == ["raw/made.zip"]


def test_a_zip_bomb_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "LARGEST_FILE", len(FILES["ratings.dat"]) - 1)
    with pytest.raises(PipelineError, match=r"ratings.dat unpacks to more than 549,999 bytes"):
        fetch(server.archive(), tmp_path, silent)
    assert "made/ratings.dat" not in names(tmp_path)


@pytest.mark.parametrize("content", [b"<html>no zip</html>", GOOD[:200] + b"?" + GOOD[201:]])
def test_what_is_no_readable_zip_is_refused(server: Server, tmp_path: Path, content: bytes) -> None:
    server.content = content
    with pytest.raises(PipelineError, match=r"made.zip: is not a readable archive \("):
        fetch(server.archive(), tmp_path, silent)


def taped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        folder = tarfile.TarInfo("made")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def test_a_tar_is_unpacked_and_one_with_other_members_or_cut_is_refused(
    server: Server, tmp_path: Path
) -> None:
    server.path = "/made.tar.gz"
    server.content = taped({f"made/{name}": content for name, content in FILES.items()})
    folder = fetch(server.archive(), tmp_path / "good", silent)
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    server.content = server.content[: len(server.content) // 2]
    with pytest.raises(PipelineError, match=r"made.tar.gz: is not a readable archive \("):
        fetch(server.archive(), tmp_path / "cut", silent)
    server.content = taped({"made/README": b"", "made/ratings.dat": b"", "made/../evil": b"x"})
    with pytest.raises(PipelineError, match=r"expected made/README, .*, found made/../evil"):
        fetch(server.archive(), tmp_path / "other", silent)
    assert names(tmp_path / "other") == ["made.tar.gz"]


def test_a_gzipped_file_is_put_into_its_folder_and_a_damaged_one_refused(
    server: Server, tmp_path: Path
) -> None:
    server.path = "/ratings.dat.gz"
    server.content = gzip.compress(FILES["ratings.dat"])
    archive = replace(server.archive(), files=("ratings.dat",))
    folder = fetch(archive, tmp_path / "good", silent)
    assert (folder / "ratings.dat").read_bytes() == FILES["ratings.dat"]
    server.content = server.content[:-20]
    archive = replace(server.archive(), files=("ratings.dat",))
    with pytest.raises(PipelineError, match=r"ratings.dat.gz: is not a readable archive \("):
        fetch(archive, tmp_path / "cut", silent)


def test_the_stage_downloads_once_and_says_so_in_plain_lines(
    server: Server, tmp_path: Path, made_movielens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere than on a terminal a download is a line on stderr, not a bar."""
    server.content = zipped(
        {f"made/{path.name}": path.read_bytes() for path in made_movielens.iterdir()}
    )
    archive = replace(server.archive(), files=("movies.dat", "ratings.dat", "users.dat"))
    monkeypatch.setattr(movielens, "ARCHIVE", archive)
    params = (Path(__file__).parents[1] / "params.yaml").read_text()
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(params.replace("source: simulated", "source: movielens-1m"))
    first = CliRunner().invoke(app, ["--raw", "raw"])
    assert first.stdout == "120 exposures of 60 users to 5 items, from MovieLens 1M in raw/made\n"
    assert first.stderr == f"{archive.url}: 0.0 of 0.0 MB\n"
    assert CliRunner().invoke(app, ["--raw", "raw"]).exit_code == 0
    assert server.asked == ["/made.zip"]
