"""Tables 2, 3 and 6 and figure 3, ours beside the paper's, from all that was measured."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.images.params import ON_FEATURES
from stages.images.folder import Folder, run_info, stage_name
from stages.images.shell import (
    PARAMS,
    ROOT,
    RootOption,
    image_stage,
)
from stages.shell import ParamsOption, stage_app

if TYPE_CHECKING:
    from pipeline.images.params import Dataset, ImageParams, Separate
    from pipeline.images.tables import Record

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
    keys = ("name", "cells", "inits", "seed_tasks", "seeds", "datasets", "unseen", "separate")
    with image_stage("tables", params, *keys, outputs=[], root=root, on_device=False) as run:
        from pipeline.storage import write_bytes, write_json

        outputs = [out / f"{run.params.name}{end}" for end in (".md", ".json", "-figure3.svg")]
        text, figures = _tables(run.params, root)
        write_bytes(text.encode(), outputs[0])
        write_json(figures, outputs[1])
        _draw(run.params, root, outputs[2])
        run.say(f"{outputs[0]}: {len(figures)} figures beside it in {outputs[1].name}")


def _records(paths: "Iterable[Path]") -> list["Record"]:
    """The rows of all these CSV files, and of no other: there may be those of other params."""
    from pipeline.storage import read_csv

    return [row for path in paths for row in read_csv(path)]


def _by_cell(params: "ImageParams", root: Path, dataset: "Dataset") -> list["Record"]:
    """What `evaluate` measured of each cell and seed, under the initialisations of the params."""
    folder = Folder(root, dataset)
    ks = [cell.k for cell in params.cells if cell.dataset == dataset]
    paths = (folder.auc(k, seed) for k, seed in product(ks, params.seeds))
    return [row for row in _records(paths) if row["init"] in params.inits]


def _tables(params: "ImageParams", root: Path) -> tuple[str, dict[str, float]]:
    """The text of NAME.md, and the figures that DVC compares."""
    figures: dict[str, float] = {}
    parts = [
        f"Params file: `{params.name}`, seeds {', '.join(map(str, params.seeds))}. "
        "AUC x 100: ours, its standard deviation over seeds, the paper's in brackets. All seeds "
        "share the features, whose own spread is not in that of rows with † and pseudo-label.\n",
        *(_table_2(params, root) if params.separate.ks else ()),
        *_by_initialisation(params, root, figures),
        *_unseen(params, root, figures),
        "## Features and figure 3\n",
        _facts(figures),
        _ran(params, root),
    ]
    return "\n".join(parts), figures


def _by_initialisation(
    params: "ImageParams", root: Path, figures: dict[str, float]
) -> Iterator[str]:
    """Table 3, left, and Table 6; puts their figures into `figures`."""
    from statistics import mean

    from pipeline.images import tables as made

    for dataset in params.datasets:
        probe = _records([Folder(root, dataset).features.probe])
        figures[f"{dataset}.probe"] = float(probe[0]["accuracy"])
        measured = made.Measured.of(_by_cell(params, root, dataset), "init", "k")
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

    from pipeline.images import tables as made

    folder = Folder(root, params.unseen.dataset)
    records = _records(map(folder.generalisation, params.seeds))
    measured = made.Measured.of(records, "init", "train_k", "test_k")
    ks = sorted({int(row["train_k"]) for row in records})
    yield "## Table 3, right: tasks placed by projection alone\n"
    for init in dict.fromkeys(row["init"] for row in records):
        yield made.generalisation(measured, init, ks)
    correlations = _records(folder.similarity(seed).spearman for seed in params.seeds)
    for n in dict.fromkeys(row["coordinates"] for row in correlations):
        found = [float(row["spearman"]) for row in correlations if row["coordinates"] == n]
        figures[f"similarity.{n}"] = round(mean(found), 4)


def _table_2(params: "ImageParams", root: Path) -> list[str]:
    """Table 2, both halves."""
    from pipeline.images import tables as made

    folder, ks, methods = Folder(root, params.unseen.dataset), params.separate.ks, ON_FEATURES
    apart, together = (
        _records(folder.measured(kind, *each) for each in product(ks, of, params.seeds))
        for kind, of in (("separate", params.separate.methods), ("on_features", methods))
    )
    together += [
        {**row, "method": "ratio"}
        for row in _by_cell(params, root, folder.dataset)
        if row["init"] == "random"
    ]
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
        _steps(apart, params.separate),
        "## Table 2, right: conditional learning, random embeddings (all tasks; † on features)\n",
        made.by_k(
            made.Measured.of(together, "method", "k"),
            [*methods, "ratio"],
            ks,
            made.TABLE_2_CONDITIONAL,
        ),
    ]


def _steps(apart: list["Record"], params: "Separate") -> str:
    """How long each method of separate learning learned a task."""
    from pipeline.images.tables import NAMES

    told = []
    for method in params.methods:
        most = {int(row["most_steps"]) for row in apart if row["method"] == method}
        steps = " to ".join(f"{one:,}" for one in sorted({min(most), max(most)}))
        told.append(f"{NAMES[method]} {steps if max(most) else 'in closed form'}")
    line = f"Steps of each task, at most: {', '.join(told)}."
    if "svdd" in params.methods:
        first, then = params.svdd.autoencoder_epochs, params.svdd.max_epochs
        line += (
            " The autoencoders, from which Deep SVDD starts, were learned for "
            f"{first} epochs where it was for {then}."
        )
    return f"{line}\n"


def _facts(figures: dict[str, float]) -> str:
    """The figures that are no AUC, one a line."""
    from pipeline.images.tables import PROBE

    lines = []
    for key, value in figures.items():
        kind, _, rest = key.partition(".")
        if kind == "similarity":
            lines.append(
                f"* Rank correlation with the true overlap, {rest} coordinates: {value:.3f}"
            )
        elif rest == "probe":
            paper = f" (paper: {PROBE}, on training images)" if kind == "cifar10" else ""
            lines.append(f"* Linear probe on {kind}, on test images: {100 * value:.1f} %{paper}")
    return "\n".join(lines) + "\n"


def _stages(params: "ImageParams") -> Iterator[str]:
    """The names of all stages that the tables follow from."""
    of = params.unseen.dataset
    for dataset in params.datasets:
        yield from (stage_name(stage, dataset) for stage in ("prepare", "features"))
    for cell in params.cells:
        at, k = cell.dataset, cell.k
        yield stage_name("tasks", at, k=k)
        for seed in params.seeds:
            yield from (stage_name(stage, at, seed, k=k) for stage in ("project", "evaluate"))
            yield from (stage_name("pretrain", at, m0, seed, k=k) for m0 in params.seed_tasks)
            yield from (stage_name("train", at, init, seed, k=k) for init in params.inits)
    for seed in params.seeds:
        yield from (stage_name(stage, of, seed) for stage in ("generalise", "similarity"))
        for k in params.separate.ks:
            yield from (stage_name("separate", of, m, seed, k=k) for m in params.separate.methods)
            yield from (stage_name("on_features", of, m, seed, k=k) for m in ON_FEATURES)


def _ran(params: "ImageParams", root: Path) -> str:
    """Where it ran and how long, from the facts that each stage leaves where it runs."""
    from pipeline.storage import read_json

    files = [run_info(root) / f"{name}.json" for name in _stages(params)]
    told = [read_json(file) for file in files if file.exists()]
    facts = [one for one in told if _is_of(one["outputs"])]
    restored = len(files) - len(facts)
    by_dvc = f" and {restored} that DVC restored" if restored else ""
    devices = sorted({one["device"] for one in facts})
    seconds = sum(one["seconds"] for one in facts)
    where = f", on {'; '.join(devices)}" if devices else ""
    return f"{len(facts)} stages{by_dvc}, {seconds:,.0f} s in all{where}.\n"


def _is_of(outputs: Mapping[str, str]) -> bool:
    """Whether a stage's outputs, by their SHA-256, are those at hand: else DVC restored these."""
    from pipeline.storage import sha256

    return all((path := Path(name)).exists() and sha256(path) == of for name, of in outputs.items())


def _draw(params: "ImageParams", root: Path, out: Path) -> None:
    """Figure 3 of the first seed: the truth, and the cosines by fewer and fewer coordinates."""
    import numpy as np

    from pipeline import schemas
    from pipeline.images.similarity import agreement, overlap
    from pipeline.images.tasks import active_categories
    from pipeline.plots import heat_maps
    from pipeline.storage import matrix, read_table, write_bytes

    unseen, seed = params.unseen, params.seeds[0]
    folder = Folder(root, unseen.dataset)
    path = folder.similarity(seed).statistic
    statistic = matrix(read_table(path, schemas.TASK_EMBEDDINGS).column("e"))
    active = active_categories(folder.task_set(unseen.test_k).tasks)
    panels = {"truth": overlap(active).astype(float)}
    gen = np.random.default_rng(seed)
    for n in unseen.coordinates:
        panels[f"{n} coordinates"] = agreement(statistic, active, n, gen).cosine
    write_bytes(heat_maps(panels).encode(), out)


if __name__ == "__main__":
    app()
