"""What every stage shares: its options, its errors in one line, its run facts."""

import json
import platform
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.errors import PipelineError

if TYPE_CHECKING:
    import torch

    from pipeline.params import Params

ParamsOption = Annotated[Path, typer.Option("--params", help="The params file.")]
RunInfoOption = Annotated[
    Path, typer.Option(help="Folder for the run facts: device, versions, seconds, peak memory.")
]
PARAMS = Path("params.yaml")
RUN_INFO = Path("data/run_info")


def stage_app() -> typer.Typer:
    """A typer application set up the way every stage is."""
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@dataclass
class Run:
    """A stage at work: its params, and what is known of the run."""

    name: str
    params: "Params"
    facts: dict[str, object] = field(default_factory=dict)

    def device(self) -> "torch.device":
        """The device that `runtime` asks for; noted among the run facts."""
        from pipeline.device import describe, prepare_device

        device = prepare_device(self.params.runtime)
        self.facts["device"] = describe(device)
        return device

    def warn(self, line: str) -> None:
        """A line on stderr about a result that is not what it should be."""
        typer.echo(f"{self.name}: warning: {line}.", err=True)

    def say(self, line: str) -> None:
        """The stage's one line of result, on stdout."""
        typer.echo(line)


@contextmanager
def stage(
    name: str, params_file: Path, *keys: str, outputs: Sequence[Path], run_info: Path | None
) -> Iterator[Run]:
    """Run a stage's body with the params `keys`; a PipelineError becomes one line and exit code 1.

    On success `run_info/NAME.json` tells device, versions, seconds, peak memory, and the SHA-256
    of each output, by which a reader knows whether the facts belong to the files at hand. What is
    no stage of the pipeline leaves none: `run_info` is None.
    """
    started = time.perf_counter()
    try:
        from pipeline.params import load_params

        run = Run(name, load_params(params_file, *keys))
        yield run
        if run_info is not None:
            _write_run_info(run, outputs, run_info, time.perf_counter() - started)
    except PipelineError as error:
        typer.echo(f"{name}: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo(f"{name}: interrupted; nothing was half-written.", err=True)
        raise typer.Exit(130) from None


def _write_run_info(run: Run, outputs: Sequence[Path], folder: Path, seconds: float) -> None:
    from pipeline.storage import sha256, write_json

    facts = {
        "stage": run.name,
        "device": run.facts.pop("device", f"CPU ({platform.machine()})"),
        "seconds": round(seconds, 2),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "python": platform.python_version(),
        "versions": {
            p: version(p) for p in ("torch", "numpy", "pyarrow", "pandas", "scikit-learn", "dvc")
        },
        **run.facts,
        "outputs": {str(path): sha256(path) for path in outputs},
    }
    write_json(json.loads(json.dumps(facts)), folder / f"{run.name}.json")
    sys.stdout.flush()
