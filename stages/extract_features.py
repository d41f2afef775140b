"""Train DeepFM on the visible exposures; give every user a vector x."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stages.main_stage import stage
from stages.shell import PARAMS, RUN_INFO, ParamsOption, Run, RunInfoOption, stage_app

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.arrays import Singles
    from pipeline.training.history import Row

app = stage_app()


@app.command()
def main(
    users: Annotated[Path, typer.Option(help="Reads: user_id and fields.")] = Path(
        "data/prepared/users.parquet"
    ),
    items: Annotated[Path, typer.Option(help="Reads: item_id and genres.")] = Path(
        "data/prepared/items.parquet"
    ),
    exposures: Annotated[
        Path,
        typer.Option(help="Reads: distinct (user, item); learns from all but held-out ones."),
    ] = Path("data/prepared/exposures.parquet"),
    splits: Annotated[Path, typer.Option(help="Reads: each user's split.")] = Path(
        "data/prepared/splits.parquet"
    ),
    out: Annotated[Path, typer.Option(help="Writes: user_id and x.")] = Path(
        "data/features/users.parquet"
    ),
    model: Annotated[
        Path,
        typer.Option(help="Writes: DeepFM and its codes (or vectors of items), mean and scale."),
    ] = Path("data/features/deepfm.safetensors"),
    history: Annotated[Path, typer.Option(help="Writes: the losses of each epoch.")] = Path(
        "data/features/history.csv"
    ),
    params: ParamsOption = PARAMS,
    run_info: RunInfoOption = RUN_INFO,
) -> None:
    """Train DeepFM on the visible exposures; give every user a vector x.

    With `features.model: svd`, x comes from a singular value decomposition of the exposures
    instead, with `als` from their factorisation, with `table` from your own table of vectors, and
    with `latents` from what the simulation knows of its users.
    """
    keys = ("features", "seed", "data.source", "data.tables_dir", "data.text_ids", "simulation")
    outputs = [out, model, history]
    with stage(
        "extract_features", params, *keys, outputs=outputs, run_info=run_info, several=True
    ) as run:
        if run.params.features.model != "deepfm":
            run.refuse_torchrun()
        elif run.hand_on():
            return
        import pyarrow as pa

        from pipeline import schemas
        from pipeline.features.extraction import CLOSED_FORM
        from pipeline.parts import read_visible
        from pipeline.storage import read_table, vectors, write_table
        from pipeline.text_files import write_csv

        people = read_table(users, schemas.USERS)
        parts = read_table(splits, schemas.SPLITS)
        if run.params.features.model == "deepfm":
            things = read_table(items, schemas.ITEMS)
            pairs = read_visible(exposures)
            inputs = [users, items, exposures, splits]
            x, rows, line = _deepfm(run, people, things, pairs, parts, model, inputs)
        elif run.params.features.model in CLOSED_FORM:
            pairs = read_visible(exposures)
            x, rows, line = _closed_form(run, people, pairs, parts, model)
        else:
            x, rows, line = _ready_made(run, people, parts, model)
        if not run.leads:
            return
        features = pa.table({"user_id": people.column("user_id"), "x": vectors(x)})
        write_table(features, out, schemas.FEATURES)
        write_csv(rows, history)
        run.say(f"x of {len(x):,} users, {x.shape[1]} wide: {line}")


def _deepfm(
    run: Run,
    users: "pa.Table",
    items: "pa.Table",
    exposures: "pa.Table",
    splits: "pa.Table",
    model: Path,
    inputs: list[Path],
) -> tuple["Singles", "list[Row]", str]:
    """Train DeepFM and write it; x (U, f_dim), the history, and a word about it."""
    from pipeline.features.extraction import extract
    from pipeline.training.history import best_row, kept_epoch, rounded
    from stages.session import open_session

    wanted = run.params.features
    with open_session(run, *inputs, max_epochs=wanted.max_epochs) as session:
        made = extract(
            users,
            items,
            exposures,
            splits,
            wanted,
            seed=run.params.seed,
            session=session,
        )
    if run.leads:
        made.extractor.write(model)
    best = best_row(made.history)
    line = (
        f"{int((~made.trained).sum()):,} folded in, pair AUC {best['pair_auc']:.4f} "
        f"{kept_epoch(made.history, wanted)}"
    )
    return made.x, rounded(made.history), line


def _closed_form(
    run: Run, users: "pa.Table", exposures: "pa.Table", splits: "pa.Table", model: Path
) -> tuple["Singles", "list[Row]", str]:
    """Decompose the visible exposures and write items' vectors; x (U, d), no history, a word."""
    from pipeline.features.extraction import closed_form

    wanted = run.params.features
    made = closed_form(users, exposures, splits, wanted, seed=run.params.seed)
    made.write(model)
    line = f"{wanted.model} of the visible exposures to {len(made.items):,} items"
    return made.vectors(users, exposures), [{"epoch": 0}], line


def _ready_made(
    run: Run, users: "pa.Table", splits: "pa.Table", model: Path
) -> tuple["Singles", "list[Row]", str]:
    """Look vectors up and write their scale; x (U, d), no history, a word about them."""
    from pipeline.features.extraction import visible_users
    from pipeline.features.latents import true_latents
    from pipeline.features.own_vectors import own_vectors
    from pipeline.model_files import write_model

    data, wanted = run.params.data, run.params.features
    visible = visible_users(users, splits, wanted)
    if wanted.model == "latents":
        x, scale = true_latents(users, visible, data.source, run.params.simulation)
        origin = "the simulation's true latents"
    else:
        folder = Path(data.tables_dir)
        x, scale = own_vectors(folder, users, visible, text_ids=data.text_ids)
        origin = f"the vectors in {folder}"
    write_model({"mean": scale.mean, "scale": scale.scale}, {"user_fields": []}, model)
    return x, [{"epoch": 0}], origin


if __name__ == "__main__":
    app()
