"""Learn log q_t(x)/p(x) of features for all tasks of a k together; AUC on test images (LRatio+)."""

from stages.images.shell import (
    PARAMS,
    ROOT,
    DatasetOption,
    Folder,
    KOption,
    ParamsOption,
    RootOption,
    SeedOption,
    image_stage,
)
from stages.shell import stage_app

app = stage_app()


@app.command()
def main(
    dataset: DatasetOption,
    k: KOption,
    seed: SeedOption,
    root: RootOption = ROOT,
    params: ParamsOption = PARAMS,
) -> None:
    """Learn log q_t(x)/p(x) of features for all tasks of a k together; AUC on test images."""
    folder = Folder(root, dataset)
    out = folder.runs(k, seed) / "features.csv"
    name = f"on_features-{dataset}-k{k}-{seed}"
    keys = ("on_features", "projection")
    with image_stage(name, params, *keys, outputs=[out], root=root) as run:
        from pipeline.conditional import train_network
        from pipeline.image_ratio import mean_auc, start
        from pipeline.image_tasks import active_categories, category_sides
        from pipeline.models.ratio import RatioNet
        from pipeline.storage import write_csv
        from stages.checkpoint import checkpoint
        from stages.progress import EpochReporter

        wanted = run.params.on_features.ratio
        x = folder.load_features()
        examples = folder.examples(x, k)
        active = active_categories(folder.task_set(k).tasks)
        e, _ = start(None, examples.tasks, run.params.projection, seed)
        kept = checkpoint(run, folder.features / "users.parquet", *folder.inputs(k))
        with EpochReporter(name, wanted.max_epochs) as report:
            made = train_network(
                RatioNet(
                    x_dim=x.shape[1],
                    task_dim=e.shape[1],
                    hidden=wanted.hidden,
                    dropout=wanted.dropout,
                ),
                examples,
                e,
                watched=category_sides(active, folder.split("valid")[1]),
                base="exposures",
                freeze_e=False,
                schedule=wanted,
                seed=seed,
                device=run.device(),
                report=report,
                checkpoint=kept,
            )
        test, category = folder.split("test")
        auc = mean_auc(made.net, x[test], made.e, category_sides(active, category))
        row = {"dataset": dataset, "k": k, "seed": seed, "method": "ratio", "auc": round(auc, 6)}
        write_csv([row], out)
        run.say(f"{name}: mean AUC {auc:.4f} of {examples.tasks} tasks")


if __name__ == "__main__":
    app()
