"""Small projects to run stages in: a folder with params, or a repository under git and DVC."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from click.testing import Result
from ruamel.yaml import YAML
from typer.testing import CliRunner

from tests.dvc_stages import read_stages

ROOT = Path(__file__).parents[1]
STAGES = [stage.name for stage in read_stages(ROOT / "dvc.yaml")]
SMALL: dict[str, dict[str, object]] = {
    "simulation": {"users": 200, "items": 40, "exposures": 2000},
    "features": {"f_dim": 8, "hidden": [16], "batch_size": 128, "max_epochs": 40, "patience": 40},
    "tasks": {"min_exposures": 10},
    "pretrain": {"seed_tasks": 8, "batch_size": 32, "max_epochs": 40, "patience": 40},
    "graph": {"dim": 8, "batch_size": 8, "max_epochs": 40, "patience": 40},
    "ratio": {"batch_size": 64, "max_epochs": 40, "patience": 40},
    "evaluate": {"bootstrap": 100},
    "runtime": {"device": "cpu", "threads": 1, "checkpoint_seconds": 0},
}


def set_params(folder: Path, changes: Mapping[str, Any]) -> None:
    """Change values of a folder's params.yaml: section to key to value, or key to value."""
    yaml, path = YAML(), folder / "params.yaml"
    params = yaml.load(path)
    for key, value in changes.items():
        if isinstance(value, Mapping):
            params[key].update(value)
        else:
            params[key] = value
    yaml.dump(params, path)


def small_project(folder: Path) -> Path:
    """A folder with the params of a small simulation, each of whose trainings takes a while."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "params.yaml", folder)
    set_params(folder, SMALL)
    return folder


def small_repository(folder: Path) -> Path:
    """A small project with all the code and files that git tracks, or would, ready for DVC."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        if name != "dvc.lock" and not name.startswith("metrics/"):  # of other params
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    small_project(folder)
    run(folder, "git", "init", "--quiet", "--initial-branch=main")
    run(folder, "git", "add", ".")
    run(folder, "git", "commit", "--quiet", "-m", "A small project")
    return folder


def environment(folder: Path) -> dict[str, str]:
    """The environment in which a project's stages, DVC and git run by themselves."""
    hidden = ("DVC_", "GIT_", "COV_")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    code = folder if (folder / "pipeline").exists() else ROOT
    own = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(code),
        "HOME": str(folder.parent),
        "DVC_SITE_CACHE_DIR": str(folder.with_name(f"{folder.name}-site")),
        "OMP_NUM_THREADS": "1",
    }
    for role in ("AUTHOR", "COMMITTER"):
        own |= {f"GIT_{role}_NAME": "A test", f"GIT_{role}_EMAIL": "test@example.org"}
    return inherited | own


@contextmanager
def started(folder: Path, *command: str, **options: Any) -> Iterator[subprocess.Popen[str]]:  # noqa: ANN401
    """Start a command in a project; in the end kill it with its children, if they still run."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )
    with process:
        try:
            yield process
        finally:
            kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL a process that `started` started, and all its children."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def run(folder: Path, *command: str) -> str:
    """Run a command in a project to its end, which must be a good one; all that it printed."""
    with started(folder, *command) as process:
        printed, errors = process.communicate()
    assert process.returncode == 0, f"{' '.join(command)}: {printed}{errors}"
    return printed + errors


def invoke(folder: Path, stage: str, *arguments: str) -> Result:
    """Run a stage in a project, in this process."""
    with chdir(folder):
        return CliRunner().invoke(import_module(f"stages.{stage}").app, arguments)


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every artefact and metric, less the facts of the run and the page with them."""
    files = [path for top in ("data", "metrics") for path in (folder / top).rglob("*")]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(files)
        if path.is_file() and path.parent.name not in ("run_info", "report")
    }
