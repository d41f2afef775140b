"""What could bring in foreign code or data: pickles, downloads, packages, sockets."""

import ast
import re
import socket
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pipeline.datasets.images import SOURCES
from pipeline.datasets.movielens import ARCHIVE
from tests.projects import ROOT

CODE = [
    file for room in ("pipeline", "stages", "experiments") for file in (ROOT / room).rglob("*.py")
]
RUNS_WHAT_IT_READS = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve", "_pickle"}
REACHES_OUT = {"aiohttp", "ftplib", "http", "httpx", "requests", "socket", "urllib", "urllib3"}
UNPICKLES = {
    *("torch.load", "torch.save", "torch.jit.load", "torch.hub.load"),
    *("pd.read_pickle", "pandas.read_pickle", "np.load", "numpy.load", "yaml.load"),
}


def nodes(file: Path) -> list[ast.AST]:
    return [*ast.walk(ast.parse(file.read_text()))]


def packages(file: Path) -> set[str]:
    """The top-level packages that a file imports."""
    found = {n.module for n in nodes(file) if isinstance(n, ast.ImportFrom) and n.module}
    found |= {name.name for n in nodes(file) if isinstance(n, ast.Import) for name in n.names}
    return {module.partition(".")[0] for module in found}


def calls(file: Path) -> set[str]:
    """The functions that a file calls, such as torch.load."""
    return {ast.unparse(node.func) for node in nodes(file) if isinstance(node, ast.Call)}


def test_the_search_finds_what_it_is_for(tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text(
        "def f():\n    from pickle import loads\n    import torch\n    torch.load('x')\n"
    )
    assert packages(file) & RUNS_WHAT_IT_READS == {"pickle"}
    assert calls(file) & UNPICKLES == {"torch.load"}
    assert len(CODE) > 100


@pytest.mark.parametrize("file", CODE, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_no_code_reads_what_could_run_code_and_one_file_alone_reaches_out(file: Path) -> None:
    assert not packages(file) & RUNS_WHAT_IT_READS
    assert not calls(file) & UNPICKLES
    reaches_out = bool(packages(file) & REACHES_OUT)
    assert reaches_out == (file.name == "download.py")


def test_every_download_has_its_checksum_and_only_the_stages_that_prepare_ask_for_one() -> None:
    archives = [ARCHIVE, *(archive for source in SOURCES.values() for archive in source.archives)]
    assert len(archives) == 6
    assert all(re.fullmatch("[0-9a-f]{64}", archive.sha256) for archive in archives)
    users = {file.relative_to(ROOT).as_posix() for file in CODE if "fetch" in calls(file)}
    assert users == {"stages/prepare.py", "stages/images/prepare.py"}


def requirements(name: str) -> list[str]:
    lines = (ROOT / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith(("#", "-r"))]


def same_name(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def test_every_package_that_is_needed_is_pinned_to_one_version() -> None:
    pinned = dict(line.split("==") for line in requirements("constraints.txt"))
    names = {same_name(package) for package in pinned}
    for kind in ("", "-dev", "-peers", "-spark"):
        for line in requirements(f"requirements{kind}.txt"):
            wanted = Requirement(line)
            assert str(wanted.specifier).startswith("==") or same_name(wanted.name) in names
    assert version("pyarrow") == pinned["pyarrow"]


def test_no_test_can_reach_beyond_this_machine() -> None:
    with socket.socket() as out, pytest.raises(OSError, match="tests reach no other machine"):
        out.connect(("192.0.2.1", 9))  # an address that is nobody's
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())


def test_nor_can_a_stage_that_a_test_starts() -> None:
    """Children are told of a proxy that does not answer."""
    script = "import urllib.request as u; u.urlopen('http://192.0.2.1/', timeout=5)"
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert "Connection refused" in ran.stderr


def test_what_pip_installs_with_the_project_and_its_extras_is_said_as_it_reads_it() -> None:
    """Setuptools takes a requirement a line from these files, and no option such as -r."""
    dynamic = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["dynamic"]
    for told in (dynamic["dependencies"], *dynamic["optional-dependencies"].values()):
        for file in told["file"]:
            lines = [line for line in (ROOT / file).read_text().splitlines() if line[:1] != "#"]
            assert [Requirement(line).name for line in lines]
