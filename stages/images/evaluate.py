"""AUC of every initialisation of a k on test images: active categories against the rest."""

from stages.images.folder import Folder, stage_name
from stages.images.shell import PARAMS, ROOT, DatasetOption, KOption, SeedOption, image_stage
from stages.shell import ParamsOption, RootOption, stage_app

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
    out = folder.auc(k, seed)
    name = stage_name("evaluate", dataset, seed, k=k)
    with image_stage(name, params, "inits", outputs=[out], root=root) as run:
        from pipeline import schemas
        from pipeline.embedding_matrix import embedding_matrix
        from pipeline.images.ratio import mean_auc
        from pipeline.images.tasks import active_categories, category_sides
        from pipeline.model_files import read_network
        from pipeline.models.conv_ratio import ConvRatioNet
        from pipeline.storage import read_table
        from pipeline.text_files import read_history, write_csv
        from pipeline.training.history import best_row

        test, category = folder.split("test")
        tasks = folder.task_set(k).tasks
        sides = category_sides(active_categories(tasks), category)
        x, device = folder.pixels()[test], run.device()
        rows: list[dict[str, str | int | float]] = []
        for init in run.params.inits:
            ratio = folder.ratio(k, seed, init)
            e = embedding_matrix(read_table(ratio.e, schemas.TASK_EMBEDDINGS), tasks)
            net = read_network(ConvRatioNet, ratio.model).to(device)
            history = read_history(ratio.history)
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
