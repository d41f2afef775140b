"""Lay the images of a data set out as tensors; split them."""

from pathlib import Path
from typing import Annotated

import typer

from stages.downloads import download_progress
from stages.images.folder import Folder, stage_name
from stages.images.shell import PARAMS, ROOT, DatasetOption, image_stage
from stages.shell import ParamsOption, RootOption, stage_app

app = stage_app()


@app.command()
def main(
    dataset: DatasetOption,
    root: RootOption = ROOT,
    raw: Annotated[
        Path, typer.Option(help="Reads and keeps: downloaded archives, and what is in them.")
    ] = Path("data/raw"),
    params: ParamsOption = PARAMS,
) -> None:
    """Lay the images of a data set out as tensors; split them.

    Reads `data.raw_dir`, else the publisher's archives, downloaded once and kept in --raw.
    """
    into = Folder(root, dataset)
    outputs = [into.images, into.users, into.splits]
    name = stage_name("prepare", dataset)
    with image_stage(name, params, "data", outputs=outputs, root=root, on_device=False) as run:
        import pyarrow as pa
        import torch

        from pipeline import schemas
        from pipeline.datasets.download import fetch
        from pipeline.datasets.images import SOURCES
        from pipeline.images.tasks import split_images
        from pipeline.model_files import write_model
        from pipeline.storage import write_table

        data, source = run.params.data, SOURCES[dataset]
        if data.raw_dir is None:
            for archive in source.archives:
                with download_progress(archive.url) as progress:
                    folder = fetch(archive, raw, progress)
        else:
            folder = Path(data.raw_dir) / source.folder
        images = source.read(folder)
        rows, splits = split_images(
            images,
            train=data.train_images,
            valid=data.valid_images,
            test=data.test_images,
            seed=data.split_seed,
        )
        write_model(
            {"pixels": torch.from_numpy(images.pixels[rows])}, {"dataset": dataset}, into.images
        )
        users = pa.table({"user_id": rows, "category": images.category[rows]})
        write_table(users, into.users, schemas.USERS)
        write_table(splits, into.splits, schemas.SPLITS)
        run.say(f"{dataset}: {len(rows):,} of {len(images.test):,} images, from {folder}")


if __name__ == "__main__":
    app()
