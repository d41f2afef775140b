"""Train the pre-embedding model on a few seed tasks (Algorithm 1, one head a task)."""

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
    seed_tasks: Annotated[Path, typer.Option(help="Writes: the tasks of its heads.")] = Path(
        "data/pretrain/seed_tasks.parquet"
    ),
    model: Annotated[Path, typer.Option(help="Writes: the pre-embedding model.")] = Path(
        "data/pretrain/model.safetensors"
    ),
    history: Annotated[Path, typer.Option(help="Writes: the losses of each epoch.")] = Path(
        "data/pretrain/history.csv"
    ),
    params: ParamsOption = PARAMS,
    run_info: RunInfoOption = RUN_INFO,
) -> None:
    """Train the pre-embedding model on a few seed tasks (Algorithm 1, one head a task)."""
    keys = ("pretrain", "ratio.base", "seed")
    outputs = [seed_tasks, model, history]
    with stage("pretrain", params, *keys, outputs=outputs, run_info=run_info, several=True) as run:
        if run.hand_on():
            return
        import numpy as np
        import pyarrow as pa

        from pipeline import schemas
        from pipeline.examples import Examples
        from pipeline.model_files import write_network
        from pipeline.pairs import ids_of
        from pipeline.parts import read_exposures_to
        from pipeline.pretraining import pretrain
        from pipeline.seed_tasks import choose_seed_tasks
        from pipeline.storage import read_table, write_table
        from pipeline.text_files import write_csv
        from pipeline.training.history import best_row, kept_epoch, rested_at_chance, rounded
        from stages.session import open_session

        wanted = run.params.pretrain
        tasks_table = read_table(tasks, schemas.TASKS)
        examples = Examples.of(
            read_table(features, schemas.FEATURES),
            tasks_table,
            read_exposures_to(ids_of(tasks_table, "item_id"), exposures),
            read_table(splits, schemas.SPLITS),
        )
        gen = np.random.default_rng(run.params.seed)
        chosen = choose_seed_tasks(examples, wanted, gen)
        if len(chosen) < wanted.seed_tasks:
            run.note(f"no more than {len(chosen)} tasks can be seed tasks; all of them are")
        examples = examples.deal_x(run.ranks())
        with open_session(
            run, features, tasks, exposures, splits, max_epochs=wanted.max_epochs
        ) as session:
            made = pretrain(
                examples,
                chosen,
                base=run.params.ratio.base,
                params=wanted,
                seed=run.params.seed,
                session=session,
            )
        if not run.leads:
            return
        if rested_at_chance(made.history):
            run.warn("the loss never left 2 ln 2: nothing was learned; raise pretrain.max_epochs")
        write_table(pa.table({"task_id": chosen.astype(np.int32)}), seed_tasks, schemas.SEED_TASKS)
        write_network(made.net, model)
        write_csv(rounded(made.history), history)
        best = best_row(made.history)
        run.say(
            f"{len(chosen):,} seed tasks: validation loss {best['valid_loss']:.4f} "
            f"{kept_epoch(made.history, wanted)}"
        )


if __name__ == "__main__":
    app()
