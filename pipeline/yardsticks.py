"""What a score is measured by: which users each task should put above which others.

Two kinds. Labels (section 5.1 of the paper): users of the task's nominal class above users of its
anomalous class, exposed or not. Exposures (ours): users with a held-out pair above users who never
met the item; visible pairs take no part.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipeline.arrays import Bools, Ints
from pipeline.auc import Sides
from pipeline.labels import label_classes, task_classes
from pipeline.pairs import Pairs, find, in_rows

if TYPE_CHECKING:
    from pipeline.params import Label


@dataclass(frozen=True)
class TaskLabel:
    """A label as the tasks see it.

    Attributes:
        codes: class of each user, (U,).
        nominal: class that should score high, (M,).
        anomalous: class that should score low, (M,).
        kept: the label's own half of the tasks, (M,).
        classes: training exposures by class, (M, K).
    """

    codes: Ints
    nominal: Ints
    anomalous: Ints
    kept: Bools
    classes: Ints

    def sides(self, users: Ints) -> Sides:
        """Nominal above anomalous among the rows `users`; nobody where the two are one."""
        code = self.codes[users]
        differ = (self.nominal != self.anomalous)[:, None]
        return Sides(
            positive=differ & (code == self.nominal[:, None]),
            negative=differ & (code == self.anomalous[:, None]),
        )


def task_label(
    name: str, label: "Label", users: pa.Table, tasks: pa.Table, pairs: Pairs, train: Ints
) -> TaskLabel:
    """The label `name`, its classes counted over the pairs of the training users.

    Raises:
        PipelineError: the users or the tasks table lacks the label's columns, or they differ in
            their classes.
    """
    found = label_classes(users, name, label)
    nominal, anomalous, kept = task_classes(tasks, name, len(found))
    learned = pairs.where(in_rows(pairs.user, train, len(found.codes)))
    shape = (tasks.num_rows, len(found))
    cell = learned.task * len(found) + found.codes[learned.user]
    classes = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape)
    return TaskLabel(found.codes, nominal, anomalous, kept, classes)


def exposure_sides(pairs: Pairs, users: Ints, tasks: int) -> Sides:
    """Users with a held-out pair above users without any pair of the task.

    Args:
        pairs: all pairs of all users, held out and visible.
        users: rows of the users to compare, (U,), rising.
        tasks: M.
    """
    column = find(pairs.user, users)
    here = column < len(users)
    task, column, held_out = pairs.task[here], column[here], pairs.held_out[here]
    exposed = np.zeros((tasks, len(users)), bool)
    exposed[task, column] = True
    positive = np.zeros((tasks, len(users)), bool)
    positive[task[held_out], column[held_out]] = True
    return Sides(positive, ~exposed)
