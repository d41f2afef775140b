"""Table 1 as a whole: params files, dvc.yaml, every stage in order, the table."""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from pipeline.errors import PipelineError
from pipeline.params import Init, Params
from pipeline.params_file import load_whole
from pipeline.peers.settings import Detector, PeersFile, Recommender
from pipeline.sections import Runtime
from pipeline.table1.densities import Densities, DensitiesFile, Density
from pipeline.table1.page import NAMES as FOR_PEOPLE
from pipeline.table1.page import NO_X, OWN_X, Cell, lines, page
from pipeline.table1.params import Table1Params
from pipeline.text_files import read_csv
from stages import imports
from stages.imports import import_closure
from stages.table1 import density, features, graph, peer, prepare, pretrain, ratio, table
from stages.table1.shell import Place
from tests.dvc_stages import read_stages

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "experiments" / "table1"
STAGES: Mapping[str, Any] = YAML(typ="safe").load(FOLDER / "dvc.yaml")["stages"]
MODULES = (imports, prepare, features, graph, pretrain, ratio, density, peer, table)
NAMES = ("movielens", "oneseed", "small")
LABELS = ["age", "occupation"]


def of(name: str) -> Table1Params:
    return load_whole(Table1Params, FOLDER / f"{name}.yaml")


def items(stage: Mapping[str, Any], params: Table1Params) -> Iterator[dict[str, str]]:
    """What `${item.x}` and `${table.x}` stand for in each stage of a matrix."""
    wanted = params.table
    crossed = vars(wanted) | {"once": params.once}
    matrix = {
        key: crossed[value[len("${") : -1].removeprefix("table.")]
        for key, value in stage["matrix"].items()
    }
    same = {
        "name": params.name,
        "table.fields[0]": wanted.fields[0],
        "table.preset_base": wanted.preset_base,
    }
    for values in product(*matrix.values()):
        chosen = zip(matrix, values, strict=True)
        yield same | {f"item.{key}": str(value) for key, value in chosen}


def filled(text: str, item: Mapping[str, str]) -> str:
    return re.sub(r"\$\{(.*?)\}", lambda found: item[found[1]], text)


def written_cells(params: Table1Params) -> list[str]:
    """The file of each cell that a stage of dvc.yaml writes under these params."""
    return [
        filled(out, item)
        for stage in STAGES.values()
        for out in stage["outs"]
        if "/cells/" in str(out)
        for item in items(stage, params)
    ]


def test_the_present_params_are_those_of_a_file_beside_them() -> None:
    """`none`, which has no cells, is enough for DVC to read the file."""
    present = (FOLDER / "params.yaml").read_text()
    assert present in {(FOLDER / f"{name}.yaml").read_text() for name in ("none", *NAMES)}


def test_a_params_file_says_its_name_which_its_figures_bear() -> None:
    """So that none replaces those of MovieLens, which git has and the README quotes."""
    assert [of(name).name for name in NAMES] == ["table1", "oneseed", "small"]
    assert [next(iter(out)) for out in STAGES["table"]["outs"]] == [
        f"metrics/table1/${{name}}.{kind}" for kind in ("md", "csv", "svg")
    ]


def test_movielens_has_every_row_of_the_paper_under_both_features_and_three_seeds() -> None:
    wanted = of("movielens").table
    assert {*wanted.densities, *wanted.rows} >= {
        *("gaussian", "maf", "random", "graph", "learned"),
        *("histogram-age", "histogram-occupation"),
    }
    assert (wanted.fields, wanted.seeds) == (["strict", "paper"], [0, 1, 2])


def test_wide_is_the_main_params_with_the_changes_of_the_table_s_row() -> None:
    """One preset, whether the table measures it or a user copies wide.yaml."""
    wide, main = (load_whole(Params, ROOT / f"{name}.yaml") for name in ("wide", "params"))
    row = of("movielens").cell(["wide", "users"], seed=0)
    assert (wide.init, wide.features, wide.ratio) == (row.init, row.features, row.ratio)
    same = {"init": main.init, "features": main.features, "ratio": main.ratio}
    assert wide.model_copy(update=same) == main


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("starts: [random]", "starts: [other]", "table names 'other'; the changes are"),
        ("starts: [random]", "starts: [learned]", "learned, of init learned, belongs in"),
        ("learned: [learned]", "learned: [random]", "random, of init random, belongs in"),
        ("{init: random}", "{init: any}", "the changes random, exposures, paper: init: "),
        ("densities: [gaussian", "densities: [gauss", "names 'gauss'; the densities are gauss"),
        ("detectors: [logistic_users, ecod]", "detectors: [knn]", "names 'knn'; the peers are act"),
        ("preset_base: users", "preset_base: some", "preset_base 'some' is none of the bases"),
        ("    init: mean", "    init: graph", "the preset wide has init graph; presets train wi"),
    ],
)
def test_a_wrong_param_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (FOLDER / "small.yaml").read_text()
    assert old in text
    (tmp_path / "params.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(PipelineError, match=message):
        load_whole(Table1Params, tmp_path / "params.yaml")


def test_a_preset_may_have_every_init_that_needs_no_stage_of_its_own(tmp_path: Path) -> None:
    """Which are told where it has another: all but `learned` and `graph`."""
    text = (FOLDER / "small.yaml").read_text()
    file = tmp_path / "params.yaml"
    file.write_text(text.replace("    init: mean", "    init: learned", 1))
    with pytest.raises(PipelineError, match="the preset wide has init learned") as refused:
        load_whole(Table1Params, file)
    *_, told = str(refused.value).rpartition("it must be ")
    fitting = re.split(", | or ", told.split(" (")[0])
    assert fitting == [init for init in get_args(Init) if init not in ("learned", "graph")]
    for init in fitting:
        file.write_text(text.replace("    init: mean", f"    init: {init}", 1))
        load_whole(Table1Params, file)


@pytest.mark.parametrize(
    ("stage", "options", "old", "new", "message"),
    [
        (
            peer,
            ["--peer=ease"],
            "ease: {penalty: 1000.0}",
            "ease: {penalty: -1}",
            "peer: FILE: peers.ease.penalty: Input should be greater than 0 (found -1)",
        ),
        (
            density,
            ["--model=maf"],
            "    blocks: 5",
            "    block: 5",
            "density-maf-0: FILE: densities.maf.blocks: Field required; "
            "densities.maf.block: Extra inputs are not permitted (found 5)",
        ),
    ],
)
def test_a_wrong_section_of_a_scorer_is_named_by_the_stage_that_reads_it(
    stage: ModuleType, options: list[str], old: str, new: str, message: str, tmp_path: Path
) -> None:
    text = (FOLDER / "small.yaml").read_text()
    assert text.count(old) == 1
    file = tmp_path / "params.yaml"
    file.write_text(text.replace(old, new))
    load_whole(Table1Params, file)  # which no other stage minds
    given = [f"--params={file}", f"--data={tmp_path}", "--fields=paper", "--seed=0"]
    done = CliRunner().invoke(stage.app, [*given, *options])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == message.replace("FILE", str(file)) + "\n"


@pytest.mark.parametrize("name", NAMES)
def test_a_params_file_names_scorers_that_there_are_each_with_a_right_section(name: str) -> None:
    wanted = of(name).table
    assert {*wanted.detectors, *wanted.preset_detectors} <= {*get_args(Detector)}
    assert {*wanted.recommenders} <= {*get_args(Recommender)}
    assert {*wanted.densities} <= {*get_args(Density)} == {*Densities.model_fields}
    for kind in (PeersFile, DensitiesFile):
        load_whole(kind, FOLDER / f"{name}.yaml")


@pytest.mark.parametrize(
    ("file", "stage"),
    [("pipeline/peers/settings.py", "peer"), ("pipeline/table1/densities.py", "density")],
)
def test_what_can_be_set_of_a_scorer_is_code_of_its_own_stage_alone(file: str, stage: str) -> None:
    """Else another scorer would run all of Table 1 again."""
    stages = {one.module for one in read_stages(FOLDER / "dvc.yaml")}
    holding = {module for module in stages if file in import_closure(module, ROOT)}
    assert holding == {f"stages.table1.{stage}"}


@pytest.mark.parametrize("name", ["movielens", "small"])
def test_the_table_reads_every_cell_that_a_stage_writes_and_no_other(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = of(name)
    outs = written_cells(params)
    read: list[str] = []
    monkeypatch.setattr("pipeline.text_files.read_json", lambda path: read.append(str(path)) or {})
    list(table._cells(params.table, Place(Path("experiments/table1/data"))))
    assert sorted(read) == sorted(outs)
    assert len(set(outs)) == len(outs)


def test_a_row_follows_from_its_own_settings_and_no_other_rows() -> None:
    """What a cell's matrix names, it depends on; a model of other rows, it does not."""
    for name, stage in STAGES.items():
        if name == "code":
            continue
        (declared,) = stage["params"][0].values()
        for key in stage["matrix"]:
            own, named = {
                ("density", "model"): ("densities", "model"),
                ("detector", "peer"): ("peers", "peer"),
                ("detector_preset", "peer"): ("peers", "peer"),
                ("recommender", "peer"): ("peers", "peer"),
            }.get((name, key), ("changes", key))
            assert key in ("seed", "once") or f"{own}.${{item.{named}}}" in declared, (name, key)
        models = [dep for dep in stage["deps"] if re.search("data/(pretrain|graph)/", dep)]
        assert [dep.split("/")[3] for dep in models] == {
            "ratio_learned": ["pretrain"],
            "ratio_graph": ["graph"],
        }.get(name, [])
        assert stage["wdir"] == "../.."
        assert len(stage["outs"]) == 1 or name == "table", "an output is a warning of `exp run`"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every stage of the small params ran, under the name that DVC gives it.

    So one that reads params that it does not declare fails.
    """
    folder = tmp_path_factory.mktemp("table1")
    shutil.copytree(FOLDER, folder / "experiments/table1", ignore=shutil.ignore_patterns("data"))
    file = folder / "experiments/table1/params.yaml"
    text = (FOLDER / "small.yaml").read_text()
    file.write_text(text.replace("threads: 0", "threads: 1").replace("device: auto", "device: cpu"))
    modules = {module.__name__: module for module in MODULES}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("DVC_ROOT", str(folder))
        for name, stage in STAGES.items():
            for item in items(stage, of("small")):
                patch.setenv("DVC_STAGE", f"experiments/table1/dvc.yaml:{name}@{'-'.join(item)}")
                module, *options = filled(stage["cmd"], item).removeprefix("python -m ").split()
                done = CliRunner().invoke(modules[module].app, options)
                assert done.exit_code == 0, f"{name} {options}: {done.output} {done.exception!r}"
    return folder


def test_every_stage_writes_what_dvc_yaml_says(made: Path) -> None:
    for stage in STAGES.values():
        for out, item in product(stage["outs"], items(stage, of("small"))):
            assert (made / filled(next(iter(out)) if isinstance(out, dict) else out, item)).exists()


def test_the_table_has_every_cell_as_it_was_measured(made: Path) -> None:
    records = read_csv(made / "metrics/table1/small.csv")
    cells = list((made / "experiments/table1/data/cells").iterdir())
    assert len(records) == len(cells) == len(written_cells(of("small")))
    (one,) = (
        r for r in records if (r["row"], r["base"], r["fields"]) == ("graph", "users", "paper")
    )
    found = json.loads(
        (made / "experiments/table1/data/cells/graph-users-paper-0.json").read_text()
    )
    for name in ("age", "age7", "occupation", "exposure", "exposure_valid"):
        assert float(one[name]) == found[name]["auc"]
    assert float(one["seconds"]) == found["seconds"] > 0
    text = (made / "metrics/table1/small.md").read_text()
    for row in (
        *("Gaussian", "ratio, learned, users base", "EASE", "ECOD", "random scores"),
        "logistic regressions, users base, x of wide",
    ):
        assert f"| {row} | " in text
    assert (made / "metrics/table1/small.svg").read_text().startswith("<svg")


def test_a_row_under_the_users_base_is_measured_against_that_base(made: Path) -> None:
    """The same tasks and labels: only what one who knows every label would score differs."""
    cells = made / "experiments/table1/data/cells"
    known = {
        base: json.loads((cells / f"random-{base}-paper-0.json").read_text())["age"]
        for base in ("exposures", "users")
    }
    assert known["users"]["perfect_label"] > known["exposures"]["perfect_label"]


def test_a_cell_that_was_not_measured_is_an_error_that_names_it(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "experiments/table1/data/cells", tmp_path / "data/cells")
    (tmp_path / "data/cells/maf-paper-0.json").unlink()
    options = [f"--params={FOLDER / 'small.yaml'}", f"--data={tmp_path}/data", f"--out={tmp_path}"]
    done = CliRunner().invoke(table.app, options)
    assert done.exit_code == 1
    assert "maf-paper-0.json: there is no such file" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "small.md").exists()


def cell(row: str, seed: int, auc: float, *, base: str = "", fields: str = "strict") -> Cell:
    """A made cell whose every figure follows from one."""
    label = {"auc": auc, "perfect_label": 0.9 if base == "users" else 0.8}
    measured = {
        **dict.fromkeys(LABELS, label),
        **{name: {"auc": auc / 2} for name in ("exposure", "exposure_valid")},
        "trivial": {"random": dict.fromkeys((*LABELS, "exposure"), 0.5)},
        "seconds": 10 * seed,
    }
    return Cell(row, base, fields, seed, measured)


CELLS = [
    *(cell("learned", seed, auc, base="exposures") for seed, auc in enumerate((0.7, 0.8, 0.78))),
    *(cell("learned", seed, auc, base="users") for seed, auc in enumerate((0.6, 0.6, 0.6))),
    cell("gaussian", 0, 0.5, fields="paper"),
    cell("ease", 0, 0.9, fields=NO_X),
    cell("wide", 0, 0.9, base="users", fields=OWN_X),
]


def test_every_row_has_a_name_for_people() -> None:
    tables = [of(name).table for name in NAMES]
    rows = {row for wanted in tables for row in (*wanted.rows, *wanted.presets)}
    scorers = {*get_args(Density), *get_args(Detector), *get_args(Recommender)}
    assert rows | scorers == FOR_PEOPLE.keys()


def shown(cells: list[Cell], *, own_graph: bool = False) -> list[str]:
    titles = {"strict": "Strict", "paper": "Paper"}
    text = page(cells, LABELS, source="made", titles=titles, seeds=[0, 1, 2], own_graph=own_graph)
    return text.splitlines()


def test_a_line_is_mean_and_spread_over_seeds_the_papers_and_mean_seconds() -> None:
    """Spread: standard deviation with n - 1. The paper has no users base, and no peers."""
    text = shown(CELLS)
    assert (
        "| ratio, learned, exposures base | 76.0 ± 5.3 (80.6) | 76.0 ± 5.3 (66.1) "
        "| 38.0 ± 2.6 | 38.0 ± 2.6 | 10 |"
    ) in text
    assert (
        "| ratio, learned, users base | 60.0 ± 0.0 | 60.0 ± 0.0 | 30.0 ± 0.0 | 30.0 ± 0.0 | 10 |"
    ) in text
    assert "| EASE | 90.0 | 90.0 | 45.0 | 45.0 | 0 |" in text


def test_a_line_stands_under_the_features_it_was_measured_with() -> None:
    text = shown(CELLS)
    heads = [line for line in text if line.startswith("## ")]
    assert heads[0] == "## Strict"
    under = text[text.index("## Paper") : text.index(heads[2])]
    assert [line for line in under if line.startswith("| Gaussian")] == [
        "| Gaussian | 50.0 (59.5) | 50.0 (61.5) | 25.0 | 25.0 | 0 |"
    ]


def test_a_preset_stands_apart_from_the_features_that_it_does_not_have() -> None:
    text = shown(CELLS)
    under = text[text.index("## Presets: settings of their own, x among them") :]
    assert under[4].startswith("| ratio, wide, users base | 90.0 | ")


def test_the_yardsticks_stand_below_a_line_a_base() -> None:
    assert shown(CELLS)[-3:] == [
        "| random scores | 50.0 | 50.0 | 50.0 |  |  |",
        "| knows every label, exposures base | 80.0 | 80.0 |  |  |  |",
        "| knows every label, users base | 90.0 | 90.0 |  |  |  |",
    ]


def test_a_histogram_has_the_papers_figure_under_its_own_label_alone() -> None:
    (line,) = lines([cell("histogram-age", 0, 0.7, base="exposures").record(LABELS)])
    assert (line.shown("age"), line.shown("occupation")) == ("70.0 (82.6)", "70.0")


def test_several_processes_are_refused_in_one_line(tmp_path: Path) -> None:
    text = (FOLDER / "small.yaml").read_text()
    assert text.count("\nruntime:") == 1
    file = tmp_path / "params.yaml"
    file.write_text(text.replace("\nruntime:", "\nruntime:\n  processes: 2"))
    options = [f"--params={file}", "--start=random", "--base=users", "--fields=paper", "--seed=0"]
    done = CliRunner().invoke(ratio.app, options)
    assert done.exit_code == 1
    assert "runtime.processes: 2: only stages of the main pipeline" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("stage", "options"),
    [(density, ["--model=maf"]), (ratio, ["--start=learned", "--base=users"])],
)
def test_a_cell_that_learns_prepares_its_device_before_it_reads_a_file(
    stage: ModuleType, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before torch computes anything, that is: threads take over what is set by then."""

    def stop(_: Runtime) -> None:
        raise PipelineError("prepared")

    monkeypatch.setattr("pipeline.device.prepare_device", stop)
    place = [f"--params={FOLDER / 'small.yaml'}", f"--data={tmp_path}"]
    done = CliRunner().invoke(stage.app, [*place, *options, "--fields=paper", "--seed=0"])
    assert done.stderr.endswith(": prepared\n")


def test_a_figure_that_a_cell_lacks_is_an_error_and_not_a_nought() -> None:
    lacking = cell("ease", 0, 0.5)
    with pytest.raises(KeyError, match="auc"):
        Cell("ease", "", NO_X, 0, {**lacking.measured, "exposure": {}}).record(LABELS)


def test_the_page_says_that_the_graph_is_another_than_the_papers_where_it_is() -> None:
    cells = [cell(row, 0, 0.5, base="exposures") for row in ("random", "ktup")]
    said = "The graph is one of genres and years; the paper's, a knowledge base."
    assert said in shown(cells)[2]
    assert said not in shown(cells, own_graph=True)[2]
    assert said not in shown(cells[:1])[2]
