"""Keep the items with enough exposures and the lowest label entropy."""

from pathlib import Path
from typing import Annotated

import typer

from stages.main_stage import stage
from stages.shell import PARAMS, RUN_INFO, ParamsOption, RunInfoOption, stage_app

app = stage_app()


@app.command()
def main(
    users: Annotated[Path, typer.Option(help="Reads: user_id and labels.")] = Path(
        "data/prepared/users.parquet"
    ),
    exposures: Annotated[Path, typer.Option(help="Reads: one row a distinct (user, item).")] = Path(
        "data/prepared/exposures.parquet"
    ),
    splits: Annotated[Path, typer.Option(help="Reads: each user's split.")] = Path(
        "data/prepared/splits.parquet"
    ),
    out: Annotated[
        Path, typer.Option(help="Writes: the kept items, and each label's figures for them.")
    ] = Path("data/tasks.parquet"),
    params: ParamsOption = PARAMS,
    run_info: RunInfoOption = RUN_INFO,
) -> None:
    """Keep the items with enough exposures and the lowest label entropy: the tasks."""
    with stage("filter_tasks", params, "labels", "tasks", outputs=[out], run_info=run_info) as run:
        from pipeline import schemas
        from pipeline.storage import RowGroups, read_table, write_table
        from pipeline.tasks import Crowd, count_groups, select_tasks

        wanted = run.params.tasks
        crowd = Crowd.of(
            read_table(users, schemas.USERS),
            read_table(splits, schemas.SPLITS),
            run.params.labels,
        )
        if run.params.runtime.engine == "spark":
            from pipeline.spark.counts import count_on
            from pipeline.spark.session import spark_session

            with spark_session(run.params.runtime.spark_master) as spark:
                counts = count_on(spark, crowd, exposures)
        else:
            counts = count_groups(crowd, RowGroups(exposures, schemas.EXPOSURES))
        tasks = select_tasks(counts, wanted)
        write_table(tasks, out, schemas.TASKS)
        enough = int((counts.exposures >= wanted.min_exposures).sum())
        run.say(
            f"kept {tasks.num_rows:,} tasks of {enough:,} items "
            f"with at least {wanted.min_exposures:,} exposures"
        )


if __name__ == "__main__":
    app()
