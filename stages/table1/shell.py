"""What the stages of Table 1 share: options, where files lie, a cell's params for main stages."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from stages.shell import P, Run, running

if TYPE_CHECKING:
    from pipeline.table1.params import Table1Params

StartOption = Annotated[str, typer.Option(help="The change that says where embeddings start.")]
BaseOption = Annotated[str, typer.Option(help="The change that says which base p is.")]
FieldsOption = Annotated[str, typer.Option(help="The change that says which user fields x has.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Of all that is drawn, but for the split.")]
PARAMS = Path("experiments/table1/params.yaml")
ROOT = Path("experiments/table1/data")


@dataclass(frozen=True)
class Place:
    """Where the files of the experiment lie: what cells share, and a file of figures a cell."""

    root: Path

    def prepared(self, table: str) -> Path:
        """The users, items, exposures, splits or tasks."""
        return self.root / "prepared" / f"{table}.parquet"

    def features(self, fields: str, seed: int) -> Path:
        """The folder of an x."""
        return self.root / "features" / f"{fields}-{seed}"

    def graph(self, start: str, seed: int) -> Path:
        """The folder of the items' vectors from a graph."""
        return self.root / "graph" / f"{start}-{seed}"

    def pretrain(self, start: str, base: str, fields: str, seed: int) -> Path:
        """The folder of a pre-embedding model."""
        return self.root / "pretrain" / f"{start}-{base}-{fields}-{seed}"

    def cell(self, *parts: object) -> Path:
        """What was measured of a cell, which its row, setting and seed name."""
        return self.root / "cells" / f"{'-'.join(map(str, parts))}.json"

    def run_info(self, shared: Path) -> Path:
        """Where the facts of a run lie: beside the outputs, for they differ from run to run."""
        return self.root / "run_info" / shared.relative_to(self.root)


@contextmanager
def main_params(
    name: str, params_file: Path, changes: Sequence[str], seed: int, *, on_device: bool = False
) -> Iterator[Path]:
    """The params file of a cell, for the main stages, in a folder that lasts as long as the cell.

    It is called params.yaml, as the file that it comes from, so that under DVC the main stages find
    their keys declared. An error or an interruption becomes one line, as in every stage.

    With `on_device` the device is prepared first, for threads take over what is set by then: for a
    cell in which torch is at work before a stage that does so.
    """

    def load() -> "Table1Params":
        from pipeline.params_file import load_whole
        from pipeline.table1.params import Table1Params

        return load_whole(Table1Params, params_file)

    with running(name, load, outputs=[], run_info=None) as run, TemporaryDirectory() as folder:
        from ruamel.yaml import YAML

        run.refuse_several()
        if on_device:
            run.device()
        file = Path(folder) / "params.yaml"
        YAML().dump(run.params.cell(changes, seed=seed).model_dump(), file)
        yield file


@contextmanager
def table1_stage(name: str, kind: type[P], params_file: Path, *keys: str) -> Iterator[Run[P]]:
    """Run a stage's body with the params `keys`, of the file as `kind` reads it; see `running`."""

    def load() -> P:
        from pipeline.params_file import load_sections

        return load_sections(kind, params_file, *keys)

    with running(name, load, outputs=[], run_info=None) as run:
        run.refuse_several()
        yield run
