"""Score every validation and test user under every task; by hand, score whom you like."""

from collections import deque
from pathlib import Path
from typing import Annotated

import typer

from pipeline.by_hand import ALPHA
from pipeline.by_hand.formats import Format
from stages.by_hand import Asked, answer, files_of
from stages.main_stage import stage
from stages.shell import PARAMS, RUN_INFO, ParamsOption, RunInfoOption, stage_app

app = stage_app()


@app.command()
def main(
    context: typer.Context,
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
    users: Annotated[
        str | None,
        typer.Option("--users", "--user", help="By hand: ids, separated by commas, or their file."),
    ] = None,
    items: Annotated[
        str | None,
        typer.Option("--items", "--item", help="By hand: ids, separated by commas, or their file."),
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="By hand: a file with the columns user_id, item_id.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="By hand: every user under every item.")
    ] = False,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="By hand: the N highest of each user, or item, named."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="--top by the lowest score.")] = False,
    unseen: Annotated[bool, typer.Option("--unseen", help="Only pairs that have not met.")] = False,
    known: Annotated[
        bool,
        typer.Option(
            "--known",
            help="By hand: score who and what is known, and refuse nothing for the others; what is "
            "no id is still refused.",
        ),
    ] = False,
    alpha: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=0.5,
            help=f"By hand: false-alarm rate of the verdicts.  [default: {ALPHA}]",
        ),
    ] = None,
    explain: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="By hand: instead, the N items that speak most for and against each score.",
        ),
    ] = None,
    asked_format: Annotated[
        Format | None, typer.Option("--format", help="Else by the name of --to, else a table.")
    ] = None,
    to: Annotated[Path | None, typer.Option(help="Writes: the answer; else it is shown.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="By hand: the folder of all files that no option names.  [default: data]"
        ),
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="By hand: as of now, from the folder that `update` writes.")
    ] = None,
    exposures: Annotated[Path, typer.Option(help="By hand: who met what.")] = Path(
        "data/prepared/exposures.parquet"
    ),
    user_table: Annotated[Path, typer.Option(help="By hand: the users.")] = Path(
        "data/prepared/users.parquet"
    ),
    item_table: Annotated[Path, typer.Option(help="By hand: the items.")] = Path(
        "data/prepared/items.parquet"
    ),
) -> None:
    """Score every validation and test user under every task: log ratios, high = common.

    Or a fixed sample of them, of as many as `evaluate.users` says.

    With --users, --items, --pairs or --all, score those by hand instead, and write nothing but
    --to. docs/score.md explains the columns.
    """
    asked = Asked(
        users=users,
        items=items,
        pairs=pairs,
        everything=everything,
        top=top,
        fresh=fresh,
        unseen=unseen,
        known=known,
        alpha=alpha,
        explain=explain,
        asked_format=asked_format,
        to=to,
        data=data,
        state=state,
    )
    if asked.anything:
        with stage("score", params, outputs=[], run_info=None) as run:
            answer(asked, files_of(context), run)
        return
    with stage(
        "score", params, "evaluate.users", outputs=[out], run_info=run_info, several=True
    ) as run:
        if run.hand_on():
            return
        import torch

        from pipeline import schemas
        from pipeline.embedding_matrix import embedding_matrix
        from pipeline.model_files import read_network
        from pipeline.models.ratio import RatioNet
        from pipeline.pairs import ids_of
        from pipeline.score_matrix import score_tables
        from pipeline.scoring import score_together
        from pipeline.splits import measured_users
        from pipeline.storage import matrix, read_table, write_tables
        from stages.checkpoint import follows_from

        people = read_table(features, schemas.FEATURES)
        parts = read_table(splits, schemas.SPLITS)
        tasks_table = read_table(tasks, schemas.TASKS)
        embeddings = read_table(task_embeddings, schemas.TASK_EMBEDDINGS)
        device = run.device()
        measured = measured_users(parts, people, run.params.evaluate.users)
        rows = measured.rows
        x = torch.from_numpy(matrix(people.column("x"))[rows]).to(device)
        e = torch.from_numpy(embedding_matrix(embeddings, tasks_table)).to(device)
        net = read_network(RatioNet, model, x_dim=x.shape[1], task_dim=e.shape[1]).to(device)
        ids = ids_of(people, "user_id")[rows]
        ranks = run.ranks()
        if not ranks.alone:
            inputs = (model, task_embeddings, features, tasks, splits)
            ranks.require_alike(follows_from(run, *inputs))
        blocks = score_together(net, x, e, ranks)
        if not run.leads:
            deque(blocks, maxlen=0)  # its part goes to the process that leads
            return
        write_tables(score_tables(blocks, tasks_table, ids), out, schemas.SCORES)
        run.say(f"{len(e):,} tasks x {measured} scored")


if __name__ == "__main__":
    app()
