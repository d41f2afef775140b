"""What every stage shares: its options, its errors in one line, its run facts."""

import ctypes
import errno
import json
import os
import platform
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Generic

import typer
from typing_extensions import TypeVar

from pipeline.errors import PipelineError
from pipeline.threads import sleep_when_idle
from pipeline.torchrun import LAUNCHER, under_torchrun

if TYPE_CHECKING:
    import torch

    from pipeline.params import Params
    from pipeline.ranks import Ranks
    from pipeline.sections import ParamsFile
    from pipeline.training.checkpoint import CheckpointFile

ParamsOption = Annotated[Path, typer.Option("--params", help="The params file.")]
RunInfoOption = Annotated[
    Path, typer.Option(help="Folder for the run facts: device, versions, seconds, peak memory.")
]
RootOption = Annotated[Path, typer.Option("--data", help="Reads and writes below this folder.")]
PARAMS = Path("params.yaml")
RUN_INFO = Path("data/run_info")
PR_SET_PDEATHSIG = 1  # of prctl(2)


def stage_app() -> typer.Typer:
    """A typer application set up the way every stage is.

    Also says how torch's threads wait, which must be said before torch is loaded.
    """
    sleep_when_idle()
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


P = TypeVar("P", bound="ParamsFile", default="Params")


@dataclass
class Run(Generic[P]):
    """A stage at work: its params, and what is known of the run."""

    name: str
    params: P
    exits: ExitStack  # closed when the stage ends, however it ends
    facts: dict[str, object] = field(default_factory=dict)
    checkpoint: "CheckpointFile | None" = None
    handed_on: bool = False
    _ranks: "Ranks | None" = None

    @property
    def leads(self) -> bool:
        """Whether this process reports and writes: of several, torchrun's number 0."""
        return not under_torchrun() or os.environ["RANK"] == "0"

    def hand_on(self) -> bool:
        """Do the stage in as many processes as `runtime` asks for, if they are several.

        Each runs this same command. True if they have done it; False where it is left to this one.
        """
        processes = self.params.runtime.processes
        if processes > 1 and not under_torchrun():
            from stages.launch import launch

            launch(f"stages.{self.name}", sys.argv[1:], processes)
            self.handed_on = True
        if under_torchrun():
            self.ranks()  # they meet before anything may fail in one and not in another
        return self.handed_on

    def refuse_torchrun(self) -> None:
        """Where several processes would each do all of the work.

        Raises:
            PipelineError: torchrun started several.
        """
        if under_torchrun() and int(os.environ["WORLD_SIZE"]) > 1:
            raise PipelineError(
                "this is done in one process, but torchrun started "
                f"{os.environ['WORLD_SIZE']}; run it without torchrun."
            )

    def refuse_several(self) -> None:
        """Where several processes cannot share the work, as in the experiments' own stages.

        Raises:
            PipelineError: `runtime` asks for several.
        """
        if (processes := self.params.runtime.processes) > 1:
            raise PipelineError(
                f"runtime.processes: {processes}: only stages of the main pipeline train in "
                "several processes; set 1, and `make ... JOBS=2` to run two stages at once."
            )

    def ranks(self) -> "Ranks":
        """The processes that train together, once they have met; alone without torchrun."""
        from pipeline.ranks import join_ranks, leave_ranks

        if self._ranks is None:
            self.exits.push(lambda kind, *_: leave_ranks(failed=kind is not None))
            self._ranks = join_ranks(self.device(), deal_out=self.params.runtime.deal_out)
            if self._ranks.size > 1:
                self.facts["device"] = f"{self._ranks.size} x {self.facts['device']}"
        return self._ranks

    def device(self) -> "torch.device":
        """The device that `runtime` asks for; noted among the run facts."""
        from pipeline.device import describe, prepare_device

        device = prepare_device(self.params.runtime)
        self.facts.setdefault("device", describe(device))
        return device

    def cpu(self) -> "torch.device":
        """The CPU, whatever `runtime.device` says; noted among the run facts."""
        from pipeline.device import describe, prepare_cpu

        device = prepare_cpu(self.params.runtime)
        self.facts.setdefault("device", describe(device))
        return device

    def keep(self, checkpoint: "CheckpointFile") -> "CheckpointFile":
        """Open a checkpoint for as long as the stage lasts; success removes it."""
        self.checkpoint = self.exits.enter_context(checkpoint)
        return self.checkpoint

    def note(self, line: str) -> None:
        """A line on stderr."""
        if self.leads:
            typer.echo(f"{self.name}: {line}.", err=True)

    def warn(self, line: str) -> None:
        """A line on stderr about a result that is not what it should be."""
        self.note(f"warning: {line}")

    def say(self, line: str) -> None:
        """The stage's one line of result, on stdout."""
        if self.leads:
            show(f"{line}\n")


def show(text: str) -> None:
    """Write to stdout.

    Raises:
        PipelineError: it cannot be written.
    """
    try:
        typer.echo(text, nl=False, color=True)  # else click drops what looks like a colour
    except OSError as error:
        if error.errno == errno.EPIPE:  # nobody reads on, which click knows how to end
            raise
        with suppress(OSError):  # else what could not be written is tried again at the end
            sys.stdout.close()
        raise PipelineError(
            f"stdout: cannot be written ({error.strerror}). Make room or name another place, then "
            "run it again."
        ) from error


@contextmanager
def running(
    name: str,
    load: Callable[[], P],
    *,
    outputs: Sequence[Path],
    run_info: Path | None,
    several: bool = False,
) -> Iterator[Run[P]]:
    """Run a stage's body with what `load` gives; a PipelineError becomes one line and exit code 1.

    An interruption, by Ctrl-C or by SIGTERM, becomes one line and exit code 130.
    On success `run_info/NAME.json` tells device, versions, seconds, peak memory, and the SHA-256
    of each output, by which a reader knows whether the facts belong to the files at hand. What is
    no stage of the pipeline leaves none: `run_info` is None. Only with `several` may torchrun have
    started several processes.
    One of several processes leaves its errors to whoever started them.
    """
    started = time.perf_counter()
    run: Run[P] | None = None
    try:
        with ExitStack() as exits:
            before = signal.signal(signal.SIGTERM, signal.default_int_handler)
            exits.callback(signal.signal, signal.SIGTERM, before)
            if under_torchrun():
                _end_with_parent()
            run = Run(name, load(), exits)
            if not several:
                run.refuse_torchrun()
            yield run
            if run_info is not None and run.leads and not run.handed_on:
                _write_run_info(run, outputs, run_info, time.perf_counter() - started)
            if run.checkpoint is not None:
                run.checkpoint.remove()
    except PipelineError as error:
        if under_torchrun():
            raise typer.Exit(_leave_word(error)) from None
        typer.echo(f"{name}: {error}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        if under_torchrun():
            raise typer.Exit(130) from None
        epoch = run.checkpoint.epoch if run is not None and run.checkpoint is not None else 0
        kept = f"; the next run goes on after epoch {epoch}" if epoch else ""
        typer.echo(f"{name}: interrupted; nothing was half-written{kept}.", err=True)
        raise typer.Exit(130) from None


def _end_with_parent() -> None:
    """Have the system kill this process once torchrun, which started it, is gone."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    launcher = os.environ.get(LAUNCHER)
    if launcher is not None and int(launcher) != os.getppid():  # it was gone before
        raise SystemExit(1)


def _leave_word(error: PipelineError) -> int:
    """Tell torchrun what went wrong, the way it asks its processes to; the exit code."""
    from pipeline.ranks import LostRankError

    word = json.dumps({"message": str(error), "timestamp": int(time.time())})
    Path(os.environ["TORCHELASTIC_ERROR_FILE"]).write_text(word)
    return os.EX_TEMPFAIL if isinstance(error, LostRankError) else 1


def _write_run_info(run: Run[P], outputs: Sequence[Path], folder: Path, seconds: float) -> None:
    from pipeline.files import sha256
    from pipeline.text_files import write_json

    if run.checkpoint is not None and run.checkpoint.resumed_after:
        run.facts["resumed_after_epoch"] = run.checkpoint.resumed_after  # not in the seconds
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
    write_json(facts, folder / f"{run.name}.json")
