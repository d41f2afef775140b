"""Figures as SVG: a function a figure, from arrays to text; the report's own stand here.

Equal arrays give equal text. Letters stay letters, so that the page chooses their typeface. Figures
are narrow enough for a phone: what is wide on a page is made of several. One colour code: blue is
common, or this run; orange is fresh, or the paper; green is measured by held-out exposures; grey is
everything else. Curves of labels differ by their dashes too.
"""

import functools
import io
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any, ParamSpec
from unicodedata import east_asian_width

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pipeline.arrays import Floats

P = ParamSpec("P")

CHANCE = 2 * math.log(2)  # the loss of f = 0, which knows nothing
INK, MUTED, RULE = "#1f2430", "#5f6773", "#d5d9df"
COMMON, COMMON_SOFT, FRESH = "#1f5a8c", "#9dbdd8", "#c2572b"
LINES = ("#1f5a8c", "#7aaed3", "#8a6a2f", "#7c5295")  # a label each
DASHES = ((0, (6, 1.5)), (0, (3, 1.2)), (0, (1, 1)))  # likewise: twelve pairs of both
EXPOSURE = "#2b8a6e"  # the yardstick of held-out exposures
SMALL, PANEL, WIDE = 2.25, 3.1, 4.6  # widths in inches, of 96 pixels on a page
CELL = 0.165  # of the similarities, in inches
STYLE = {
    "svg.hashsalt": "report",  # ids depend on what they name alone
    "svg.fonttype": "none",
    "text.parse_math": False,  # a title may hold a dollar sign
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "text.color": INK,
    "axes.axisbelow": True,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "xtick.color": RULE,
    "xtick.labelcolor": MUTED,
    "ytick.color": RULE,
    "ytick.labelcolor": MUTED,
}
DOTTED: Mapping[str, Any] = {"color": MUTED, "linewidth": 0.8, "linestyle": (0, (2, 2))}  # chance
NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def as_svg(plot: Callable[P, Figure]) -> Callable[P, str]:
    """Make of a function that draws a figure one that gives it as an <svg> element."""

    @functools.wraps(plot)
    def svg(*args: P.args, **kwargs: P.kwargs) -> str:
        file = io.StringIO()
        with (
            style.context(STYLE, after_reset=True),  # whatever the user's matplotlibrc says
            warnings.catch_warnings(),
        ):
            # Letters stay letters: that our typeface lacks one is nothing to the reader's.
            warnings.filterwarnings("ignore", r"Glyph .* missing from font", UserWarning)
            plot(*args, **kwargs).savefig(file, format="svg", metadata=NO_METADATA)
        return file.getvalue()[file.getvalue().index("<svg ") :]

    return svg


def with_ids(svg: str, name: str) -> str:
    """The figure with `name` before each of its ids, so that many can stand on one page."""
    return re.sub(r'( id="| xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)


@as_svg
def intervals(
    names: Sequence[str],
    aucs: Floats,
    ci95: Floats,
    marks: Mapping[str, Sequence[float | None]],
) -> Figure:
    """AUCs x 100 with their intervals, a row each, beside other figures of the same yardstick.

    Args:
        names: of the rows, N.
        aucs: (N,) fractions.
        ci95: (2, N) lower and upper ends.
        marks: `activity`, `perfect label`, `paper`: N fractions each, None where there is none.
    """
    figure, axes = _panel(WIDE, 0.9 + 0.38 * len(names))
    rows = np.arange(len(names))
    axes.axvline(50, **DOTTED)
    axes.hlines(rows, *(100 * ci95), color=COMMON, linewidth=2.5)
    axes.plot(100 * aucs, rows, "o", color=COMMON, markersize=6.5, label="this run, 95 % interval")
    looks = {"activity": ("s", MUTED), "perfect label": ("D", MUTED), "paper": ("|", FRESH)}
    for name, values in marks.items():
        known = [(100 * value, row) for row, value in enumerate(values) if value is not None]
        if known:
            marker, color = looks[name]
            axes.plot(
                *zip(*known, strict=True),
                marker,
                color=color,
                label=name,
                markerfacecolor="none",
                markersize=11 if marker == "|" else 5.5,
                markeredgewidth=2 if marker == "|" else 1.1,
            )
    axes.set_yticks(rows, names, color=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_xlabel("AUC \N{MULTIPLICATION SIGN} 100 (dotted: chance)")
    figure.legend(loc="outside upper center", ncols=2, columnspacing=1.5)
    return figure


@as_svg
def auc_histogram(aucs: Floats, *, exposure: bool = False) -> Figure:
    """The number of tasks by their AUC (N,), x 100; a line at the mean, and one at chance."""
    figure, axes = _panel(SMALL, 1.7)
    color = EXPOSURE if exposure else COMMON
    axes.hist(100 * aucs, bins=np.linspace(0, 100, 41).tolist(), color=color, alpha=0.85)
    axes.axvline(50, **DOTTED)
    axes.axvline(100 * aucs.mean(), color=color, linewidth=1.5)
    axes.margins(y=0.1)
    axes.set_xlim(0, 100)
    axes.set_xticks(range(0, 101, 25))
    axes.set_xlabel("AUC \N{MULTIPLICATION SIGN} 100 of a task")
    axes.set_ylabel("tasks")
    return figure


@as_svg
def roc_curves(curves: Mapping[str, tuple[Floats, Floats]], exposure: str) -> Figure:
    """Mean ROC curves by name, each (false, true positive rates); `exposure` names ours."""
    figure, axes = _panel(WIDE, 4.0)
    axes.plot([0, 1], [0, 1], **DOTTED)
    looks = zip(cycle(LINES), cycle(DASHES), strict=False)
    for name, (fpr, tpr) in curves.items():
        color, dashes = (EXPOSURE, "-") if name == exposure else next(looks)
        axes.plot(fpr, tpr, color=color, linestyle=dashes, label=name)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    axes.grid()
    axes.set_xlabel("share of the fresh called common")
    axes.set_ylabel("share of the common called common")
    axes.legend(loc="lower right")
    return figure


@as_svg
def losses(series: Mapping[str, Floats], best: int) -> Figure:
    """Losses by epoch, with the epoch that was kept and the loss of one who knows nothing.

    Args:
        series: `train`, `validation` and `held out`, (epochs,) each.
        best: the epoch that was kept, counted from 1.
    """
    figure, axes = _panel(PANEL, 2.5)
    colors = {"train": MUTED, "validation": COMMON, "held out": EXPOSURE}
    axes.axhline(CHANCE, **DOTTED, label="chance, 2 ln 2")
    axes.axvline(best, color=COMMON_SOFT, linewidth=1)
    for name, values in series.items():
        dash = "--" if name == "train" else "-"
        axes.plot(
            np.arange(1, len(values) + 1),
            values,
            dash,
            color=colors[name],
            label=name,
            linewidth=1.3,
        )
    axes.plot(best, series["validation"][best - 1], "o", color=COMMON, markersize=5)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    figure.legend(loc="outside upper left", ncols=2, columnspacing=1.2)
    return figure


@as_svg
def similarity(cosines: Floats, names: Sequence[str] | None = None) -> Figure:
    """Cosine similarities (N, N) of the embeddings of N tasks; columns are numbered like rows.

    Args:
        cosines: between -1 and 1.
        names: of the rows; without them rows show their numbers only.
    """
    n = len(cosines)
    left, top, bottom, side = _margin(names or ()), 0.2, 0.4, n * CELL  # inches
    bar_side = max(side, 10 * CELL)
    size = width, height = left + bar_side + 0.05, top + side + bottom
    figure = Figure(figsize=size)
    axes = figure.add_axes((left / width, bottom / height, side / width, side / height))
    white_at_zero = LinearSegmentedColormap.from_list("similarity", (FRESH, "#fbfaf8", COMMON))
    steps = BoundaryNorm(np.linspace(-1, 1, 11).tolist(), white_at_zero.N)
    mesh = axes.pcolormesh(
        cosines, cmap=white_at_zero, norm=steps, edgecolor="white", linewidth=0.8
    )
    axes.set_ylim(n, 0)
    middle, numbers = np.arange(n) + 0.5, [str(i + 1) for i in range(n)]
    rows = [f"{name}  {i + 1}" for i, name in enumerate(names)] if names else numbers
    axes.set_yticks(middle, rows, color=INK)
    axes.set_xticks(middle, numbers, fontsize=7)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, pad=2)
    axes.spines[:].set_visible(False)
    legend = figure.add_axes((left / width, 0.22 / height, bar_side / width, 0.08 / height))
    bar = figure.colorbar(mesh, cax=legend, orientation="horizontal", drawedges=False)
    bar.set_ticks([-0.9, 0, 0.9], labels=["opposite", "unrelated", "alike"])
    bar.outline.set_visible(False)
    legend.tick_params(length=0, pad=2)
    return figure


@as_svg
def heat_maps(panels: Mapping[str, Floats]) -> Figure:
    """Similarities (N, N) of many tasks, one panel a name, side by side; light = alike.

    Each panel runs from its own lowest to its own highest value, its diagonal left out.
    """
    figure = Figure(figsize=(SMALL * len(panels), SMALL + 0.3), layout="constrained")
    for axes, (name, panel) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        others = panel[~np.eye(len(panel), dtype=bool)]
        axes.imshow(
            panel, cmap="gray", vmin=others.min(), vmax=others.max(), interpolation="nearest"
        )
        axes.set_title(name, fontsize=8.5)
        axes.set_axis_off()
    return figure


@as_svg
def score_spread(groups: Mapping[str, Floats]) -> Figure:
    """Scores of groups of users: a dot at the median, a bar over the middle half, a line over 80 %.

    Args:
        groups: log ratios in nats by name of the group, each with a user at least.
    """
    figure, axes = _panel(WIDE, 0.55 + 0.3 * len(groups))
    for row, scores in enumerate(groups.values()):
        p10, p25, p50, p75, p90 = np.quantile(scores, (0.1, 0.25, 0.5, 0.75, 0.9))
        color = COMMON if row else MUTED
        axes.hlines(row, p10, p90, color=color, linewidth=1)
        axes.hlines(row, p25, p75, color=color, linewidth=5, alpha=0.75)
        axes.plot(p50, row, "o", color=color, markersize=5.5)
    axes.set_yticks(range(len(groups)), list(groups), color=INK)
    axes.set_ylim(-0.6, len(groups) - 0.4)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.set_xlabel("fresh  ←  score in nats  →  common")
    return figure


def _margin(names: Sequence[str]) -> float:
    """Inches that the longest of some names takes, with a number after it; CJK letters take two."""
    wide = (sum(1 + (east_asian_width(letter) in "WF") for letter in name) for name in names)
    return 0.25 + 0.068 * max(wide, default=0)


def _panel(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of so many inches with one pair of axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()
