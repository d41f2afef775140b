"""Score the tasks of every k with what was learned on another: projected, never trained."""

from functools import cache
from typing import TYPE_CHECKING

from stages.images.folder import Folder, stage_name
from stages.images.shell import PARAMS, ROOT, DatasetOption, SeedOption, image_stage
from stages.shell import ParamsOption, RootOption, stage_app

if TYPE_CHECKING:
    import torch

    from pipeline.arrays import Singles
    from pipeline.images.ratio import Learned

app = stage_app()


@app.command()
def main(
    dataset: DatasetOption,
    seed: SeedOption,
    root: RootOption = ROOT,
    params: ParamsOption = PARAMS,
) -> None:
    """Score the tasks of every k with what was learned on another: projected, never trained."""
    folder = Folder(root, dataset)
    out = folder.generalisation(seed)
    name = stage_name("generalise", dataset, seed)
    with image_stage(name, params, "cells", "inits", outputs=[out], root=root) as run:
        from pipeline.images.params import seed_tasks_of
        from pipeline.images.ratio import image_values
        from pipeline.images.tasks import active_categories, category_sides
        from pipeline.model_files import read_network
        from pipeline.models.conv_ratio import ConvPreEmbeddingNet
        from pipeline.text_files import write_csv

        pixels, device = folder.pixels(), run.device()
        test, category = folder.split("test")
        ks = [cell.k for cell in run.params.cells if cell.dataset == dataset and cell.k > 1]
        examples = {k: folder.examples(pixels, k) for k in ks}
        sides = {
            k: category_sides(active_categories(folder.task_set(k).tasks), category) for k in ks
        }

        @cache
        def values(k: int, m0: int) -> "Singles":
            net = read_network(ConvPreEmbeddingNet, folder.pretrain(k, seed, m0).model)
            return image_values(net.to(device), pixels)

        rows: list[dict[str, str | int | float]] = []
        for init in run.params.inits:
            if (m0 := seed_tasks_of(init)) is None:
                continue
            for m in ks:
                learned = _learned(folder, m, seed, init, values(m, m0), device)
                rows += [
                    {
                        "dataset": dataset,
                        "seed": seed,
                        "init": init,
                        "train_k": m,
                        "test_k": n,
                        "auc": round(learned.auc_on(examples[n], pixels[test], sides[n]), 6),
                    }
                    for n in ks
                    if n != m
                ]
        write_csv(rows, out)
        run.say(f"{name}: {len(rows)} AUCs of tasks that were projected only")


def _learned(
    folder: Folder, k: int, seed: int, init: str, values: "Singles", device: "torch.device"
) -> "Learned":
    """What was learned on the tasks of one k from the initialisation `init`, on `device`.

    `values` are those of its pre-embedding model.
    """
    from pipeline.embeddings import Projection
    from pipeline.images.ratio import Learned
    from pipeline.model_files import read_model, read_network
    from pipeline.models.conv_ratio import ConvRatioNet

    tensors, _ = read_model(folder.start(k, seed, init).projection)
    return Learned(
        values,
        Projection.from_tensors(tensors),
        read_network(ConvRatioNet, folder.ratio(k, seed, init).model).to(device),
    )


if __name__ == "__main__":
    app()
