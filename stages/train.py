"""Learn log q_t(x)/p(x) for all tasks together (Algorithm 1)."""

from pathlib import Path
from typing import Annotated

import typer

from stages.main_stage import stage
from stages.shell import PARAMS, RUN_INFO, ParamsOption, RunInfoOption, stage_app

app = stage_app()


@app.command()
def main(
    features: Annotated[Path, typer.Option(help="Reads: each user's vector x.")] = Path(
        "data/features/users.parquet"
    ),
    tasks: Annotated[Path, typer.Option(help="Reads: the tasks.")] = Path("data/tasks.parquet"),
    exposures: Annotated[Path, typer.Option(help="Reads: one row a distinct (user, item).")] = Path(
        "data/prepared/exposures.parquet"
    ),
    splits: Annotated[Path, typer.Option(help="Reads: each user's split.")] = Path(
        "data/prepared/splits.parquet"
    ),
    task_init: Annotated[Path, typer.Option(help="Reads: the embeddings to start from.")] = Path(
        "data/task_init.parquet"
    ),
    model: Annotated[Path, typer.Option(help="Writes: the network.")] = Path(
        "data/ratio/model.safetensors"
    ),
    task_embeddings: Annotated[Path, typer.Option(help="Writes: the trained embeddings.")] = Path(
        "data/ratio/task_embeddings.parquet"
    ),
    history: Annotated[Path, typer.Option(help="Writes: the losses of each epoch.")] = Path(
        "data/ratio/history.csv"
    ),
    params: ParamsOption = PARAMS,
    run_info: RunInfoOption = RUN_INFO,
) -> None:
    """Learn log q_t(x)/p(x) for all tasks together (Algorithm 1), on a GPU where there is one."""
    outputs = [model, task_embeddings, history]
    with stage(
        "train", params, "ratio", "seed", outputs=outputs, run_info=run_info, several=True
    ) as run:
        if run.hand_on():
            return

        from pipeline import schemas
        from pipeline.conditional import train_conditional
        from pipeline.embedding_matrix import embedding_matrix, embedding_table
        from pipeline.examples import Examples
        from pipeline.model_files import write_network
        from pipeline.pairs import ids_of
        from pipeline.parts import read_exposures_to
        from pipeline.storage import read_table, write_table
        from pipeline.text_files import write_csv
        from pipeline.training.history import (
            best_row,
            kept_epoch,
            longer_patience,
            rested_at_chance,
            rounded,
        )
        from stages.session import open_session

        wanted = run.params.ratio
        tasks_table = read_table(tasks, schemas.TASKS)
        start = embedding_matrix(read_table(task_init, schemas.TASK_EMBEDDINGS), tasks_table)
        examples = Examples.of(
            read_table(features, schemas.FEATURES),
            tasks_table,
            read_exposures_to(run.ranks().own(ids_of(tasks_table, "item_id")), exposures),
            read_table(splits, schemas.SPLITS),
        ).deal_x(run.ranks())
        with open_session(
            run, features, tasks, exposures, splits, task_init, max_epochs=wanted.max_epochs
        ) as session:
            made = train_conditional(
                examples,
                start,
                params=wanted,
                seed=run.params.seed,
                session=session,
            )
        if not run.leads:
            return
        if rested_at_chance(made.history):
            run.warn("the loss never left 2 ln 2: nothing was learned; raise ratio.max_epochs")
        write_network(made.net, model, base=wanted.base, seed=str(run.params.seed))
        write_table(embedding_table(made.e, tasks_table), task_embeddings, schemas.TASK_EMBEDDINGS)
        write_csv(rounded(made.history), history)
        best = best_row(made.history)
        scaled = "scaled_valid_loss" in best
        longer = longer_patience(made.history, wanted.patience)
        hint = f"; perhaps a plateau: try ratio.patience {longer}, compare exposure_valid"
        run.say(
            f"{examples.tasks:,} tasks: validation loss {best['valid_loss']:.4f} "
            f"{kept_epoch(made.history, wanted)}"
            + (f"; {best['scaled_valid_loss']:.4f} scaled by {best['slope']:.2f}" if scaled else "")
            + (hint if longer else "")
        )


if __name__ == "__main__":
    app()
