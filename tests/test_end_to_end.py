"""The pipeline as its users run it, by the real `dvc`, on a tiny simulation in a repository.

One story, told once for all the tests: `dvc repro` on the branch main, `init=random` as an
experiment on the branch other, and back to `init=learned`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from pipeline.files import sha256
from pipeline.model_files import read_model
from tests.data_dictionary import Section, read_dictionary
from tests.dvc_stages import read_stages

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
STAGES = [stage.name for stage in read_stages(ROOT / "dvc.yaml")]
AFTER_INIT = ["project", "train", "score", "evaluate", "report"]
TINY = {
    "simulation": {"users": 150, "items": 40, "exposures": 2400},
    "features": {"f_dim": 8, "hidden": [8], "max_epochs": 2, "batch_size": 512},
    "tasks": {"min_exposures": 20},
    "pretrain": {"seed_tasks": 5, "hidden": [8, 8, 4], "max_epochs": 3, "batch_size": 256},
    "ratio": {"hidden": [8, 8, 4], "max_epochs": 3, "batch_size": 256},
    "evaluate": {"bootstrap": 100},
}
IN_ONE_PROCESS = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(f"stages.{name}").app([], standalone_mode=False)
"""


@dataclass(frozen=True)
class Project:
    """A repository of its own, with the code at hand, a home of its own, and one thread."""

    root: Path

    def run(self, *command: str) -> str:
        """What a command prints; its stages find this interpreter by PATH."""
        names = ("LANG", "LC_ALL", "http_proxy", "https_proxy")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        ran = subprocess.run(
            command,
            cwd=self.root,
            env={
                **kept,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "HOME": str(self.root.parent),
                "DVC_SITE_CACHE_DIR": str(self.root.parent / "site"),
                "OMP_NUM_THREADS": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def commit(self, what: str) -> None:
        self.run("git", "add", "--all")
        self.run("git", "commit", "-m", what)

    def files(self) -> dict[str, Path]:
        """Every table, model, CSV and JSON; not the run facts, nor the report."""
        files = [p for room in ("data", "metrics") for p in (self.root / room).rglob("*.*")]
        return {
            file.relative_to(self.root).as_posix(): file
            for file in files
            if file.parent.name not in ("run_info", "report") and "movielens" not in file.parts
        }

    def artefacts(self) -> dict[str, object]:
        return {name: content(file) for name, file in self.files().items()}

    def hashes(self) -> dict[str, str]:
        return {name: sha256(file) for name, file in self.files().items()}


def content(file: Path) -> object:
    if file.suffix == ".parquet":
        return pq.read_table(file)
    if file.suffix == ".safetensors":
        tensors, config = read_model(file)
        return config, {name: (t.dtype, t.tolist()) for name, t in tensors.items()}
    return file.read_text()


def make_project(root: Path) -> Project:
    """Copy what git tracks, or would: work in progress is tested too."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, names.split("\0")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    yaml = YAML()
    params = yaml.load(root / "params.yaml")
    for section, values in TINY.items():
        params[section].update(values)
    yaml.dump(params, root / "params.yaml")
    return Project(root)


@dataclass(frozen=True)
class Story:
    """The project at its end, what each command printed, and what it left."""

    project: Project
    repro: str
    changed: str  # what git saw of it
    learned: dict[str, object]
    hashes: dict[str, str]
    other: str
    back: str
    restored: dict[str, object]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    project = make_project(tmp_path_factory.mktemp("story") / "project")
    project.run("git", "init", "--quiet", "--initial-branch=main")
    project.run("git", "config", "user.name", "A test")
    project.run("git", "config", "user.email", "test@example.org")
    project.commit("start")
    repro = project.run("dvc", "repro")
    changed = project.run("git", "status", "--porcelain")
    learned, hashes = project.artefacts(), project.hashes()
    project.commit("learned")
    project.run("git", "switch", "--quiet", "--create", "other")
    other = project.run("dvc", "exp", "run", "-S", "init=random")
    project.commit("random")
    back = project.run("dvc", "exp", "run", "--name", "back", "-S", "init=learned")
    return Story(project, repro, changed, learned, hashes, other, back, project.artefacts())


def told(output: str) -> dict[str, str]:
    """What became of each stage, in DVC's words."""
    lines = re.findall(r"^(Running stage|Stage) '(\w+)'(.*)$", output, re.MULTILINE)
    return {stage: how.strip(":") or begin for begin, stage, how in lines}


def test_dvc_repro_builds_every_stage_and_git_sees_the_metrics_alone(story: Story) -> None:
    assert told(story.repro) == dict.fromkeys(STAGES, "Running stage")
    seen = {line.split()[-1] for line in story.changed.splitlines()}
    assert seen == {"dvc.lock", "metrics/auc.json", "metrics/roc.csv", "metrics/task_auc.csv"}


def test_another_init_runs_project_and_what_follows_and_nothing_else(story: Story) -> None:
    before = STAGES[: STAGES.index("project")]
    assert told(story.other) == {
        **dict.fromkeys(before, " didn't change, skipping"),
        **dict.fromkeys(AFTER_INIT, "Running stage"),
    }


def test_going_back_restores_everything_and_trains_nothing(story: Story) -> None:
    how = told(story.back)
    assert [stage for stage in STAGES if how[stage] == "Running stage"] == []
    assert all(how[stage].startswith(" is cached - skipping run") for stage in AFTER_INIT)
    assert story.restored == story.learned


def test_branches_are_compared_in_a_fresh_clone_without_a_cache(story: Story) -> None:
    story.project.run("git", "clone", "--quiet", ".", "../clone")
    clone = Project(story.project.root.parent / "clone")
    table = clone.run("dvc", "metrics", "diff", "--md", "origin/main", "origin/other")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    shown = {row[1]: row[2:4] for row in rows if row[:1] == ["metrics/auc.json"]}
    for n, branch in enumerate(("main", "other")):
        metrics = json.loads(clone.run("git", "show", f"origin/{branch}:metrics/auc.json"))
        for label in ("age", "occupation", "exposure"):
            found = float(shown[f"{label}.auc"][n])
            assert found == pytest.approx(metrics[label]["auc"], abs=1e-5)


def test_equal_params_give_equal_artefacts_to_the_byte(story: Story, tmp_path: Path) -> None:
    """Once stage by stage under DVC, once in one process without it; by the same versions."""
    again = make_project(tmp_path / "project")
    again.run("python", "-c", IN_ONE_PROCESS, *STAGES)
    assert again.artefacts() == story.learned
    assert again.hashes() == story.hashes


def generic(tensor: str) -> str:
    """The name of a tensor as the dictionary has it, for layers and fields in general."""
    return re.sub(r"\.\d+\b", ".N", tensor).replace("codes.user_id", "codes.FIELD")


@pytest.mark.parametrize("section", read_dictionary(), ids=lambda section: section.paths[0])
def test_every_file_is_what_the_data_dictionary_says(story: Story, section: Section) -> None:
    for path in section.paths:
        file = story.project.root / path.replace("STAGE", "train")
        if file.suffix == ".safetensors":
            tensors, config = read_model(file)
            assert {generic(name) for name in tensors} == set(section.names())
            assert set(config) == section.config
            others = {generic(n) for n, tensor in tensors.items() if tensor.dtype != torch.float32}
            assert others <= {"items", "codes.FIELD"}
        elif file.suffix == ".csv" and file.parts[-2] != "metrics":
            assert file.read_text().splitlines()[0].split(",") == section.names()
        elif file.parent.name == "run_info":
            only_at_times = {"raw", "graph", "resumed_after_epoch"}
            assert [*json.loads(file.read_text())] == [
                name for name in section.names() if name not in only_at_times
            ]
        else:
            assert file.is_file()


def test_an_experiment_is_applied_though_the_other_tables_were_never_built(story: Story) -> None:
    """DVC looks at every dvc.yaml, and gives up on a file that it knows of and never had."""
    story.project.run("dvc", "exp", "apply", "back")


@pytest.mark.parametrize("how", ["overlooked", "staged"])
def test_the_readmes_way_out_of_a_refused_value_brings_back_what_was_committed(
    tmp_path: Path, how: str
) -> None:
    """Also of what DVC wrote so soon, in as many bytes, that git takes the file for unchanged.

    And of what it had staged when it was killed.
    """
    project = Project(tmp_path / "project")
    params, lock, metrics = (project.root / name for name in ("params.yaml", "dvc.lock", "metrics"))
    metrics.mkdir(parents=True)
    shutil.copy(ROOT / "params.yaml", params)
    apply_overrides(params, [])  # the file as DVC writes it
    for file in (lock, metrics / "auc.json"):
        file.write_text("{}")
    os.utime(params, (1e9, 1e9))
    project.run("git", "init", "--quiet", "--initial-branch=main")
    for key, value in {"core.trustctime": "false", "user.name": "a", "user.email": "a@b"}.items():
        project.run("git", "config", key, value)
    project.commit("start")
    committed = params.read_bytes()
    apply_overrides(params, ["data.source=tables"])
    assert len(params.read_bytes()) == len(committed)
    if how == "overlooked":
        os.utime(params, (1e9, 1e9))
        assert project.run("git", "status", "--porcelain") == ""
    else:
        lock.write_text("{stages: {}}")
        project.run("git", "add", "--all")
    told = re.search(r"A value that is refused .*?`([^`]*git checkout.*?)`", README.read_text())
    assert told
    project.run("sh", "-c", told[1])
    assert (params.read_bytes(), lock.read_text()) == (committed, "{}")
    assert project.run("git", "status", "--porcelain") == ""
