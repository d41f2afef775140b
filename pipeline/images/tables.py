"""Tables 2, 3 and 6 of the paper, ours beside its own figures: from records to Markdown.

Every figure is a mean AUC over tasks, times 100. Ours is the mean over seeds, with the standard
deviation where there are several; the paper's follows in brackets. HIGH is good.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from pipeline.images.params import ON_FEATURES, Dataset, ImageParams, Separate
from pipeline.markdown import markdown

Record = Mapping[str, str]
Key = tuple[str, ...]

# Bai et al., by the row's name and then by k.
TABLE_2_SEPARATE: Mapping[str, Mapping[int, float]] = {
    "gaussian": {1: 93.92, 2: 66.45, 3: 60.90, 4: 54.60},
    "maf": {1: 91.96, 2: 90.76, 3: 83.77, 4: 79.40},
    "ratio-features": {1: 99.58, 2: 98.57, 3: 97.61, 4: 95.67},
    "svdd": {1: 64.81, 2: 52.43, 3: 51.43, 4: 50.68},
    "csi": {1: 94.28, 2: 62.53, 3: 55.78, 4: 53.78},
    "ratio": {1: 96.05, 2: 84.26, 3: 74.35, 4: 68.05},
}
TABLE_2_CONDITIONAL: Mapping[str, Mapping[int, float]] = {
    "gaussian": {1: 75.76, 2: 62.52, 3: 58.21, 4: 56.10},
    "maf": {1: 92.04, 2: 82.25, 3: 80.54, 4: 61.56},
    "ratio-features": {1: 99.41, 2: 98.97, 3: 98.25, 4: 97.46},
}
# Its row of the ratio on images holds what Table 3 has for random embeddings, one k further on.
TABLE_3_LEFT: Mapping[str, Mapping[int, float]] = {
    "label": {2: 96.50, 3: 95.13, 4: 94.21, 5: 91.90},
    "pseudo": {2: 96.00, 3: 94.13, 4: 92.21, 5: 85.90},
    "random": {2: 95.97, 3: 93.07, 4: 87.13, 5: 78.96},
    "learned-10": {2: 96.20, 3: 94.61, 4: 92.11, 5: 90.30},
    "learned-64": {2: 96.43, 3: 95.06, 4: 93.45, 5: 91.40},
}
TABLE_3_RIGHT: Mapping[int, Mapping[int, float]] = {
    2: {3: 89.11, 4: 79.33, 5: 73.11},
    3: {2: 95.80, 4: 86.62, 5: 80.53},
    4: {2: 95.26, 3: 93.94, 5: 86.52},
    5: {2: 91.96, 3: 91.61, 4: 91.08},
}
TABLE_6: Mapping[str, Mapping[int, float]] = {
    "label": {4: 99.88, 5: 99.67},
    "pseudo": {4: 97.88, 5: 98.67},
    "random": {4: 97.02, 5: 86.80},
    "learned-10": {4: 98.88, 5: 99.67},
    "learned-64": {4: 99.93, 5: 99.90},
}
BY_INITIALISATION = {
    "cifar10": ("Table 3, left: CIFAR-10", TABLE_3_LEFT),
    "mnist": ("Table 6: MNIST", TABLE_6),
}
PROBE = 90.2  # linear accuracy of the paper's features of CIFAR-10, on training images
NAMES = {
    "gaussian": "Gaussian †",
    "maf": "MAF †",
    "ratio-features": "LRatio †",
    "svdd": "Deep SVDD",
    "csi": "CSI",
    "ratio": "LRatio",
    "label": "label *",
    "pseudo": "pseudo-label",
    "random": "random",
    "learned-10": "learned, M0 = 10",
    "learned-64": "learned, M0 = 64",
    "learned-64-frozen": "learned, M0 = 64, e frozen",
}


@dataclass(frozen=True)
class Measured:
    """AUCs by what they are of, one for each seed."""

    values: Mapping[Key, Sequence[float]]

    @classmethod
    def of(cls, records: Iterable[Record], *keys: str) -> "Measured":
        """The `auc` of each record under the values of `keys`; of one seed, the mean."""
        found: dict[Key, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for one in records:
            found[tuple(one[key] for key in keys)][one["seed"]].append(float(one["auc"]))
        return cls({key: [mean(of) for of in seeds.values()] for key, seeds in found.items()})

    def cell(self, paper: float | None, *key: str) -> str:
        """Ours, its spread over seeds, and the paper's in brackets; a dash for what is missing."""
        ours = [100 * value for value in self.values.get(key, ())]
        shown = f"{mean(ours):.2f}" if ours else "-"
        if len(ours) > 1:
            shown += f" ± {stdev(ours):.2f}"
        return shown if paper is None else f"{shown} ({paper:.2f})"


def by_k(
    measured: Measured,
    rows: Sequence[str],
    ks: Sequence[int],
    paper: Mapping[str, Mapping[int, float]],
) -> str:
    """Rows by method or initialisation, columns by k; `measured` under (row, k)."""
    body = [
        [
            NAMES.get(row, row),
            *(measured.cell(paper.get(row, {}).get(k), row, f"{k}") for k in ks),
        ]
        for row in rows
    ]
    return markdown(["", *(f"k = {k}" for k in ks)], body)


def generalisation(measured: Measured, init: str, ks: Sequence[int]) -> str:
    """Table 3, right: rows by the k trained on, columns by the k tested on; under (init, m, n)."""
    paper = TABLE_3_RIGHT if init == "learned-64" else {}
    body = [
        [
            f"trained on {m}",
            *(
                "" if m == n else measured.cell(paper.get(m, {}).get(n), init, f"{m}", f"{n}")
                for n in ks
            ),
        ]
        for m in ks
    ]
    return markdown([NAMES.get(init, init), *(f"tested on {n}" for n in ks)], body)


def gain(measured: Measured, k: int) -> tuple[float, float] | None:
    """Mean and standard deviation over seeds of learned (M0 = 64) less random, in AUC points.

    None where either is missing, or there is one seed.
    """
    learned, random = (measured.values.get((row, f"{k}"), ()) for row in ("learned-64", "random"))
    each = [100 * (a - b) for a, b in zip(learned, random, strict=False)]
    return (mean(each), stdev(each)) if len(each) > 1 else None


@dataclass(frozen=True)
class Results:
    """All that was measured under the params: rows of the files that the stages write.

    Attributes:
        probes: by data set, of `features`.
        cells: by data set, of `evaluate`.
        unseen: of `generalise`.
        correlations: of `similarity`.
        separate: of that stage; empty without Table 2.
        on_features: likewise.
    """

    probes: Mapping[Dataset, Record]
    cells: Mapping[Dataset, Sequence[Record]]
    unseen: Sequence[Record]
    correlations: Sequence[Record]
    separate: Sequence[Record]
    on_features: Sequence[Record]

    def by_initialisation(self, dataset: Dataset) -> Measured:
        """The AUCs of a data set, under (init, k)."""
        return Measured.of(self.cells[dataset], "init", "k")

    def similarity(self) -> dict[str, float]:
        """Mean rank correlation of Figure 3 over the seeds, by the number of coordinates."""
        found: dict[str, list[float]] = defaultdict(list)
        for one in self.correlations:
            found[one["coordinates"]].append(float(one["spearman"]))
        return {n: round(mean(of), 4) for n, of in found.items()}

    def figures(self) -> dict[str, float]:
        """The figures that DVC compares."""
        found: dict[str, float] = {}
        for dataset, probe in self.probes.items():
            found[f"{dataset}.probe"] = float(probe["accuracy"])
            for (init, k), aucs in self.by_initialisation(dataset).values.items():
                found[f"{dataset}.k{k}.{init}"] = round(mean(aucs), 4)
        return found | {f"similarity.{n}": one for n, one in self.similarity().items()}


def page(results: Results, params: ImageParams, ran: str) -> str:
    """NAME.md: every table, and at its end the line `ran`."""
    parts = [
        f"Params file: `{params.name}`, seeds {', '.join(map(str, params.seeds))}. "
        "AUC x 100: ours, its standard deviation over seeds, the paper's in brackets. All seeds "
        "share the features, whose own spread is not in that of rows with † and pseudo-label.\n",
        *(_table_2(results, params) if params.separate.ks else ()),
        *(part for name in params.datasets for part in _by_initialisation(results, params, name)),
        *_unseen(results.unseen),
        "## Features and figure 3\n",
        _facts(results),
        ran,
    ]
    return "\n".join(parts)


def _table_2(results: Results, params: ImageParams) -> list[str]:
    """Table 2, both halves."""
    wanted = params.separate
    random = (row for row in results.cells[params.unseen.dataset] if row["init"] == "random")
    together = [*results.on_features, *({**row, "method": "ratio"} for row in random)]
    count = wanted.tasks
    sampled = f"{count} tasks drawn for each k and seed" if count else "all tasks"
    apart, joint = (Measured.of(of, "method", "k") for of in (results.separate, together))
    return [
        f"## Table 2, left: separate learning ({sampled}; † on features)\n",
        by_k(apart, wanted.methods, wanted.ks, TABLE_2_SEPARATE),
        _steps(results.separate, wanted),
        "## Table 2, right: conditional learning, random embeddings (all tasks; † on features)\n",
        by_k(joint, [*ON_FEATURES, "ratio"], wanted.ks, TABLE_2_CONDITIONAL),
    ]


def _steps(apart: Sequence[Record], params: Separate) -> str:
    """How long each method of separate learning learned a task."""
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


def _by_initialisation(results: Results, params: ImageParams, dataset: Dataset) -> Iterator[str]:
    """Table 3, left, or Table 6."""
    measured = results.by_initialisation(dataset)
    cells = [cell for cell in params.cells if cell.dataset == dataset]
    ks = [cell.k for cell in cells]
    title, paper = BY_INITIALISATION[dataset]
    yield f"## {title}\n"
    yield by_k(measured, params.inits, ks, paper)
    lasted = ", ".join(f"{cell.epochs} (k = {cell.k})" for cell in cells)
    yield f"At most {lasted} epochs.\n"
    if (gained := gain(measured, max(ks))) is not None:
        yield (
            f"Learned (M0 = 64) less random at k = {max(ks)}: {gained[0]:+.2f} ± "
            f"{gained[1]:.2f} points over {len(params.seeds)} seeds.\n"
        )


def _unseen(records: Sequence[Record]) -> Iterator[str]:
    """Table 3, right."""
    measured = Measured.of(records, "init", "train_k", "test_k")
    ks = sorted({int(row["train_k"]) for row in records})
    yield "## Table 3, right: tasks placed by projection alone\n"
    for init in dict.fromkeys(row["init"] for row in records):
        yield generalisation(measured, init, ks)


def _facts(results: Results) -> str:
    """The figures that are no AUC, one a line."""
    lines = []
    for dataset, probe in results.probes.items():
        paper = f" (paper: {PROBE}, on training images)" if dataset == "cifar10" else ""
        accuracy = 100 * float(probe["accuracy"])
        lines.append(f"* Linear probe on {dataset}, on test images: {accuracy:.1f} %{paper}")
    for n, value in results.similarity().items():
        lines.append(f"* Rank correlation with the true overlap, {n} coordinates: {value:.3f}")
    return "\n".join(lines) + "\n"
