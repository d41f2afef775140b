"""One run of the whole pipeline as a named DVC experiment."""

import hashlib
import json
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.errors import PipelineError
from pipeline.files import sha256

METRICS = "metrics/auc.json"
CODE = ("dvc.yaml", "pipeline", "stages")  # what a run's results follow from, beside the params


def name_of(settings: Sequence[str], called: str | None = None) -> str:
    """What to call the run under `settings` of what is in the workspace, as git takes it.

    "data.source=simulated" becomes "data-source-simulated", or as it is `called`; and something
    follows that stands for whatever is not committed, data of one's own among it.
    """
    name = called or re.sub(r"[^A-Za-z0-9]+", "-", "-".join(settings)).strip("-")
    changes = _uncommitted()
    changes += "".join(sha256(path) for path in own_data(settings) if path.exists())
    return f"{name}-{hashlib.sha256(changes.encode()).hexdigest()[:8]}" if changes else name


def _uncommitted() -> str:
    """What of the code and the params is not committed; nothing if all is.

    Params are compared by their values: DVC lays params.yaml out anew whenever it sets one, and git
    may overlook what it wrote.
    """
    committed = YAML(typ="safe").load(git("show", "HEAD:./params.yaml"))
    present = _params()
    return git("diff", "HEAD", "--", *CODE) + ("" if present == committed else repr(present))


def _params() -> dict[str, Any]:
    params: dict[str, Any] = YAML(typ="safe").load(Path("params.yaml"))
    return params


def labels() -> list[str]:
    """The labels that params.yaml has scores measured by."""
    params = _params()
    return list(params["evaluate"]["labels"]) if params["labels"] else []


def quoted(path: Path) -> str:
    """The whole path as a value that YAML and DVC's `-S` read back, whatever its letters."""
    return json.dumps(str(path.resolve()), ensure_ascii=False)


def _unquoted(value: str) -> object:
    try:
        return YAML(typ="safe").load(value)
    except YAMLError:  # for DVC to refuse
        return value


def own_data(settings: Sequence[str]) -> list[Path]:
    """The files of one's own that a run under `settings` of params.yaml reads."""
    params = _params()
    pairs = [setting.split("=", 1) for setting in settings if "=" in setting]
    told = {key: _unquoted(text) for key, text in pairs}

    def value(key: str) -> object:
        section, name = key.split(".")
        return told[key] if key in told else params.get(section, {}).get(name)

    paths = [value("graph.triples"), value("graph.items")]
    if value("data.source") == "tables" or value("features.model") == "table":
        paths.append(value("data.tables_dir"))
    if value("data.source") not in ("simulated", "tables"):
        paths.append(value("data.raw_dir"))
    return [Path(str(path)) for path in paths if path]


def _require_in_git(paths: Sequence[Path]) -> None:
    """Raise PipelineError for data that a copy of the workspace would lack."""
    here = Path.cwd()
    for path in paths:
        inside = path.resolve().is_relative_to(here)
        if not path.is_absolute() and not (inside and git("ls-files", "--", str(path))):
            raise PipelineError(
                f"{path}: git does not track it, so an experiment, in a folder of its own, would "
                f"not see it; name it in params.yaml by its absolute path, {path.resolve()}."
            )


def _require_ascii(project: Path) -> None:
    """Raise PipelineError where DVC cannot copy the workspace: it writes its path as ASCII."""
    if not str(project).isascii():
        raise PipelineError(
            f"{project}: DVC runs no experiments where a path has letters beyond ASCII; move the "
            "project, or rename the folder. `dvc repro` runs here too."
        )


def counts_of(text: str) -> list[int]:
    """The numbers of the option `--counts`, such as 5,10, all above 0.

    Raises:
        PipelineError: it is something else.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch("[1-9][0-9]*", part) for part in parts):
        raise PipelineError(f"--counts {text}: expected whole numbers above 0, as in 5,10.")
    return [int(part) for part in parts]


def run_experiment(name: str, settings: Sequence[str]) -> dict[str, object]:
    """Run the pipeline with `settings` ("key=value") and return its metrics/auc.json.

    In a temporary copy of the workspace, which itself stays as it is. An experiment of this name on
    the present commit is not run again; stages that ran before come from the run cache.

    Raises:
        PipelineError: DVC refuses, or a stage fails; its own message stands on stderr.
    """
    if name not in _dvc("exp", "list", "--name-only").split():
        started = time.monotonic()
        changes = [part for setting in settings for part in ("-S", setting)]
        _require_in_git(own_data(settings))
        _require_ascii(Path.cwd())
        _dvc("exp", "run", "--temp", "--name", name, *changes)
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    metrics: dict[str, object] = json.loads(read_from(name, METRICS))
    return metrics


def read_from(name: str, path: str) -> str:
    """The text of a file of the experiment `name`, tracked by git or by DVC.

    Raises:
        PipelineError: it has no such file.
    """
    import dvc.api
    from dvc.exceptions import DvcException

    from_the_root = git("rev-parse", "--show-prefix").strip() + path  # of git, which DVC reads by
    try:
        text: str = dvc.api.read(from_the_root, rev=name)
    except (DvcException, OSError) as error:
        raise PipelineError(f"{path} of the experiment {name}: cannot be read ({error}).") from None
    return text


def figure(metrics: Mapping[str, object], key: str) -> float | None:
    """The scalar at a dotted key such as "age.auc"; None where there is none."""
    value: object = metrics
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return float(value) if isinstance(value, int | float) else None


def git(*arguments: str) -> str:
    """What a git command prints.

    Raises:
        PipelineError: it fails, and its own message stands on stderr; or there is no git.
    """
    return _output("git", *arguments)


def _dvc(*arguments: str) -> str:
    return _output("dvc", *arguments)


def no_command(name: str) -> PipelineError:
    """The error for a command that is not on the PATH."""
    return PipelineError(
        f"{name}: there is no such command here; first `source .venv/bin/activate`."
    )


def _output(*command: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - settings come from whoever typed the command
            command, check=False, stdout=subprocess.PIPE, text=True
        )
    except FileNotFoundError:
        raise no_command(command[0]) from None
    if done.returncode:
        raise PipelineError(
            f"`{' '.join(command)}` ended with {done.returncode}; its message stands above."
        )
    return done.stdout
