"""What the stages of the image experiments share: their options, their params, their device."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pipeline.images.params import Dataset, ImageParams
from pipeline.params_file import load_sections
from stages.images.folder import run_info
from stages.shell import Run, running

DatasetOption = Annotated[Dataset, typer.Option(help="Which images.")]
KOption = Annotated[int, typer.Option(min=1, max=5, help="Number of active categories.")]
EpochsOption = Annotated[int, typer.Option(min=1, help="The most epochs to train.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Of weights, batches and negatives.")]
PARAMS = Path("experiments/images/params.yaml")
ROOT = Path("experiments/images/data")


@contextmanager
def image_stage(
    name: str,
    params_file: Path,
    *keys: str,
    outputs: Sequence[Path],
    root: Path,
    on_device: bool = True,
) -> Iterator[Run[ImageParams]]:
    """Run a stage's body with the params `keys`; see `running`.

    The device is prepared before the body computes anything, for threads take over what is set
    by then; but not for a stage that has no use of it (`on_device` is False).
    """
    load = partial(load_sections, ImageParams, params_file, *keys)
    with running(name, load, outputs=outputs, run_info=run_info(root)) as run:
        run.refuse_several()
        if on_device:
            run.device()
        yield run
