"""The assembled figures, recomputed from the tables in the slow and obvious way."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from ruamel.yaml import YAML
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from pipeline import schemas
from pipeline.datasets.simulation import draw_world, simulate
from pipeline.errors import PipelineError
from pipeline.evaluation import Evaluation, Tables, evaluate
from pipeline.params import FIGURES, Params, load_params
from pipeline.sections import Base
from pipeline.splits import hold_out, measured_users, split_users
from pipeline.storage import vectors, write_table
from pipeline.tasks import select_tasks
from pipeline.text_files import read_csv, write_csv
from stages.evaluate import app
from tests.worlds import count_items, default_params

ROOT = Path(__file__).parents[1]
FEATURES_HISTORY = [
    {"epoch": "1", "valid_loss": "1.21", "pair_auc": "0.81"},
    {"epoch": "2", "valid_loss": "1.12", "pair_auc": "0.87"},
    {"epoch": "3", "valid_loss": "1.13", "pair_auc": "0.88"},
]
GRAPH_LINKS = [
    {"relation": "(all)", "triples": "9", "mrr": "0.3", "hits10": "0.5"},
    {"relation": "has genre", "triples": "6", "mrr": "0.4", "hits10": "0.6"},
    {"relation": "released in", "triples": "3", "mrr": "0.1", "hits10": "0.3"},
]
RATIO_HISTORY = [
    {"epoch": "1", "train_loss": "1.39", "valid_loss": "1.38", "scaled_valid_loss": "1.37"},
    {"epoch": "2", "train_loss": "1.29", "valid_loss": "1.29", "scaled_valid_loss": "1.28"},
    {"epoch": "3", "train_loss": "1.28", "valid_loss": "1.291", "scaled_valid_loss": "1.27"},
]


@pytest.fixture(scope="module")
def params_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's params.yaml, of a small world."""
    yaml = YAML()
    content = yaml.load(ROOT / "params.yaml")
    content["simulation"] = {"users": 400, "items": 24, "exposures": 3000, "seed": 0}
    content["evaluate"] = {"labels": ["age", "gender"], "bootstrap": 100}
    content["tasks"]["min_exposures"] = 20
    file = tmp_path_factory.mktemp("params") / "params.yaml"
    yaml.dump(content, file)
    return file


@pytest.fixture(scope="module")
def params(params_file: Path) -> Params:
    return load_params(params_file, *Params.model_fields)


@pytest.fixture(scope="module")
def tables(params: Params) -> Tables:
    """The small world, its true log ratios as scores, its true tastes as features."""
    source = simulate(params.simulation)
    ids = source.users["user_id"].to_numpy()
    splits = split_users(ids, test_share=0.3, valid_share=0.2, seed=0)
    exposures = hold_out(source.exposures, splits, share=0.3, seed=0)
    tasks = select_tasks(count_items(source.users, exposures, splits, params.labels), params.tasks)
    world = draw_world(params.simulation)
    scored = np.flatnonzero(splits["split"].to_numpy(zero_copy_only=False) != "train")
    truth = world.log_ratio(scored, tasks["item_id"].to_numpy() - 1, "exposures")
    return Tables(
        scores=score_table(truth, ids[scored]),
        tasks=tasks,
        users=source.users,
        splits=splits,
        exposures=exposures,
        features=pa.table({"user_id": ids, "x": vectors(world.latents.astype(np.float32))}),
    )


def score_table(scores: np.ndarray, user_ids: np.ndarray) -> pa.Table:
    return pa.table(
        {
            "task_id": np.repeat(np.arange(len(scores), dtype=np.int32), len(user_ids)),
            "user_id": np.tile(user_ids, len(scores)),
            "score": scores.ravel().astype(np.float32),
        }
    )


def evaluated(tables: Tables, params: Params) -> Evaluation:
    return evaluate(
        tables,
        params,
        features_history=FEATURES_HISTORY,
        graph_links=GRAPH_LINKS,
        ratio_history=RATIO_HISTORY,
        gen=np.random.default_rng(0),
    )


@pytest.fixture(scope="module")
def found(tables: Tables, params: Params) -> Evaluation:
    return evaluated(tables, params)


def slow_aucs(tables: Tables, split: str, sides: pd.DataFrame) -> pd.Series:
    """AUC of each task by scikit-learn; `sides` holds task_id, user_id and high (True or False)."""
    splits = tables.splits.to_pandas()
    users = splits.user_id[splits.split == split]
    scores = tables.scores.to_pandas().merge(sides, on=["task_id", "user_id"])
    scores = scores[scores.user_id.isin(users)]
    return scores.groupby("task_id").apply(
        lambda task: roc_auc_score(task.high, task.score) if task.high.nunique() == 2 else np.nan
    )


def gender_sides(tables: Tables) -> pd.DataFrame:
    """Every user of either class; in the sorted classes F is 0 and M is 1."""
    users, tasks = tables.users.to_pandas(), tables.tasks.to_pandas()
    both = tasks.merge(users.assign(code=(users.gender == "M").astype(int)), how="cross")
    both = both[both.nominal_gender != both.anomalous_gender]
    return both[["task_id", "user_id"]].assign(high=both.code == both.nominal_gender)


def exposure_sides(tables: Tables) -> pd.DataFrame:
    pairs = tables.exposures.to_pandas()[["user_id", "item_id", "held_out"]]
    grid = tables.tasks.to_pandas().merge(tables.users.to_pandas(), how="cross")
    grid = grid.merge(pairs, how="left", on=["user_id", "item_id"])
    part = grid[grid.held_out.isna() | (grid.held_out == True)]  # noqa: E712
    return part[["task_id", "user_id"]].assign(high=part.held_out.notna())


def test_the_label_auc_is_what_the_tables_say(tables: Tables, found: Evaluation) -> None:
    aucs = slow_aucs(tables, "test", gender_sides(tables))
    figures = found.metrics["gender"]
    own = tables.tasks.to_pandas().set_index("task_id").kept_by_gender
    assert figures["auc"] == pytest.approx(aucs.mean(), abs=1e-6)
    assert figures["median"] == pytest.approx(aucs.median(), abs=1e-6)
    assert figures["own_half"] == pytest.approx(aucs[own].mean(), abs=1e-6)
    assert figures["tasks"] == aucs.notna().sum()
    assert figures["tasks"] + figures["undefined"] == tables.tasks.num_rows
    assert figures["ci95_low"] < figures["auc"] < figures["ci95_high"]
    assert figures["ties"] == 0


@pytest.mark.parametrize(("name", "split"), [("exposure", "test"), ("exposure_valid", "valid")])
def test_the_exposure_auc_is_what_the_tables_say(
    tables: Tables, found: Evaluation, name: str, split: str
) -> None:
    aucs = slow_aucs(tables, split, exposure_sides(tables))
    assert found.metrics[name]["auc"] == pytest.approx(aucs.mean(), abs=1e-6)
    assert found.metrics[name]["tasks"] == aucs.notna().sum()


def test_the_metrics_are_the_documented_ones(found: Evaluation) -> None:
    common = {"auc", "ci95_low", "ci95_high", "tasks", "undefined"}
    label = common | {"median", "own_half", "ties", "zero_class", "supervised"}
    label |= {"perfect_label", "perfect_label_own_half"}
    names = {"age", "gender", "exposure"}
    assert {name: set(part) for name, part in found.metrics.items()} == {
        "age": label,
        "gender": label,
        "exposure": common,
        "exposure_valid": common,
        "calibration": {"log_mean", "ci95_low", "ci95_high", "task_median", "visible", "held_out"},
        "trivial": {"random", "activity"},
        "leak": {"age", "gender"},
        "deepfm": {"pair_auc"},
        "graph": {"mrr", "hits10"},
        "loss": {"valid", "scaled", "epoch"},
        "truth": {"spearman", "rmse"},
    }
    assert set(found.metrics["trivial"]["random"]) == names
    assert set(found.metrics["trivial"]["activity"]) == names


def test_every_figure_is_explained(found: Evaluation) -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    labels = set(default_params().labels) | {"exposure"}

    def keys(part: Mapping[str, object]) -> Iterator[str]:
        for key, value in part.items():
            yield key
            yield from keys(value) if isinstance(value, Mapping) else ()

    explained = {part for name in re.findall("`([^` ]+)`", page) for part in name.split(".")}
    assert set(keys(found.metrics)) - labels <= explained


def test_no_label_can_have_the_name_of_another_figure(found: Evaluation) -> None:
    assert set(found.metrics) - set(default_params().labels) <= set(FIGURES)


def test_link_prediction_on_all_relations_speaks_for_the_graph(found: Evaluation) -> None:
    assert found.metrics["graph"] == {"mrr": 0.3, "hits10": 0.5}


def test_the_best_epoch_speaks_for_a_network(found: Evaluation) -> None:
    assert found.metrics["deepfm"] == {"pair_auc": 0.87}
    assert found.metrics["loss"] == {"valid": 1.29, "scaled": 1.28, "epoch": 2}


@pytest.mark.parametrize("base", get_args(Base))
def test_calibration_is_measured_on_test_users_under_the_base(
    tables: Tables, params: Params, base: Base
) -> None:
    ratio = params.ratio.model_copy(update={"base": base})
    figures = evaluated(tables, params.model_copy(update={"ratio": ratio})).metrics["calibration"]
    splits = tables.splits.to_pandas()
    test = splits.user_id[splits.split == "test"]
    visible = tables.exposures.to_pandas().merge(tables.tasks.to_pandas()).query("~held_out")
    seen = visible.groupby("user_id").size()
    rows = tables.scores.to_pandas()
    rows = rows[rows.user_id.isin(test)]
    weight = rows.user_id.map(seen).fillna(0) if base == "exposures" else rows.user_id * 0 + 1
    sums = (np.exp(rows.score) * weight).groupby(rows.task_id).sum()
    means = sums / weight.groupby(rows.task_id).sum()
    assert figures["log_mean"] == pytest.approx(np.log(means.mean()), abs=1e-5)
    assert figures["task_median"] == pytest.approx(np.median(np.log(means)), abs=1e-5)
    if base == "exposures":  # of the scores, which are this world's true ratios
        assert figures["ci95_low"] <= 0.05
        assert figures["ci95_high"] >= -0.05
        assert figures["visible"]["slope"] == pytest.approx(1, abs=0.15)


def test_the_slopes_are_those_of_visible_and_of_held_out_exposures(
    tables: Tables, params: Params
) -> None:
    """By scores that tell nothing but the ones, or nothing but the others."""
    pairs = tables.exposures.to_pandas().merge(tables.tasks.to_pandas())
    rows = tables.scores.to_pandas().set_index(["task_id", "user_id"])
    for told, other in (("visible", "held_out"), ("held_out", "visible")):
        of_them = pairs[pairs.held_out == (told == "held_out")]
        known = rows.index.isin(of_them.set_index(["task_id", "user_id"]).index)
        score = pa.array(np.where(known, 1.0, -1.0), pa.float32())
        changed = replace(tables, scores=tables.scores.set_column(2, "score", score))
        figures = evaluated(changed, params).metrics["calibration"]
        assert figures[told]["slope"] > 1.5
        assert figures[other]["slope"] < 0.5


def test_scores_half_as_large_have_twice_the_slope(
    tables: Tables, params: Params, found: Evaluation
) -> None:
    half = pa.compute.multiply(tables.scores["score"], pa.scalar(0.5, pa.float32()))
    smaller = replace(tables, scores=tables.scores.set_column(2, "score", half))
    slope = evaluated(smaller, params).metrics["calibration"]["visible"]["slope"]
    known = found.metrics["calibration"]["visible"]["slope"]
    assert slope == pytest.approx(2 * known, rel=0.01)


def test_activity_ranks_users_by_their_visible_exposures(tables: Tables, found: Evaluation) -> None:
    pairs = tables.exposures.to_pandas()
    activity = pairs[~pairs.held_out].groupby("user_id").size()
    user = tables.scores["user_id"].to_pandas()
    by_activity = user.map(activity).fillna(0).to_numpy().reshape(tables.tasks.num_rows, -1)
    scored = replace(tables, scores=score_table(by_activity, user.unique()))
    expected = slow_aucs(scored, "test", gender_sides(tables)).mean()
    assert found.metrics["trivial"]["activity"]["gender"] == pytest.approx(expected, abs=1e-6)


def test_the_true_log_ratio_correlates_fully_with_the_truth(
    tables: Tables, params: Params, found: Evaluation
) -> None:
    assert found.metrics["truth"]["spearman"] == pytest.approx(1, abs=1e-5)
    assert found.metrics["truth"]["rmse"] < 0.1  # of other users, a constant a task is another
    higher = pa.compute.add(tables.scores["score"], pa.scalar(3, pa.float32()))
    shifted = replace(tables, scores=tables.scores.set_column(2, "score", higher))
    assert evaluated(shifted, params).metrics["truth"]["rmse"] == pytest.approx(3, abs=0.1)
    first = (tables.scores["task_id"].to_numpy() == 0) * np.float32(30)
    one = pa.compute.add(tables.scores["score"], pa.array(first, pa.float32()))
    shifted = replace(tables, scores=tables.scores.set_column(2, "score", one))
    of_all = 30 / np.sqrt(tables.tasks.num_rows)  # and not the mean over tasks of their own
    assert evaluated(shifted, params).metrics["truth"]["rmse"] == pytest.approx(of_all, abs=0.1)
    reverse = pa.compute.negate(tables.scores["score"])
    turned = replace(tables, scores=tables.scores.set_column(2, "score", reverse))
    assert evaluated(turned, params).metrics["truth"]["spearman"] == pytest.approx(-1, abs=1e-5)


@pytest.mark.parametrize("base", get_args(Base))
def test_the_ceiling_divides_by_the_base(
    tables: Tables, params: Params, found: Evaluation, base: Base
) -> None:
    """A class scores high where its share of the task's training users is above its base share."""
    exposed, users = training_exposures(tables)
    male = exposed.groupby("task_id").male.mean().to_numpy()
    base_male = (exposed if base == "exposures" else users).male.mean()
    likes_men = male > base_male  # no ties in this world
    expected = (likes_men == (tables.tasks["nominal_gender"].to_numpy() == 1)).mean()
    ratio = params.ratio.model_copy(update={"base": base})
    figures = evaluated(tables, params.model_copy(update={"ratio": ratio})).metrics["gender"]
    assert figures["perfect_label"] == pytest.approx(expected, abs=1e-6)
    assert figures["auc"] == found.metrics["gender"]["auc"]


def test_zero_class_counts_tasks_without_a_training_user_of_the_anomalous_class(
    tables: Tables, found: Evaluation
) -> None:
    exposed, _ = training_exposures(tables)
    age = np.digitize(exposed.age, [25, 35, 45, 56])
    counts = pd.crosstab(exposed.task_id, age).to_numpy()  # (tasks, 5)
    assert {0, 1} <= set(counts.min(axis=1))
    expected = (counts.min(axis=1) == 0).mean()
    assert found.metrics["age"]["zero_class"] == pytest.approx(expected, abs=1e-6)


def training_exposures(tables: Tables) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training users' exposures to tasks, and the training users, with a column `male`."""
    splits = tables.splits.to_pandas()
    users = tables.users.to_pandas()[splits.split == "train"]
    users = users.assign(male=users.gender == "M")
    return tables.exposures.to_pandas().merge(users).merge(tables.tasks.to_pandas()), users


def test_an_undefined_task_is_counted_and_has_an_empty_row(
    tables: Tables, params: Params, found: Evaluation
) -> None:
    nominal, anomalous = (tables.tasks[f"{k}_gender"].to_numpy() for k in ("nominal", "anomalous"))
    changed = with_column(
        tables, "anomalous_gender", np.where(np.arange(22) == 3, nominal, anomalous)
    )
    other = evaluated(changed, params)
    row = next(r for r in other.task_auc if r["label"] == "gender" and r["task_id"] == 3)
    assert (row["auc"], row["n_nominal"], row["n_anomalous"]) == (None, 0, 0)
    assert other.metrics["gender"]["undefined"] == found.metrics["gender"]["undefined"] + 1
    assert other.metrics["gender"]["tasks"] == found.metrics["gender"]["tasks"] - 1
    assert other.metrics["age"] == found.metrics["age"]
    won = other.metrics["gender"]["perfect_label"] * other.metrics["gender"]["tasks"]
    assert won == pytest.approx(round(won), abs=1e-4)  # no half from the undefined task


def with_column(tables: Tables, column: str, values: np.ndarray) -> Tables:
    at = tables.tasks.column_names.index(column)
    return replace(tables, tasks=tables.tasks.set_column(at, column, pa.array(values)))


def test_without_labels_the_exposure_figures_remain(tables: Tables, params: Params) -> None:
    bare = params.model_copy(update={"evaluate": params.evaluate.model_copy(update={"labels": []})})
    unlabelled = replace(tables, tasks=tables.tasks.select(list(schemas.TASKS.columns)))
    found = evaluated(unlabelled, bare)
    names = {"exposure", "exposure_valid", "trivial", "deepfm", "graph", "loss", "truth"}
    names |= {"calibration"}
    assert set(found.metrics) == names
    assert {row["label"] for row in found.task_auc} == {"exposure"}


def test_a_sample_of_the_users_is_measured_as_if_there_were_no_others(
    tables: Tables, params: Params
) -> None:
    """The AUCs are those of the sampled users; what is known of the others changes nothing."""
    wanted = params.evaluate.model_copy(update={"users": 20})
    sampled = params.model_copy(update={"evaluate": wanted})
    measured = measured_users(tables.splits, tables.users, 20)
    ids = tables.users["user_id"].to_numpy()[measured.rows]
    of_them = pa.compute.is_in(tables.scores["user_id"], pa.array(ids))
    few = replace(tables, scores=tables.scores.filter(of_them))
    found = evaluated(few, sampled)
    whole = Counter(tables.splits["split"].to_pylist())
    assert found.metrics["sample"] == {
        "test": 20,
        "test_of": whole["test"],
        "valid": 20,
        "valid_of": whole["valid"],
    }
    of_all = f"{whole['test'] + whole['valid']} validation and test users"
    assert found.headline.endswith(f"; a sample of 40 of {of_all}")
    for name, sides in {"gender": gender_sides(few), "exposure": exposure_sides(few)}.items():
        assert found.metrics[name]["auc"] == pytest.approx(
            slow_aucs(few, "test", sides).mean(), abs=1e-6
        )
    with pytest.raises(PipelineError, match="22 tasks and 40 validation and test users"):
        evaluated(tables, sampled)


def test_a_label_that_measures_no_task_is_named(tables: Tables, params: Params) -> None:
    same = with_column(tables, "anomalous_gender", tables.tasks["nominal_gender"].to_numpy())
    with pytest.raises(PipelineError, match=r"^gender: none of the \d+ tasks has both"):
        evaluated(same, params)


def test_where_no_exposure_is_held_out_that_is_the_reason_told(
    tables: Tables, params: Params
) -> None:
    met = tables.exposures
    place, none = met.column_names.index("held_out"), pa.array(np.zeros(met.num_rows, bool))
    shown = replace(tables, exposures=met.set_column(place, "held_out", none))
    told = r"^exposure: no exposure of the \d+ users .* is held out: .* data\.held_out_share rounds"
    with pytest.raises(PipelineError, match=told):
        evaluated(shown, params)


def test_a_world_of_other_params_is_refused(tables: Tables, params: Params) -> None:
    other = params.model_copy(
        update={"simulation": params.simulation.model_copy(update={"seed": 1})}
    )
    with pytest.raises(PipelineError, match="not that of the simulated world"):
        evaluated(tables, other)


def test_without_a_deepfm_and_a_graph_their_figures_are_missing(
    tables: Tables, params: Params
) -> None:
    found = evaluate(
        tables,
        params,
        features_history=[],
        graph_links=[{"triples": "0"}],
        ratio_history=RATIO_HISTORY,
        gen=np.random.default_rng(0),
    )
    assert not {"deepfm", "graph"} & set(found.metrics)


def test_the_stage_writes_its_three_files_and_says_the_aucs(
    tables: Tables, params_file: Path, tmp_path: Path
) -> None:
    """Twice from the same files come the same bytes."""
    for name in ("scores", "tasks", "users", "splits", "exposures", "features"):
        schema = getattr(schemas, name.upper())
        write_table(getattr(tables, name), tmp_path / f"{name}.parquet", schema)
    write_csv(FEATURES_HISTORY, tmp_path / "features.csv")
    write_csv(GRAPH_LINKS, tmp_path / "links.csv")
    write_csv(RATIO_HISTORY, tmp_path / "ratio.csv")
    given = [f"--{n}={tmp_path}/{n}.parquet" for n in ("scores", "tasks", "users", "splits")]
    given += [f"--{n}={tmp_path}/{n}.parquet" for n in ("exposures", "features")]
    given += [f"--{n}-history={tmp_path}/{n}.csv" for n in ("features", "ratio")]
    given += [f"--graph-links={tmp_path}/links.csv"]
    for folder in ("one", "two"):
        out = tmp_path / folder
        result = CliRunner().invoke(
            app,
            [
                *given,
                f"--auc={out}/auc.json",
                f"--task-auc={out}/task_auc.csv",
                f"--roc={out}/roc.csv",
                f"--params={params_file}",
                f"--run-info={out}/info",
            ],
        )
        assert result.exit_code == 0, result.output
        assert result.stdout.startswith("AUC x 100 [95 % interval over users]: age ")
    one, two = tmp_path / "one", tmp_path / "two"
    for name in ("auc.json", "task_auc.csv", "roc.csv"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    metrics = json.loads((one / "auc.json").read_text())
    rows = pd.DataFrame(read_csv(one / "task_auc.csv"))
    assert len(rows) == 3 * tables.tasks.num_rows
    for name in ("age", "gender", "exposure"):
        aucs = pd.to_numeric(rows.auc[rows.label == name].replace("", None)).dropna()
        assert aucs.mean() == pytest.approx(metrics[name]["auc"], abs=1e-6)
        assert len(aucs) == metrics[name]["tasks"]
    roc = pd.DataFrame(read_csv(one / "roc.csv"))
    assert roc.groupby("label").size().to_dict() == {"age": 101, "exposure": 101, "gender": 101}
