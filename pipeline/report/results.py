"""How well the scores did, by every yardstick, and what the paper says of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline import paper
from pipeline.arrays import Doubles
from pipeline.errors import PipelineError
from pipeline.labels import label_classes
from pipeline.params import Init, Params
from pipeline.report.artefacts import Artefacts, Rows

EXPOSURE = "exposure"  # the yardstick that needs no label
FEW = 20  # held-out exposures; with fewer an AUC may be anything
PAPER_AUC: Mapping[str, Mapping[str, float]] = {  # as the report names its rows
    "Gaussian": paper.TABLE_1["gaussian"],
    "Normalizing flow": paper.TABLE_1["maf"],
    "Likelihood ratio, random embedding": paper.TABLE_1["random"],
    "Likelihood ratio, learned embedding": paper.TABLE_1["learned"],
    "Likelihood ratio, graph embedding*": paper.TABLE_1["ktup"],
    "Likelihood ratio, histogram embedding*": {
        **paper.TABLE_1["histogram-age"],
        **paper.TABLE_1["histogram-occupation"],
    },
}
PAPER_METHOD: Mapping[Init, str] = {
    "random": "Likelihood ratio, random embedding",
    "learned": "Likelihood ratio, learned embedding",
    "histogram": "Likelihood ratio, histogram embedding*",
    "graph": "Likelihood ratio, graph embedding*",
}


@dataclass(frozen=True)
class Yardstick:
    """One way to measure, and what it found.

    Attributes:
        key: its name in metrics/auc.json.
        name: for people.
        task_aucs: of the tasks that have one, fractions.
        roc: false and true positive rates, means over the tasks.
        paper: the paper's AUC for this init, a fraction; None where it gives none.
    """

    key: str
    name: str
    task_aucs: Doubles
    roc: tuple[Doubles, Doubles]
    paper: float | None


@dataclass(frozen=True)
class TaskAuc:
    """One task by the yardstick of held-out exposures."""

    title: str
    exposures: int
    held_out: int  # test users with a held-out exposure
    auc: float


class Figures(dict[str, float]):
    """Figures of metrics/auc.json by their dotted keys, such as "age.auc"."""

    def __missing__(self, key: str) -> float:
        raise PipelineError(
            f"metrics/auc.json lacks the figure {key}: it was made with other params. "
            "Make it again: `dvc repro evaluate`."
        )


def figures_of(metrics: Mapping[str, object], above: str = "") -> Figures:
    """Every scalar of metrics/auc.json by its dotted key."""
    flat = Figures()
    for name, value in metrics.items():
        if isinstance(value, Mapping):
            flat |= figures_of(value, f"{above}{name}.")
        elif isinstance(value, int | float):
            flat[above + name] = value
    return flat


def yardsticks(artefacts: Artefacts, params: Params) -> list[Yardstick]:
    """The labels that were measured by, in the order of the params, then held-out exposures.

    Raises:
        PipelineError: a label that was not measured by.
    """
    names = {}
    for label in params.evaluate.labels:
        classes = label_classes(artefacts.users, label, params.labels[label])
        names[label] = f"{label} ({len(classes)} classes)"
    names[EXPOSURE] = "held-out exposures"
    missing = [key for key in names if key not in artefacts.metrics]
    if missing:
        raise PipelineError(
            f"metrics/auc.json lacks {', '.join(missing)}: it was made with other labels. "
            "Make it again: `dvc repro evaluate`."
        )
    return [
        Yardstick(
            key,
            name,
            task_aucs=_aucs(artefacts.task_auc, key),
            roc=_curve(artefacts.roc, key),
            paper=paper_auc(key, params),
        )
        for key, name in names.items()
    ]


def paper_auc(label: str, params: Params) -> float | None:
    """The paper's AUC, a fraction, of its method with the init of `params`.

    Its histograms are of the label that they are measured by.
    """
    method = PAPER_METHOD.get(params.init)
    if params.data.source != "movielens-1m" or method is None:
        return None
    if params.init == "histogram" and params.projection.histogram_label != label:
        return None
    auc = PAPER_AUC[method].get(label)
    return None if auc is None else auc / 100


def beside_activity(
    measured: Sequence[Yardstick], figures: Mapping[str, float]
) -> tuple[list[str], list[str]]:
    """The yardsticks by which users' activity alone does better, and as well, by name.

    Better is beyond the upper end of the 95 % interval, as well is within it: that may be chance.
    """
    better, level = [], []
    for one in measured:
        activity = figures[f"trivial.activity.{one.key}"]
        if activity > figures[f"{one.key}.ci95_high"]:
            better.append(one.name)
        elif activity >= figures[f"{one.key}.ci95_low"]:
            level.append(one.name)
    return better, level


def few_held_out(task_auc: Rows) -> int | None:
    """How many held-out exposures of test users all AUCs by them rest on, if fewer than FEW."""
    rows = [row for row in task_auc if row["label"] == EXPOSURE and row["auc"]]
    count = sum(int(row["n_nominal"]) for row in rows)
    return count if count < FEW else None


def departures(params: Params) -> list[str]:
    """In what the settings differ from the paper's, in words."""
    features = params.features
    found = []
    if features.model in ("svd", "als"):
        name = features.model.upper()
        found.append(f"user vectors come from an {name} of the exposures; the paper's from DeepFM")
    elif features.model != "deepfm":
        found.append("user vectors are ready-made; the paper's come from DeepFM")
    elif set(features.user_fields) != paper.FIELDS:
        found.append(
            f"user vectors come from {' and '.join(features.user_fields)} alone; the paper lists "
            "gender, age, occupation and zip code, and does not say which of them its DeepFM saw"
        )
    coded = [name for name in features.user_fields if name != "user_id"]
    if features.model == "deepfm" and features.min_users > 1 and coded:
        found.append(f"codes of fewer than {features.min_users} users share an embedding")
    if features.model == "deepfm" and features.visible == "train":
        found.append("DeepFM saw training users alone; the paper's all users")
    if features.model in ("deepfm", "svd", "als") and features.activity:
        found.append("user vectors end with the user's activity; the paper's do not")
    if params.ratio.base == "users":
        found.append("the base p is uniform over users; the paper's weighs them by their exposures")
    if params.ratio.mode == "grid":
        found.append("every task learned with every training user; the paper's with drawn ones")
    if params.ratio.visible == "all":
        found.append(
            "visible exposures of all users train the ratio; in the paper none of test users"
        )
    if params.ratio.stop == "auc":
        found.append("the epoch that is kept is judged by validation users' AUC, not by their loss")
    if params.ratio.scaling == "platt":
        found.append(
            "log ratios are multiplied by one slope and one offset is added, chosen by validation "
            "users; the paper's are as they were learned. No AUC depends on it"
        )
    if params.ratio.freeze_e:
        found.append("task embeddings stay where they start; the paper trains them")
    if params.ratio.hidden != paper.HIDDEN:
        layers, known = ("-".join(map(str, of)) for of in (params.ratio.hidden, paper.HIDDEN))
        found.append(f"the network's hidden layers are {layers} wide; the paper's {known}")
    if params.ratio.dropout != paper.DROPOUT:
        rates, known = (", ".join(map(str, of)) for of in (params.ratio.dropout, paper.DROPOUT))
        found.append(f"the network's dropout is {rates}; the paper's {known}")
    if params.ratio.linear is not None:
        found.append("each task has a head that is linear in x beside the network; not the paper's")
    if params.init not in PAPER_METHOD:
        found.append(f"the paper has no embedding called {params.init}")
    if params.init == "learned" and params.pretrain.seed_tasks != paper.SEED_TASKS:
        found.append(
            f"the pre-embedding model learned {params.pretrain.seed_tasks} seed tasks; the paper's "
            f"{paper.SEED_TASKS}"
        )
    if params.init == "graph" and (params.graph.model != "ktup" or params.graph.triples is None):
        model = {"transe": "TransE", "transh": "TransH", "ktup": "KTUP"}[params.graph.model]
        of = "genres and years" if params.graph.triples is None else "your triples"
        found.append(
            f"the graph's vectors are {model}'s of {of}; the paper's KTUP's of a knowledge base"
        )
    if (params.tasks.min_exposures, params.tasks.keep_share) != (
        paper.MIN_EXPOSURES,
        paper.KEEP_SHARE,
    ):
        found.append(
            f"tasks are, for each label, a share of {params.tasks.keep_share} of the items with "
            f"{params.tasks.min_exposures} exposures or more; in the paper {paper.KEEP_SHARE} of "
            f"those with {paper.MIN_EXPOSURES}"
        )
    return found


def extremes(artefacts: Artefacts, n: int = 6) -> tuple[list[TaskAuc], list[TaskAuc]]:
    """The tasks whose held-out users are found best and worst, at most n of each, and none twice.

    Of the half of the tasks with the most held-out test users only: the AUC of a few is luck.

    Raises:
        PipelineError: AUCs of other tasks.
    """
    rows = [row for row in artefacts.task_auc if row["label"] == EXPOSURE]
    if [int(row["item_id"]) for row in rows] != artefacts.tasks["item_id"].to_pylist():
        raise PipelineError(
            f"metrics/task_auc.csv has {len(rows):,} tasks, the tasks table has "
            f"{artefacts.tasks.num_rows:,}; the files do not belong together: run `dvc repro`."
        )
    titles = artefacts.task_items["title"].to_pylist()
    exposures = artefacts.tasks["exposures"].to_pylist()
    found = [
        TaskAuc(title, count, int(row["n_nominal"]), float(row["auc"]))
        for title, count, row in zip(titles, exposures, rows, strict=True)
        if row["auc"]
    ]
    enough = np.median([task.held_out for task in found])
    ranked = sorted((task for task in found if task.held_out >= enough), key=lambda task: task.auc)
    best, worst = min(n, (len(ranked) + 1) // 2), min(n, len(ranked) // 2)
    return ranked[: -best - 1 : -1], ranked[:worst]


def _aucs(rows: Rows, label: str) -> Doubles:
    return np.array([float(row["auc"]) for row in rows if row["label"] == label and row["auc"]])


def _curve(rows: Rows, label: str) -> tuple[Doubles, Doubles]:
    mine = [row for row in rows if row["label"] == label]
    fpr, tpr = (np.array([float(row[rate]) for row in mine]) for rate in ("fpr", "tpr"))
    return fpr, tpr
