"""AUC on held-out users, its ceiling and its trivial rivals."""

from pathlib import Path
from typing import Annotated

import typer

from stages.main_stage import stage
from stages.shell import PARAMS, RUN_INFO, ParamsOption, RunInfoOption, stage_app

app = stage_app()
PARAM_KEYS = ("labels", "evaluate", "ratio.base", "data.source", "simulation")


@app.command()
def main(
    scores: Annotated[
        Path, typer.Option(help="Reads: a score of each task for each validation and test user.")
    ] = Path("data/evaluation/scores.parquet"),
    tasks: Annotated[Path, typer.Option(help="Reads: the tasks and their classes.")] = Path(
        "data/tasks.parquet"
    ),
    users: Annotated[Path, typer.Option(help="Reads: user_id and labels.")] = Path(
        "data/prepared/users.parquet"
    ),
    splits: Annotated[Path, typer.Option(help="Reads: each user's split.")] = Path(
        "data/prepared/splits.parquet"
    ),
    exposures: Annotated[
        Path, typer.Option(help="Reads: distinct (user, item), and if it is held out.")
    ] = Path("data/prepared/exposures.parquet"),
    features: Annotated[Path, typer.Option(help="Reads: each user's vector x.")] = Path(
        "data/features/users.parquet"
    ),
    features_history: Annotated[Path, typer.Option(help="Reads: the epochs of DeepFM.")] = Path(
        "data/features/history.csv"
    ),
    graph_links: Annotated[
        Path, typer.Option(help="Reads: link prediction on held-out triples.")
    ] = Path("data/graph/link_prediction.csv"),
    ratio_history: Annotated[Path, typer.Option(help="Reads: the epochs of the ratio.")] = Path(
        "data/ratio/history.csv"
    ),
    auc: Annotated[Path, typer.Option(help="Writes: every figure.")] = Path("metrics/auc.json"),
    task_auc: Annotated[Path, typer.Option(help="Writes: the AUC of each task.")] = Path(
        "metrics/task_auc.csv"
    ),
    roc: Annotated[Path, typer.Option(help="Writes: the mean ROC of each label.")] = Path(
        "metrics/roc.csv"
    ),
    params: ParamsOption = PARAMS,
    run_info: RunInfoOption = RUN_INFO,
) -> None:
    """Measure the scores by labels and held-out exposures; docs/metrics.md explains each figure."""
    outputs = [auc, task_auc, roc]
    with stage("evaluate", params, *PARAM_KEYS, outputs=outputs, run_info=run_info) as run:
        import numpy as np

        from pipeline import schemas
        from pipeline.evaluation import Tables, evaluate
        from pipeline.storage import read_table
        from pipeline.text_files import read_history, read_links, write_csv, write_json

        found = evaluate(
            Tables(
                scores=read_table(scores, schemas.SCORES),
                tasks=read_table(tasks, schemas.TASKS),
                users=read_table(users, schemas.USERS),
                splits=read_table(splits, schemas.SPLITS),
                exposures=read_table(exposures, schemas.EXPOSURES),
                features=read_table(features, schemas.FEATURES),
            ),
            run.params,
            features_history=read_history(features_history),
            graph_links=read_links(graph_links),
            ratio_history=read_history(ratio_history),
            gen=np.random.default_rng(0),  # apart from `seed`: runs are compared on equal resamples
        )
        write_json(found.metrics, auc)
        write_csv(found.task_auc, task_auc)
        write_csv(found.roc, roc)
        run.say(found.headline)


if __name__ == "__main__":
    app()
