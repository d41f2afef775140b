"""The counts behind the task filter, on Spark: items x classes, of all and of training users."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from pipeline.pairs import ids_of, unknown
from pipeline.schemas import EXPOSURES
from pipeline.storage import RowGroups
from pipeline.tasks import Crowd, ItemCounts

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TOTAL = -1  # stands for a label whose one class, 0, has all users


def count_on(spark: "SparkSession", crowd: Crowd, exposures: Path) -> ItemCounts:
    """`pipeline.tasks.count_groups` of exposures on the disk: the same integers.

    Raises:
        PipelineError: the file is missing or has other columns; or an exposure of an unknown user.
    """
    RowGroups(exposures, EXPOSURES).require_columns()
    codes = {f"code_{n}": k.codes for n, k in enumerate(crowd.labels.values())}
    known = pa.table({"user_id": crowd.user_id, "training": crowd.training} | codes)
    read = spark.read.parquet(f"file://{exposures.resolve()}").select("user_id", "item_id")
    met = read.join(spark.createDataFrame(known), "user_id", "left")
    counted = _cells(met, len(codes)).toArrow()
    _require_known(counted, met, crowd)
    return _dense(counted, crowd)


def _cells(met: "DataFrame", labels: int) -> "DataFrame":
    """A row for each item, label and class that somebody is of."""
    from pyspark.sql import functions as F

    kinds = [(TOTAL, F.lit(0)), *((n, F.col(f"code_{n}")) for n in range(labels))]
    cells = F.explode(
        F.array(
            *(F.struct(F.lit(n).alias("label"), c.cast("long").alias("code")) for n, c in kinds)
        )
    )
    return (
        met.select("item_id", "training", cells.alias("cell"))
        .groupBy("item_id", "cell.label", "cell.code")
        .agg(
            F.count("*").alias("all"),
            F.count_if("training").alias("trained"),
            F.count_if(F.col("training").isNull()).alias("unknown"),
        )
    )


def _require_known(counted: pa.Table, met: "DataFrame", crowd: Crowd) -> None:
    total = ids_of(counted, "label") == TOTAL
    if rows := int(ids_of(counted, "unknown")[total].sum()):
        first = met.where("training is null").agg({"user_id": "min"}).first()
        raise unknown("user", first[0], len(crowd.user_id), rows)


def _dense(counted: pa.Table, crowd: Crowd) -> ItemCounts:
    """The cells as tables of items x classes."""
    item_id, item = np.unique(ids_of(counted, "item_id"), return_inverse=True)
    label, code = (ids_of(counted, name) for name in ("label", "code"))

    def table(
        kind: int, classes: int, figure: str
    ) -> "np.ndarray[tuple[int, int], np.dtype[np.int64]]":
        cells = np.zeros((len(item_id), classes), np.int64)
        of = label == kind
        cells[item[of], code[of]] = ids_of(counted, figure)[of]
        return cells

    sizes = {name: (n, len(k)) for n, (name, k) in enumerate(crowd.labels.items())}
    return ItemCounts(
        item_id=item_id,
        exposures=table(TOTAL, 1, "all")[:, 0],
        train_exposures=table(TOTAL, 1, "trained")[:, 0],
        classes={name: table(*size, "all") for name, size in sizes.items()},
        train_classes={name: table(*size, "trained") for name, size in sizes.items()},
    )
