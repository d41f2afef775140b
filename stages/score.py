"""Score every validation and test user under every task."""

from pathlib import Path
from typing import Annotated

import typer

from stages.shell import PARAMS, RUN_INFO, ParamsOption, RunInfoOption, stage, stage_app

app = stage_app()


@app.command()
def main(
    model: Annotated[Path, typer.Option(help="Reads: the network.")] = Path(
        "data/ratio/model.safetensors"
    ),
    task_embeddings: Annotated[Path, typer.Option(help="Reads: the trained embeddings.")] = Path(
        "data/ratio/task_embeddings.parquet"
    ),
    features: Annotated[Path, typer.Option(help="Reads: each user's vector x.")] = Path(
        "data/features/users.parquet"
    ),
    tasks: Annotated[Path, typer.Option(help="Reads: the tasks.")] = Path("data/tasks.parquet"),
    splits: Annotated[Path, typer.Option(help="Reads: each user's split.")] = Path(
        "data/prepared/splits.parquet"
    ),
    out: Annotated[
        Path, typer.Option(help="Writes: task_id, user_id and score, a log ratio: high = common.")
    ] = Path("data/evaluation/scores.parquet"),
    params: ParamsOption = PARAMS,
    run_info: RunInfoOption = RUN_INFO,
) -> None:
    """Score every validation and test user under every task: log ratios, high = common."""
    with stage("score", params, outputs=[out], run_info=run_info) as run:
        import numpy as np
        import torch

        from pipeline import schemas
        from pipeline.model_files import read_network
        from pipeline.models.ratio import RatioNet
        from pipeline.pairs import same_tasks, split_rows
        from pipeline.score_matrix import score_table
        from pipeline.scoring import score_all
        from pipeline.storage import matrix, read_table, write_table

        people = read_table(features, schemas.FEATURES)
        parts = read_table(splits, schemas.SPLITS)
        embeddings = read_table(task_embeddings, schemas.TASK_EMBEDDINGS)
        tasks_table = read_table(tasks, schemas.TASKS)
        same_tasks(embeddings, tasks_table)
        device = run.device()
        net = read_network(RatioNet, model).to(device)
        held = [split_rows(parts, people, split) for split in ("valid", "test")]
        rows = np.sort(np.concatenate(held))
        x = torch.from_numpy(matrix(people.column("x"))[rows]).to(device)
        e = torch.from_numpy(matrix(embeddings.column("e"))).to(device)
        ids = people.column("user_id").to_numpy()[rows]
        write_table(score_table(score_all(net, x, e), tasks_table, ids), out, schemas.SCORES)
        run.say(f"{len(e):,} tasks x {len(rows):,} validation and test users scored")


if __name__ == "__main__":
    app()
