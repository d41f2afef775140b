"""Tables 2, 3 and 6 of the paper, ours beside its own figures, in Markdown.

Every figure is a mean AUC over tasks, times 100. Ours is the mean over seeds, with the standard
deviation where there are several; the paper's follows in brackets. HIGH is good.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

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
