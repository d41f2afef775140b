"""Table 1 of the paper, ours beside its own figures: from every cell's figures to CSV and Markdown.

Every figure is a mean AUC over tasks. Records hold fractions, tables for people x 100.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from pipeline.markdown import markdown
from pipeline.paper import TABLE_1
from pipeline.text_files import Scalar

NAMES = {
    "gaussian": "Gaussian",
    "maf": "normalising flow (MAF)",
    "random": "ratio, random",
    "learned": "ratio, learned",
    "mean": "ratio, mean",
    "graph": "ratio, graph by translation*",
    "ktup": "ratio, graph by KTUP*",
    "wide": "ratio, wide",
    "histogram-age": "ratio, histogram of age*",
    "histogram-occupation": "ratio, histogram of occupation*",
    "activity": "user activity",
    "popularity": "item popularity",
    "item_knn": "item-kNN",
    "item_knn_mean": "item-kNN / activity",
    "ease": "EASE",
    "als": "ALS",
    "correspondence": "correspondence analysis",
    "logistic_users": "logistic regressions, users base",
    "logistic_exposures": "logistic regressions, exposures base",
    "isolation_forest": "isolation forests",
    "one_class_svm": "one-class SVMs",
    "ecod": "ECOD",
}
OF_GRAPH = ("graph", "ktup")
FIGURES = ("exposure", "exposure_valid")  # beside the labels
NO_X = "without x"  # in place of a feature setting
OWN_X = "an x of its own"


@dataclass(frozen=True)
class Cell:
    """A scorer under one setting and seed, and what was measured of it.

    Attributes:
        row: which scorer; with @ and a preset, on the preset's x.
        base: which p the ratio has; empty for other scorers.
        fields: which user fields x has; NO_X where the scorer does not look at it, OWN_X where it
            is that of a preset.
        seed: of the cell.
        measured: what `evaluate` found, and `seconds`.
    """

    row: str
    base: str
    fields: str
    seed: int
    measured: Mapping[str, Any]

    def record(self, labels: Sequence[str]) -> dict[str, Scalar]:
        """The cell as a row of the CSV file; AUCs are fractions."""
        aucs = {name: self.measured[name]["auc"] for name in (*labels, *FIGURES)}
        return {
            "row": self.row,
            "base": self.base,
            "fields": self.fields,
            "seed": self.seed,
            **aucs,
            "seconds": self.measured["seconds"],
        }


@dataclass(frozen=True)
class Line:
    """A line of the table: a scorer under one setting, over its seeds."""

    row: str
    base: str
    fields: str
    records: Sequence[Mapping[str, Any]]

    @property
    def name(self) -> str:
        """For people."""
        row, _, preset = self.row.partition("@")
        name = NAMES.get(row, row) + (f", x of {preset}" if preset else "")
        return f"{name}, {self.base} base" if self.base else name

    def paper(self, label: str) -> float | None:
        """The paper's AUC x 100, whose base is the exposures."""
        known = TABLE_1.get(self.row, {}) if self.base in ("", "exposures") else {}
        return known.get(label)

    def values(self, figure: str) -> list[float]:
        """The figure of each seed."""
        return [float(record[figure]) for record in self.records]

    def shown(self, figure: str) -> str:
        """Mean and spread over the seeds x 100, and the paper's in brackets if it has one."""
        ours = [100 * value for value in self.values(figure)]
        text = f"{mean(ours):.1f}" + (f" ± {stdev(ours):.1f}" if len(ours) > 1 else "")
        paper = self.paper(figure)
        return text if paper is None else f"{text} ({paper:.1f})"

    def shown_whole(self, labels: Sequence[str]) -> list[str]:
        """The line's cells in Markdown."""
        shown = [self.shown(figure) for figure in (*labels, *FIGURES)]
        return [self.name.replace("*", "\\*"), *shown, f"{mean(self.values('seconds')):.0f}"]


def lines(records: Iterable[Mapping[str, Any]]) -> list[Line]:
    """The records of the same scorer and setting together, in the order of the first of each."""
    found: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        key = (str(record["row"]), str(record["base"]), str(record["fields"]))
        found.setdefault(key, []).append(record)
    return [Line(*key, of) for key, of in found.items()]


def ceilings(cells: Iterable[Cell], labels: Sequence[str]) -> dict[tuple[str, str], float]:
    """By base and label, the AUC of a scorer that knows everybody's label and nothing else."""
    found: dict[tuple[str, str], float] = {}
    for cell in cells:
        for name in labels if cell.base else ():
            found.setdefault((cell.base, name), cell.measured[name]["perfect_label"])
    return found


def references(cells: Sequence[Cell], labels: Sequence[str]) -> list[list[str]]:
    """What the yardsticks themselves allow: rows of the table, without seconds.

    Random scores, and for each base a scorer that knows everybody's label and nothing else.
    """
    trivial = cells[0].measured["trivial"]["random"]
    chance = [*(trivial[name] for name in (*labels, "exposure")), None]
    rows: dict[str, list[float | None]] = {"random scores": chance}
    known = ceilings(cells, labels)
    for base in dict.fromkeys(base for base, _ in known):
        row = [known[base, name] for name in labels]
        rows[f"knows every label, {base} base"] = [*row, None, None]
    return [
        [name, *("" if value is None else f"{100 * value:.1f}" for value in row), ""]
        for name, row in rows.items()
    ]


def page(
    cells: Sequence[Cell],
    labels: Sequence[str],
    *,
    source: str,
    titles: Mapping[str, str],
    seeds: Sequence[int],
    own_graph: bool,
) -> str:
    """The Markdown file: a section a feature setting, one for scorers without x, one of references.

    Args:
        cells: all of them, in the order of the table.
        labels: of the label AUCs.
        source: of the data.
        titles: what to call each setting of the user fields.
        seeds: for the head of the page.
        own_graph: whether the graph is another than that of genres and years.
    """
    listed = ", ".join(map(str, seeds))
    over = f"mean and standard deviation over the seeds {listed}" if len(seeds) > 1 else "one seed"
    header = ["", *labels, *(name.replace("_", ", ") for name in FIGURES), "seconds"]
    together = lines(cell.record(labels) for cell in cells)
    graph = " The graph is one of genres and years; the paper's, a knowledge base."
    if own_graph or not any(cell.row in OF_GRAPH for cell in cells):
        graph = ""
    parts = [
        "# Table 1: anomaly detection on exposures\n",
        f"Source: {source}. Mean AUC over tasks x 100, {over}; in brackets the paper's, of "
        "MovieLens 1M. Labels: test users of the task's nominal class above those of its anomalous "
        "class. Exposure: test users (valid: validation users) with a held-out exposure above "
        "those who never met the item. Seconds: learning and scoring of one seed, without the user "
        "vectors, the graph and the pre-embedding model; of a cell that was interrupted, since it "
        f"went on. \\* extra knowledge.{graph}\n",
    ]
    own = {
        OWN_X: "Presets: settings of their own, x among them",
        NO_X: "Recommenders: who has seen what, and no x",
    }
    for fields, title in {**titles, **own}.items():
        if body := [line.shown_whole(labels) for line in together if line.fields == fields]:
            parts += [f"## {title}\n", markdown(header, body)]
    parts += ["## What the yardsticks allow\n", markdown(header, references(cells, labels))]
    return "\n".join(parts)
