"""dvc.yaml tells the truth: the code, params and files of every stage, all of them and no more."""

import importlib
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from pipeline import params
from pipeline.errors import PipelineError
from pipeline.files import sha256
from pipeline.params_file import declared_params
from pipeline.sections import Runtime
from pipeline.text_files import read_json
from stages import imports
from stages.imports import ROOMS, import_closure, module_file
from tests.dvc_stages import Stage, read_stages
from tests.projects import run

ROOT = Path(__file__).parents[1]
DOWNLOADS = "data/raw"  # ignored by git and DVC: a deleted output never downloads again


MAIN = list(read_stages(ROOT / "dvc.yaml"))
OTHERS = [s for file in sorted(ROOT.glob("experiments/*/dvc.yaml")) for s in read_stages(file)]
main_stages = pytest.mark.parametrize("stage", MAIN, ids=lambda s: s.name)
all_stages = pytest.mark.parametrize("stage", MAIN + OTHERS, ids=lambda s: s.name)


def command_of(stage: Stage) -> typer.core.TyperCommand:
    app = importlib.import_module(stage.module).app
    command = typer.main.get_command(app)
    assert isinstance(command, typer.core.TyperCommand)
    return command


def code_gaps(stage: Stage, root: Path) -> dict[str, set[str]]:
    """Which code the stage needs and does not declare, and which it declares without need."""
    needed = import_closure(stage.module, root)
    return {"missing": needed - stage.code, "stale": stage.code - needed}


def test_the_stages_are_there_each_named_as_its_module() -> None:
    assert [stage.name for stage in MAIN] == [
        "prepare",
        "extract_features",
        "filter_tasks",
        "pretrain",
        "graph",
        "project",
        "train",
        "score",
        "evaluate",
        "report",
    ]
    assert [stage.module for stage in MAIN] == [f"stages.{stage.name}" for stage in MAIN]


@all_stages
def test_a_stage_exists_and_says_what_it_does(stage: Stage) -> None:
    assert module_file(stage.module, ROOT), f"dvc.yaml runs {stage.module}, which is not there"
    assert stage.desc.endswith(".")


@main_stages
def test_a_stage_declares_the_code_it_imports_and_no_other(stage: Stage) -> None:
    assert code_gaps(stage, ROOT) == {"missing": set(), "stale": set()}


def test_dvc_has_no_stage_of_an_experiment_before_it_is_asked_for(tmp_path: Path) -> None:
    """`dvc status` would call them changed, `dvc exp save` miss what they never wrote."""
    run(tmp_path, "dvc", "init", "--no-scm", "--quiet")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    for file in ROOT.glob("experiments/*/dvc.yaml"):
        place = tmp_path / file.parent.relative_to(ROOT)
        place.mkdir(parents=True)
        shutil.copy(file, place)
        shutil.copy(file.parent / "none.yaml", place / "params.yaml")
    listed = run(tmp_path, "dvc", "stage", "list", "--all", "--name-only").split()
    assert listed == [stage.name for stage in MAIN]


@pytest.mark.parametrize("folder", ["images", "table1"])
def test_of_an_experiment_each_depends_on_the_note_of_its_code(folder: str) -> None:
    place = f"experiments/{folder}/data/code"
    code, *stages = read_stages(ROOT / f"experiments/{folder}/dvc.yaml")
    assert (code.name, code.deps, code.outs) == ("code", {"pipeline", "stages"}, {place})
    for stage in stages:
        assert stage.module.startswith(f"stages.{folder}.")
        code = [dep for dep in stage.deps if dep.startswith((place, "pipeline", "stages"))]
        assert code == [f"{place}/{stage.module.split('.')[-1]}.json"]


def test_the_note_of_a_stage_s_code_follows_from_what_it_imports(tmp_path: Path) -> None:
    ran = CliRunner().invoke(imports.app, ["stages.images", str(tmp_path)])
    assert ran.exit_code == 0, ran.output
    for stage in ("prepare", "train"):
        noted = read_json(tmp_path / f"{stage}.json")
        assert set(noted) == import_closure(f"stages.images.{stage}", ROOT)
        assert noted[f"stages/images/{stage}.py"] == sha256(ROOT / f"stages/images/{stage}.py")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The code of the repository, to be spoilt."""
    for room in ROOMS:
        shutil.copytree(ROOT / room, tmp_path / room, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


SCORE = next(stage for stage in MAIN if stage.name == "score")


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("stages/score.py", "def late():\n    from pipeline.tasks import select_tasks\n"),
        ("stages/score.py", "import pipeline.tasks\n"),
        ("pipeline/scoring.py", "from pipeline import tasks\n"),
        ("pipeline/models/__init__.py", "from pipeline.tasks import select_tasks\n"),
    ],
)
def test_an_import_that_dvc_yaml_lacks_is_found(copy: Path, file: str, code: str) -> None:
    assert not any(code_gaps(SCORE, copy).values())
    with (copy / file).open("a") as text:
        text.write(code)
    gaps = code_gaps(SCORE, copy)
    assert {"pipeline/tasks.py", "pipeline/labels.py"} <= gaps["missing"]  # tasks imports labels
    assert not gaps["stale"]


def test_a_file_that_a_package_reads_is_found_too(copy: Path) -> None:
    (copy / "pipeline/models/weights.json").touch()
    assert code_gaps(SCORE, copy)["missing"] == {"pipeline/models/weights.json"}


def test_a_dependency_that_nothing_imports_is_found(copy: Path) -> None:
    file = copy / "stages/score.py"
    file.write_text(file.read_text().replace("from pipeline.score_matrix import", "from x import"))
    assert code_gaps(SCORE, copy) == {"missing": set(), "stale": {"pipeline/score_matrix.py"}}


def test_an_import_for_type_checkers_alone_is_none(copy: Path) -> None:
    with (copy / "stages/score.py").open("a") as text:
        text.write("if TYPE_CHECKING:\n    from pipeline.tasks import select_tasks\n")
    assert not any(code_gaps(SCORE, copy).values())


def keys_read(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The params keys that the stage asks for when it is run."""
    asked: set[str] = set()

    def note(_: Path, *keys: str) -> None:
        asked.update(keys)
        raise PipelineError("stopped")

    monkeypatch.setattr(params, "load_params", note)
    ran = CliRunner().invoke(importlib.import_module(stage.module).app, [])
    assert (ran.exit_code, ran.stderr) == (1, f"{stage.name}: stopped\n")
    return asked


@main_stages
def test_a_stage_declares_the_params_it_reads_and_no_other(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert keys_read(stage, monkeypatch) == declared_params(ROOT / "dvc.yaml", stage.name)


@pytest.mark.parametrize(
    "stage",
    [stage for stage in MAIN if declared_params(ROOT / "dvc.yaml", stage.name)],
    ids=lambda stage: stage.name,
)
def test_a_param_that_is_not_declared_ends_the_stage_in_one_line(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As if the stage's `params:` were missing from dvc.yaml."""
    keys = declared_params(ROOT / "dvc.yaml", stage.name)
    (tmp_path / "dvc.yaml").write_text(f"stages: {{{stage.name}: {{desc: All but params.}}}}")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    monkeypatch.setenv("DVC_STAGE", stage.name)
    monkeypatch.chdir(tmp_path)
    app = importlib.import_module(stage.module).app
    ran = CliRunner().invoke(app, [f"--params={ROOT / 'params.yaml'}"])
    assert (ran.exit_code, ran.stdout, ran.stderr.count("\n")) == (1, "", 1)
    assert ran.stderr.startswith(f"{stage.name}: dvc.yaml: stage {stage.name} reads ")
    assert all(key in ran.stderr for key in keys)
    assert [path.name for path in tmp_path.iterdir()] == ["dvc.yaml"]


def test_runtime_is_declared_by_no_stage_and_holds_nothing_that_moves_a_result() -> None:
    """What joins this list must not change a result beyond the last bits."""
    fields = {"device", "threads", "deterministic", "processes", "deal_out"}
    fields |= {"checkpoint_seconds", "engine", "spark_master", "partitions"}
    assert set(Runtime.model_fields) == fields
    for file in (ROOT / "dvc.yaml", *ROOT.glob("experiments/*/dvc.yaml")):
        for stage in read_stages(file):
            declared = declared_params(file, stage.name)
            assert not [key for key in declared if key.split(".")[0] == "runtime"]


@main_stages
def test_a_stages_options_default_to_the_files_that_dvc_yaml_names(stage: Stage) -> None:
    defaults: dict[str, set[str]] = {"Reads": set(), "Writes": set()}
    for option in command_of(stage).params:
        verb = re.match("Reads|Writes", option.help or "")
        if (option.help or "").startswith("By hand"):
            continue  # what DVC does not run
        if isinstance(option.default, Path) and option.name not in ("params", "run_info"):
            assert verb, f"--{option.name}: its help begins with neither Reads nor Writes"
            defaults[verb[0]].add(option.default.as_posix())
    assert defaults["Reads"] - {DOWNLOADS} == stage.artefacts
    assert defaults["Writes"] == stage.outs


def test_every_artefact_that_is_read_is_written_by_an_earlier_stage() -> None:
    written: set[str] = set()
    for stage in MAIN:
        assert stage.artefacts <= written, stage.name
        assert not stage.outs & written, f"{stage.name} writes what an earlier stage wrote"
        written |= stage.outs


def test_only_evaluate_writes_what_git_tracks() -> None:
    """Small text, so that branches compare without a cache; all else is DVC's."""
    assert [stage.name for stage in MAIN if not stage.cached] == ["evaluate"]


def help_seconds(stage: Stage) -> float:
    """CPU seconds of `--help`, which do not count what else the machine is at."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", stage.module, "--help"]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


@main_stages
def test_help_takes_under_half_a_second(stage: Stage) -> None:
    assert any(help_seconds(stage) < 0.5 for _ in range(3))


@main_stages
def test_help_names_what_a_stage_reads_and_writes(stage: Stage) -> None:
    told = CliRunner().invoke(importlib.import_module(stage.module).app, ["--help"])
    assert "Reads" in told.stdout
    assert "Writes: " in told.stdout
    assert all(path in told.stdout for path in stage.artefacts | stage.outs)
