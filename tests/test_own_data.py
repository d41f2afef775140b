"""The pipeline on a user's own tables: three lines of params, with labels or without any."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from pipeline import schemas
from pipeline.errors import PipelineError
from pipeline.params import Params, load_params
from pipeline.storage import read_table
from stages import (
    evaluate,
    extract_features,
    filter_tasks,
    graph,
    prepare,
    pretrain,
    project,
    score,
    train,
)

ROOT = Path(__file__).parents[1]


def own_params(into: Path, folder: Path, **changed: dict[str, object]) -> Params:
    """The project's params.yaml with the three lines that docs/own-data.md tells, and `changed`."""
    yaml = YAML()
    content = yaml.load(ROOT / "params.yaml")
    content["data"]["source"] = "tables"
    content["data"]["tables_dir"] = str(folder)
    content["labels"] = {}
    for section, values in changed.items():
        content[section].update(values)
    yaml.dump(content, into / "params.yaml")
    return load_params(into / "params.yaml", *Params.model_fields)


def test_without_labels_none_is_asked_for(tmp_path: Path) -> None:
    params = own_params(tmp_path, tmp_path)
    assert (params.labels, params.tasks.labels, params.evaluate.labels) == ({}, [], [])


def test_a_label_that_nobody_describes_is_still_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"tasks.labels names 'plan'; the labels are: age"):
        own_params(
            tmp_path, tmp_path, labels={"age": {"column": "age"}}, tasks={"labels": ["plan"]}
        )


def test_a_histogram_needs_its_label_and_the_other_initialisations_do_not(tmp_path: Path) -> None:
    own_params(tmp_path, tmp_path)
    text = (tmp_path / "params.yaml").read_text().replace("init: learned", "init: histogram")
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(PipelineError, match="histogram_label names 'age'; the labels are: none"):
        load_params(tmp_path / "params.yaml", "init")


STAGES = (
    prepare,
    extract_features,
    filter_tasks,
    pretrain,
    graph,
    project,
    train,
    score,
    evaluate,
)


@pytest.fixture
def project_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a copy of the example tables in the folder `mine`."""
    shutil.copytree(ROOT / "examples" / "tables", tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_all(folder: Path, **changed: dict[str, object]) -> list[str]:
    """Run every stage in `folder`, for two epochs; what each one said."""
    sections: dict[str, dict[str, object]] = {
        "features": {"max_epochs": 2},
        "tasks": {"min_exposures": 50},
        "pretrain": {"max_epochs": 2, "seed_tasks": 10},
        "ratio": {"max_epochs": 2},
        "evaluate": {"bootstrap": 100},
    }
    for name, values in changed.items():
        sections[name] = sections.get(name, {}) | values
    own_params(folder, Path("mine"), **sections)
    said = []
    for module in STAGES:
        ran = CliRunner().invoke(module.app, [])
        assert ran.exit_code == 0, ran.output
        said.append(ran.stdout)
    return said


@pytest.mark.parametrize(
    ("label", "told"),
    [
        ({"column": "contry"}, "labels.it needs the column contry of the users table"),
        ({"column": "country", "bins": [3]}, "which holds string; bins need numbers"),
        ({"column": "age", "bins": [200]}, "gives all 300 users one class, <200"),
    ],
)
def test_a_label_that_cannot_be_is_told_before_anything_is_learned(
    project_folder: Path, label: dict[str, object], told: str
) -> None:
    asked = {"tasks": {"labels": ["it"]}, "evaluate": {"labels": ["it"]}}
    own_params(project_folder, Path("mine"), labels={"it": label}, **asked)
    ran = CliRunner().invoke(prepare.app, [])
    assert ran.exit_code == 1
    assert told in ran.stderr
    assert not list(project_folder.glob("data/prepared/*"))


def test_the_pipeline_runs_without_labels_and_says_which_figures_need_them(
    project_folder: Path,
) -> None:
    said = run_all(project_folder)
    assert said[0].endswith("from the tables in mine (40 repeats counted once)\n")
    exposures = read_table(project_folder / "data/prepared/exposures.parquet", schemas.EXPOSURES)
    counts = np.bincount(exposures["item_id"].to_numpy())
    tasks = read_table(project_folder / "data/tasks.parquet", schemas.TASKS)
    assert tasks["item_id"].to_pylist() == np.flatnonzero(counts >= 50).tolist()
    line = r"AUC x 100 .+: exposure \S+ \[.+\]\. evaluate.labels is empty: .+ leak need labels\n"
    assert re.fullmatch(line, said[-1])


def test_it_runs_on_ones_own_labels_and_vectors(project_folder: Path) -> None:
    users = csv.read_csv(project_folder / "mine/users.csv")["user_id"]
    vectors = {name: np.random.default_rng(0).random(len(users)) for name in ("a", "b")}
    csv.write_csv(pa.table({"user_id": users, **vectors}), project_folder / "mine/features.csv")
    said = run_all(
        project_folder,
        features={"model": "table"},
        labels={"country": {"column": "country"}},
        tasks={"labels": ["country"]},
        evaluate={"labels": ["country"]},
    )
    assert said[1] == "x of 300 users, 2 wide: the vectors in mine\n"
    assert re.fullmatch(r"AUC x 100 .+: country .+, exposure .+\]\n", said[-1])


def test_dvc_notices_that_a_table_has_changed(tmp_path: Path) -> None:
    for name in ("pipeline", "stages", "examples"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    own_params(tmp_path, Path("examples/tables"))

    def dvc(*words: str) -> str:
        command = [sys.executable, "-m", "dvc", *words]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return ran.stdout

    dvc("init", "--no-scm", "-q")
    dvc("repro", "prepare")
    assert "up to date" in dvc("status", "prepare")
    with (tmp_path / "examples/tables/exposures.csv").open("a") as file:
        file.write("1,1,1735689600\n")
    assert "examples/tables" in dvc("status", "prepare")
