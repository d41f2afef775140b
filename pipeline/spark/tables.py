"""A user's own tables on Spark: their exposures stay there, users and items come to the driver."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline.datasets.own_ids import Who, two_texts
from pipeline.datasets.own_table import OwnTable, like_a_date
from pipeline.datasets.pieces import Piece, pieces_of
from pipeline.datasets.table_files import no_rows, read_own
from pipeline.datasets.tables import (
    distinct_ids,
    find_exposures,
    own_items,
    own_pairs,
    own_users,
    require_moments,
    titled,
    unlisted,
)
from pipeline.errors import PipelineError
from pipeline.spark.exposures import NOT_SHARED, PLACE_BITS, Law, read_pieces

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


@dataclass(frozen=True)
class SparkTables:
    """What `pipeline.datasets.tables.read_tables` gives, with the exposures on Spark.

    Attributes:
        users, items: as in a `Source`.
        rows: `read_pieces` of the exposures, repeats among them.
        count: how many rows.
    """

    users: pa.Table
    items: pa.Table
    rows: "DataFrame"
    count: int


def read_tables_on(spark: "SparkSession", folder: Path, law: Law, *, text_ids: bool) -> SparkTables:
    """Read exposures, and users and items where there are such tables, from a folder.

    Raises:
        PipelineError: a file is missing or faulty; names the file and the row.
    """
    files = find_exposures(folder)
    pieces = pieces_of(files["exposures"])
    rows = read_pieces(spark, pieces, law, text_ids=text_ids).persist()
    own = OwnRows(files["exposures"], pieces, rows, text_ids)
    count = own.require_readable()
    if text_ids:
        own.require_one_text("user")
        own.require_one_text("item")
    own.require_moments()
    users = own_users(read_own(files["users"]), text_ids) if "users" in files else own.ids("user")
    items = (
        own_items(read_own(files["items"]), text_ids)
        if "items" in files
        else titled(own.ids("item"))
    )
    if "users" in files:
        own.require_known(spark, "user", users)
    if "items" in files:
        own.require_known(spark, "item", items)
    return SparkTables(users, items, rows, count)


@dataclass(frozen=True)
class OwnRows:
    """The rows of a table of exposures, and where they come from."""

    path: Path
    pieces: list[Piece]
    rows: "DataFrame"
    text_ids: bool

    def require_readable(self) -> int:
        """The number of rows; raises the fault of the first piece that has one."""
        from pyspark.sql import functions as F

        fault = F.min(F.when(F.col("user_id").isNull(), F.col("place")))
        first, count = self.rows.agg(fault, F.count("*")).first()
        if first is not None:
            own_pairs(self._piece(first), text_ids=self.text_ids)
            raise PipelineError(f"{self.path}: {NOT_SHARED}")
        if not count:
            raise no_rows(self.path)
        return int(count)

    def ids(self, who: Who) -> pa.Table:
        """Each id once, rising, for want of a table of them."""
        names = [f"{who}_id", *([f"{who}_key"] if self.text_ids else [])]
        return distinct_ids(self.rows.select(names).distinct().toArrow())

    def require_one_text(self, who: Who) -> None:
        """Raise PipelineError if two texts have one number."""
        from pyspark.sql import functions as F

        key = F.col(f"{who}_key")
        texts = self.rows.groupBy(f"{who}_id").agg((F.min(key) != F.max(key)).alias("two"))
        if texts.where("two").head():
            raise two_texts(self.path, f"{who}_id")

    def require_moments(self) -> None:
        """Raise the fault of the first row with a moment if all moments are dates as numbers."""
        from pyspark.sql import functions as F

        given = self.rows.where("timestamp IS NOT NULL")
        if given.where(~like_a_date(F.col("timestamp"))).head() is not None:
            return
        first = given.agg(F.min("place")).first()[0]
        if first is not None:
            piece = self._piece(first)
            require_moments(piece, own_pairs(piece, text_ids=self.text_ids))

    def require_known(self, spark: "SparkSession", who: Who, known: pa.Table) -> None:
        """Raise PipelineError if exposures are of users, or to items, not in the table `known`."""
        from pyspark.sql import functions as F

        name = f"{who}_id"
        listed = spark.createDataFrame(known.select([name]))
        strange = self.rows.join(listed, name, "left_anti")
        counts = strange.agg(F.min("place"), F.count("*"), F.count_distinct(name))
        first, rows, ids = counts.first()
        if first is not None:
            row = first & ((1 << PLACE_BITS) - 1)
            raise unlisted(self._piece(first), who, row, rows=rows, ids=ids)

    def _piece(self, place: int) -> OwnTable:
        """The piece that has the row at `place`, as messages need it."""
        piece = self.pieces[place >> PLACE_BITS]
        return piece.read(piece.before(self.pieces))
