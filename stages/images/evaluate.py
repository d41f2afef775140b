"""AUC of every initialisation of a k on test images: active categories against the rest."""

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
    """AUC of every initialisation of a k on test images: active categories against the rest."""
    folder = Folder(root, dataset)
    runs = folder.runs(k, seed)
    out = runs / "auc.csv"
    name = f"evaluate-{dataset}-k{k}-{seed}"
    with image_stage(name, params, "inits", outputs=[out], root=root) as run:
        from pipeline import schemas
        from pipeline.images.ratio import mean_auc
        from pipeline.images.tasks import active_categories, category_sides
        from pipeline.model_files import read_network
        from pipeline.models.conv_ratio import ConvRatioNet
        from pipeline.storage import matrix, read_table
        from pipeline.text_files import read_history, write_csv
        from pipeline.training.history import best_row

        test, category = folder.split("test")
        tasks = folder.task_set(k).tasks
        sides = category_sides(active_categories(tasks), category)
        x, device = folder.pixels()[test], run.device()
        rows: list[dict[str, str | int | float]] = []
        for init in run.params.inits:
            ratio = runs / "ratio" / init
            e = matrix(
                read_table(ratio / "task_embeddings.parquet", schemas.TASK_EMBEDDINGS).column("e")
            )
            net = read_network(ConvRatioNet, ratio / "model.safetensors").to(device)
            history = read_history(ratio / "history.csv")
            best = best_row(history)
            rows.append(
                {
                    "dataset": dataset,
                    "k": k,
                    "seed": seed,
                    "init": init,
                    "auc": round(mean_auc(net, x, e, sides), 6),
                    "tasks": len(e),
                    "e_dim": e.shape[1],
                    "epochs": len(history),
                    "best_epoch": int(float(best["epoch"])),
                    "valid_loss": float(best["valid_loss"]),
                }
            )
        write_csv(rows, out)
        run.say(f"{name}: " + ", ".join(f"{row['init']} {row['auc']:.4f}" for row in rows))


if __name__ == "__main__":
    app()
