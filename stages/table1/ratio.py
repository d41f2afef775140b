"""One cell of Table 1's ratio: embeddings to start from, Algorithm 1, scores, figures."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from stages import project, train
from stages.shell import ParamsOption, RootOption, stage_app
from stages.table1.measure import measure
from stages.table1.shell import (
    PARAMS,
    ROOT,
    BaseOption,
    FieldsOption,
    Place,
    SeedOption,
    StartOption,
    main_params,
)

if TYPE_CHECKING:
    from torch import device

    from pipeline.arrays import Ints, Singles


app = stage_app()


@app.command()
def main(
    start: StartOption,
    base: BaseOption,
    fields: FieldsOption,
    seed: SeedOption,
    root: RootOption = ROOT,
    params: ParamsOption = PARAMS,
) -> None:
    """Learn the ratio of one cell as the main stages do, and measure it; high = common.

    The row `learned` needs its pre-embedding model, the row `graph` its items' vectors.
    """
    started = time.perf_counter()
    place = Place(root)
    features, tasks = place.features(fields, seed), place.prepared("tasks")
    exposures, splits = place.prepared("exposures"), place.prepared("splits")
    with main_params("ratio", params, [start, base, fields], seed, on_device=True) as file:
        cell = file.parent
        project.main(
            users=place.prepared("users"),
            features=features / "users.parquet",
            tasks=tasks,
            exposures=exposures,
            splits=splits,
            pretrain_model=place.pretrain(start, base, fields, seed) / "model.safetensors",
            graph_items=place.graph(start, seed) / "items.parquet",
            out=cell / "task_init.parquet",
            projection=cell / "projection.safetensors",
            params=file,
            run_info=cell,
        )
        train.main(
            features=features / "users.parquet",
            tasks=tasks,
            exposures=exposures,
            splits=splits,
            task_init=cell / "task_init.parquet",
            model=cell / "model.safetensors",
            task_embeddings=cell / "task_embeddings.parquet",
            history=cell / "history.csv",
            params=file,
            run_info=cell,
        )
        from pipeline.text_files import read_csv

        measure(
            place,
            features,
            lambda rows, device: _scores(cell, features, rows, device),
            history=read_csv(cell / "history.csv"),
            out=place.cell(start, base, fields, seed),
            started=started,
            params=file,
        )


def _scores(cell: Path, features: Path, rows: "Ints", device: "device") -> "Singles":
    """Log ratios of the users in `rows` (U,) under all tasks, (M, U)."""
    import torch

    from pipeline import schemas
    from pipeline.model_files import read_network
    from pipeline.models.ratio import RatioNet
    from pipeline.scoring import score_all
    from pipeline.storage import matrix, read_table

    people = read_table(features / "users.parquet", schemas.FEATURES)
    embeddings = read_table(cell / "task_embeddings.parquet", schemas.TASK_EMBEDDINGS)
    net = read_network(RatioNet, cell / "model.safetensors").to(device)
    x = torch.from_numpy(matrix(people.column("x"))[rows]).to(device)
    return score_all(net, x, torch.from_numpy(matrix(embeddings.column("e"))).to(device))


if __name__ == "__main__":
    app()
