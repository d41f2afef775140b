"""The files that a report is made from, read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.labels import label_classes, task_classes
from pipeline.models.ratio import RatioNet
from pipeline.pairs import ids_of, rows_of
from pipeline.params import Params

Rows = Sequence[Mapping[str, str]]  # of a CSV file


@dataclass(frozen=True)
class Artefacts:
    """Tables as their schemas say; rows of CSV files as text; the trained network."""

    users: pa.Table
    items: pa.Table
    exposures: pa.Table
    splits: pa.Table
    features: pa.Table
    tasks: pa.Table
    task_init: pa.Table
    task_embeddings: pa.Table
    net: RatioNet
    scores: pa.Table
    metrics: Mapping[str, object]
    task_auc: Rows
    roc: Rows
    features_history: Rows
    pretrain_history: Rows
    ratio_history: Rows

    @property
    def task_items(self) -> pa.Table:
        """The item of each task, a row a task.

        Raises:
            PipelineError: a task whose item is not among the items.
        """
        wanted, known = (ids_of(t, "item_id") for t in (self.tasks, self.items))
        return self.items.take(rows_of(wanted, known, "item"))

    def require_labels(self, params: Params) -> None:
        """Raise PipelineError unless users and tasks have the labels of the params, and agree."""
        for name, label in params.labels.items():
            classes = label_classes(self.users, name, label)
            if name in params.evaluate.labels:
                task_classes(self.tasks, name, len(classes))
