"""Encode tasks by the pre-embedding model of all tasks of another k: Figure 3."""

from stages.images.folder import Folder, stage_name
from stages.images.shell import PARAMS, ROOT, DatasetOption, SeedOption, image_stage
from stages.shell import ParamsOption, RootOption, stage_app

app = stage_app()


@app.command()
def main(
    dataset: DatasetOption,
    seed: SeedOption,
    root: RootOption = ROOT,
    params: ParamsOption = PARAMS,
) -> None:
    """Encode tasks by the pre-embedding model of all tasks of another k: Figure 3."""
    folder = Folder(root, dataset)
    out = folder.similarity(seed)
    name = stage_name("similarity", dataset, seed)
    keys = ("unseen", "pretrain", "network")
    with image_stage(name, params, *keys, outputs=out, root=root) as run:
        import numpy as np

        from pipeline import schemas
        from pipeline.embedding_matrix import embedding_table
        from pipeline.images.ratio import pretrain_images, project_images
        from pipeline.images.similarity import agreement
        from pipeline.images.tasks import active_categories
        from pipeline.storage import write_table
        from pipeline.text_files import write_csv
        from stages.session import open_session

        unseen, pixels = run.params.unseen, folder.pixels()
        examples = folder.examples(pixels, unseen.train_k)
        with open_session(run, *folder.inputs(unseen.train_k), max_epochs=unseen.epochs) as session:
            made = pretrain_images(
                examples,
                examples.tasks,
                dataset=dataset,
                network=run.params.network,
                schedule=run.params.pretrain.lasting(unseen.epochs),
                seed=seed,
                session=session,
            )
        tasks = folder.task_set(unseen.test_k).tasks
        statistic = project_images(
            made.net.to(run.device()), folder.examples(pixels, unseen.test_k)
        )
        write_table(embedding_table(statistic, tasks), out.statistic, schemas.TASK_EMBEDDINGS)
        gen, active = np.random.default_rng(seed), active_categories(tasks)
        found = [agreement(statistic, active, n, gen) for n in unseen.coordinates]
        rows = [
            {"seed": seed, "coordinates": one.coordinates, "spearman": round(one.spearman, 6)}
            for one in found
        ]
        write_csv(rows, out.spearman)
        shown = ", ".join(f"{one.spearman:.3f} by {one.coordinates}" for one in found)
        run.say(f"{name}: rank correlation with the true overlap {shown} coordinates")


if __name__ == "__main__":
    app()
