"""The pre-embedding model of a cell of Table 1."""

from stages import pretrain
from stages.shell import ParamsOption, RootOption, stage_app
from stages.table1.shell import (
    PARAMS,
    ROOT,
    BaseOption,
    FieldsOption,
    Place,
    SeedOption,
    StartOption,
    main_params,
)

app = stage_app()


@app.command()
def main(
    start: StartOption,
    base: BaseOption,
    fields: FieldsOption,
    seed: SeedOption,
    root: RootOption = ROOT,
    params: ParamsOption = PARAMS,
) -> None:
    """Train the pre-embedding model, as the main stage does."""
    place = Place(root)
    folder = place.pretrain(start, base, fields, seed)
    with main_params("pretrain", params, [start, base, fields], seed) as file:
        pretrain.main(
            features=place.features(fields, seed) / "users.parquet",
            tasks=place.prepared("tasks"),
            exposures=place.prepared("exposures"),
            splits=place.prepared("splits"),
            seed_tasks=folder / "seed_tasks.parquet",
            model=folder / "model.safetensors",
            history=folder / "history.csv",
            params=file,
            run_info=place.run_info(folder),
        )


if __name__ == "__main__":
    app()
