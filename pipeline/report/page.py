"""From the report's content to one page of HTML without anything to fetch."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline import plots
from pipeline.one_line import one_line
from pipeline.paper import CITATION
from pipeline.params import Source
from pipeline.report.content import Content
from pipeline.report.results import EXPOSURE, PAPER_AUC
from pipeline.report.run_facts import RunFacts

SOURCES: Mapping[Source, str] = {
    "simulated": "a simulated world",
    "movielens-1m": "MovieLens 1M",
    "tables": "your own tables",
}
MEETINGS = {"never": "never met it", "visible": "met it, visible", "held out": "met it, held out"}
TITLE_WIDTH = 25  # letters of a title in a figure


def render(content: Content, facts: Sequence[RunFacts]) -> str:
    """The page: `page.html` filled in. Equal contents and facts give equal text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_on_one_line,
        undefined=StrictUndefined,  # a name that the template has wrong is an error, not a blank
        trim_blocks=True,
        lstrip_blocks=True,
    )
    source = content.params.data.source
    title = readable if source == "movielens-1m" else str
    environment.filters |= {"count": "{:,}".format, "signed": signed, "title": title}
    figures = {name: plots.with_ids(svg, name) for name, svg in _plots(content, title)}
    return environment.get_template("page.html").render(
        content=content,
        facts=facts,
        plots={name: Markup(svg) for name, svg in figures.items()},  # noqa: S704 - has no raw text
        task_plots={f"tasks-{n}": one.name for n, one in enumerate(content.yardsticks)},
        loss_plots={f"loss-{n}": one.name for n, one in enumerate(content.learning)},
        auc=lambda key: hundredfold(content.figures, key),
        source=SOURCES[source],
        paper=PAPER_AUC if source == "movielens-1m" else None,
        paper_source=f"{CITATION}, Table 1",
        chance=plots.CHANCE,
    )


def hundredfold(figures: Mapping[str, float], key: str) -> str:
    """An AUC x 100 that tells its key when pointed at; a dash where there is none."""
    if key not in figures:
        return "\N{EN DASH}"
    return Markup('<span title="{}">{:.1f}</span>').format(key, 100 * figures[key])


def signed(score: float, digits: int = 2) -> str:
    """A score to so many digits, with a sign as wide as the other.

    Example:
        >>> signed(0.5), signed(-12)
        ('+0.50', '−12.00')
    """
    shown = round(score, digits) + 0.0  # no negative zero
    return f"{shown:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def readable(title: str) -> str:
    """A title of MovieLens with its article in front.

    Example:
        >>> readable("Matrix, The (1999)")
        'The Matrix (1999)'
    """
    return re.sub(r"^(.*), (The|A|An)( \(\d{4}\))?$", r"\2 \1\3", title)


def short(title: str) -> str:
    """A title that a figure can hold: without its year where it must be cut."""
    if len(title) <= TITLE_WIDTH:
        return title
    bare = re.sub(r" \(\d{4}\)$", "", title)
    whole_words = bare[: TITLE_WIDTH - 1].rsplit(" ", 1)[0]
    return bare if len(bare) <= TITLE_WIDTH else f"{whole_words.rstrip(' -:,')}…"


def _on_one_line(value: object) -> object:
    """What the template puts on the page: text on one line, figures and the like as they are."""
    return one_line(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _plots(content: Content, title: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """Every figure by its name in the template."""
    yield "aucs", _intervals(content)
    for n, portrait in enumerate(content.portraits):
        met = {MEETINGS[how]: scores for how, scores in portrait.spread.items()}
        yield f"spread-{n}", plots.score_spread(met)
    for n, yardstick in enumerate(content.yardsticks):
        ours = yardstick.key == EXPOSURE
        yield f"tasks-{n}", plots.auc_histogram(yardstick.task_aucs, exposure=ours)
    curves = {yardstick.name: yardstick.roc for yardstick in content.yardsticks}
    yield "roc", plots.roc_curves(curves, exposure=content.yardsticks[-1].name)
    titles = [short(title(one_line(item))) for item in content.similarity.titles]
    yield "start", plots.similarity(content.similarity.start, titles)
    yield "trained", plots.similarity(content.similarity.trained)
    for n, network in enumerate(content.learning):
        yield f"loss-{n}", plots.losses(network.losses, network.best)


def _intervals(content: Content) -> str:
    figures, yardsticks = content.figures, content.yardsticks
    keys = [yardstick.key for yardstick in yardsticks]
    return plots.intervals(
        [yardstick.name for yardstick in yardsticks],
        np.array([figures[f"{key}.auc"] for key in keys]),
        np.array([[figures[f"{key}.{end}"] for key in keys] for end in ("ci95_low", "ci95_high")]),
        {
            "activity": [figures[f"trivial.activity.{key}"] for key in keys],
            "perfect label": [figures.get(f"{key}.perfect_label") for key in keys],
            "paper": [yardstick.paper for yardstick in yardsticks],
        },
    )
