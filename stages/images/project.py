"""Give every task of a k the embeddings to start from, one table an initialisation."""

from functools import cache
from typing import TYPE_CHECKING

from stages.images.folder import Folder, stage_name
from stages.images.shell import PARAMS, ROOT, DatasetOption, KOption, SeedOption, image_stage
from stages.shell import ParamsOption, RootOption, stage_app

if TYPE_CHECKING:
    from pipeline.arrays import Singles
    from pipeline.models.ratio import PreEmbeddingNet

app = stage_app()


@app.command()
def main(
    dataset: DatasetOption,
    k: KOption,
    seed: SeedOption,
    root: RootOption = ROOT,
    params: ParamsOption = PARAMS,
) -> None:
    """Give every task of a k the embeddings to start from, one table an initialisation."""
    folder = Folder(root, dataset)
    outputs = [folder.starts(k, seed)]
    name = stage_name("project", dataset, seed, k=k)
    with image_stage(name, params, "inits", "projection", outputs=outputs, root=root) as run:
        from pipeline import schemas
        from pipeline.embedding_matrix import embedding_table
        from pipeline.images.params import start_of
        from pipeline.images.ratio import start, task_statistic
        from pipeline.images.tasks import active_categories
        from pipeline.model_files import read_network, write_model
        from pipeline.models.conv_ratio import ConvPreEmbeddingNet
        from pipeline.storage import write_table

        examples, device = folder.examples(folder.pixels(), k), run.device()
        cluster = folder.load_clusters()
        tasks = folder.task_set(k).tasks

        def pre_embedding(m0: int) -> "PreEmbeddingNet":
            model = folder.pretrain(k, seed, m0).model
            return read_network(ConvPreEmbeddingNet, model).to(device)

        @cache
        def statistic(init: str) -> "Singles | None":
            if init == "random":
                return None
            return task_statistic(
                init,
                examples,
                active=active_categories(tasks),
                cluster=cluster,
                pre_embedding=pre_embedding,
            )

        for init in run.params.inits:
            known = statistic(start_of(init))
            e, projection = start(known, examples.tasks, run.params.projection, seed)
            out = folder.start(k, seed, init)
            write_table(embedding_table(e, tasks), out.e, schemas.TASK_EMBEDDINGS)
            tensors = projection.tensors() if projection else {}
            write_model(tensors, {"init": init}, out.projection)
        run.say(f"{name}: {examples.tasks} tasks by {', '.join(run.params.inits)}")


if __name__ == "__main__":
    app()
