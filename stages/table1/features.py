"""The user vectors of a column of Table 1."""

from stages import extract_features
from stages.shell import ParamsOption, RootOption, stage_app
from stages.table1.shell import PARAMS, ROOT, FieldsOption, Place, SeedOption, main_params

app = stage_app()


@app.command()
def main(
    fields: FieldsOption, seed: SeedOption, root: RootOption = ROOT, params: ParamsOption = PARAMS
) -> None:
    """Give every user a vector x, as the main stage does."""
    place = Place(root)
    folder = place.features(fields, seed)
    with main_params("features", params, [fields], seed) as file:
        extract_features.main(
            users=place.prepared("users"),
            items=place.prepared("items"),
            exposures=place.prepared("exposures"),
            splits=place.prepared("splits"),
            out=folder / "users.parquet",
            model=folder / "deepfm.safetensors",
            history=folder / "history.csv",
            params=file,
            run_info=place.run_info(folder),
        )


if __name__ == "__main__":
    app()
