"""The items' vectors from a knowledge graph, for a row of Table 1."""

from stages import graph
from stages.shell import ParamsOption, RootOption, stage_app
from stages.table1.shell import PARAMS, ROOT, Place, SeedOption, StartOption, main_params

app = stage_app()


@app.command()
def main(
    start: StartOption, seed: SeedOption, root: RootOption = ROOT, params: ParamsOption = PARAMS
) -> None:
    """Embed a knowledge graph, as the main stage does."""
    place = Place(root)
    folder = place.graph(start, seed)
    with main_params("graph", params, [start], seed) as file:
        graph.main(
            items=place.prepared("items"),
            exposures=place.prepared("exposures"),
            splits=place.prepared("splits"),
            out=folder / "items.parquet",
            history=folder / "history.csv",
            links=folder / "link_prediction.csv",
            params=file,
            run_info=place.run_info(folder),
        )


if __name__ == "__main__":
    app()
