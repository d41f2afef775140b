"""Where and how fast each stage ran, as it told at its end: data/run_info/STAGE.json.

These files are undeclared, and outside every test of equality. A stage that DVC restores from its
cache does not run: what is told of it then is of another run, and is not shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import PipelineError
from pipeline.files import sha256
from pipeline.text_files import read_json

NOT_RECORDED = "no run recorded here: its files were there"
RESTORED = "restored from cache"


@dataclass(frozen=True)
class Ran:
    """What a stage told of the run that made the files at hand."""

    device: str
    seconds: float
    peak_memory_mb: int
    versions: str


@dataclass(frozen=True)
class RunFacts:
    """A stage, and its run, or in words why it is not known."""

    stage: str
    ran: Ran | None
    why_not: str = ""


def run_facts(folder: Path, files: Mapping[str, Sequence[Path]]) -> list[RunFacts]:
    """The facts of each stage of `files`, which names those of its outputs that are at hand."""
    return [_stage_facts(stage, folder / f"{stage}.json", paths) for stage, paths in files.items()]


def _stage_facts(stage: str, file: Path, outputs: Sequence[Path]) -> RunFacts:
    if not file.exists():
        return RunFacts(stage, None, NOT_RECORDED)
    told = read_json(file)
    try:
        there = all(path.exists() for path in outputs)
        if not (there and {sha256(path) for path in outputs} <= set(told["outputs"].values())):
            return RunFacts(stage, None, RESTORED)
        versions = {"Python": told["python"], **told["versions"]}
        ran = Ran(
            told["device"],
            told["seconds"],
            told["peak_memory_mb"],
            ", ".join(f"{name} {version}" for name, version in versions.items()),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise PipelineError(f"{file}: holds no run facts; delete it.") from error
    return RunFacts(stage, ran)
