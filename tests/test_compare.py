"""One table of many runs: its figures do not depend on the order in which they ran."""

import os
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML
from typer.testing import CliRunner

from experiments import compare as module
from experiments import movielens, runs
from experiments.compare import compare
from experiments.folder import with_raw_dir
from experiments.runs import counts_of, git, name_of
from pipeline.errors import PipelineError
from tests.projects import ROOT, run

KEYS = ["age.auc", "loss.valid", "deepfm.pair_auc"]


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs in their order; each one's figures follow from its settings alone."""
    names: list[str] = []

    def run(name: str, settings: Sequence[str]) -> dict[str, object]:
        names.append(name)
        told = dict(setting.split("=") for setting in settings)
        seed = int(told["seed"])
        auc = {"random": 0.6, "mean": 0.7}[told["init"]] + 0.1 * seed
        found = {"age": {"auc": auc}, "loss": {"valid": 1.25 + seed}}
        return found | ({"deepfm": {"pair_auc": 0.9}} if told["init"] == "mean" else {})

    monkeypatch.setattr(module, "run_experiment", run)
    monkeypatch.setattr(runs, "_uncommitted", lambda: "")
    return names


def rows(inits: list[str], seeds: list[str]) -> dict[str, str]:
    table = compare([[f"init={init}" for init in inits]], ["ratio.base=users"], seeds, KEYS)
    return {line.split(" | ")[0]: line for line in table.splitlines()[2:]}


def test_runs_in_any_order_give_the_same_figures(ran: list[str]) -> None:
    found = rows(["random", "mean"], ["0", "1", "2"])
    assert found == {
        "| init=random": "| init=random | 70.00 ± 10.00 | 2.2500 ± 1.0000 | - |",
        "| init=mean": "| init=mean | 80.00 ± 10.00 | 2.2500 ± 1.0000 | 90.00 ± 0.00 |",
    }
    forward = list(ran)
    assert rows(["mean", "random"], ["2", "0", "1"]) == found
    assert sorted(ran[len(forward) :]) == sorted(forward)
    assert forward[0] == "ratio-base-users-init-random-seed-0"


def test_one_seed_has_no_spread(ran: list[str]) -> None:
    assert rows(["mean"], ["0"])["| init=mean"] == "| init=mean | 70.00 | 1.2500 | 90.00 |"


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("age.ci95_low", "50.00"),
        ("trivial.random.age", "50.00"),
        ("leak.age", "50.00"),
        ("exposure.tasks", "0.5000"),
        ("truth.rmse", "0.5000"),
        ("calibration.visible.slope", "0.5000"),
        ("calibration.visible.ci95_low", "0.5000"),
    ],
)
def test_aucs_alone_are_shown_hundredfold(
    ran: list[str], monkeypatch: pytest.MonkeyPatch, key: str, shown: str
) -> None:
    monkeypatch.setattr(module, "figure", lambda *_: 0.5)
    assert compare([["init=mean"]], [], ["0"], [key]).endswith(f"| init=mean | {shown} |")


def test_a_figure_that_no_run_has_is_refused(ran: list[str]) -> None:
    with pytest.raises(PipelineError, match=r"no run has age\.auk in metrics/auc\.json"):
        compare([["init=mean"]], [], ["0"], ["age.auc", "age.auk"])


def test_tables_that_an_experiment_would_not_see_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DVC's copy of the workspace holds what git tracks, and what an absolute path names."""
    project, own = tmp_path / "project", tmp_path / "mine"
    monkeypatch.setattr(runs, "_dvc", lambda *_: "")
    monkeypatch.setattr(runs, "read_from", lambda *_: "{}")
    for folder in (project / "mine", own):
        folder.mkdir(parents=True)
        (folder / "exposures.csv").write_text("user_id,item_id\n1,2\n")
    monkeypatch.chdir(project)
    Path("params.yaml").write_text("data: {source: tables, tables_dir: mine}\n")
    subprocess.run(["git", "init", "-q"], check=True)
    for there in ("mine", "../mine"):
        with pytest.raises(PipelineError, match=rf"{there}: git does not track .* {own.parent}"):
            runs.run_experiment("one", [f"data.tables_dir={there}"])
    runs.run_experiment("one", [f"data.tables_dir={own}"])
    subprocess.run(["git", "add", "mine"], check=True)
    runs.run_experiment("one", [])


def test_what_is_not_committed_has_a_name_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a run of before the change would be taken for one of after it."""
    monkeypatch.chdir(tmp_path)
    params = tmp_path / "params.yaml"
    params.write_text("seed: 0\n")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "All"]):
        subprocess.run(["git", *command], check=True)
    committed = name_of(["init=random", "seed=0"])
    assert committed == "init-random-seed-0"
    (tmp_path / "notes.txt").write_text("nothing that decides")
    assert name_of(["init=random", "seed=0"]) == committed
    names = {committed}
    for text in ("seed: 1\n", "seed: 2\n"):
        params.write_text(text)
        names.add(name_of(["init=random", "seed=0"]))
    assert len(names) == 3


def test_params_that_dvc_has_laid_out_anew_are_those_that_are_committed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a value that git overlooks, as it may after DVC has written the file, is none of them."""
    monkeypatch.chdir(tmp_path)
    params = tmp_path / "params.yaml"

    def commit() -> None:
        os.utime(params, (1e9, 1e9))
        run(tmp_path, "git", "add", "params.yaml")
        run(tmp_path, "git", "commit", "--quiet", "--message", "Params")

    run(tmp_path, "git", "init", "--quiet")
    run(tmp_path, "git", "config", "core.trustctime", "false")
    params.write_bytes((ROOT / "params.yaml").read_bytes())
    commit()
    apply_overrides(params, [])
    assert params.read_bytes() != (ROOT / "params.yaml").read_bytes()
    assert name_of(["init=random"]) == "init-random"
    commit()
    apply_overrides(params, ["seed=1"])
    os.utime(params, (1e9, 1e9))
    assert git("diff", "HEAD") == ""
    assert name_of(["init=random"]) != "init-random"


def test_so_have_other_tables_of_one_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "_uncommitted", lambda: "")
    table, ratings = tmp_path / "tables/exposures.csv", tmp_path / "tables/ratings.dat"
    table.parent.mkdir()
    (tmp_path / "params.yaml").write_text("data: {source: simulated, tables_dir: tables}\n")
    names = set()
    for rows in ("1,1\n", "1,2\n"):
        table.write_text(f"user_id,item_id\n{rows}")
        ratings.write_text(rows)
        assert name_of(["init=random"]) == "init-random"
        names.add(name_of(["data.source=tables"]))
        names.add(name_of(["init=graph", f"graph.triples={table}"]))
        names.add(name_of(["data.source=movielens-1m", "data.raw_dir=tables"], "movielens"))
        names.add(name_of(["data.source=another", "data.raw_dir=tables"]))
    assert len(names) == 8
    assert runs.own_data(["data.source=tables", "data.tables_dir=null"]) == []


NAMES = [
    "ml-1m (1)",
    "a b",
    "a,b",
    "it's",
    'so "called"',
    "a=b",
    "a#b",
    "[1]",
    "{x}",
    "x: y",
    "~",
    "ü",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_of_any_ordinary_name_is_the_one_that_is_read(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By DVC's `-S`, by a params file, and by what names a run after the files it reads."""
    monkeypatch.chdir(tmp_path)
    raw, params = tmp_path / name, Path("params.yaml")
    raw.mkdir()
    text = "data:\n  source: movielens-1m\n  raw_dir: null\n"
    params.write_text(text)
    settings: list[str] = []
    monkeypatch.setattr(movielens, "name_of", lambda given, _: settings.extend(given))
    monkeypatch.setattr(movielens, "run_experiment", refused)
    ran = CliRunner().invoke(movielens.app, ["--raw-dir", name])
    assert ran.stderr == "movielens: enough\n"
    assert runs.own_data(settings) == [raw]
    apply_overrides(params, settings)
    assert YAML(typ="safe").load(params)["data"]["raw_dir"] == str(raw)
    assert YAML(typ="safe").load(with_raw_dir(text, raw))["data"]["raw_dir"] == str(raw)
    given = ["make", "-n", "-C", str(ROOT), f"RAW={name}"]
    for target in ("movielens", "seeds", "images", "table1"):
        told = subprocess.run([*given, target], check=True, capture_output=True, text=True).stdout
        command = next(line for line in told.splitlines() if "--raw-dir" in line)
        assert shlex.split(command)[-2:] == ["--raw-dir", name]


def refused(*_: object) -> None:
    raise PipelineError("enough")


def test_numbers_of_an_option_are_whole_and_above_0() -> None:
    assert counts_of("5, 10") == [5, 10]
    for wrong in ("10,", "a", "0", "-1", "1.5", ""):
        with pytest.raises(PipelineError, match=f"--counts {re.escape(wrong)}: expected whole"):
            counts_of(wrong)


def test_a_command_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(PipelineError, match="git: there is no such command here; first"):
        git("status")


def test_an_experiment_is_read_in_a_folder_of_a_larger_repository_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "sub"
    (project / "metrics").mkdir(parents=True)
    (project / "metrics/auc.json").write_text("{}\n")
    run(tmp_path, "git", "init", "--quiet", "--initial-branch", "main")
    run(project, "dvc", "init", "--subdir", "--quiet")
    run(tmp_path, "git", "add", "--all")
    identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.com")
    run(tmp_path, "git", *identity, "commit", "--quiet", "--message", "Begin")
    monkeypatch.chdir(project)
    assert runs.read_from("main", "metrics/auc.json") == "{}\n"
    with pytest.raises(PipelineError, match=r"^metrics/none of the experiment main: cannot be"):
        runs.read_from("main", "metrics/none")


def test_where_dvc_cannot_run_experiments_it_is_said_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "Übung"
    project.mkdir()
    (project / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(project)
    monkeypatch.setattr(runs, "_dvc", lambda *arguments: (arguments[1] == "run" and 1 / 0) or "")
    with pytest.raises(PipelineError, match="Übung: DVC runs no experiments where a path has"):
        runs.run_experiment("one", [])
