"""Tables 2, 3 and 6 and figure 3, ours beside the paper's, from all that was measured."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stages.images.shell import PARAMS, ROOT, Folder, ParamsOption, RootOption, image_stage
from stages.shell import stage_app

if TYPE_CHECKING:
    from pipeline.image_params import ImageParams
    from pipeline.image_tables import Record

app = stage_app()


@app.command()
def main(
    root: RootOption = ROOT,
    out: Annotated[
        Path, typer.Option(help="Writes here NAME.md, NAME.json, NAME-figure3.svg, by `name`.")
    ] = Path("metrics/images"),
    params: ParamsOption = PARAMS,
) -> None:
    """Tables 2, 3 and 6 and figure 3, ours beside the paper's, from all that was measured."""
    keys = ("name", "cells", "inits", "seeds", "datasets", "unseen", "separate")
    with image_stage("tables", params, *keys, outputs=[], root=root) as run:
        from pipeline.storage import write_bytes, write_json

        outputs = [out / f"{run.params.name}{end}" for end in (".md", ".json", "-figure3.svg")]
        text, figures = _tables(run.params, root)
        write_bytes(text.encode(), outputs[0])
        write_json(figures, outputs[1])
        _draw(run.params, root, outputs[2])
        run.say(f"{outputs[0]}: {len(figures)} figures beside it in {outputs[1].name}")


def _records(root: Path, pattern: str) -> list["Record"]:
    """The rows of all CSV files that match."""
    from pipeline.storage import read_csv

    return [row for path in sorted(root.glob(pattern)) for row in read_csv(path)]


def _tables(params: "ImageParams", root: Path) -> tuple[str, dict[str, float]]:
    """The text of NAME.md, and the figures that DVC compares."""
    figures: dict[str, float] = {}
    parts = [
        f"Params file: `{params.name}`, seeds {', '.join(map(str, params.seeds))}. "
        "AUC x 100: ours, its standard deviation over seeds, the paper's in brackets.\n",
        *(_table_2(params, root) if params.separate.ks else ()),
        *_by_initialisation(params, root, figures),
        *_unseen(params, root, figures),
        "## Features and figure 3\n",
        _facts(figures),
        _ran(root),
    ]
    return "\n".join(parts), figures


def _by_initialisation(
    params: "ImageParams", root: Path, figures: dict[str, float]
) -> Iterator[str]:
    """Table 3, left, and Table 6; puts their figures into `figures`."""
    from statistics import mean

    from pipeline import image_tables as made

    for dataset in params.datasets:
        probe = _records(root, f"{dataset}/features/probe.csv")
        figures[f"{dataset}.probe"] = float(probe[0]["accuracy"])
        measured = made.Measured.of(_records(root, f"{dataset}/seed*/k*/auc.csv"), "init", "k")
        ks = [cell.k for cell in params.cells if cell.dataset == dataset]
        title, paper = made.BY_INITIALISATION[dataset]
        yield f"## {title}\n"
        yield made.by_k(measured, params.inits, ks, paper)
        lasted = [
            f"{cell.epochs} (k = {cell.k})" for cell in params.cells if cell.dataset == dataset
        ]
        yield f"At most {', '.join(lasted)} epochs.\n"
        for (init, k), aucs in measured.values.items():
            figures[f"{dataset}.k{k}.{init}"] = round(mean(aucs), 4)
        if (gained := made.gain(measured, max(ks))) is not None:
            yield (
                f"Learned (M0 = 64) less random at k = {max(ks)}: {gained[0]:+.2f} ± "
                f"{gained[1]:.2f} points over {len(params.seeds)} seeds.\n"
            )


def _unseen(params: "ImageParams", root: Path, figures: dict[str, float]) -> Iterator[str]:
    """Table 3, right; puts the correlations of Figure 3 into `figures`."""
    from statistics import mean

    from pipeline import image_tables as made

    folder = root / params.unseen.dataset
    records = _records(folder, "generalisation/*.csv")
    measured = made.Measured.of(records, "init", "train_k", "test_k")
    ks = sorted({int(row["train_k"]) for row in records})
    yield "## Table 3, right: tasks placed by projection alone\n"
    for init in dict.fromkeys(row["init"] for row in records):
        yield made.generalisation(measured, init, ks)
    correlations = _records(folder, "similarity/*/spearman.csv")
    for n in dict.fromkeys(row["coordinates"] for row in correlations):
        found = [float(row["spearman"]) for row in correlations if row["coordinates"] == n]
        figures[f"similarity.{n}"] = round(mean(found), 4)


def _table_2(params: "ImageParams", root: Path) -> list[str]:
    """Table 2, both halves."""
    from pipeline import image_tables as made

    dataset = params.unseen.dataset
    apart = _records(root, f"{dataset}/seed*/k*/separate/*.csv")
    together = _records(root, f"{dataset}/seed*/k*/on_features/*.csv")
    together += [
        {**row, "method": "ratio"}
        for row in _records(root, f"{dataset}/seed*/k*/auc.csv")
        if row["init"] == "random"
    ]
    ks = params.separate.ks
    count = params.separate.tasks
    sampled = f"{count} tasks drawn for each k and seed" if count else "all tasks"
    return [
        f"## Table 2, left: separate learning ({sampled}; † on features)\n",
        made.by_k(
            made.Measured.of(apart, "method", "k"),
            params.separate.methods,
            ks,
            made.TABLE_2_SEPARATE,
        ),
        "## Table 2, right: conditional learning, random embeddings (all tasks; † on features)\n",
        made.by_k(
            made.Measured.of(together, "method", "k"),
            list(dict.fromkeys(row["method"] for row in together)),
            ks,
            made.TABLE_2_CONDITIONAL,
        ),
    ]


def _facts(figures: dict[str, float]) -> str:
    """The figures that are no AUC, one a line."""
    from pipeline.image_tables import PROBE

    lines = []
    for key, value in figures.items():
        kind, _, rest = key.partition(".")
        if kind == "similarity":
            lines.append(
                f"* Rank correlation with the true overlap, {rest} coordinates: {value:.3f}"
            )
        elif rest == "probe":
            paper = f" (paper: {PROBE})" if kind == "cifar10" else ""
            lines.append(f"* Linear probe on {kind}: {100 * value:.1f} %{paper}")
    return "\n".join(lines) + "\n"


def _ran(root: Path) -> str:
    """Where it ran and how long, from the facts that each stage leaves."""
    import json

    facts = [json.loads(path.read_text()) for path in sorted((root / "run_info").glob("*.json"))]
    facts = [one for one in facts if one["stage"] != "tables"]
    devices = sorted({one["device"] for one in facts})
    seconds = sum(one["seconds"] for one in facts)
    return f"{len(facts)} stages, {seconds:,.0f} s in all, on {'; '.join(devices)}.\n"


def _draw(params: "ImageParams", root: Path, out: Path) -> None:
    """Figure 3 of the first seed: the truth, and the cosines by fewer and fewer coordinates."""
    import numpy as np

    from pipeline import schemas
    from pipeline.image_tasks import active_categories
    from pipeline.plots import heat_maps
    from pipeline.similarity import agreement, overlap
    from pipeline.storage import matrix, read_table, write_bytes

    unseen, seed = params.unseen, params.seeds[0]
    folder = Folder(root, unseen.dataset)
    path = root / unseen.dataset / "similarity" / f"{seed}" / "statistic.parquet"
    statistic = matrix(read_table(path, schemas.TASK_EMBEDDINGS).column("e"))
    active = active_categories(folder.task_set(unseen.test_k).tasks)
    panels = {"truth": overlap(active).astype(float)}
    gen = np.random.default_rng(seed)
    for n in unseen.coordinates:
        panels[f"{n} coordinates"] = agreement(statistic, active, n, gen).cosine
    write_bytes(heat_maps(panels).encode(), out)


if __name__ == "__main__":
    app()
