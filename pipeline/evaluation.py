"""Every figure of metrics/auc.json, and the tables behind it; docs/metrics.md explains them.

Scores are log ratios: HIGH = common, LOW = fresh. AUCs are fractions, means over tasks.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline import probes
from pipeline.arrays import Floats, Ints
from pipeline.auc import Sides, TaskAucs, mean_roc, resample_weights, resampled_means, task_aucs
from pipeline.calibration import best_slope, calibration
from pipeline.datasets.simulation import world_of
from pipeline.errors import PipelineError
from pipeline.pairs import Pairs, find, ids_of, rows_of, split_rows, task_pairs
from pipeline.params import Params
from pipeline.score_matrix import score_matrix
from pipeline.splits import Measured, measured_users
from pipeline.storage import matrix
from pipeline.text_files import Scalar
from pipeline.training.history import best_row
from pipeline.unmet import Met
from pipeline.yardsticks import TaskLabel, exposure_sides, task_label

Figures = dict[str, float | int]
History = Sequence[Mapping[str, str]]  # a row an epoch
UNLABELLED = "evaluate.labels is empty: AUCs by class, perfect_label and leak need labels"
ROC_GRID = np.arange(101) / 100  # false positive rates


@dataclass(frozen=True)
class Tables:
    """What is measured, and what it is measured by."""

    scores: pa.Table
    tasks: pa.Table
    users: pa.Table
    splits: pa.Table
    exposures: pa.Table
    features: pa.Table

    def user_rows(self, table: pa.Table) -> Ints:
        """The row in `users` of each row of `table`."""
        known = ids_of(self.users, "user_id")
        return rows_of(ids_of(table, "user_id"), known, "user")


@dataclass(frozen=True)
class Evaluation:
    """The contents of metrics/auc.json, metrics/task_auc.csv and metrics/roc.csv."""

    metrics: dict[str, object]
    task_auc: list[dict[str, Scalar]]
    roc: list[dict[str, Scalar]]
    headline: str  # the AUCs and their intervals in a line


def evaluate(
    tables: Tables,
    params: Params,
    *,
    features_history: History,
    graph_links: Sequence[Mapping[str, str]],
    ratio_history: History,
    gen: np.random.Generator,
) -> Evaluation:
    """Measure scores by labels and held-out exposures, beside their ceiling and trivial rivals.

    Reads the params labels, evaluate, ratio.base, data.source and simulation.

    Raises:
        PipelineError: tables that do not belong together, or a yardstick that fits no task.
    """
    train = split_rows(tables.splits, tables.users, "train")
    measured = measured_users(tables.splits, tables.users, params.evaluate.users)
    valid, test = measured.valid, measured.test
    valid_scores, scores = _split_scores(tables, measured)
    pairs = task_pairs(tables.exposures, tables.users, tables.tasks)
    labels, sides, valid_sides = _yardsticks(tables, params, pairs, train, valid, test)
    test_gen, valid_gen, random_gen, base_gen = gen.spawn(4)
    aucs, figures = _measure(scores, sides, params.evaluate.bootstrap, test_gen)
    _, valid_figures = _measure(valid_scores, valid_sides, params.evaluate.bootstrap, valid_gen)
    chances = _chances(tables, labels, train, test)
    leaks = {name: probes.leak(of, labels[name].codes[test]) for name, of in chances.items()}
    for name, label in labels.items():
        figures[name] |= _label_figures(label, aucs[name], params, train)
        if name in chances:
            taught = probes.supervised_aucs(
                chances[name], label.nominal, label.anomalous, sides[name]
            )
            figures[name]["supervised"] = taught.defined.mean()
    metrics: dict[str, Mapping[str, object]] = {
        **figures,
        **valid_figures,
        "sample": _sample(measured),
        "calibration": _calibration(pairs, params, scores, test, base_gen),
        "trivial": _trivial(tables, sides, test, random_gen),
        "leak": {name: auc for name, auc in leaks.items() if auc is not None},
        "deepfm": _deepfm(features_history),
        "graph": _graph(graph_links),
        "loss": _loss(ratio_history),
        "truth": _truth(tables, params, scores, test),
    }
    return Evaluation(
        metrics={name: _rounded(part) for name, part in metrics.items() if part},
        task_auc=_task_rows(tables.tasks, aucs),
        roc=_roc_rows(scores, sides),
        headline=_headline(figures, labels, measured),
    )


def _split_scores(tables: Tables, measured: Measured) -> tuple[Floats, Floats]:
    """Scores of the validation and of the test users, (M, V) and (M, T)."""
    user_ids = ids_of(tables.users, "user_id")[measured.rows]
    scores = score_matrix(tables.scores, tables.tasks, user_ids)
    return scores[:, measured.valid_columns], scores[:, measured.test_columns]


def _yardsticks(
    tables: Tables, params: Params, pairs: Pairs, train: Ints, valid: Ints, test: Ints
) -> tuple[dict[str, TaskLabel], dict[str, Sides], dict[str, Sides]]:
    """The labels, the sides by every yardstick of the test users, and of the validation users."""
    tasks, users = tables.tasks, tables.users
    labels = {
        name: task_label(name, params.labels[name], users, tasks, pairs, train)
        for name in params.evaluate.labels
    }
    sides = {name: label.sides(test) for name, label in labels.items()}
    sides["exposure"] = exposure_sides(pairs, test, tasks.num_rows)
    return labels, sides, {"exposure_valid": exposure_sides(pairs, valid, tasks.num_rows)}


def _measure(
    scores: Floats, sides: Mapping[str, Sides], resamples: int, gen: np.random.Generator
) -> tuple[dict[str, TaskAucs], dict[str, Figures]]:
    """The AUCs by every yardstick, and their mean with its 95 % interval over users."""
    weights = resample_weights(scores.shape[1], resamples, gen)
    aucs, figures = {}, {}
    for name, side in sides.items():
        aucs[name] = found = task_aucs(scores, side)
        if not len(found.defined):
            raise _undefined(name, side)
        means = resampled_means(scores, side, weights)
        low, high = np.nanquantile(means, (0.025, 0.975))
        figures[name] = {
            "auc": found.defined.mean(),
            "ci95_low": low,
            "ci95_high": high,
            "tasks": len(found.defined),
            "undefined": len(scores) - len(found.defined),
        }
    return aucs, figures


def _undefined(name: str, sides: Sides) -> PipelineError:
    """The error for a yardstick that fits no task."""
    tasks, users = sides.positive.shape
    if name in ("exposure", "exposure_valid") and not sides.positive.any():
        return PipelineError(
            f"{name}: no exposure of the {users:,} users it is measured on to any of the {tasks:,} "
            "tasks is held out: of few exposures data.held_out_share rounds to none. Raise it, or "
            "take users with more exposures, or more users (evaluate.users)."
        )
    return PipelineError(
        f"{name}: none of the {tasks:,} tasks has both a positive and a negative "
        f"user among the {users:,} it is measured on; take more users "
        "(evaluate.users, data.test_share), or drop it from evaluate.labels if it is there."
    )


def _calibration(
    pairs: Pairs, params: Params, scores: Floats, test: Ints, gen: np.random.Generator
) -> dict[str, object]:
    """How far the mean ratio is from 1 under the p of test users, and how far the slopes are.

    One is by their visible exposures, one by their held-out ones, of which no x was made, against
    users who have not met the item either. Nothing where there are none, or no p.
    """
    column = find(pairs.user, test)
    here = column < len(test)
    task, user, held_out = pairs.task[here], column[here], pairs.held_out[here]
    base = np.ones(len(test), np.int64)
    if params.ratio.base == "exposures":
        base = np.bincount(user[~held_out], minlength=len(test))
    if not base.any():
        return {}
    mean_gen, *slope_gens = gen.spawn(3)
    weights = resample_weights(len(test), params.evaluate.bootstrap, mean_gen)
    met = Met.of(user[~held_out], task[~held_out])
    kinds = [("visible", ~held_out, None), ("held_out", held_out, met)]
    slopes = {
        name: best_slope(scores, task[of], user[of], base, weights, slope_gen, met)
        for (name, of, met), slope_gen in zip(kinds, slope_gens, strict=True)
        if of.any()
    }
    return {**calibration(scores, base, weights), **slopes}


def _label_figures(label: TaskLabel, aucs: TaskAucs, params: Params, train: Ints) -> Figures:
    """What a label says besides: how its tasks are spread, how fragile, what could be reached."""
    if params.ratio.base == "exposures":
        base = label.classes.sum(axis=0)  # (K,) training exposures to tasks
    else:
        base = np.bincount(label.codes[train], minlength=label.classes.shape[1])
    perfect = probes.perfect_label_aucs(label.classes, base, label.nominal, label.anomalous)
    defined = ~np.isnan(aucs.auc)
    own_half = defined & label.kept
    rarest = label.classes[np.arange(len(label.classes)), label.anomalous]  # (M,)
    figures: Figures = {
        "median": np.median(aucs.defined),
        "ties": aucs.ties.sum() / (aucs.positives * aucs.negatives).sum(),
        "zero_class": (rarest == 0).mean(),
        "perfect_label": perfect[defined].mean(),
    }
    if not own_half.any():
        return figures
    return figures | {
        "own_half": aucs.auc[own_half].mean(),
        "perfect_label_own_half": perfect[own_half].mean(),
    }


def _trivial(
    tables: Tables, sides: Mapping[str, Sides], test: Ints, gen: np.random.Generator
) -> dict[str, Figures]:
    """AUCs of scores that know nothing, and that know only how active a user is."""
    shape = (tables.tasks.num_rows, len(test))
    exposed = tables.user_rows(tables.exposures)
    visible = exposed[~tables.exposures.column("held_out").to_numpy()]
    activity = np.bincount(visible, minlength=tables.users.num_rows)[test]  # (T,)
    rivals = {
        "random": gen.random(shape, np.float32),
        "activity": np.broadcast_to(activity.astype(np.float32), shape),
    }
    return {
        rival: {name: task_aucs(scores, side).defined.mean() for name, side in sides.items()}
        for rival, scores in rivals.items()
    }


def _chances(
    tables: Tables, labels: Mapping[str, TaskLabel], train: Ints, test: Ints
) -> dict[str, Floats]:
    """Of the test users' classes (K, T), from x, by the labels that training users differ in."""
    known = ids_of(tables.features, "user_id")
    rows = rows_of(ids_of(tables.users, "user_id"), known, "user")
    x = matrix(tables.features.column("x"))[rows]  # (U, f_dim)
    found = {
        name: probes.class_chances(x, label.codes, train, test, label.classes.shape[1])
        for name, label in labels.items()
    }
    return {name: chances for name, chances in found.items() if chances is not None}


def _deepfm(history: History) -> Figures:
    """DeepFM's AUC over pairs in its best epoch; nothing where x comes from another model."""
    if not history or "pair_auc" not in history[0]:
        return {}
    return {"pair_auc": float(best_row(history)["pair_auc"])}


def _graph(links: Sequence[Mapping[str, str]]) -> Figures:
    """Link prediction on all held-out triples, the first row; nothing without a graph."""
    everything = links[0]
    return {name: float(everything[name]) for name in ("mrr", "hits10") if name in everything}


def _loss(history: History) -> Figures:
    """The loss that was kept, scaled too, and its epoch; nothing for a scorer without epochs."""
    if not history:
        return {}
    best = best_row(history)
    scaled = {"scaled": float(best["scaled_valid_loss"])} if "scaled_valid_loss" in best else {}
    return {"valid": float(best["valid_loss"]), **scaled, "epoch": int(float(best["epoch"]))}


def _truth(tables: Tables, params: Params, scores: Floats, test: Ints) -> Figures:
    """How near the simulation's true log ratios are, by rank and in nats; else nothing."""
    if params.data.source != "simulated":
        return {}
    world = world_of(tables.users, params.simulation)
    items = ids_of(tables.tasks, "item_id")
    item_rows = rows_of(items, ids_of(world.items, "item_id"), "item")
    truth = world.log_ratio(test, item_rows, params.ratio.base, pool=test)  # the same order
    return {
        "spearman": probes.mean_spearman(scores, truth),
        "rmse": np.sqrt(np.square(scores - truth).mean()),
    }


def _rounded(value: object) -> object:
    """Figures to 6 digits: what differs between machines in the last bits is no change for git."""
    if isinstance(value, Mapping):
        return {name: _rounded(part) for name, part in value.items()}
    return round(float(value), 6) if isinstance(value, float) else value


def _sample(measured: Measured) -> Figures:
    """How many users were measured of how many; nothing where all were."""
    if not measured.is_sample:
        return {}
    return {
        "test": len(measured.test),
        "test_of": measured.test_of,
        "valid": len(measured.valid),
        "valid_of": measured.valid_of,
    }


def _headline(figures: Mapping[str, Figures], labels: Collection[str], measured: Measured) -> str:
    parts = [
        f"{name} {100 * f['auc']:.1f} [{100 * f['ci95_low']:.1f}, {100 * f['ci95_high']:.1f}]"
        for name, f in figures.items()
    ]
    line = f"AUC x 100 [95 % interval over users]: {', '.join(parts)}"
    if measured.is_sample:
        line += f"; {measured}"
    return line if labels else f"{line}. {UNLABELLED}"


def _task_rows(tasks: pa.Table, aucs: Mapping[str, TaskAucs]) -> list[dict[str, Scalar]]:
    """A row a label and task; no AUC where it is undefined."""
    ids = list(zip(tasks["task_id"].to_pylist(), tasks["item_id"].to_pylist(), strict=True))
    return [
        {
            "task_id": task_id,
            "item_id": item_id,
            "label": name,
            "auc": None if np.isnan(auc) else round(auc, 6),
            "n_nominal": positives,
            "n_anomalous": negatives,
        }
        for name, found in aucs.items()
        for (task_id, item_id), auc, positives, negatives in zip(
            ids,
            found.auc.tolist(),
            found.positives.tolist(),
            found.negatives.tolist(),
            strict=True,
        )
    ]


def _roc_rows(scores: Floats, sides: Mapping[str, Sides]) -> list[dict[str, Scalar]]:
    return [
        {"label": name, "fpr": round(fpr, 6), "tpr": round(tpr, 6)}
        for name, side in sides.items()
        for fpr, tpr in zip(
            ROC_GRID.tolist(), mean_roc(scores, side, ROC_GRID).tolist(), strict=True
        )
    ]
