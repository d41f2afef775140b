"""The rooms of docs/architecture.md: every module has one, and imports run downwards."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/architecture.md"


@cache
def rooms() -> list[list[str]]:
    """The modules and folders of each room, as paths from the root, from the top down."""
    rows = PAGE.read_text().split("| room |")[1].split("## Rules")[0].splitlines()[2:]
    found = []
    for row in filter(None, rows):
        folder, names = "", []
        for name in re.findall(r"`([^`]+)`", row.split("|")[1]):
            folder = name.partition("/")[0] if "/" in name.rstrip("/") else folder
            names.append(
                name if name.startswith(folder + "/") or not folder else f"{folder}/{name}"
            )
        found.append(names)
    return found


def room_of(path: str) -> int | None:
    """The number of the room in which a file lies."""
    for number, names in enumerate(rooms()):
        if any(path == name or (name.endswith("/") and path.startswith(name)) for name in names):
            return number
    return None


def imported(path: Path) -> Iterator[str]:
    """The files of this repository that a module imports, but for types alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                module = Path(*name.split("."))
                for file in (module.with_suffix(".py"), module / "__init__.py"):
                    if (ROOT / file).is_file():
                        yield str(file)


def modules() -> list[Path]:
    folders = ("stages", "experiments", "benchmarks", "pipeline")
    return [path for name in folders for path in sorted((ROOT / name).rglob("*.py"))]


def test_every_module_has_a_room_and_every_room_is_there() -> None:
    homeless = [
        str(path.relative_to(ROOT))
        for path in modules()
        if path.name != "__init__.py" and room_of(str(path.relative_to(ROOT))) is None
    ]
    assert not homeless
    assert not [name for names in rooms() for name in names if not (ROOT / name).exists()]


def test_imports_run_downwards() -> None:
    upwards = [
        f"{name} imports {other}"
        for name, own in ((str(path.relative_to(ROOT)), path) for path in modules())
        for other in imported(own)
        if None not in (room_of(name), room_of(other)) and room_of(other) < room_of(name)
    ]
    assert not upwards
