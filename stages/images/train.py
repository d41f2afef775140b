"""Learn log q_t(x)/p(x) of images for all tasks of a k together (Algorithm 1)."""

from typing import Annotated

import typer

from stages.images.folder import Folder, stage_name
from stages.images.shell import (
    PARAMS,
    ROOT,
    DatasetOption,
    EpochsOption,
    KOption,
    SeedOption,
    image_stage,
)
from stages.shell import ParamsOption, RootOption, stage_app

app = stage_app()


@app.command()
def main(
    dataset: DatasetOption,
    k: KOption,
    seed: SeedOption,
    init: Annotated[
        str, typer.Option(help="label, pseudo, random, learned-M0 or learned-M0-frozen.")
    ],
    epochs: EpochsOption,
    root: RootOption = ROOT,
    params: ParamsOption = PARAMS,
) -> None:
    """Learn log q_t(x)/p(x) of images for all tasks of a k together (Algorithm 1)."""
    folder = Folder(root, dataset)
    out = folder.ratio(k, seed, init)
    name = stage_name("train", dataset, init, seed, k=k)
    with image_stage(name, params, "ratio", "network", outputs=out, root=root) as run:
        from pipeline import schemas
        from pipeline.embedding_matrix import embedding_matrix, embedding_table
        from pipeline.images.ratio import train_images
        from pipeline.images.tasks import active_categories, category_sides
        from pipeline.model_files import write_network
        from pipeline.storage import read_table, write_table
        from pipeline.text_files import write_csv
        from pipeline.training.history import best_row, rested_at_chance, rounded
        from stages.session import open_session

        tasks = folder.task_set(k).tasks
        task_init = folder.start(k, seed, init).e
        begin = embedding_matrix(read_table(task_init, schemas.TASK_EMBEDDINGS), tasks)
        _, category = folder.split("valid")
        with open_session(run, *folder.inputs(k), task_init, max_epochs=epochs) as session:
            made = train_images(
                folder.examples(folder.pixels(), k),
                begin,
                watched=category_sides(active_categories(tasks), category),
                freeze_e=init.endswith("-frozen"),
                dataset=dataset,
                network=run.params.network,
                schedule=run.params.ratio.lasting(epochs),
                seed=seed,
                session=session,
            )
        if rested_at_chance(made.history):
            run.warn("the loss never left 2 ln 2: nothing was learned; raise --epochs")
        write_network(made.net, out.model)
        write_table(embedding_table(made.e, tasks), out.e, schemas.TASK_EMBEDDINGS)
        write_csv(rounded(made.history), out.history)
        best = best_row(made.history)
        run.say(
            f"{name}: validation loss {best['valid_loss']:.4f}, AUC {best['valid_auc']:.4f} "
            f"after epoch {best['epoch']:.0f} of {len(made.history)}"
        )


if __name__ == "__main__":
    app()
