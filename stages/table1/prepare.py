"""Prepare the source and filter its tasks: what every cell of Table 1 shares."""

from pathlib import Path

from stages import filter_tasks, prepare
from stages.shell import ParamsOption, RootOption, stage_app
from stages.table1.shell import PARAMS, ROOT, Place, main_params

app = stage_app()


@app.command()
def main(root: RootOption = ROOT, params: ParamsOption = PARAMS) -> None:
    """Lay the source out and filter its tasks, as the main stages do."""
    place = Place(root)
    info = place.run_info(place.prepared("users").parent)
    with main_params("prepare", params, [], 0) as file:
        prepare.main(
            users=place.prepared("users"),
            items=place.prepared("items"),
            exposures=place.prepared("exposures"),
            splits=place.prepared("splits"),
            raw=Path("data/raw"),  # a downloaded file serves the main pipeline too
            params=file,
            run_info=info,
        )
        filter_tasks.main(
            users=place.prepared("users"),
            exposures=place.prepared("exposures"),
            splits=place.prepared("splits"),
            out=place.prepared("tasks"),
            params=file,
            run_info=info,
        )


if __name__ == "__main__":
    app()
