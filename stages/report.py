"""One HTML file that tells it all."""

from pathlib import Path
from typing import Annotated

import typer

from stages.main_stage import stage
from stages.shell import PARAMS, RUN_INFO, ParamsOption, RunInfoOption, stage_app

app = stage_app()
PARAM_KEYS = (
    *("init", "seed", "data.source", "labels", "features.model", "features.user_fields"),
    *("features.activity", "projection.histogram_label"),
    *("features.min_users", "features.visible", "features.max_epochs", "features.patience"),
    *("pretrain.max_epochs", "pretrain.patience", "ratio.max_epochs"),
    *("ratio.base", "ratio.visible", "ratio.linear", "ratio.mode", "ratio.stop"),
    "ratio.scaling",
    *("ratio.freeze_e", "ratio.hidden", "ratio.dropout", "ratio.patience"),
    *("evaluate.labels", "evaluate.users"),
    *("pretrain.seed_tasks", "graph.model", "graph.triples"),
    *("tasks.min_exposures", "tasks.keep_share"),
)


@app.command()
def main(
    users: Annotated[Path, typer.Option(help="Reads: user_id and labels.")] = Path(
        "data/prepared/users.parquet"
    ),
    items: Annotated[Path, typer.Option(help="Reads: titles and genres.")] = Path(
        "data/prepared/items.parquet"
    ),
    exposures: Annotated[
        Path, typer.Option(help="Reads: distinct (user, item), and if it is held out.")
    ] = Path("data/prepared/exposures.parquet"),
    splits: Annotated[Path, typer.Option(help="Reads: each user's split.")] = Path(
        "data/prepared/splits.parquet"
    ),
    features: Annotated[Path, typer.Option(help="Reads: each user's vector x.")] = Path(
        "data/features/users.parquet"
    ),
    features_history: Annotated[Path, typer.Option(help="Reads: the epochs of DeepFM.")] = Path(
        "data/features/history.csv"
    ),
    links: Annotated[
        Path, typer.Option(help="Reads: tells whether the graph's run facts are of this run.")
    ] = Path("data/graph/link_prediction.csv"),
    tasks: Annotated[Path, typer.Option(help="Reads: the tasks and their classes.")] = Path(
        "data/tasks.parquet"
    ),
    pretrain_history: Annotated[
        Path, typer.Option(help="Reads: the epochs of the pre-embedding model.")
    ] = Path("data/pretrain/history.csv"),
    task_init: Annotated[Path, typer.Option(help="Reads: the embeddings before training.")] = Path(
        "data/task_init.parquet"
    ),
    task_embeddings: Annotated[
        Path, typer.Option(help="Reads: the embeddings after training.")
    ] = Path("data/ratio/task_embeddings.parquet"),
    model: Annotated[Path, typer.Option(help="Reads: the network, to explain scores by.")] = Path(
        "data/ratio/model.safetensors"
    ),
    ratio_history: Annotated[Path, typer.Option(help="Reads: the epochs of the ratio.")] = Path(
        "data/ratio/history.csv"
    ),
    scores: Annotated[Path, typer.Option(help="Reads: log ratios, high = common.")] = Path(
        "data/evaluation/scores.parquet"
    ),
    auc: Annotated[Path, typer.Option(help="Reads: every figure.")] = Path("metrics/auc.json"),
    task_auc: Annotated[Path, typer.Option(help="Reads: the AUC of each task.")] = Path(
        "metrics/task_auc.csv"
    ),
    roc: Annotated[Path, typer.Option(help="Reads: the mean ROC of each label.")] = Path(
        "metrics/roc.csv"
    ),
    out: Annotated[Path, typer.Option(help="Writes: the page, one file.")] = Path(
        "data/report/report.html"
    ),
    params: ParamsOption = PARAMS,
    run_info: RunInfoOption = RUN_INFO,
) -> None:
    """Tell what a run found in one HTML file: figures inside it, nothing to fetch.

    Device, seconds and versions come from --run-info, where they belong to the files at hand.
    """
    with stage("report", params, *PARAM_KEYS, outputs=[out], run_info=run_info) as run:
        from pipeline import schemas
        from pipeline.files import write_bytes
        from pipeline.model_files import read_network
        from pipeline.models.ratio import RatioNet
        from pipeline.report.artefacts import Artefacts
        from pipeline.report.content import gather
        from pipeline.report.page import render
        from pipeline.report.run_facts import run_facts
        from pipeline.storage import read_table
        from pipeline.text_files import read_csv, read_history, read_json

        run.cpu()
        content = gather(
            Artefacts(
                users=read_table(users, schemas.USERS),
                items=read_table(items, schemas.ITEMS),
                exposures=read_table(exposures, schemas.EXPOSURES),
                splits=read_table(splits, schemas.SPLITS),
                features=read_table(features, schemas.FEATURES),
                tasks=read_table(tasks, schemas.TASKS),
                task_init=read_table(task_init, schemas.TASK_EMBEDDINGS),
                task_embeddings=read_table(task_embeddings, schemas.TASK_EMBEDDINGS),
                net=read_network(RatioNet, model),
                scores=read_table(scores, schemas.SCORES),
                metrics=read_json(auc),
                task_auc=read_csv(
                    task_auc,
                    {
                        "label": "text",
                        "item_id": "whole number",
                        "auc": "number or nothing",
                        "n_nominal": "whole number",
                    },
                ),
                roc=read_csv(roc, {"label": "text", "fpr": "number", "tpr": "number"}),
                features_history=read_history(features_history),
                pretrain_history=read_history(pretrain_history),
                ratio_history=read_history(ratio_history),
            ),
            run.params,
        )
        facts = run_facts(
            run_info,
            {
                "prepare": [users, items, exposures, splits],
                "extract_features": [features, features_history],
                "graph": [links],
                "filter_tasks": [tasks],
                "pretrain": [pretrain_history],
                "project": [task_init],
                "train": [task_embeddings, ratio_history],
                "score": [scores],
                "evaluate": [auc, task_auc, roc],
            },
        )
        write_bytes(render(content, facts).encode(), out)
        run.say(f"the report: {out}")


if __name__ == "__main__":
    app()
