"""One cell of Table 1's peers: scores, figures."""

import time
from typing import Annotated, Literal

import typer

from pipeline.peers.settings import Detector, PeersFile, Recommender
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

app = stage_app()
Peer = Literal[Recommender, Detector]


@app.command()
def main(
    peer: Annotated[Peer, typer.Option(help="Which scorer.")],
    fields: FieldsOption,
    seed: SeedOption,
    root: RootOption = ROOT,
    params: ParamsOption = PARAMS,
) -> None:
    """Score by a peer, and measure it; high = common. Recommenders do not look at x."""
    started = time.perf_counter()
    place = Place(root)
    features = place.features(fields, seed)
    with (
        main_params("peer", params, [fields], seed) as file,
        table1_stage("peer", PeersFile, params, f"peers.{peer}") as run,
    ):
        from pipeline import schemas
        from pipeline.params import load_params
        from pipeline.peers.evidence import Evidence
        from pipeline.peers.registry import PEERS
        from pipeline.storage import read_table

        evidence = Evidence.of(
            read_table(features / "users.parquet", schemas.FEATURES),
            read_table(place.prepared("tasks"), schemas.TASKS),
            read_table(place.prepared("exposures"), schemas.EXPOSURES),
            read_table(place.prepared("splits"), schemas.SPLITS),
            learners=load_params(file, "ratio.visible").ratio.visible,
        )
        measure(
            place,
            features,
            lambda rows, _: PEERS[peer](evidence, rows, run.params.peers, seed),
            history=[],
            out=place.cell(peer, fields, seed),
            started=started,
            params=file,
        )


if __name__ == "__main__":
    app()
