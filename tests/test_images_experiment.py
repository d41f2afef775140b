"""The image experiments as a whole: params files, dvc.yaml, every stage in order, tables."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from ruamel.yaml import YAML
from typer.main import get_command
from typer.testing import CliRunner

from experiments.folder import with_raw_dir
from pipeline.arrays import Singles
from pipeline.auc import Sides
from pipeline.errors import PipelineError
from pipeline.images.params import ON_FEATURES, CellSchedule, ImageParams
from pipeline.images.ratio import image_values
from pipeline.images.similarity import agreement, overlap
from pipeline.images.tables import Measured, Results, by_k, gain, generalisation
from pipeline.images.tasks import category_sides, choices
from pipeline.models.ratio import PreEmbeddingNet
from pipeline.params_file import load_sections
from pipeline.sections import Runtime
from pipeline.text_files import read_csv
from pipeline.training import checkpoint as checkpoint_module
from pipeline.training.history import Row
from stages.images import (
    evaluate,
    features,
    generalise,
    on_features,
    prepare,
    pretrain,
    project,
    separate,
    similarity,
    tables,
    tasks,
    train,
)
from stages.imports import import_closure
from stages.progress import EpochReporter
from tests.dvc_stages import read_stages
from tests.made_images import write_cifar10, write_mnist

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "experiments" / "images"
NAMES = ("smoke", "small", "half-hour", "full")


@pytest.mark.parametrize("name", NAMES)
def test_a_params_file_is_valid_and_says_its_name(name: str) -> None:
    params = load_sections(ImageParams, FOLDER / f"{name}.yaml", "name", "seeds", "cells", "inits")
    assert params.name == name
    if name != "smoke":
        assert [(cell.dataset, cell.k) for cell in params.cells] == [
            *(("cifar10", k) for k in range(1, 6)),
            *(("mnist", k) for k in (4, 5)),
        ]
        assert len(params.seeds) == 3
        assert set(params.inits) >= {"label", "pseudo", "random", "learned-10", "learned-64"}


def test_the_present_params_are_those_of_a_file_beside_them() -> None:
    """`none` has no stages."""
    present = (FOLDER / "params.yaml").read_text()
    assert present in {(FOLDER / f"{name}.yaml").read_text() for name in ("none", *NAMES)}


def test_full_has_the_sizes_of_the_paper() -> None:
    sections = ("network", "data", "simclr", "separate")
    params = load_sections(ImageParams, FOLDER / "full.yaml", *sections)
    assert (params.network.width, params.network.head, params.simclr.width) == (64, 256, 64)
    assert (params.data.train_images, params.data.valid_images) == (None, 5_000)
    assert params.separate.tasks is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  - random\n", "  - other\n", "inits.2"),
        ("seed_tasks: [10, 64]", "seed_tasks: [10]", "inits name learned-64"),
        ("  - learned-10\n  - learned-64\n  - learned-64-frozen\n", "", "one learned-M0 is needed"),
        (
            "datasets: [cifar10, mnist]",
            "datasets: [cifar10]",
            "list both cifar10 and mnist under `datasets`, and give each at least one cell",
        ),
        ("train_k: 5 ", "train_k: 1 ", "unseen needs two k > 1"),
        ("  - {dataset: cifar10, k: 1, epochs: 3}\n", "", "cells of cifar10 name .2, 3, 4, 5."),
    ],
)
def test_a_wrong_param_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (FOLDER / "small.yaml").read_text()
    assert text.count(old) == 1
    (tmp_path / "params.yaml").write_text(text.replace(old, new))
    with pytest.raises(PipelineError, match=message):
        load_sections(ImageParams, tmp_path / "params.yaml", "seeds")


def test_a_raw_folder_replaces_the_line_of_the_params_file(tmp_path: Path) -> None:
    text = (FOLDER / "small.yaml").read_text()
    assert with_raw_dir(text, None) == text
    changed = YAML(typ="safe").load(with_raw_dir(text, tmp_path))
    assert changed["data"]["raw_dir"] == str(tmp_path)
    with pytest.raises(PipelineError, match="is no folder"):
        with_raw_dir(text, tmp_path / "none")


def test_every_module_is_a_stage() -> None:
    stages = YAML(typ="safe").load(FOLDER / "dvc.yaml")["stages"]
    modules = {path.stem for path in (ROOT / "stages" / "images").glob("*.py")}
    assert set(stages) - {"code"} == modules - {"__init__", "folder", "shell"}
    assert all(stage["wdir"] == "../.." for stage in stages.values())


def test_no_stage_depends_on_the_params_of_the_main_pipeline() -> None:
    """Else another start or source there would run all of the images again."""
    for stage in read_stages(FOLDER / "dvc.yaml"):
        assert "pipeline/params.py" not in import_closure(stage.module, ROOT), stage.name


def test_both_halves_of_table_2_know_the_same_methods_on_features() -> None:
    stage = YAML(typ="safe").load(FOLDER / "dvc.yaml")["stages"]["on_features"]
    assert tuple(stage["matrix"]["method"]) == ON_FEATURES


@pytest.mark.parametrize("package", ["images", "table1"])
def test_help_waits_for_no_library_of_numbers(package: str) -> None:
    """Else it would take seconds: what a stage computes with, it imports once it runs."""
    files = (ROOT / "stages" / package).glob("*.py")
    modules = ", ".join(sorted(f"stages.{package}.{file.stem}" for file in files))
    code = f"import sys, {modules}\nprint({{'torch', 'numpy', 'pyarrow'}} & {{*sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


PARAMS = """
name: tiny
once: [all]
datasets: [cifar10, mnist]
cells: [{dataset: cifar10, k: 1, epochs: 1}, {dataset: cifar10, k: 2, epochs: 1},
        {dataset: cifar10, k: 3, epochs: 1}, {dataset: mnist, k: 1, epochs: 1}]
inits: [label, pseudo, random, learned-20, learned-20-frozen]
seed_tasks: [20]
seeds: [0]
data: {raw_dir: RAW, train_images: 150, valid_images: 50, test_images: 40, split_seed: 0,
       task_seed: 0}
network: {width: 2, head: 4}
pretrain: {lr: 0.01, decay: none, batch_size: 64, patience: 1}
projection: {random_dim: 3, standardise: true}
ratio: {lr: 0.01, decay: cosine, batch_size: 64, patience: 1}
simclr: {width: 2, temperature: 0.5, lr: 0.01, decay: none, batch_size: 50, max_epochs: 1,
         patience: 1}
separate:
  ks: [1]
  methods: [gaussian, maf, ratio-features, svdd, csi, ratio]
  tasks: 2
  draws: 8
  ratio: {lr: 0.01, batch_size: 8, max_epochs: 1, patience: 1}
  features: {hidden: [4], lr: 0.01, batch_size: 8, max_epochs: 1, patience: 1}
  maf: {hidden: 8, weight_decay: 0, lr: 0.01, batch_size: 8, max_epochs: 1, patience: 1}
  svdd: {width: 2, autoencoder_epochs: 1, weight_decay: 0, lr: 0.01, batch_size: 8, max_epochs: 1,
         patience: 1}
  csi: {width: 2, temperature: 0.5, lr: 0.01, batch_size: 8, max_epochs: 1, patience: 1}
on_features:
  ratio: {hidden: [4], dropout: [0], lr: 0.01, batch_size: 64, max_epochs: 1, patience: 1}
  gaussian: {weight_decay: 0, lr: 0.01, batch_size: 64, max_epochs: 1, patience: 1}
  maf: {hidden: 8, weight_decay: 0, lr: 0.01, batch_size: 64, max_epochs: 1, patience: 1}
unseen: {dataset: cifar10, train_k: 2, test_k: 3, epochs: 1, coordinates: [45, 10]}
runtime: {device: cpu, threads: 1, checkpoint_seconds: 30}
"""

STAGES = (
    *(prepare, features, tasks, pretrain, project, train, evaluate),
    *(generalise, similarity, separate, on_features, tables),
)
SEED = ("--seed", "0")
EPOCHS = ("--epochs", "1")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every stage ran, in order, on drawn images."""
    folder = tmp_path_factory.mktemp("images")
    write_cifar10(folder / "raw", train=250, test=60)
    write_mnist(folder / "raw", train=250, test=60)
    (folder / "params.yaml").write_text(PARAMS.replace("RAW", str(folder / "raw")))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for dataset, ks in (("cifar10", (1, 2, 3)), ("mnist", (1,))):
            of_dataset = ["--dataset", dataset]
            run(prepare, *of_dataset)
            run(features, *of_dataset)
            for k in ks:
                of_k = [*of_dataset, "--k", f"{k}"]
                run(tasks, *of_k)
                run(pretrain, *of_k, *SEED, *EPOCHS, "--seed-tasks", "20")
                run(project, *of_k, *SEED)
                for init in ("label", "pseudo", "random", "learned-20", "learned-20-frozen"):
                    run(train, *of_k, *SEED, *EPOCHS, "--init", init)
                run(evaluate, *of_k, *SEED)
        run(generalise, "--dataset", "cifar10", *SEED)
        run(similarity, "--dataset", "cifar10", *SEED)
        of_k = ["--dataset", "cifar10", "--k", "1", *SEED]
        for method in ("gaussian", "maf", "ratio-features", "svdd", "csi", "ratio"):
            run(separate, *of_k, "--method", method)
        for method in ("gaussian", "maf", "ratio-features"):
            run(on_features, *of_k, "--method", method)
        run(tables)
    return folder


def run(stage: ModuleType, *options: str) -> None:
    done = CliRunner().invoke(stage.app, ["--params", "params.yaml", *options])
    assert done.exit_code == 0, f"{stage.__name__} {options}: {done.output} {done.exception!r}"


def test_every_stage_runs_and_the_tables_hold_every_row(made: Path) -> None:
    text = (made / "metrics/images/tiny.md").read_text()
    for row in ("label *", "pseudo-label", "random", "Gaussian †", "LRatio †", "Deep SVDD", "CSI"):
        assert f"| {row} | " in text
    assert "Params file: `tiny`, seeds 0" in text
    assert "At most 1 (k = 1), 1 (k = 2), 1 (k = 3) epochs." in text
    assert "stages" in text.splitlines()[-1]
    assert (made / "metrics/images/tiny-figure3.svg").read_text().startswith("<svg")


def test_every_stage_writes_what_dvc_yaml_says_and_nothing_beside_it(made: Path) -> None:
    data = made / "experiments/images/data"
    outs = [out for stage in read_stages(FOLDER / "dvc.yaml") for out in stage.outs]
    written: set[Path] = set()
    for out in outs:
        found = set(made.glob(re.sub(r"\$\{.*?\}", "*", out)))
        assert found or out.endswith("/code"), out
        written |= found
    files = {file for file in data.rglob("*") if file.is_file()} - {*(data / "run_info").iterdir()}
    assert not [file for file in files if not written & {file, *file.parents}]


def test_the_tables_know_the_name_of_every_stage_that_ran(made: Path) -> None:
    params = load_sections(
        *(ImageParams, made / "params.yaml"),
        *("cells", "inits", "seed_tasks", "seeds", "datasets", "unseen", "separate"),
    )
    ran = [file.stem for file in (made / "experiments/images/data/run_info").iterdir()]
    assert sorted(tables._stages(params)) == sorted({*ran} - {"tables"})


@contextmanager
def without(file: Path) -> Iterator[None]:
    """The file is away, for a while."""
    text = file.read_text()
    file.unlink()
    yield
    file.write_text(text)


def test_what_other_params_left_behind_is_in_no_table(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A seed, a k, an initialisation and a stage that were measured once and are not wanted now."""
    monkeypatch.chdir(made)
    before = (made / "metrics/images/tiny.md").read_text()
    data = made / "experiments/images/data"
    left = [data / "cifar10/seed1/k2/auc.csv", data / "cifar10/seed0/k5/auc.csv"]
    for path, place in zip(left, ("seed0/k2", "seed0/k3"), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        text = (data / "cifar10" / place / "auc.csv").read_text()
        path.write_text(text.replace(",0,", ",1,"))
    info = data / "run_info/train-cifar10-k2-random-1.json"
    info.write_text((data / "run_info/train-cifar10-k2-random-0.json").read_text())
    run(tables)
    for path in (*left, info):
        path.unlink()
    assert (made / "metrics/images/tiny.md").read_text() == before


def test_a_stage_that_dvc_restored_left_no_facts_and_is_counted(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    page = made / "metrics/images/tiny.md"
    before = page.read_text()
    with without(made / "experiments/images/data/run_info/tasks-cifar10-k2.json"):
        run(tables)
    last = page.read_text().splitlines()[-1]
    page.write_text(before)
    assert re.search(r"^\d+ stages and 1 that DVC restored, [\d,]+ s in all, on ", last)


def test_facts_of_other_outputs_than_those_at_hand_are_not_counted(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another params file's stage of that name ran in between; DVC restored this one's outputs."""
    monkeypatch.chdir(made)
    page, info = (
        made / "metrics/images/tiny.md",
        made / "experiments/images/data/run_info/tasks-cifar10-k2.json",
    )
    before, facts = page.read_text(), json.loads(info.read_text())
    other = {name: "0" * 64 for name in facts["outputs"]}
    with without(info):
        info.write_text(json.dumps(facts | {"outputs": other, "seconds": 12_345}))
        run(tables)
    last = page.read_text().splitlines()[-1]
    page.write_text(before)
    assert " stages and 1 that DVC restored" in last
    assert "12,345" not in last


def test_a_table_s_cell_that_was_not_measured_is_named(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made)
    with without(made / "experiments/images/data/cifar10/on_features/k1/maf-0.csv"):
        done = CliRunner().invoke(tables.app, ["--params", "params.yaml"])
    assert done.exit_code == 1
    assert "on_features/k1/maf-0.csv: there is no such file" in done.stderr


def test_a_task_without_a_nominal_test_image_is_in_no_mean(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_the_first(active: np.ndarray, category: np.ndarray) -> Sides:
        sides = category_sides(active, category)
        sides.positive[:empty] = False
        return sides

    monkeypatch.chdir(made)
    monkeypatch.setattr("pipeline.images.tasks.category_sides", without_the_first)
    file = made / "experiments/images/data/cifar10/separate/k1/gaussian-0.csv"
    before = read_csv(file)
    options = ["--dataset", "cifar10", "--k", "1", *SEED, "--method", "gaussian"]
    with without(file):
        empty = 1
        done = CliRunner().invoke(separate.app, ["--params", "params.yaml", *options])
        assert read_csv(file) == before[1:]
        file.unlink()
        empty = 2
        refused = CliRunner().invoke(separate.app, ["--params", "params.yaml", *options])
        assert not file.exists()
    assert "none of 2 tasks has test images both of its categories and" in refused.stderr
    assert done.stdout.endswith(f"mean AUC {float(before[1]['auc']):.4f} of 1 tasks\n")


@pytest.mark.parametrize("method", ["maf", "ratio-features"])
def test_the_watched_auc_of_methods_on_features_is_a_number(
    made: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    rows: list[Row] = []
    monkeypatch.chdir(made)
    monkeypatch.setattr(EpochReporter, "__call__", lambda self, row: rows.append(row))
    run(on_features, "--dataset", "cifar10", "--k", "1", *SEED, "--method", method)
    assert all(0 < row["valid_auc"] < 1 for row in rows)
    assert rows


def test_a_frozen_e_is_where_it_started(made: Path) -> None:
    runs = made / "experiments/images/data/cifar10/seed0/k2"
    start = (runs / "start/learned-20.parquet").read_bytes()
    assert (runs / "ratio/learned-20-frozen/task_embeddings.parquet").read_bytes() == start
    assert (runs / "ratio/learned-20/task_embeddings.parquet").read_bytes() != start


def test_images_go_once_through_a_pre_embedding_however_many_start_from_it(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """learned-20 and learned-20-frozen start alike."""
    monkeypatch.chdir(made)
    shutil.copytree(made / "experiments/images/data", tmp_path / "data")
    data = ("--data", f"{tmp_path}/data")
    passes: list[int] = []

    def counted(net: PreEmbeddingNet, x: Singles) -> Singles:
        passes.append(len(x))
        return image_values(net, x)

    monkeypatch.setattr("pipeline.images.ratio.image_values", counted)
    run(project, "--dataset", "cifar10", "--k", "2", *SEED, *data)
    assert len(passes) == 1
    run(generalise, "--dataset", "cifar10", *SEED, *data)
    assert len(passes) == 1 + 2  # the networks learned of k = 2 and 3


def test_another_number_of_epochs_has_a_checkpoint_of_its_own(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They say how the learning rate falls, so one may not go on where the other stopped."""

    def interrupted(self: EpochReporter, row: Row) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.chdir(made)
    monkeypatch.setattr(checkpoint_module, "LEAST_WORK", 0)
    monkeypatch.setattr(EpochReporter, "__call__", interrupted)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    often = (made / "params.yaml").read_text().replace("seconds: 30", "seconds: 0.001")
    (made / "often.yaml").write_text(often)
    of_k = ["--params", "often.yaml", "--dataset", "mnist", "--k", "1", *SEED]
    for command in ([pretrain, "--seed-tasks", "9"], [train, "--init", "label"]):
        for epochs in ("3", "4"):
            done = CliRunner().invoke(command[0].app, [*of_k, *command[1:], "--epochs", epochs])
            assert done.exit_code == 130, done.output
    kept = [file.name.split("-")[0] for file in (made / ".checkpoints").glob("*.safetensors")]
    assert sorted(kept) == ["pretrain", "pretrain", "train", "train"]


def test_a_missing_input_is_one_line(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(made)
    options = ["--params", "params.yaml", "--dataset", "cifar10", "--k", "4", "--seed", "0"]
    done = CliRunner().invoke(evaluate.app, options)
    assert done.exit_code == 1
    assert "k4/tasks.parquet: there is no such file" in done.stderr
    assert done.stderr.count("\n") == 1


ONES = {"dataset": "cifar10", "k": "2", "seed": "0", "seed_tasks": "9", "epochs": "1"} | {
    "init": "label",
    "method": "maf",
}


def required(stage: ModuleType) -> list[str]:
    """A value for each option that a stage cannot do without."""
    options = [one for one in get_command(stage.app).params if one.required]
    return [text for one in options for text in (one.opts[0], ONES[one.name or ""])]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_prepares_its_device_before_it_reads_a_file_or_has_no_use_of_it(
    stage: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before torch computes anything, that is: threads take over what is set by then."""

    def stop(_: Runtime) -> None:
        raise PipelineError("prepared")

    (tmp_path / "params.yaml").write_text(PARAMS.replace("RAW", "raw"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.device.prepare_device", stop)
    done = CliRunner().invoke(stage.app, ["--params", "params.yaml", *required(stage)])
    first = "o such file" if stage in (prepare, tasks, tables) else ": prepared\n"
    assert first in done.stderr, done.output


def test_a_cell_shows_mean_spread_and_the_papers() -> None:
    records = [
        {"init": "random", "k": "5", "seed": f"{seed}", "auc": f"{auc}"}
        for seed, auc in ((0, 0.7), (0, 0.8), (1, 0.77))
    ]
    measured = Measured.of(records, "init", "k")
    assert measured.cell(78.96, "random", "5") == "76.00 ± 1.41 (78.96)"
    assert measured.cell(None, "random", "4") == "-"
    table = by_k(measured, ["random"], [4, 5], {"random": {5: 78.96}})
    assert table.splitlines()[2] == "| random | - | 76.00 ± 1.41 (78.96) |"


def test_the_figures_that_dvc_compares_are_means_over_seeds() -> None:
    results = Results(
        probes={"mnist": {"accuracy": "0.517"}},
        cells={
            "mnist": [
                {"init": "random", "k": "4", "seed": f"{seed}", "auc": f"{auc}"}
                for seed, auc in ((0, 0.7), (1, 0.70013))
            ]
        },
        unseen=[],
        correlations=[
            {"coordinates": n, "seed": seed, "spearman": found}
            for n, seed, found in (("45", "0", "0.5"), ("10", "0", "0.1"), ("10", "1", "0.2"))
        ],
        separate=[],
        on_features=[],
    )
    assert list(results.figures().items()) == [
        *(("mnist.probe", 0.517), ("mnist.k4.random", 0.7001)),
        *(("similarity.45", 0.5), ("similarity.10", 0.15)),
    ]


def test_generalisation_leaves_its_diagonal_out() -> None:
    measured = Measured({("learned-64", "2", "3"): [0.5]})
    assert generalisation(measured, "learned-64", [2, 3]).splitlines()[2:] == [
        "| trained on 2 |  | 50.00 (89.11) |",
        "| trained on 3 | - (95.80) |  |",
    ]


def test_the_gain_is_taken_seed_by_seed() -> None:
    measured = Measured({("learned-64", "5"): [0.9, 0.8], ("random", "5"): [0.8, 0.68]})
    mean, spread = gain(measured, 5) or (0, 0)
    assert (mean, spread) == (pytest.approx(11), pytest.approx(2**0.5))
    assert gain(measured, 4) is None


def test_similarity_is_the_share_of_common_categories() -> None:
    active = np.zeros((120, 10), bool)
    active[np.arange(120)[:, None], choices(3)] = True
    true = overlap(active)
    assert true.diagonal().tolist() == [3] * 120
    assert true[0, 1] == len(set(choices(3)[0]) & set(choices(3)[1]))
    perfect = agreement(active.astype(np.float32), active, 10, np.random.default_rng(0))
    assert perfect.spearman > 0.99
    random = np.random.default_rng(0).standard_normal((120, 50)).astype(np.float32)
    noise = agreement(random, active, 20, np.random.default_rng(0))
    assert noise.coordinates == 20
    assert abs(noise.spearman) < 0.1


def test_a_rate_falls_to_nothing_along_half_a_cosine_or_stays() -> None:
    cells = {"lr": 0.4, "batch_size": 8, "patience": 1}
    falling = CellSchedule(decay="cosine", **cells).lasting(4)
    assert [falling.rate(n) for n in (1, 3, 5)] == pytest.approx([0.4, 0.2, 0])
    assert falling.rate(2) == pytest.approx(0.4 * (1 + 0.5**0.5) / 2)
    assert {CellSchedule(decay="none", **cells).lasting(4).rate(n) for n in (1, 4)} == {0.4}
