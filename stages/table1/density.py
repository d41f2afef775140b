"""One cell of Table 1's density baselines: maximum likelihood, scores, figures."""

import time
from typing import TYPE_CHECKING, Annotated, assert_never

import typer

from pipeline.table1.densities import DensitiesFile
from pipeline.table1.densities import Density as Model
from stages.shell import ParamsOption, RootOption, stage_app
from stages.table1.measure import measure
from stages.table1.shell import (
    PARAMS,
    ROOT,
    FieldsOption,
    Place,
    SeedOption,
    main_params,
    table1_stage,
)

if TYPE_CHECKING:
    from pipeline.density import Density
    from pipeline.examples import Examples
    from pipeline.table1.densities import Densities

app = stage_app()


@app.command()
def main(
    model: Annotated[Model, typer.Option(help="Which density.")],
    fields: FieldsOption,
    seed: SeedOption,
    root: RootOption = ROOT,
    params: ParamsOption = PARAMS,
) -> None:
    """Learn log q_t(x) for all tasks by maximum likelihood, and measure it; high = common."""
    started = time.perf_counter()
    place = Place(root)
    features = place.features(fields, seed)
    inputs = [
        features / "users.parquet",
        *(place.prepared(table) for table in ("tasks", "exposures", "splits")),
    ]
    with (
        main_params("density", params, [fields], seed, on_device=True) as file,
        table1_stage(
            f"density-{model}-{seed}", DensitiesFile, params, f"densities.{model}"
        ) as run,  # a seed has its own checkpoint
    ):
        import torch

        from pipeline import schemas
        from pipeline.density import density_scores, train_density
        from pipeline.examples import Examples
        from pipeline.storage import read_table
        from pipeline.training.history import best_row, rounded
        from pipeline.yardsticks import exposure_sides
        from stages.session import open_session

        kinds = (schemas.FEATURES, schemas.TASKS, schemas.EXPOSURES, schemas.SPLITS)
        examples = Examples.of(*map(read_table, inputs, kinds))
        wanted = getattr(run.params.densities, model)
        net = _network(model, examples, run.params.densities)
        with open_session(run, *inputs, max_epochs=wanted.max_epochs) as session:
            history = train_density(
                net,
                examples,
                watched=exposure_sides(examples.pairs, examples.valid, examples.tasks),
                schedule=wanted,
                weight_decay=wanted.weight_decay,
                noise=wanted.noise,
                seed=seed,
                session=session,
            )
        best = best_row(history)
        run.say(
            f"{model}: validation loss {best['valid_loss']:.2f} nats "
            f"after epoch {best['epoch']:.0f} of {len(history)}"
        )
        x, tasks = torch.from_numpy(examples.x), torch.arange(examples.tasks)
        measure(
            place,
            features,
            lambda rows, device: density_scores(
                net.to(device), x[rows].to(device), tasks.to(device)
            ),
            history=[{name: str(value) for name, value in row.items()} for row in rounded(history)],
            out=place.cell(model, fields, seed),
            started=started,
            params=file,
        )


def _network(model: Model, examples: "Examples", wanted: "Densities") -> "Density":
    from pipeline.models.gaussian import ConditionalGaussian
    from pipeline.models.maf import ConditionalMaf

    x_dim, tasks = examples.x.shape[1], examples.tasks
    if model == "gaussian":
        shape = wanted.gaussian
        return ConditionalGaussian(
            x_dim=x_dim, tasks=tasks, task_dim=shape.task_dim, hidden=shape.hidden
        )
    if model == "maf":
        return ConditionalMaf(
            x_dim=x_dim, tasks=tasks, blocks=wanted.maf.blocks, hidden=wanted.maf.hidden
        )
    assert_never(model)


if __name__ == "__main__":
    app()
