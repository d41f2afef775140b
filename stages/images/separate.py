"""Learn some tasks of a k one by one, by one method; AUC on test images (Table 2, left)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.errors import PipelineError
from pipeline.images.params import ON_FEATURES, Method
from stages.images.folder import Folder, stage_name
from stages.images.shell import PARAMS, ROOT, DatasetOption, KOption, SeedOption, image_stage
from stages.shell import ParamsOption, RootOption, stage_app

if TYPE_CHECKING:
    from pipeline.arrays import Ints, Singles
    from pipeline.images.params import ImageParams, Separate
    from pipeline.images.separate import Apart
    from pipeline.sections import Schedule
    from stages.shell import Run

app = stage_app()


@app.command()
def main(
    dataset: DatasetOption,
    k: KOption,
    seed: SeedOption,
    method: Annotated[Method, typer.Option(help="gaussian, maf, ratio-features are on features.")],
    root: RootOption = ROOT,
    params: ParamsOption = PARAMS,
) -> None:
    """Learn some tasks of a k one by one, by one method; AUC on test images (Table 2, left)."""
    folder = Folder(root, dataset)
    out = folder.measured("separate", k, method, seed)
    name = stage_name("separate", dataset, method, seed, k=k)
    keys = ("separate", "network")
    with image_stage(name, params, *keys, outputs=[out], root=root) as run:
        import numpy as np

        from pipeline.auc import task_aucs
        from pipeline.images.separate import choose_tasks, set_apart
        from pipeline.images.tasks import active_categories, category_sides
        from pipeline.text_files import write_csv

        load = folder.load_features if method in ON_FEATURES else folder.pixels
        inputs = folder.load_shares() if method == "csi" else load()
        examples = folder.examples(inputs, k)
        tasks = choose_tasks(examples, run.params.separate.tasks, np.random.default_rng(seed))
        data = set_apart(examples, tasks, run.device(), run.params.separate.draws)
        test, category = folder.split("test")
        scores = _scores(run, folder, k, method, data, inputs, test, seed)
        active = active_categories(folder.task_set(k).tasks)[tasks]
        aucs = task_aucs(scores, category_sides(active, category))
        if not len(aucs.defined):
            raise PipelineError(
                f"none of {len(tasks)} tasks has test images both of its categories and of others; "
                "raise data.test_images."
            )
        schedule = _schedules(run.params.separate).get(method)
        steps = schedule.max_epochs * data.steps(schedule.batch_size) if schedule else 0
        write_csv(
            [
                {
                    "dataset": dataset,
                    "k": k,
                    "seed": seed,
                    "method": method,
                    "most_steps": steps,
                    "task_id": int(task),
                    "auc": round(float(one), 6),
                }
                for task, one in zip(tasks, aucs.auc, strict=True)
                if not np.isnan(one)
            ],
            out,
        )
        run.say(f"{name}: mean AUC {aucs.defined.mean():.4f} of {len(aucs.defined)} tasks")


def _schedules(wanted: "Separate") -> "Mapping[str, Schedule]":
    """How each method learns; the Gaussian does so in closed form."""
    return {
        "ratio-features": wanted.features,
        "maf": wanted.maf,
        "ratio": wanted.ratio,
        "svdd": wanted.svdd,
        "csi": wanted.csi,
    }


def _scores(
    run: "Run[ImageParams]",
    folder: Folder,
    k: int,
    method: str,
    data: "Apart",
    inputs: "Singles",
    test: "Ints",
    seed: int,
) -> "Singles":
    """Scores of the test images by each task's own model, (M, test images)."""
    import torch

    from pipeline.datasets.images import SOURCES
    from pipeline.images.separate_density import gaussian_scores, maf_scores
    from pipeline.images.separate_images import csi_scores, svdd_scores
    from pipeline.images.separate_ratio import feature_net, image_net, ratio_scores
    from pipeline.models.conv_ratio import Augment, black
    from stages.session import open_session

    wanted, network = run.params.separate, run.params.network
    x = torch.from_numpy(inputs).to(run.device())
    judged = x[torch.from_numpy(test).to(x.device)]
    flips = SOURCES[folder.dataset].flips
    if method == "gaussian":
        return gaussian_scores(data, x, judged)
    schedule = _schedules(wanted)[method]
    learned_from = [folder.features.users] if method in ON_FEATURES else []
    with open_session(
        run, *folder.inputs(k), *learned_from, max_epochs=schedule.max_epochs
    ) as session:
        if method == "maf":
            return maf_scores(data, x, judged, wanted.maf, seed=seed, session=session)
        if method == "svdd":
            return svdd_scores(data, x, judged, wanted.svdd, seed=seed, session=session)
        if method == "csi":
            return csi_scores(data, x, judged, wanted.csi, flips=flips, seed=seed, session=session)
        on_features = method == "ratio-features"
        return ratio_scores(
            lambda: (
                feature_net(x.shape[1], wanted.features.hidden)
                if on_features
                else image_net(x.shape[1], network)
            ),
            *(data, x, judged, schedule),
            augment=None if on_features else Augment(black=black(inputs), flips=flips),
            seed=seed,
            session=session,
        )


if __name__ == "__main__":
    app()
