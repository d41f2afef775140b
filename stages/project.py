"""Give every task the embedding it starts from (equation 4, or another init)."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stages.main_stage import stage
from stages.shell import PARAMS, RUN_INFO, ParamsOption, RunInfoOption, stage_app

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.arrays import Singles


app = stage_app()


@app.command()
def main(
    users: Annotated[Path, typer.Option(help="Reads: user_id and labels.")] = Path(
        "data/prepared/users.parquet"
    ),
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
    pretrain_model: Annotated[Path, typer.Option(help="Reads: the pre-embedding model.")] = Path(
        "data/pretrain/model.safetensors"
    ),
    graph_items: Annotated[
        Path, typer.Option(help="Reads: the graph's vector of each item.")
    ] = Path("data/graph/items.parquet"),
    out: Annotated[Path, typer.Option(help="Writes: the embeddings to start from.")] = Path(
        "data/task_init.parquet"
    ),
    projection: Annotated[
        Path, typer.Option(help="Writes: mean, scale and reduction, by which e was made.")
    ] = Path("data/projection.safetensors"),
    params: ParamsOption = PARAMS,
    run_info: RunInfoOption = RUN_INFO,
) -> None:
    """Give every task the embedding it starts from: equation 4, or another `init`."""
    keys = ("init", "projection", "labels", "seed")
    with stage("project", params, *keys, outputs=[out, projection], run_info=run_info) as run:
        from pipeline import schemas
        from pipeline.embedding_matrix import embedding_table
        from pipeline.examples import Examples
        from pipeline.initialisation import initialise
        from pipeline.model_files import read_network
        from pipeline.models.ratio import PreEmbeddingNet
        from pipeline.pairs import ids_of, rows_of
        from pipeline.parts import read_exposures_to
        from pipeline.storage import read_table, write_table

        run.cpu()
        people, labelled = read_table(features, schemas.FEATURES), read_table(users, schemas.USERS)
        ids, known = (ids_of(table, "user_id") for table in (people, labelled))
        tasks_table = read_table(tasks, schemas.TASKS)
        examples = Examples.of(
            people,
            tasks_table,
            read_exposures_to(ids_of(tasks_table, "item_id"), exposures),
            read_table(splits, schemas.SPLITS),
        )
        started = initialise(
            examples,
            run.params,
            users=labelled.take(rows_of(ids, known, "user")),
            pre_embedding=lambda: read_network(
                PreEmbeddingNet, pretrain_model, x_dim=examples.x.shape[1]
            ),
            graph_vectors=lambda: _vectors(graph_items, tasks_table),
        )
        write_table(embedding_table(started.e, tasks_table), out, schemas.TASK_EMBEDDINGS)
        started.write_projection(projection)
        run.say(f"{examples.tasks:,} tasks start from {started.e.shape[1]} numbers: {started.init}")


def _vectors(graph_items: Path, tasks: "pa.Table") -> "Singles":
    """The graph's vectors of the tasks' items, (M, d)."""
    from pipeline import schemas
    from pipeline.pairs import ids_of, rows_of
    from pipeline.storage import matrix, read_table

    things = read_table(graph_items, schemas.ITEM_VECTORS)
    known, wanted = (ids_of(table, "item_id") for table in (things, tasks))
    return matrix(things.column("x"))[rows_of(wanted, known, "item")]


if __name__ == "__main__":
    app()
