"""pretrain, project, train and score as a user meets them: artefacts and a line, or one line."""

import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from pipeline import schemas
from pipeline.model_files import read_model, read_network, write_network
from pipeline.models.ratio import PreEmbeddingNet, RatioNet
from pipeline.params import Init
from pipeline.schemas import Schema
from pipeline.storage import matrix, read_table, vectors, write_table
from pipeline.text_files import read_csv
from stages import pretrain, progress, project, score, train
from tests.projects import set_params
from tests.worlds import ROOT, SmallWorld, small_world

USERS, TASKS, X_DIM, HEADS, GRAPH_DIM = 200, 22, 7, 6, 4
WRITTEN = {  # by the four stages, in their order
    "data/pretrain/seed_tasks.parquet": schemas.SEED_TASKS,
    "data/pretrain/model.safetensors": None,
    "data/pretrain/history.csv": None,
    "data/task_init.parquet": schemas.TASK_EMBEDDINGS,
    "data/projection.safetensors": None,
    "data/ratio/model.safetensors": None,
    "data/ratio/task_embeddings.parquet": schemas.TASK_EMBEDDINGS,
    "data/ratio/history.csv": None,
    "data/evaluation/scores.parquet": schemas.SCORES,
}
CHAIN = (pretrain, project, train, score)
QUICK = {"batch_size": 256, "max_epochs": 2}


@pytest.fixture(scope="module")
def small() -> SmallWorld:
    return small_world()


@pytest.fixture
def folder(small: SmallWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the stages read, with quick params, in the working directory."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    set_params(tmp_path, {"pretrain": {**QUICK, "seed_tasks": HEADS}, "ratio": QUICK})
    write_table(small.users, tmp_path / "data/prepared/users.parquet", schemas.USERS)
    write_table(small.exposures, tmp_path / "data/prepared/exposures.parquet", schemas.EXPOSURES)
    write_table(small.splits, tmp_path / "data/prepared/splits.parquet", schemas.SPLITS)
    write_table(small.features, tmp_path / "data/features/users.parquet", schemas.FEATURES)
    write_table(small.tasks, tmp_path / "data/tasks.parquet", schemas.TASKS)
    write_table(graph_vectors(small), tmp_path / "data/graph/items.parquet", schemas.ITEM_VECTORS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_STAGE", raising=False)
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", math.inf)  # for a busy machine
    return tmp_path


def graph_vectors(small: SmallWorld) -> pa.Table:
    """As if a graph had told of every item."""
    ids = small.world.items["item_id"]
    x = np.random.default_rng(0).standard_normal((len(ids), GRAPH_DIM)).astype(np.float32)
    return pa.table({"item_id": ids, "x": vectors(x)})


def run(stage: object) -> Result:
    return CliRunner().invoke(stage.app, [])


def succeed(*stages: object) -> list[str]:
    """Run stages, none of which may fail; what each printed."""
    ran = [run(stage) for stage in stages]
    for result in ran:
        assert result.exit_code == 0, result.output
    return [result.stdout for result in ran]


def fails_in_one_line(stage: object) -> str:
    """Run a stage that must fail, and leave what there is as it is; its line."""
    before = {path: path.read_bytes() for path in Path("data").rglob("*.*")}
    result = run(stage)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"{stage.__name__.removeprefix('stages.')}: ")
    assert result.stderr.count("\n") == 1
    assert {path: path.read_bytes() for path in Path("data").rglob("*.*")} == before
    return result.stderr


def written(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in WRITTEN}


@pytest.mark.parametrize("init", get_args(Init))
def test_every_init_goes_through_to_scores(folder: Path, init: Init) -> None:
    set_params(folder, {"init": init})
    lines = succeed(*CHAIN)
    dims = {"random": 16, "learned": HEADS, "mean": X_DIM, "histogram": 5, "graph": GRAPH_DIM}
    dim = dims[init]
    assert lines[1] == f"22 tasks start from {dim} numbers: {init}\n"
    for name, schema in WRITTEN.items():
        if schema is not None:
            table = read_table(folder / name, schema)
            if schema is schemas.TASK_EMBEDDINGS:
                assert table["task_id"].to_pylist() == list(range(TASKS))
                assert matrix(table["e"]).shape == (TASKS, dim)
    seeds = read_table(folder / "data/pretrain/seed_tasks.parquet", schemas.SEED_TASKS)
    assert seeds.num_rows == HEADS
    assert read_model(folder / "data/projection.safetensors")[1] == {"init": init}
    of_pretrain, of_train = (
        read_csv(folder / f"data/{stage}/history.csv") for stage in ("pretrain", "ratio")
    )
    losses = ["epoch", "train_loss", "valid_loss", "held_out_loss"]
    assert [*of_pretrain[0]] == losses
    scaled = ["slope", "offset", "scaled_valid_loss", "scaled_held_out_loss"]
    assert [*of_train[0]] == [*losses, *scaled, "valid_auc"]
    assert [row["epoch"] for row in of_train] == ["1", "2"]


def test_the_stages_say_what_they_did(small: SmallWorld, folder: Path) -> None:
    scored = len(small.rows("valid")) + len(small.rows("test"))
    lines = succeed(*CHAIN)
    assert lines[0].startswith("6 seed tasks: validation loss 1.")
    assert lines[2].startswith("22 tasks: validation loss 1.")
    assert re.search(r" of 2, which max_epochs ended; 1\.\d{4} scaled by \d+\.\d\d\n$", lines[2])
    assert lines[3] == f"22 tasks x {scored} validation and test users scored\n"


def test_the_scores_are_the_network_s_of_the_validation_and_test_users(
    small: SmallWorld, folder: Path
) -> None:
    succeed(*CHAIN)
    scores = read_table(folder / "data/evaluation/scores.parquet", schemas.SCORES)
    rows = np.sort(np.concatenate([small.rows("valid"), small.rows("test")]))
    net = read_network(RatioNet, folder / "data/ratio/model.safetensors")
    embeddings = read_table(folder / "data/ratio/task_embeddings.parquet", schemas.TASK_EMBEDDINGS)
    x, e = small.examples.x[rows], matrix(embeddings["e"])
    with torch.no_grad():
        expected = net(
            torch.from_numpy(np.tile(x, (TASKS, 1))),
            torch.from_numpy(np.repeat(e, len(rows), axis=0)),
        )
    np.testing.assert_allclose(scores["score"].to_numpy(), expected.numpy(), atol=1e-5)
    assert scores["user_id"].to_numpy().tolist() == (rows + 1).tolist() * TASKS
    assert scores["task_id"].to_numpy().tolist() == np.repeat(range(TASKS), len(rows)).tolist()


def test_a_sample_of_the_users_has_the_scores_that_it_has_among_all(folder: Path) -> None:
    succeed(*CHAIN)
    path = folder / "data/evaluation/scores.parquet"
    everybody = read_table(path, schemas.SCORES)
    set_params(folder, {"evaluate": {"users": 5}})
    line = succeed(score)[0]
    assert re.fullmatch(
        r"22 tasks x a sample of 10 of \d+ validation and test users scored\n", line
    )
    few = read_table(path, schemas.SCORES)
    assert few.num_rows == 10 * TASKS
    joined = few.join(everybody, ["task_id", "user_id"], right_suffix="_of_all")
    np.testing.assert_allclose(joined["score"], joined["score_of_all"], atol=1e-6)


def test_equal_seeds_give_equal_files_and_another_moves_all_that_is_learned(folder: Path) -> None:
    succeed(*CHAIN)
    once = written(folder)
    succeed(*CHAIN)
    assert written(folder) == once
    set_params(folder, {"seed": 1})
    succeed(*CHAIN)
    assert {name for name, content in written(folder).items() if content == once[name]} == set()


def test_frozen_embeddings_stay_where_they_start(folder: Path) -> None:
    set_params(folder, {"ratio": {"freeze_e": True}})
    succeed(pretrain, project, train)
    start, trained = (
        read_table(folder / name, schemas.TASK_EMBEDDINGS)
        for name in ("data/task_init.parquet", "data/ratio/task_embeddings.parquet")
    )
    assert trained.equals(start)


def test_the_full_grid_is_another_way_to_train_the_same_tasks(folder: Path) -> None:
    succeed(pretrain, project, train)
    sampled = (folder / "data/ratio/history.csv").read_bytes()
    set_params(folder, {"ratio": {"mode": "grid", "grid_tasks": 4}})
    (line,) = succeed(train)
    assert line.startswith("22 tasks: validation loss 1.")
    assert (folder / "data/ratio/history.csv").read_bytes() != sampled
    succeed(score)


def test_all_tasks_are_seed_tasks_where_there_are_fewer_than_asked_for(folder: Path) -> None:
    set_params(folder, {"pretrain": {"seed_tasks": 23}})
    result = run(pretrain)
    assert (result.exit_code, result.stdout[:13]) == (0, "22 seed tasks")
    told = "pretrain: no more than 22 tasks can be seed tasks; all of them are.\n"
    assert result.stderr.startswith(told)


def test_a_training_that_perhaps_rests_on_a_plateau_says_what_to_try(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.training.history.EARLY", 99)
    monkeypatch.setattr("pipeline.training.history.STEEP", 0.0)
    succeed(pretrain, project)
    set_params(
        folder, {"ratio": {"dropout": [0.0] * 3, "lr": 0.05, "max_epochs": 40, "patience": 1}}
    )
    (line,) = succeed(train)
    assert line.endswith("; perhaps a plateau: try ratio.patience 3, compare exposure_valid\n")


@pytest.mark.parametrize(("stage", "section"), [(pretrain, "pretrain"), (train, "ratio")])
def test_a_training_that_learned_nothing_warns(folder: Path, stage: object, section: str) -> None:
    succeed(pretrain, project)
    set_params(folder, {section: {"lr": 1e-9}})
    result = run(stage)
    assert result.exit_code == 0
    name = stage.__name__.removeprefix("stages.")
    assert result.stderr == (
        f"{name}: warning: the loss never left 2 ln 2: nothing was learned; "
        f"raise {section}.max_epochs.\n"
    )


@pytest.mark.parametrize(("stage", "section"), [(pretrain, "pretrain"), (train, "ratio")])
def test_a_training_that_learned_something_does_not_warn(
    folder: Path, stage: object, section: str
) -> None:
    succeed(pretrain, project)
    apt = {"dropout": [0.0] * 3, "lr": 0.01, "batch_size": 32, "max_epochs": 10}
    set_params(folder, {section: apt})
    assert run(stage).stderr == ""


@pytest.mark.parametrize(("stage", "section"), [(pretrain, "pretrain"), (train, "ratio")])
def test_a_loss_that_is_not_finite_is_one_line(folder: Path, stage: object, section: str) -> None:
    succeed(pretrain, project)
    set_params(folder, {section: {"lr": 1e30}})
    line = fails_in_one_line(stage)
    assert "is not a finite number (lr 1e+30, batch_size 256). Lower the lr" in line


def without_row(path: str, schema: Schema, row: int) -> None:
    table = read_table(Path(path), schema)
    write_table(pa.concat_tables([table.slice(0, row), table.slice(row + 1)]), Path(path), schema)


def narrow_features() -> None:
    path = Path("data/features/users.parquet")
    table = read_table(path, schemas.FEATURES)
    x = vectors(matrix(table["x"])[:, 1:])
    write_table(pa.table({"user_id": table["user_id"], "x": x}), path, schemas.FEATURES)


def wide_embeddings() -> None:
    path = Path("data/ratio/task_embeddings.parquet")
    e = vectors(np.zeros((TASKS, HEADS + 1), np.float32))
    table = read_table(path, schemas.TASK_EMBEDDINGS)
    write_table(table.set_column(2, "e", e), path, schemas.TASK_EMBEDDINGS)


def other_items(path: str) -> None:
    """As many tasks, one of them another item's."""
    table = read_table(Path(path), schemas.TASK_EMBEDDINGS)
    items = table["item_id"].to_numpy().copy()
    items[-1] += 1
    write_table(
        table.set_column(1, "item_id", pa.array(items)), Path(path), schemas.TASK_EMBEDDINGS
    )


FAULTS: dict[str, tuple[object, Callable[[], None], str]] = {
    "features lack a user": (
        pretrain,
        lambda: without_row("data/features/users.parquet", schemas.FEATURES, 6),
        "user 7 is not among the 199 known ones",
    ),
    "users lack a user": (
        project,
        lambda: without_row("data/prepared/users.parquet", schemas.USERS, 6),
        "user 7 is not among the 199 known ones",
    ),
    "features lack a user to score": (
        score,
        lambda: without_row(
            "data/features/users.parquet", schemas.FEATURES, int(small_world().rows("test")[0])
        ),
        "is not among the 199 known ones",
    ),
    "another pre-embedding model": (
        project,
        narrow_features,
        "holds a PreEmbeddingNet of x_dim 7, the other files ask for 6",
    ),
    "a ratio instead of the pre-embedding model": (
        project,
        lambda: write_network(
            RatioNet(x_dim=X_DIM, task_dim=2), Path("data/pretrain/model.safetensors")
        ),
        "holds no PreEmbeddingNet",
    ),
    "embeddings of other tasks to start from": (
        train,
        lambda: without_row("data/task_init.parquet", schemas.TASK_EMBEDDINGS, 3),
        "the task embeddings are of 21 tasks, but not of the 22 in the tasks table",
    ),
    "embeddings of as many other tasks to start from": (
        train,
        lambda: other_items("data/task_init.parquet"),
        "the task embeddings are of 22 tasks, but not of the 22 in the tasks table",
    ),
    "embeddings of as many other tasks": (
        score,
        lambda: other_items("data/ratio/task_embeddings.parquet"),
        "the task embeddings are of 22 tasks, but not of the 22 in the tasks table",
    ),
    "embeddings of other tasks": (
        score,
        lambda: without_row("data/ratio/task_embeddings.parquet", schemas.TASK_EMBEDDINGS, 3),
        "the task embeddings are of 21 tasks, but not of the 22 in the tasks table",
    ),
    "a pre-embedding model instead of the ratio": (
        score,
        lambda: write_network(
            PreEmbeddingNet(x_dim=X_DIM, heads=2), Path("data/ratio/model.safetensors")
        ),
        "holds no RatioNet",
    ),
    "a ratio of other user vectors": (
        score,
        narrow_features,
        "holds a RatioNet of x_dim 7, the other files ask for 6",
    ),
    "a ratio of other embeddings": (
        score,
        wide_embeddings,
        "holds a RatioNet of task_dim 6, the other files ask for 7",
    ),
    "swapped tables": (
        train,
        lambda: shutil.copy("data/prepared/splits.parquet", "data/prepared/exposures.parquet"),
        "the exposures table lacks the column item_id, rating, timestamp, held_out",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_files_that_do_not_belong_together_are_one_line(folder: Path, fault: str) -> None:
    stage, break_it, message = FAULTS[fault]
    succeed(*CHAIN)
    break_it()
    assert message in fails_in_one_line(stage)


def test_labels_are_found_by_user_id_whatever_else_the_users_table_holds(folder: Path) -> None:
    """A user without a vector before all others moves the rows of the table, and nothing else."""
    set_params(folder, {"init": "histogram"})
    succeed(pretrain, project)
    before = (folder / "data/task_init.parquet").read_bytes()
    users = read_table(folder / "data/prepared/users.parquet", schemas.USERS)
    stranger = users.slice(0, 1).set_column(0, "user_id", pa.array([0], pa.int64()))
    both = pa.concat_tables([stranger, users])
    write_table(both, folder / "data/prepared/users.parquet", schemas.USERS)
    succeed(project)
    assert (folder / "data/task_init.parquet").read_bytes() == before
