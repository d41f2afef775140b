"""Learn all tasks of a k together on features, by one method; AUC on test images (Table 2)."""

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.images.params import FeatureMethod
from stages.images.folder import Folder, stage_name
from stages.images.shell import PARAMS, ROOT, DatasetOption, KOption, SeedOption, image_stage
from stages.shell import ParamsOption, RootOption, stage_app

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.arrays import Singles
    from pipeline.auc import Sides
    from pipeline.examples import Examples
    from pipeline.images.params import ImageParams
    from stages.shell import Run

app = stage_app()


@app.command()
def main(
    dataset: DatasetOption,
    k: KOption,
    seed: SeedOption,
    method: Annotated[FeatureMethod, typer.Option(help="Each with a random embedding a task.")],
    root: RootOption = ROOT,
    params: ParamsOption = PARAMS,
) -> None:
    """Learn all tasks of a k together on features, by one method; AUC on test images (Table 2)."""
    folder = Folder(root, dataset)
    out = folder.measured("on_features", k, method, seed)
    name = stage_name("on_features", dataset, method, seed, k=k)
    keys = ("on_features", "projection")
    with image_stage(name, params, *keys, outputs=[out], root=root) as run:
        from pipeline.auc import task_aucs
        from pipeline.images.tasks import active_categories, category_sides
        from pipeline.text_files import write_csv

        x = folder.load_features()
        examples = folder.examples(x, k)
        test, category = folder.split("test")
        active = active_categories(folder.task_set(k).tasks)
        watched = category_sides(active, folder.split("valid")[1])
        inputs = [folder.features.users, *folder.inputs(k)]
        if method == "ratio-features":
            scores = _ratio(run, examples, x[test], watched, seed, inputs)
        else:
            scores = _density(run, method, examples, x[test], watched, seed, inputs)
        auc = float(task_aucs(scores, category_sides(active, category)).defined.mean())
        row = {"dataset": dataset, "k": k, "seed": seed, "method": method, "auc": round(auc, 6)}
        write_csv([row], out)
        run.say(f"{name}: mean AUC {auc:.4f} of {examples.tasks} tasks")


def _ratio(
    run: "Run[ImageParams]",
    examples: "Examples",
    test: "Singles",
    watched: "Sides",
    seed: int,
    inputs: "list[Path]",
) -> "Singles":
    """Scores of every task and test image (M, U') by the conditional ratio."""
    import torch

    from pipeline.conditional import train_network
    from pipeline.images.ratio import start
    from pipeline.models.ratio import RatioNet
    from pipeline.scoring import score_all
    from stages.session import open_session

    wanted = run.params.on_features.ratio
    e, _ = start(None, examples.tasks, run.params.projection, seed)
    net = RatioNet(
        x_dim=test.shape[1], task_dim=e.shape[1], hidden=wanted.hidden, dropout=wanted.dropout
    )
    with open_session(run, *inputs, max_epochs=wanted.max_epochs) as session:
        made = train_network(
            net,
            examples,
            e,
            watched=watched,
            base="exposures",
            freeze_e=False,
            schedule=wanted,
            seed=seed,
            session=session,
        )
    return score_all(made.net, torch.from_numpy(test), torch.from_numpy(made.e))


def _density(
    run: "Run[ImageParams]",
    method: FeatureMethod,
    examples: "Examples",
    test: "Singles",
    watched: "Sides",
    seed: int,
    inputs: "list[Path]",
) -> "Singles":
    """The same by a conditional density."""
    import torch

    from pipeline.density import Density, density_scores, train_density
    from pipeline.models.gaussian import ConditionalGaussian
    from pipeline.models.maf import ConditionalMaf
    from stages.session import open_session

    wanted, shape = run.params.on_features, {"x_dim": test.shape[1], "tasks": examples.tasks}
    schedule = wanted.maf if method == "maf" else wanted.gaussian
    net: Density = ConditionalGaussian(**shape)
    if method == "maf":
        net = ConditionalMaf(**shape, hidden=wanted.maf.hidden)
    with open_session(run, *inputs, max_epochs=schedule.max_epochs) as session:
        train_density(
            net,
            examples,
            watched=watched,
            schedule=schedule,
            weight_decay=schedule.weight_decay,
            seed=seed,
            session=session,
        )
    return density_scores(net, torch.from_numpy(test), torch.arange(examples.tasks))


if __name__ == "__main__":
    app()
