"""All that the report shows, gathered from the artefacts of one run."""

from dataclasses import dataclass

from pipeline.by_hand.explanation import Explainer
from pipeline.params import Params
from pipeline.report.artefacts import Artefacts
from pipeline.report.choice import portrayed_tasks
from pipeline.report.learning import Learning, learned
from pipeline.report.portraits import Portrait, TestUsers, portray
from pipeline.report.results import (
    TaskAuc,
    Yardstick,
    beside_activity,
    departures,
    extremes,
    few_held_out,
    figures_of,
    yardsticks,
)
from pipeline.report.similarity import Similarity, similarity
from pipeline.report.why import Why, explain_most_familiar
from pipeline.training.history import longer_patience


@dataclass(frozen=True)
class Content:
    """What is shown, in the order of the page.

    Attributes:
        params: the settings of the run.
        counts: users, measured test users, items, exposures and tasks.
        figures: every scalar of metrics/auc.json by its dotted key; AUCs as fractions.
        yardsticks: what was measured by.
        beaten: the yardsticks by which users' activity alone does better.
        level: those by which it is within the interval.
        few: held-out pairs of a test user and a task, where they are too few to tell; else None.
        departures: in what the settings differ from the paper's.
        best, worst: the tasks whose held-out users are found best, and worst.
        portraits: three tasks and their test users.
        why: of each of them, its most familiar test user's score, taken apart.
        similarity: of the embeddings of some tasks.
        learning: the losses of each network that was trained.
        patience: to try, where the ratio perhaps rests on a plateau; else None.
    """

    params: Params
    counts: dict[str, int]
    figures: dict[str, float]
    yardsticks: list[Yardstick]
    beaten: list[str]
    level: list[str]
    few: int | None
    departures: list[str]
    best: list[TaskAuc]
    worst: list[TaskAuc]
    portraits: list[Portrait]
    why: list[Why]
    similarity: Similarity
    learning: list[Learning]
    patience: int | None


def gather(artefacts: Artefacts, params: Params) -> Content:
    """Gather the content of the report.

    Reads the params init, seed, data.source, labels, features.model, features.user_fields,
    features.activity, features.min_users, features.visible, features.max_epochs,
    features.patience, pretrain.max_epochs, pretrain.patience, projection.histogram_label,
    ratio.max_epochs, ratio.base, ratio.visible, ratio.linear, ratio.mode, ratio.stop,
    ratio.scaling, ratio.freeze_e, ratio.hidden, ratio.dropout, ratio.patience, evaluate.labels,
    evaluate.users, pretrain.seed_tasks, graph.model, graph.triples, tasks.min_exposures and
    tasks.keep_share.

    Raises:
        PipelineError: artefacts that do not belong together.
    """
    artefacts.require_labels(params)
    source, figures = params.data.source, figures_of(artefacts.metrics)
    measured = yardsticks(artefacts, params)
    beaten, level = beside_activity(measured, figures)
    best, worst = extremes(artefacts)
    test_users = TestUsers.of(artefacts, params)
    shown = portrayed_tasks(artefacts.tasks, source).tolist()
    explainer = Explainer.from_tables(
        artefacts.net,
        artefacts.features,
        artefacts.tasks,
        artefacts.task_embeddings,
        artefacts.exposures,
        artefacts.items,
    )
    return Content(
        params=params,
        counts=_counts(artefacts, test_users),
        figures=figures,
        yardsticks=measured,
        beaten=beaten,
        level=level,
        few=few_held_out(artefacts.task_auc),
        departures=departures(params),
        best=best,
        worst=worst,
        portraits=[portray(row, test_users, artefacts, params) for row in shown],
        why=[explain_most_familiar(row, test_users, artefacts, explainer) for row in shown],
        similarity=similarity(artefacts, source),
        learning=learned(artefacts, params),
        patience=longer_patience(artefacts.ratio_history, params.ratio.patience),
    )


def _counts(artefacts: Artefacts, test_users: TestUsers) -> dict[str, int]:
    tables = ("users", "items", "exposures", "tasks")
    counts: dict[str, int] = {name: getattr(artefacts, name).num_rows for name in tables}
    return counts | {"test_users": len(test_users.ids)}
