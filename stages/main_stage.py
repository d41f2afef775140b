"""A stage of the main pipeline: one that reads params.yaml.

Apart from `shell.py`, which the stages of the experiments share, with params of their own.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stages.shell import Run, running

if TYPE_CHECKING:
    from pipeline.params import Params


@contextmanager
def stage(
    name: str,
    params_file: Path,
    *keys: str,
    outputs: Sequence[Path],
    run_info: Path | None,
    several: bool = False,
) -> Iterator[Run]:
    """Run a stage's body with the params `keys`; see `running`."""

    def load() -> "Params":
        from pipeline.params import load_params

        return load_params(params_file, *keys)

    with running(name, load, outputs=outputs, run_info=run_info, several=several) as run:
        yield run
