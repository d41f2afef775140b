"""Train the pre-embedding models of a k: one for each M0 that an initialisation asks for."""

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
    """Train the pre-embedding models of a k: one for each M0 that an initialisation asks for."""
    folder = Folder(root, dataset)
    out = folder.runs(k, seed) / "pretrain"
    name = f"pretrain-{dataset}-k{k}-{seed}"
    keys = ("inits", "pretrain", "network")
    with image_stage(name, params, *keys, outputs=[], root=root) as run:
        from pipeline.image_params import seed_tasks_of
        from pipeline.image_ratio import pretrain_images
        from pipeline.model_files import write_network
        from pipeline.storage import write_csv
        from pipeline.training.loop import best_row, rounded
        from stages.progress import EpochReporter

        examples = folder.examples(folder.pixels(), k)
        schedule, device = run.params.pretrain, run.device()
        for m0 in sorted({m for one in run.params.inits if (m := seed_tasks_of(one))}):
            with EpochReporter(f"{name}-{m0}", schedule.max_epochs) as report:
                made = pretrain_images(
                    examples,
                    m0,
                    dataset=dataset,
                    network=run.params.network,
                    schedule=schedule,
                    seed=seed,
                    device=device,
                    report=report,
                )
            write_network(made.net, out / f"{m0}.safetensors")
            write_csv(rounded(made.history), out / f"{m0}.csv")
            best = best_row(made.history)
            run.say(
                f"{name}: {len(made.seed_tasks)} seed tasks, loss {best['valid_loss']:.4f} "
                f"after epoch {best['epoch']:.0f} of {len(made.history)}"
            )


if __name__ == "__main__":
    app()
