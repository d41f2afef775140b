"""Make every choice of k categories a task; expose each image to one of them."""

from stages.images.folder import Folder, stage_name
from stages.images.shell import PARAMS, ROOT, DatasetOption, KOption, image_stage
from stages.shell import ParamsOption, RootOption, stage_app

app = stage_app()


@app.command()
def main(
    dataset: DatasetOption,
    k: KOption,
    root: RootOption = ROOT,
    params: ParamsOption = PARAMS,
) -> None:
    """Make every choice of k categories a task; expose each image to one of them."""
    folder = Folder(root, dataset)
    out = folder.tasks(k)
    name = stage_name("tasks", dataset, k=k)
    with image_stage(
        name, params, "data.task_seed", outputs=out, root=root, on_device=False
    ) as run:
        from pipeline import schemas
        from pipeline.images.tasks import make_tasks
        from pipeline.storage import write_table

        users, splits = folder.people()
        made = make_tasks(users, splits, k, run.params.data.task_seed)
        write_table(made.tasks, out.tasks, schemas.TASKS)
        write_table(made.exposures, out.exposures, schemas.EXPOSURES)
        run.say(
            f"{dataset}, k = {k}: {made.tasks.num_rows} tasks, "
            f"{made.exposures.num_rows / made.tasks.num_rows:.0f} images each"
        )


if __name__ == "__main__":
    app()
