"""Which files of the repository a module needs, directly or through others."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOMS = ("pipeline", "stages")


def import_closure(module: str, root: Path) -> set[str]:
    """Files below `root`, as dvc.yaml names them, of `module` and of all that it imports.

    Imports inside functions count, and so do the packages that a module lies in, with the files in
    them that are not Python. Imports under `if TYPE_CHECKING` do not count: they never run.
    """
    found: set[str] = set()
    waiting = [module]
    while waiting:
        file = module_file(waiting.pop(), root)
        if file is None or (name := file.relative_to(root).as_posix()) in found:
            continue
        found.add(name)
        if file.name == "__init__.py":
            found |= {path.relative_to(root).as_posix() for path in package_data(file.parent)}
        waiting += imported(ast.parse(file.read_text()))
    return found


def module_file(module: str, root: Path) -> Path | None:
    path = root.joinpath(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


def package_data(folder: Path) -> Iterator[Path]:
    """Files of a package that its modules read rather than import, such as a style sheet."""
    return (path for path in folder.iterdir() if path.is_file() and path.suffix != ".py")


def imported(tree: ast.AST) -> Iterator[str]:
    """Names of this repository's modules that the code imports, and of their packages."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING":
            continue
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.split(".")[0] in ROOMS:
                parts = name.split(".")
                yield from (".".join(parts[:n]) for n in range(1, len(parts) + 1))
        yield from imported(node)
