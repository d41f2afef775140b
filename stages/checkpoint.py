"""The checkpoint of a stage that trains, named after all that its training follows from."""

import hashlib
import json
import os
import sys
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from pipeline.files import sha256
from pipeline.training.checkpoint import CheckpointFile
from pipeline.training.shared_checkpoint import SharedCheckpoint
from pipeline.training.snapshot import Checkpoint
from stages.shell import P, Run

ROOT = Path(__file__).parents[1]
KEPT_DAYS = 14  # of a checkpoint; a training at work renews its own
ROOMS = ("pipeline", "stages", "experiments")


def checkpoint(run: Run[P], *inputs: Path, max_epochs: int) -> Checkpoint:
    """The checkpoint of this very training, the stage's alone until it ends.

    Another learning rate, other inputs or other code have another checkpoint, so they start afresh.
    To be called once the code of the training is imported: that is how it is known.

    Args:
        run: the stage, whose name and params tell of it.
        inputs: what it reads.
        max_epochs: the most epochs; a stage on images has them from its command line.

    Raises:
        PipelineError: another run is at the same training, or processes that should train together
            differ in what they follow from.
    """
    told = f"{follows_from(run, *inputs)} {max_epochs}".encode()
    name = f"{run.name}-{hashlib.sha256(told).hexdigest()[:32]}"
    # Experiments in a temporary folder are told the root of the project itself, which outlives it.
    folder = Path(os.environ.get("DVC_ROOT", ".")) / ".checkpoints"
    _forget_abandoned(folder, but=f"{name}.safetensors")
    seconds = run.params.runtime.checkpoint_seconds
    file = CheckpointFile(folder / f"{name}.safetensors", seconds=seconds, tell=run.note)
    ranks = run.ranks()
    if ranks.alone:
        return run.keep(file)
    ranks.require_alike(f"{name} {run.params.runtime.deal_out}")
    return SharedCheckpoint(ranks, run.keep(file) if ranks.leads else None)


def _forget_abandoned(folder: Path, but: str) -> None:
    """Remove checkpoints that nobody went on with: code, params or inputs have changed since."""
    for file in folder.glob("*.safetensors"):
        with suppress(FileNotFoundError):  # its training has just ended
            if file.name != but and time.time() - file.stat().st_mtime > KEPT_DAYS * 86_400:
                file.unlink()


def follows_from(run: Run[P], *inputs: Path) -> str:
    """All that a stage's result follows from, as text: params, inputs, code, packages, device."""
    device = run.device()  # first: what it loads is of the code too, whoever loaded it
    told = {
        "params": run.params.model_dump(exclude={"runtime"}),
        "inputs": [sha256(path) for path in inputs],
        "code": _code(),
        "versions": [version(name) for name in ("torch", "numpy")],
        "device": device.type,  # random states are of no use on another kind
    }
    return json.dumps(told, sort_keys=True)


def _code() -> dict[str, str]:
    """SHA-256 of every file of this project that is loaded: by now, all that the training runs."""
    files = {Path(file) for m in [*sys.modules.values()] if (file := getattr(m, "__file__", None))}
    ours = [file for file in files if file.is_relative_to(ROOT)]
    names = {str(file.relative_to(ROOT)): file for file in ours}
    return {name: sha256(file) for name, file in names.items() if name.startswith(ROOMS)}
