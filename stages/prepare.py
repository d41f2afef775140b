"""Lay the source out as users, items and distinct exposures; split the users."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, assert_never

import typer

from stages.downloads import download_progress
from stages.main_stage import stage
from stages.shell import PARAMS, RUN_INFO, ParamsOption, Run, RunInfoOption, stage_app

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.datasets.source import Source

app = stage_app()


@app.command()
def main(
    users: Annotated[Path, typer.Option(help="Writes: user_id and labels.")] = Path(
        "data/prepared/users.parquet"
    ),
    items: Annotated[Path, typer.Option(help="Writes: item_id, title, genres.")] = Path(
        "data/prepared/items.parquet"
    ),
    exposures: Annotated[
        Path, typer.Option(help="Writes: one row a distinct (user, item), and if it is held out.")
    ] = Path("data/prepared/exposures.parquet"),
    splits: Annotated[
        Path, typer.Option(help="Writes: each user's split: train, valid or test.")
    ] = Path("data/prepared/splits.parquet"),
    raw: Annotated[
        Path, typer.Option(help="Reads and keeps: a downloaded archive, and what is in it.")
    ] = Path("data/raw"),
    params: ParamsOption = PARAMS,
    run_info: RunInfoOption = RUN_INFO,
) -> None:
    """Lay the source out as users, items and distinct exposures; split the users.

    Reads the source that `data.source` names: the embedded simulation; MovieLens 1M from the
    folder `data.raw_dir`, else from the publisher's archive, downloaded once and kept in --raw; or
    your own tables in the folder `data.tables_dir`.
    """
    outputs = [users, items, exposures, splits]
    keys = ("data", "simulation", "labels")
    with stage("prepare", params, *keys, outputs=outputs, run_info=run_info) as run:
        from pipeline import schemas
        from pipeline.storage import write_table

        prepare = _on_spark if run.params.runtime.engine == "spark" else _embedded
        made = prepare(run, raw, exposures)
        write_table(made.users, users, schemas.USERS)
        write_table(made.items, items, schemas.ITEMS)
        write_table(made.splits, splits, schemas.SPLITS)
        if not made.held_out:
            share = run.params.data.held_out_share
            run.warn(
                "no exposure is held out, and `evaluate` measures by those: of few exposures "
                f"data.held_out_share ({share:g}) rounds to none; raise it, or take users with more"
            )
        run.say(
            f"{made.exposures:,} exposures of {made.users.num_rows:,} users to "
            f"{made.items.num_rows:,} items, from {made.origin}"
        )


class Made(NamedTuple):
    """What is there once the exposures are written."""

    users: "pa.Table"
    items: "pa.Table"
    splits: "pa.Table"
    exposures: int
    held_out: int  # of them
    origin: str


def _embedded(run: Run, raw: Path, out: Path) -> Made:
    """Read the source and write its exposures to `out`, held out or not."""
    from pipeline.parts import write_exposures
    from pipeline.splits import hold_out

    data = run.params.data
    source, origin = _read_source(run, raw)
    split = _split(run, source.users)
    pairs = hold_out(source.exposures, split, share=data.held_out_share, seed=data.split_seed)
    write_exposures(pairs, out, run.params.runtime.partitions)
    held_out = int(pairs.column("held_out").to_numpy().sum())
    return Made(source.users, source.items, split, pairs.num_rows, held_out, origin)


def _on_spark(run: Run, raw: Path, out: Path) -> Made:
    """The same on Spark; your own tables are read there too."""
    from pipeline.files import scratch_folder
    from pipeline.spark.exposures import Law, spread_out, write_held_out
    from pipeline.spark.session import spark_session
    from pipeline.spark.tables import read_tables_on

    data, runtime = run.params.data, run.params.runtime
    law = Law(
        test_share=data.test_share,
        valid_share=data.valid_share,
        held_out_share=data.held_out_share,
        seed=data.split_seed,
        partitions=runtime.partitions,
    )
    with spark_session(runtime.spark_master) as spark, scratch_folder(out.parent) as scratch:
        if data.source == "tables":
            folder = Path(data.tables_dir)
            tables = read_tables_on(spark, folder, law, text_ids=data.text_ids)
            split = _split(run, tables.users)
            written = write_held_out(tables.rows, out, law)
            origin = _told(run, folder, tables.count - written.exposures)
            return Made(tables.users, tables.items, split, *written, origin)
        source, origin = _read_source(run, raw)
        split = _split(run, source.users)
        rows = spread_out(spark, source.exposures, law, scratch / "exposures.parquet")
        return Made(source.users, source.items, split, *write_held_out(rows, out, law), origin)


def _split(run: Run, users: "pa.Table") -> "pa.Table":
    """Split the users, once it is sure that they have the labels that later stages will ask for."""
    from pipeline.labels import require_classes
    from pipeline.pairs import ids_of
    from pipeline.splits import split_users

    require_classes(users, run.params.labels)
    data = run.params.data
    return split_users(
        ids_of(users, "user_id"),
        test_share=data.test_share,
        valid_share=data.valid_share,
        seed=data.split_seed,
    )


def _read_source(run: Run, raw: Path) -> tuple["Source", str]:
    """The source that the params name, and in words where it came from."""
    data = run.params.data
    if data.source == "simulated":
        from pipeline.datasets.simulation import simulate

        return simulate(run.params.simulation), "the embedded simulation"
    if data.source == "tables":
        return _read_tables(run)
    if data.source == "movielens-1m":
        return _read_movielens(run, raw)
    assert_never(data.source)


def _read_movielens(run: Run, raw: Path) -> tuple["Source", str]:
    """MovieLens 1M, and in words where it is."""
    from pipeline.datasets import movielens
    from pipeline.datasets.download import fetch
    from pipeline.files import sha256

    raw_dir = run.params.data.raw_dir
    if raw_dir is None:
        with download_progress(movielens.ARCHIVE.url) as progress:
            folder = fetch(movielens.ARCHIVE, raw, progress)
    else:
        folder = Path(raw_dir)
    source = movielens.read_movielens(folder)
    run.facts["raw"] = {str(folder / name): sha256(folder / name) for name in movielens.FILES}
    return source, f"MovieLens 1M in {folder}"


def _read_tables(run: Run) -> tuple["Source", str]:
    """The user's own tables, and in words where they are."""
    from pipeline.datasets.tables import read_tables

    folder = Path(run.params.data.tables_dir)
    source = read_tables(folder, text_ids=run.params.data.text_ids)
    return source, _told(run, folder, source.repeats)


def _told(run: Run, folder: Path, repeats: int) -> str:
    """In words where the user's own tables are; their hashes go among the run facts."""
    from pipeline.datasets.table_files import find_tables
    from pipeline.files import sha256

    run.facts["raw"] = {str(path): sha256(path) for path in find_tables(folder).values()}
    return f"the tables in {folder} ({repeats:,} repeats counted once)"


if __name__ == "__main__":
    app()
