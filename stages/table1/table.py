"""Table 1, ours beside the paper's, from the figures of all its cells."""

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stages.shell import ParamsOption, RootOption, stage_app
from stages.table1.shell import PARAMS, ROOT, Place, table1_stage

if TYPE_CHECKING:
    from pipeline.table1.page import Cell
    from pipeline.table1.params import Table

app = stage_app()
PARAM_KEYS = ("name", "table", "changes", "evaluate.labels", "data.source", "graph.triples")
TITLES = {  # for people
    "strict": "Strict features: x from who saw what",
    "paper": "The four labels that the paper lists, as x",
}


@app.command()
def main(
    root: RootOption = ROOT,
    out: Annotated[
        Path, typer.Option(help="Writes here NAME.md, NAME.csv, NAME.svg, by `name`.")
    ] = Path("metrics/table1"),
    params: ParamsOption = PARAMS,
) -> None:
    """Set every row of Table 1 beside the paper's and the peers', from all that was measured."""
    from pipeline.table1.params import Table1Params

    with table1_stage("table", Table1Params, params, *PARAM_KEYS) as run:
        from pipeline.files import write_bytes
        from pipeline.table1.figure import rows_of_auc
        from pipeline.table1.page import ceilings, lines, page
        from pipeline.text_files import write_csv

        name, wanted, labels = run.params.name, run.params.table, run.params.evaluate.labels
        cells = list(_cells(wanted, Place(root)))
        records = [cell.record(labels) for cell in cells]
        text = page(
            cells,
            labels,
            source=run.params.data.source,
            titles={
                fields: f"{TITLES.get(fields, fields)} (`{json.dumps(run.params.changes[fields])}`)"
                for fields in wanted.fields
            },
            seeds=wanted.seeds,
            own_graph=run.params.graph.triples is not None,
        )
        figure = rows_of_auc(
            lines(records),
            [*labels, "exposure"],
            wanted.fields,
            ceilings(cells, labels),
        )
        write_bytes(text.encode(), out / f"{name}.md")
        write_csv(records, out / f"{name}.csv")
        write_bytes(figure.encode(), out / f"{name}.svg")
        run.say(f"{out / name}.md: {len(cells)} cells")


def _cells(wanted: "Table", place: Place) -> "Iterator[Cell]":
    """Every cell, in the order of the table.

    Raises:
        PipelineError: a cell was not measured.
    """
    from pipeline.table1.page import NO_X, OWN_X, Cell
    from pipeline.text_files import read_json

    settings = [(fields, seed) for fields in wanted.fields for seed in wanted.seeds]
    row: str
    for row in (*wanted.densities, *wanted.detectors):
        for fields, seed in settings:
            yield Cell(row, "", fields, seed, read_json(place.cell(row, fields, seed)))
    for base in wanted.bases:
        for row in wanted.rows:
            for fields, seed in settings:
                measured = read_json(place.cell(row, base, fields, seed))
                yield Cell(row, base, fields, seed, measured)
    for row, seed in product(wanted.presets, wanted.seeds):
        measured = read_json(place.cell(row, wanted.preset_base, row, seed))
        yield Cell(row, wanted.preset_base, OWN_X, seed, measured)
    for peer, row, seed in product(wanted.preset_detectors, wanted.presets, wanted.seeds):
        measured = read_json(place.cell(peer, row, seed))
        yield Cell(f"{peer}@{row}", "", OWN_X, seed, measured)
    for row in wanted.recommenders:
        for seed in wanted.seeds:
            yield Cell(row, "", NO_X, seed, read_json(place.cell(row, wanted.fields[0], seed)))


if __name__ == "__main__":
    app()
