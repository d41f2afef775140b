"""The figure of Table 1: a panel a yardstick, a row a scorer."""

from collections.abc import Mapping, Sequence
from statistics import mean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.plots import COMMON, COMMON_SOFT, DOTTED, EXPOSURE, FRESH, INK, MUTED, as_svg
from pipeline.table1.page import NO_X, Line

LABEL_WIDTH, PANEL_WIDTH, ROW_HEIGHT = 2.6, 2.1, 0.2  # inches


@as_svg
def rows_of_auc(
    lines: Sequence[Line],
    panels: Sequence[str],
    settings: Sequence[str],
    known: Mapping[tuple[str, str], float],
) -> Figure:
    """AUCs x 100: a dot a seed, a bar at their mean, marks at the paper's and at the ceiling.

    Args:
        lines: the table; lines of the same scorer share a row.
        panels: figures of the records, a panel each.
        settings: of the user fields; the first is drawn lightest.
        known: the ceiling by base and panel, see `ceilings`.
    """
    names = list(dict.fromkeys(line.name for line in lines))
    colors = dict(zip(settings, (COMMON_SOFT, COMMON), strict=False)) | {NO_X: EXPOSURE}
    size = LABEL_WIDTH + PANEL_WIDTH * len(panels), 0.9 + ROW_HEIGHT * len(names)
    figure = Figure(figsize=size, layout="constrained")
    for n, (axes, panel) in enumerate(
        zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True)
    ):
        for line in lines:
            row, color = names.index(line.name), colors.get(line.fields, INK)
            _draw_line(axes, line, panel, row, color)
            if (ceiling := known.get((line.base, panel))) is not None:
                axes.plot(
                    100 * ceiling, row, "x", color=MUTED, markersize=4, label="knows every label"
                )
        axes.axvline(50, **DOTTED)
        axes.set_yticks(range(len(names)), names if n == 0 else [""] * len(names), color=INK)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="both")
        axes.set_xlabel(f"AUC \N{MULTIPLICATION SIGN} 100, {panel.replace('_', ', ')}")
    handles = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=4)
    return figure


def _draw_line(axes: Axes, line: Line, panel: str, row: int, color: str) -> None:
    """Seeds, mean and the paper's figure of one line."""
    ours = [100 * value for value in line.values(panel)]
    axes.plot(ours, [row] * len(ours), ".", color=color, markersize=4)
    axes.plot(mean(ours), row, "|", color=color, markersize=9, markeredgewidth=2, label=line.fields)
    if (paper := line.paper(panel)) is not None:
        axes.plot(
            paper, row, "D", color=FRESH, markersize=4, markerfacecolor="none", label="the paper"
        )
