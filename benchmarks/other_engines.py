"""`prepare` beside engines that it does not run on: DuckDB, Polars and Dask; install them first.

`pip install duckdb polars 'dask[dataframe]'`, then `python -m benchmarks.other_engines 1 10` runs
1 and 10 million exposures and prints a table. Each reads the exposures, keeps the earliest of each
pair, holds pairs out by the law of `pipeline.splits`, and writes them in parts; nothing of a
table's mistakes, labels and users is looked at, as `prepare` does besides.
"""

import sys
import tempfile
from functools import cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from benchmarks.command import command
from benchmarks.engines import PARTITIONS, exposures, measured, write_params
from benchmarks.page import Section, machine
from benchmarks.stages import ROOT
from pipeline.arrays import Bools, Ints
from pipeline.params import Data, load_params
from pipeline.parts import part_name, part_of
from pipeline.spark.exposures import rising
from pipeline.splits import split_of

COLUMNS = ["user_id", "item_id", "timestamp", "held_out"]
ENGINES = ("duckdb", "polars", "dask")
TEXT = """
The exposures of `python -m benchmarks.engines`, in {parts} parts. CPU seconds; in brackets seconds
by the clock, the start of Python included, and the most memory in MB. All wrote the same rows in
the same order. Once each, on {machine}, {versions}.
"""


def main(
    millions: Annotated[list[float] | None, typer.Argument(help="Exposures; 1 and 10.")] = None,
) -> Section:
    """A row an engine, the embedded one first; a column a size."""
    for name in ENGINES:
        import_module(name)  # before anything takes time
    millions = millions or [1.0, 10.0]
    rows = {name: [name] for name in ("prepare, embedded", *ENGINES)}
    for million in millions:
        with tempfile.TemporaryDirectory() as name:
            folder, source = Path(name), Path(name) / "tables/exposures.parquet"
            source.parent.mkdir()
            pq.write_table(exposures(round(million * 1_000_000)), source)
            write_params(folder, source.parent, "embedded")
            rows["prepare, embedded"].append(measured(["-m", "stages.prepare"], folder))
            expected = folder / "data/prepared/exposures.parquet"
            for engine in ENGINES:
                out = folder / engine
                out.mkdir()
                call = f"from benchmarks import other_engines as o; o.by_{engine}(*o.paths())"
                rows[engine].append(measured(["-c", call, str(source), str(out)], folder))
                _require_equal(expected, out)
    versions = ", ".join(f"{name} {version(name)}" for name in ENGINES)
    text = TEXT.format(parts=PARTITIONS, machine=machine(), versions=versions)
    header = ("n = 1", *(f"{million:g} M" for million in millions))
    line = f"python -m benchmarks.other_engines {' '.join(f'{million:g}' for million in millions)}"
    return Section("Other engines", line, text, header, [*rows.values()])


def paths() -> list[Path]:
    """The last two arguments of the command line: what to read, and where to write."""
    return [Path(name) for name in sys.argv[-2:]]


@cache
def law() -> Data:
    """The shares and the seed of params.yaml."""
    return load_params(ROOT / "params.yaml", "data").data


def draws(user: Ints, item: Ints) -> Ints:
    """By which of a user's pairs the smallest are held out."""
    return rising(law().split_seed, user, item)


def trains(user: Ints) -> Bools:
    """Whether each user is in the split train."""
    shares = {"test_share": law().test_share, "valid_share": law().valid_share}
    training: Bools = split_of(user, **shares, seed=law().split_seed) == "train"
    return training


def by_duckdb(source: Path, out: Path) -> None:
    """SQL, with the hashes as functions of Arrow arrays."""
    import duckdb

    def of_pair(user: Any, item: Any) -> pa.Array:  # noqa: ANN401 - Arrow arrays
        return pa.array(draws(user.to_numpy(), item.to_numpy()))

    def of_user(user: Any) -> pa.Array:  # noqa: ANN401
        return pa.array(trains(user.to_numpy()))

    def of_item(item: Any) -> pa.Array:  # noqa: ANN401
        return pa.array(part_of(item.to_numpy(), PARTITIONS).astype(np.int64))

    db = duckdb.connect()
    db.execute(f"set temp_directory = '{out}/spilled'")
    db.create_function("draws", of_pair, ["bigint"] * 2, "bigint", type="arrow")
    db.create_function("trains", of_user, ["bigint"], "boolean", type="arrow")
    db.create_function("part", of_item, ["bigint"], "bigint", type="arrow")
    quota = (
        f"least(floor({law().held_out_share} * count(*) over user + .5), count(*) over user - 1)"
    )
    db.execute(
        f"""
        create table pairs as
            select user_id, item_id, min(timestamp) as timestamp
            from read_parquet('{source}') group by user_id, item_id;
        create table exposures as
            select user_id, item_id, timestamp, part(item_id) as part,
                row_number() over (user order by draw, item_id) <= {quota} and not trains(user_id)
                as held_out
            from (select *, draws(user_id, item_id) as draw from pairs)
            window user as (partition by user_id);
        """
    )
    for part in range(PARTITIONS):
        db.execute(
            f"copy (select {', '.join(COLUMNS)} from exposures where part = {part} "
            f"order by user_id, item_id) to '{out / part_name(part)}' (format parquet)"
        )


def by_polars(source: Path, out: Path) -> None:
    """Its streaming engine where rows repeat, its eager one for the rest."""
    import polars as pl

    pairs = pl.scan_parquet(source).group_by("user_id", "item_id").agg(pl.col("timestamp").min())
    table = pairs.collect(engine="streaming")
    user, item = (table[name].to_numpy() for name in ("user_id", "item_id"))
    count = pl.len().over("user_id")
    quota = pl.min_horizontal((count * law().held_out_share + 0.5).floor(), count - 1)
    table = (
        table.with_columns(
            draw=pl.Series(draws(user, item)),
            trains=pl.Series(trains(user)),
            part=pl.Series(part_of(item, PARTITIONS)),
        )
        .sort("user_id", "draw", "item_id")
        .with_columns(held_out=(pl.int_range(pl.len()).over("user_id") < quota) & ~pl.col("trains"))
    )
    for part in range(PARTITIONS):
        mine = table.filter(pl.col("part") == part).sort("user_id", "item_id")
        mine.select(COLUMNS).write_parquet(out / part_name(part))


def by_dask(source: Path, out: Path) -> None:
    """Pandas, user by user and then part by part, with a shuffle between."""
    import dask.dataframe as dd

    def held_out(table: pd.DataFrame) -> pd.DataFrame:
        table = table.sort_values("timestamp", kind="stable").drop_duplicates(COLUMNS[:2])
        user, item = (table[name].to_numpy() for name in ("user_id", "item_id"))
        table = table.assign(
            draw=draws(user, item), trains=trains(user), part=part_of(item, PARTITIONS)
        ).sort_values(["user_id", "draw", "item_id"])
        of_user = table.groupby("user_id")["draw"]
        count = of_user.transform("size")
        quota = np.minimum(np.floor(law().held_out_share * count + 0.5), count - 1)
        table["held_out"] = (of_user.cumcount() < quota) & ~table["trains"]
        return table[[*COLUMNS, "part"]]

    def write(table: pd.DataFrame) -> pd.DataFrame:
        for part in table["part"].unique().tolist():
            mine = table[table["part"] == part].sort_values(["user_id", "item_id"])
            mine[COLUMNS].to_parquet(out / part_name(part), index=False)
        return table[["part"]].head(1)

    kinds = dict.fromkeys(COLUMNS[:3], "int64") | {"held_out": "bool", "part": "int64"}
    table = dd.read_parquet(source).shuffle("user_id", npartitions=PARTITIONS)
    table = table.map_partitions(held_out, meta=kinds).shuffle("part", npartitions=PARTITIONS)
    table.map_partitions(write, meta={"part": "int64"}).compute()


def _require_equal(expected: Path, out: Path) -> None:
    files = sorted(expected.glob("*.parquet"))
    if len(files) != PARTITIONS:
        raise ValueError(f"{expected}: {len(files)} parts instead of {PARTITIONS}")
    for file in files:
        ours, theirs = (pq.read_table(f / file.name, columns=COLUMNS) for f in (expected, out))
        if not all(ours[c].to_numpy().tolist() == theirs[c].to_numpy().tolist() for c in COLUMNS):
            raise ValueError(f"{out.name}: {file.name} differs")


if __name__ == "__main__":
    command(main)
