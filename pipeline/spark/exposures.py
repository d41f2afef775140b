"""From pieces of a table of exposures to distinct pairs, held out or not, in parts on the disk."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.arrays import Ints
from pipeline.datasets.pieces import Piece, pieces_of
from pipeline.datasets.tables import own_pairs
from pipeline.errors import PipelineError
from pipeline.hashing import HELD_OUT, hash_of
from pipeline.pairs import ids_of
from pipeline.parts import part_name, part_of, replacing_parts
from pipeline.schemas import EXPOSURES
from pipeline.splits import split_of
from pipeline.storage import write_tables

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ROWS = {  # what the workers read; the columns from `place` on are for `write_held_out`
    "user_id": pa.int64(),
    "user_key": pa.string(),
    "item_id": pa.int64(),
    "item_key": pa.string(),
    "rating": pa.int8(),
    "timestamp": pa.int64(),
    "place": pa.int64(),  # number of the piece << PLACE_BITS, and of the row in it
    "training": pa.bool_(),  # whether the user is in the split train
    "draw": pa.int64(),  # of a user's exposures those with the smallest are held out
    "part": pa.int32(),
}
SQL = {pa.int64(): "long", pa.int32(): "int", pa.int8(): "byte", pa.string(): "string"}
PLACE_BITS = 32
BATCH = 1 << 16  # rows that a worker hands to Spark at once
NOT_SHARED = (
    "what the driver can read, Spark's workers cannot; data and project must lie in folders that "
    "all machines see under the same path."
)
TASKS = 10_000  # at most, to read the pieces


@dataclass(frozen=True)
class Law:
    """What decides what becomes of a row: see `pipeline.splits` and `pipeline.parts`."""

    test_share: float
    valid_share: float
    held_out_share: float
    seed: int
    partitions: int


class Written(NamedTuple):
    """How many exposures were written, and how many of them are held out."""

    exposures: int
    held_out: int


def read_pieces(
    spark: "SparkSession", pieces: list[Piece], law: Law, *, text_ids: bool
) -> "DataFrame":
    """The rows of the pieces (ROWS), as the workers read them.

    A piece with a fault is a row without user_id: `Piece.read` and `own_pairs` tell what it is.
    """
    rows = [(k, one.path, one.file, one.start, one.end) for k, one in enumerate(pieces)]
    spread = spark.sparkContext.parallelize(rows, min(len(rows), TASKS))
    listed = spark.createDataFrame(
        spread, "number long, path string, file string, start long, end long"
    )
    schema = ", ".join(f"{name} {SQL.get(kind, 'boolean')}" for name, kind in ROWS.items())
    return listed.mapInArrow(partial(_read_batches, law=law, text_ids=text_ids), schema)


def spread_out(spark: "SparkSession", exposures: pa.Table, law: Law, file: Path) -> "DataFrame":
    """`read_pieces` of a table that is at hand; it is written to `file` first."""
    pq.write_table(exposures, file, row_group_size=BATCH)
    return read_pieces(spark, pieces_of(file), law, text_ids=False)


def write_held_out(rows: "DataFrame", path: Path, law: Law) -> Written:
    """Write the distinct pairs among the rows as exposures; each has its earliest moment."""
    from pyspark.sql import functions as F
    from pyspark.sql.window import Window

    pair, user = Window.partitionBy("user_id", "item_id"), Window.partitionBy("user_id")
    moment = F.coalesce("timestamp", F.lit(np.iinfo(np.int64).max))
    quota = F.least(F.floor(F.lit(law.held_out_share) * F.col("met") + 0.5), F.col("met") - 1)
    exposures = (
        rows.drop("user_key", "item_key")
        .repartition("user_id")  # the one exchange that every window below needs
        .withColumn("time", F.row_number().over(pair.orderBy(moment, "place")))
        .where("time = 1")
        .withColumn("met", F.count("*").over(user))
        .withColumn("rank", F.row_number().over(user.orderBy("draw", "item_id")))
        .withColumn("held_out", ~F.col("training") & (F.col("rank") <= quota))
        .select("part", *EXPOSURES.columns)
        .repartition(law.partitions, "part")
        .sortWithinPartitions("part", *EXPOSURES.key)
    )
    with replacing_parts(path, law.partitions) as folder:
        write = partial(_write_batches, folder=str(folder.resolve()))
        written = exposures.mapInArrow(write, "part int, rows long, held_out long").collect()
    return Written(sum(row.rows for row in written), sum(row.held_out for row in written))


def _read_batches(
    batches: Iterable[pa.RecordBatch], *, law: Law, text_ids: bool
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for row in batch.to_pylist():
            number = row.pop("number")
            yield from _read_piece(number << PLACE_BITS, Piece(**row), law, text_ids).to_batches(
                max_chunksize=BATCH
            )


def _read_piece(place: int, piece: Piece, law: Law, text_ids: bool) -> pa.Table:
    try:
        pairs = own_pairs(piece.read(), text_ids=text_ids)
    except (PipelineError, OSError):
        fault = {name: [place if name == "place" else None] for name in ROWS}
        return pa.table(fault, schema=pa.schema(ROWS))
    user, item = (ids_of(pairs, name) for name in ("user_id", "item_id"))
    split = split_of(user, test_share=law.test_share, valid_share=law.valid_share, seed=law.seed)
    made = {
        "place": place + np.arange(len(user)),
        "training": split == "train",
        "draw": rising(law.seed, user, item),
        "part": part_of(item, law.partitions),
    }
    columns = {name: pairs.column(name) for name in pairs.column_names} | made
    none = pa.nulls(len(user), pa.string())
    return pa.table({name: columns.get(name, none) for name in ROWS}, schema=pa.schema(ROWS))


def rising(seed: int, user: Ints, item: Ints) -> Ints:
    """The hash by which exposures are held out as int64: unsigned order becomes signed order."""
    return (hash_of(HELD_OUT, seed, user, item) ^ np.uint64(1 << 63)).view(np.int64)


def _write_batches(batches: Iterable[pa.RecordBatch], *, folder: str) -> Iterator[pa.RecordBatch]:
    """Write each part to its file: the rows come sorted by part, then by the key."""
    for part, group in groupby(_by_part(batches), key=itemgetter(0)):
        tables = (table for _, table in group)
        rows, held_out = _write_part(tables, Path(folder) / part_name(part))
        made = {"part": pa.array([part], pa.int32()), "rows": [rows], "held_out": [held_out]}
        yield pa.record_batch(made)


def _write_part(tables: Iterable[pa.Table], file: Path) -> Written:
    held_out: list[int] = []

    def counted() -> Iterator[pa.Table]:
        for table in tables:
            held_out.append(int(table.column("held_out").to_numpy().sum()))
            yield table

    rows = write_tables(counted(), file, EXPOSURES)
    return Written(rows, sum(held_out))


def _by_part(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, pa.Table]]:
    for batch in batches:
        if batch.column("part").null_count:
            raise PipelineError(NOT_SHARED)
        part = batch.column("part").to_numpy()
        table = pa.table({name: batch.column(name) for name in EXPOSURES.columns})
        starts = np.flatnonzero(np.diff(part, prepend=-1)).tolist()
        for start, end in zip(starts, [*starts[1:], len(part)], strict=True):
            yield int(part[start]), table.slice(start, end - start)
