"""Which files of the repository a module needs, directly or through others; as a stage, for many.

An experiment has hundreds of stages. Were each to name all files that it imports, DVC would read
and write tens of thousands of lines about them before and after every single one. So a stage
`code` notes them in a file a module, and the other stages depend on that of theirs.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from pkgutil import iter_modules
from typing import Annotated

import typer

from pipeline.files import sha256
from pipeline.text_files import write_json
from stages.shell import stage_app

app = stage_app()
ROOT = Path(__file__).parents[1]
ROOMS = ("pipeline", "stages")


@app.command()
def main(
    package: Annotated[str, typer.Argument(help="Of the stages, such as stages.images.")],
    out: Annotated[Path, typer.Argument(help="Writes: a file NAME.json a module of it.")],
) -> None:
    """Note the files that each stage of a package imports, each with its SHA-256."""
    folder = ROOT.joinpath(*package.split("."))
    for module in iter_modules([str(folder)]):
        files = sorted(import_closure(f"{package}.{module.name}", ROOT))
        write_json({file: sha256(ROOT / file) for file in files}, out / f"{module.name}.json")


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
    """The file of a module or package below `root`, if it has one."""
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


if __name__ == "__main__":
    app()
