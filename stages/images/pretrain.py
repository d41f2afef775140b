"""Train a pre-embedding model on M0 seed tasks of a k (Algorithm 1, one head a task)."""

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
    seed_tasks: Annotated[
        int, typer.Option(min=1, help="M0: so many tasks, or all if there are fewer.")
    ],
    epochs: EpochsOption,
    root: RootOption = ROOT,
    params: ParamsOption = PARAMS,
) -> None:
    """Train a pre-embedding model on M0 seed tasks of a k (Algorithm 1, one head a task)."""
    folder = Folder(root, dataset)
    out = folder.pretrain(k, seed, seed_tasks)
    name = stage_name("pretrain", dataset, seed_tasks, seed, k=k)
    with image_stage(name, params, "pretrain", "network", outputs=out, root=root) as run:
        from pipeline.images.ratio import pretrain_images
        from pipeline.model_files import write_network
        from pipeline.text_files import write_csv
        from pipeline.training.history import best_row, rounded
        from stages.session import open_session

        examples = folder.examples(folder.pixels(), k)
        with open_session(run, *folder.inputs(k), max_epochs=epochs) as session:
            made = pretrain_images(
                examples,
                seed_tasks,
                dataset=dataset,
                network=run.params.network,
                schedule=run.params.pretrain.lasting(epochs),
                seed=seed,
                session=session,
            )
        write_network(made.net, out.model)
        write_csv(rounded(made.history), out.history)
        best = best_row(made.history)
        run.say(
            f"{name}: {len(made.seed_tasks)} seed tasks, loss {best['valid_loss']:.4f} "
            f"after epoch {best['epoch']:.0f} of {len(made.history)}"
        )


if __name__ == "__main__":
    app()
