"""Embed a knowledge graph by translation; give every item a vector."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stages.main_stage import stage
from stages.shell import PARAMS, RUN_INFO, ParamsOption, RunInfoOption, stage_app

if TYPE_CHECKING:
    from pipeline.graph import GraphVectors

app = stage_app()


@app.command()
def main(
    items: Annotated[Path, typer.Option(help="Reads: item_id, title and genres.")] = Path(
        "data/prepared/items.parquet"
    ),
    exposures: Annotated[
        Path, typer.Option(help="Reads, for ktup: those of training users are learned from.")
    ] = Path("data/prepared/exposures.parquet"),
    splits: Annotated[Path, typer.Option(help="Reads, for ktup: each user's split.")] = Path(
        "data/prepared/splits.parquet"
    ),
    out: Annotated[Path, typer.Option(help="Writes: item_id and x.")] = Path(
        "data/graph/items.parquet"
    ),
    history: Annotated[Path, typer.Option(help="Writes: the losses of each epoch.")] = Path(
        "data/graph/history.csv"
    ),
    links: Annotated[
        Path, typer.Option(help="Writes: link prediction on held-out triples, by relation.")
    ] = Path("data/graph/link_prediction.csv"),
    params: ParamsOption = PARAMS,
    run_info: RunInfoOption = RUN_INFO,
) -> None:
    """Embed a knowledge graph by translation; give every item a vector, for `init: graph`.

    The graph is in the files that `graph.triples` and `graph.items` name; without them it is made
    of the items' genres and release years.
    """
    outputs = [out, history, links]
    with stage("graph", params, "graph", "seed", outputs=outputs, run_info=run_info) as run:
        import numpy as np
        import pyarrow as pa

        from pipeline import schemas
        from pipeline.datasets.triples import read_graph
        from pipeline.files import sha256
        from pipeline.graph import UNMEASURED, embed_items, learned_exposures
        from pipeline.storage import read_table, vectors, write_table
        from pipeline.text_files import write_csv
        from pipeline.training.history import rounded
        from stages.session import open_session

        wanted = run.params.graph
        things = read_table(items, schemas.ITEMS)
        graph = read_graph(wanted, things)
        files = [Path(name) for name in (wanted.triples, wanted.items) if name]
        run.facts["graph"] = {str(file): sha256(file) for file in files}
        learned = [exposures, splits] if wanted.model == "ktup" else []
        with open_session(run, items, *learned, *files, max_epochs=wanted.max_epochs) as session:
            made = embed_items(
                graph,
                lambda: learned_exposures(
                    read_table(exposures, schemas.EXPOSURES),
                    read_table(splits, schemas.SPLITS),
                    things,
                    session.device,
                ),
                wanted,
                seed=run.params.seed,
                session=session,
            )
        x = made.x if made else np.zeros((things.num_rows, wanted.dim), np.float32)
        table = pa.table({"item_id": things.column("item_id"), "x": vectors(x)})
        write_table(table, out, schemas.ITEM_VECTORS)
        write_csv(rounded(made.history) if made else [{"epoch": 0}], history)
        write_csv(made.links if made else UNMEASURED, links)
        run.say(_line(made) if made else "there are no triples: no item has a vector")


def _line(made: "GraphVectors") -> str:
    """What came of it, in a line."""
    everything = made.links[0]
    measured = "too few triples to hold one out that is not the first of something: none measured"
    if everything["triples"]:
        measured = (
            f"filtered MRR {everything['mrr']:.3f}, Hits@10 {everything['hits10']:.3f} "
            f"on {everything['triples']:,} held-out triples"
        )
    return (
        f"vectors of {len(made.x):,} items; {int((~made.known).sum()):,} are not in the graph and "
        f"get the mean: {measured}"
    )


if __name__ == "__main__":
    app()
