"""What the peers may see: visible exposures to all items, and what our own scorers learn from."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array

from pipeline.arrays import Ints
from pipeline.examples import Examples
from pipeline.pairs import exposure_matrix, ids_of, rows_of, shown
from pipeline.sections import Visible


@dataclass(frozen=True)
class Evidence:
    """What scorers may learn from: held-out pairs are none of it.

    Recommenders see `seen`: all items, tasks or not, as DeepFM does, from whom our x comes; and
    all visible exposures, those of validation and test users among them, as DeepFM does again.
    Detectors see `x` and what our own scorers on that x learn from: the exposures of training
    users, or the visible ones of all (`ratio.visible`).

    Attributes:
        seen: 1 where a user has a visible exposure to an item, (U, I).
        item: column of `seen` that is the item of each task, (M,).
        examples: x and the pairs, training and validation users; held-out pairs are marked.
    """

    seen: csr_array
    item: Ints
    examples: Examples

    @classmethod
    def of(
        cls,
        features: pa.Table,
        tasks: pa.Table,
        exposures: pa.Table,
        splits: pa.Table,
        *,
        learners: Visible = "train",
    ) -> "Evidence":
        """From the tables; rows of users are those of `features`.

        Args:
            features: x of every user.
            tasks: the tasks.
            exposures: of all users to all items.
            splits: of the users.
            learners: whose visible exposures detectors learn from.

        Raises:
            PipelineError: tables that do not belong together.
        """
        visible = shown(exposures)
        examples = Examples.of(features, tasks, exposures, splits)
        items = np.union1d(ids_of(exposures, "item_id"), ids_of(tasks, "item_id"))
        return cls(
            exposure_matrix(visible, ids_of(features, "user_id"), items),
            rows_of(ids_of(tasks, "item_id"), items, "item"),
            examples if learners == "train" else examples.of_all_users(),
        )

    @property
    def activity(self) -> Ints:
        """How many items each user has seen, (U,)."""
        return np.diff(self.seen.indptr).astype(np.int64)

    @property
    def popularity(self) -> Ints:
        """How many users have seen each item, (I,)."""
        return np.bincount(self.seen.indices, minlength=self.seen.shape[1])
