"""Tasks that come later: where they are placed, and the curve of how good they are."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from typer.testing import CliRunner

from experiments.new_items import app, figure_of
from pipeline.auc import Sides, task_aucs
from pipeline.embeddings import task_means
from pipeline.errors import PipelineError
from pipeline.newcomers import new_items
from pipeline.newcomers.new_items import Known, Tables, curve, learn_without, new_tasks
from pipeline.newcomers.placement import Placement
from pipeline.pairs import split_rows
from pipeline.scoring import score_all
from pipeline.text_files import read_csv
from pipeline.threads import SPINS
from pipeline.yardsticks import exposure_sides
from tests.worlds import SmallWorld, default_params, small_world

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")


def test_embeddings_that_are_linear_in_the_means_are_found_again() -> None:
    gen = np.random.default_rng(0)
    means, new = gen.standard_normal((300, 6)), gen.standard_normal((20, 6))
    matrix = gen.standard_normal((6, 4))
    placement = Placement.fit(means, (means @ matrix + 3).astype(np.float32))
    np.testing.assert_allclose(placement.apply(new), new @ matrix + 3, atol=0.15)
    constant = np.column_stack((means, np.full(300, 7.0)))
    held = Placement.fit(constant, (means @ matrix).astype(np.float32))
    assert np.isfinite(held.apply(constant)).all()


def test_of_a_single_task_nothing_is_learned_of_others() -> None:
    with pytest.raises(PipelineError, match="train more tasks"):
        Placement.fit(np.ones((1, 3)), np.ones((1, 2), np.float32))


@pytest.fixture(scope="module")
def world() -> SmallWorld:
    return small_world(users=500, items=60, exposures=9000, least=60)


def tables_of(world: SmallWorld) -> Tables:
    items = world.world.items
    return Tables(world.users, items, world.exposures, world.splits, world.features, world.tasks)


def short() -> dict[str, dict[str, object]]:
    return {
        "features": {"model": "table"},
        "pretrain": {"seed_tasks": 8, "batch_size": 128, "max_epochs": 5},
        "ratio": {"batch_size": 256, "max_epochs": 25, "dropout": [0.1, 0.1, 0.1], "lr": 0.01},
    }


@pytest.fixture(scope="module")
def learned(world: SmallWorld) -> tuple[Tables, np.ndarray, Known]:
    tables = tables_of(world)
    new = new_tasks(tables, 40)
    return tables, new, learn_without(tables, new, default_params(**short()), CPU)


def test_nothing_is_learned_from_the_new_items(
    world: SmallWorld, learned: tuple[Tables, np.ndarray, Known]
) -> None:
    """Other exposures to them, and it comes out the same; user vectors that are made as well."""
    tables, new, known = learned
    gone = tables.tasks.column("item_id").to_numpy()[new]
    of_new = np.isin(tables.exposures.column("item_id").to_numpy(), gone)
    fewer = tables.exposures.filter(pa.array(~of_new | (np.arange(len(of_new)) % 2 == 0)))
    again = learn_without(
        Tables(**vars(tables) | {"exposures": fewer}), new, default_params(**short()), CPU
    )
    assert (again.placement.weight == known.placement.weight).all()
    for model in ("deepfm", "svd", "als"):
        made = {"model": model, "f_dim": 4, "hidden": [4], "max_epochs": 1}
        params = default_params(**short() | {"features": made, "ratio": {"max_epochs": 1}})
        one, other = (
            learn_without(Tables(**vars(tables) | {"exposures": e}), new, params, CPU)
            for e in (tables.exposures, fewer)
        )
        assert one.x.shape == (500, 4)
        assert (one.x == other.x).all()


def test_the_curve_rises_to_near_the_trained_tasks(
    world: SmallWorld, learned: tuple[Tables, np.ndarray, Known]
) -> None:
    """The truth stands in for the trained tasks."""
    tables, new, known = learned
    test = split_rows(tables.splits, tables.features, "test")
    truth = world.world.log_ratio(
        test, tables.tasks.column("item_id").to_numpy()[new] - 1, "exposures"
    )
    points = curve(known, tables, new, test, truth, [1, 40], resamples=50)
    assert [p.exposures for p in points] == ["1", "40", "all", "trained"]
    assert {p.tasks for p in points} == {len(new)}
    auc = {p.exposures: p.auc for p in points}
    assert all(p.ci95_low < p.auc < p.ci95_high for p in points)
    assert 0.5 < auc["1"] < auc["40"]
    assert auc["all"] - 0.5 > 0.55 * (auc["trained"] - 0.5)


def test_a_point_of_the_curve_is_the_auc_of_tasks_placed_by_their_first_exposures(
    world: SmallWorld, learned: tuple[Tables, np.ndarray, Known]
) -> None:
    """By hand, with moments that run against the order of the table."""
    tables, new, known = learned
    moment = pa.array(-np.arange(tables.exposures.num_rows))
    place = tables.exposures.column_names.index("timestamp")
    timed = tables.exposures.set_column(place, "timestamp", moment)
    tables = Tables(**vars(tables) | {"exposures": timed})
    examples = world.examples
    pairs = examples.learned
    first = np.zeros(len(pairs), bool)
    for task in range(examples.tasks):
        first[np.flatnonzero(pairs.task == task)[-7:]] = True
    means = task_means(known.x, pairs.where(first), examples.tasks)[new]
    test = split_rows(tables.splits, tables.features, "test")[::2]  # a sample
    e = torch.from_numpy(known.placement.apply(means))
    scores = score_all(known.net, torch.from_numpy(known.x[test]), e)
    sides = exposure_sides(examples.pairs, test, examples.tasks)
    expected = task_aucs(scores, Sides(sides.positive[new], sides.negative[new])).defined.mean()
    found = curve(known, tables, new, test, scores, [7], resamples=5)[0]
    assert found.auc == pytest.approx(expected, abs=1e-12)


def test_too_few_tasks_of_so_many_exposures_are_refused(world: SmallWorld) -> None:
    with pytest.raises(PipelineError, match="ask for fewer exposures by --counts"):
        new_tasks(tables_of(world), 10_000)


def test_the_pre_embedding_model_is_trained_for_learned_alone(
    world: SmallWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unasked(*args: object, **options: object) -> None:
        raise AssertionError

    monkeypatch.setattr("pipeline.newcomers.new_items.pretrain", unasked)
    params = default_params(**short())
    tables, new = tables_of(world), np.array([0])
    with pytest.raises(AssertionError):
        learn_without(tables, new, params.model_copy(update={"init": "learned"}), CPU)
    learn_without(tables, new, params.model_copy(update={"init": "mean"}), CPU)


def test_the_graph_cannot_place_what_it_knows_beforehand(world: SmallWorld) -> None:
    params = default_params().model_copy(update={"init": "graph"})
    with pytest.raises(PipelineError, match="choose another init"):
        learn_without(tables_of(world), np.array([0]), params, CPU)


def test_threads_are_told_how_to_wait_before_torch_is_loaded() -> None:
    code = (
        "import os, sys, experiments.new_items\n"
        "print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    )
    hidden = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    command = [sys.executable, "-c", code]
    told = subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, text=True)
    assert told.stdout == f"{SPINS} False\n"


@pytest.mark.parametrize("folder", ["movielens", "new_items"])
def test_the_committed_figure_follows_from_the_committed_table(folder: str) -> None:
    of = ROOT / "metrics" / folder
    points = [
        new_items.Point(name, float(auc), float(low), float(high), int(tasks))
        for name, auc, low, high, tasks in (row.values() for row in read_csv(of / "new_items.csv"))
    ]
    assert figure_of(points) == (of / "new_items.svg").read_text()


def test_the_command_writes_a_table_and_a_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [
        new_items.Point(name, auc, auc - 0.1, auc + 0.1, 9)
        for name, auc in (("5", 0.6), ("all", 0.7), ("trained", 0.75))
    ]
    monkeypatch.setattr("experiments.new_items._measured", lambda *_: points)
    ran = CliRunner().invoke(app, ["--out", str(tmp_path)])
    assert ran.exit_code == 0, ran.output
    assert "     all: AUC x 100 70.0 [60.0, 80.0]" in ran.stdout
    rows = list(csv.DictReader((tmp_path / "new_items.csv").open()))
    assert rows[0] == {
        "exposures": "5",
        "auc": "0.6",
        "ci95_low": "0.5",
        "ci95_high": "0.7",
        "tasks": "9",
    }
    assert "placed, not trained" in (tmp_path / "new_items.svg").read_text()
    ran = CliRunner().invoke(app, ["--data", "nowhere", "--params", "none.yaml"])
    assert ran.exit_code == 1
    assert ran.stderr.startswith("new_items: none.yaml: there is no such file")
