"""Lay the source out as users, items and distinct exposures; split the users."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stages.downloads import download_progress
from stages.shell import PARAMS, RUN_INFO, ParamsOption, Run, RunInfoOption, stage, stage_app

if TYPE_CHECKING:
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
    with stage("prepare", params, "data", "simulation", outputs=outputs, run_info=run_info) as run:
        from pipeline import schemas
        from pipeline.splits import hold_out, split_users
        from pipeline.storage import write_table

        data = run.params.data
        source, origin = _read_source(run, raw)
        split = split_users(
            source.users.column("user_id").to_numpy(),
            test_share=data.test_share,
            valid_share=data.valid_share,
            seed=data.split_seed,
        )
        pairs = hold_out(source.exposures, split, share=data.held_out_share, seed=data.split_seed)
        write_table(source.users, users, schemas.USERS)
        write_table(source.items, items, schemas.ITEMS)
        write_table(pairs, exposures, schemas.EXPOSURES)
        write_table(split, splits, schemas.SPLITS)
        run.say(
            f"{pairs.num_rows:,} exposures of {split.num_rows:,} users to "
            f"{source.items.num_rows:,} items, from {origin}"
        )


def _read_source(run: Run, raw: Path) -> tuple["Source", str]:
    """The source that the params name, and in words where it came from."""
    data = run.params.data
    if data.source == "simulated":
        from pipeline.datasets.simulation import simulate

        return simulate(run.params.simulation), "the embedded simulation"
    if data.source == "tables":
        return _read_tables(run)

    from pipeline.datasets import movielens
    from pipeline.datasets.download import fetch
    from pipeline.storage import sha256

    if data.raw_dir is None:
        with download_progress(movielens.ARCHIVE.url) as progress:
            folder = fetch(movielens.ARCHIVE, raw, progress)
    else:
        folder = Path(data.raw_dir)
    source = movielens.read_movielens(folder)
    run.facts["raw"] = {str(folder / name): sha256(folder / name) for name in movielens.FILES}
    return source, f"MovieLens 1M in {folder}"


def _read_tables(run: Run) -> tuple["Source", str]:
    """The user's own tables, and in words where they are."""
    from pipeline.datasets.table_files import find_tables
    from pipeline.datasets.tables import read_tables
    from pipeline.storage import sha256

    data = run.params.data
    folder = Path(data.tables_dir)
    source = read_tables(folder, text_ids=data.text_ids)
    run.facts["raw"] = {str(path): sha256(path) for path in find_tables(folder).values()}
    return source, f"the tables in {folder} ({source.repeats:,} repeats counted once)"


if __name__ == "__main__":
    app()
