"""Tables 2, 3 and 6 and figure 3, ours beside the paper's, from all that was measured."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.images.params import ON_FEATURES
from stages.images.folder import Folder, run_info, stage_name
from stages.images.shell import PARAMS, ROOT, image_stage
from stages.shell import ParamsOption, RootOption, stage_app

if TYPE_CHECKING:
    from pipeline.images.params import ImageParams
    from pipeline.images.tables import Record, Results

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
        from pipeline.files import write_bytes
        from pipeline.images.tables import page
        from pipeline.text_files import write_json

        text, figures, drawing = (
            out / f"{run.params.name}{end}" for end in (".md", ".json", "-figure3.svg")
        )
        results = _results(run.params, root)
        write_bytes(page(results, run.params, _ran(run.params, root)).encode(), text)
        write_json(results.figures(), figures)
        write_bytes(_figure_3(run.params, root).encode(), drawing)
        run.say(f"{text}: {len(results.figures())} figures beside it in {figures.name}")


def _results(params: "ImageParams", root: Path) -> "Results":
    """What was measured under these params, and nothing that others left behind."""
    from pipeline.images.tables import Results

    unseen, methods, ks = params.unseen.dataset, params.separate.methods, params.separate.ks
    folders = {dataset: Folder(root, dataset) for dataset in params.datasets}
    of = folders[unseen]
    return Results(
        probes={name: _records([folder.features.probe])[0] for name, folder in folders.items()},
        cells={name: _cells(params, folder) for name, folder in folders.items()},
        unseen=_records(map(of.generalisation, params.seeds)),
        correlations=_records(of.similarity(seed).spearman for seed in params.seeds),
        separate=_records(
            of.measured("separate", *each) for each in product(ks, methods, params.seeds)
        ),
        on_features=_records(
            of.measured("on_features", *each) for each in product(ks, ON_FEATURES, params.seeds)
        ),
    )


def _cells(params: "ImageParams", folder: Folder) -> list["Record"]:
    """What `evaluate` measured of each cell and seed, under the initialisations of the params."""
    ks = [cell.k for cell in params.cells if cell.dataset == folder.dataset]
    paths = (folder.auc(k, seed) for k, seed in product(ks, params.seeds))
    return [row for row in _records(paths) if row["init"] in params.inits]


def _records(paths: "Iterable[Path]") -> list["Record"]:
    """The rows of all these CSV files."""
    from pipeline.text_files import read_csv

    return [row for path in paths for row in read_csv(path)]


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
    from pipeline.text_files import read_json

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
    from pipeline.files import sha256

    return all((path := Path(name)).exists() and sha256(path) == of for name, of in outputs.items())


def _figure_3(params: "ImageParams", root: Path) -> str:
    """Figure 3 of the first seed: the truth, and the cosines by fewer and fewer coordinates."""
    import numpy as np

    from pipeline import schemas
    from pipeline.embedding_matrix import embedding_matrix
    from pipeline.images.similarity import panels
    from pipeline.images.tasks import active_categories
    from pipeline.plots import heat_maps
    from pipeline.storage import read_table

    unseen, seed = params.unseen, params.seeds[0]
    folder = Folder(root, unseen.dataset)
    tasks = folder.task_set(unseen.test_k).tasks
    table = read_table(folder.similarity(seed).statistic, schemas.TASK_EMBEDDINGS)
    active = active_categories(tasks)
    gen = np.random.default_rng(seed)
    return heat_maps(panels(embedding_matrix(table, tasks), active, unseen.coordinates, gen))


if __name__ == "__main__":
    app()
