"""The report of a small world: what its page holds, and what it must not."""

import json
import os
import re
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from pipeline import plots, schemas
from pipeline.datasets.codes import NAMES
from pipeline.datasets.simulation import simulate
from pipeline.embedding_matrix import embedding_table
from pipeline.errors import PipelineError
from pipeline.estimation import CHANCE
from pipeline.evaluation import Tables, evaluate
from pipeline.files import sha256
from pipeline.model_files import write_network
from pipeline.models.ratio import RatioNet
from pipeline.params import Init, Params, Source, load_params
from pipeline.report.artefacts import Artefacts
from pipeline.report.choice import WELL_KNOWN, compared_tasks, portrayed_tasks
from pipeline.report.content import Content, gather
from pipeline.report.page import SOURCES, readable, render, short, signed
from pipeline.report.results import FEW, departures, extremes, paper_auc
from pipeline.report.run_facts import NOT_RECORDED, RESTORED, RunFacts, run_facts
from pipeline.report.similarity import _line_up
from pipeline.score_matrix import score_table
from pipeline.splits import hold_out, split_users
from pipeline.storage import vectors, write_table
from pipeline.tasks import select_tasks
from pipeline.text_files import read_json, write_csv, write_json
from stages.report import PARAM_KEYS, app
from tests.worlds import count_items

ROOT = Path(__file__).parents[1]
HTML = "{http://www.w3.org/1999/xhtml}"
SVG = "{http://www.w3.org/2000/svg}"
LINK = "{http://www.w3.org/1999/xlink}href"
DEEPFM_HISTORY = [
    {"epoch": "1", "train_loss": "1.3", "valid_loss": "1.21", "pair_auc": "0.81"},
    {"epoch": "2", "train_loss": "1.2", "valid_loss": "1.12", "pair_auc": "0.87"},
]
HISTORY = [
    {"epoch": "1", "train_loss": "1.39", "valid_loss": "1.38", "held_out_loss": "1.385"},
    {"epoch": "2", "train_loss": "1.30", "valid_loss": "1.29", "held_out_loss": "1.31"},
    {"epoch": "3", "train_loss": "1.29", "valid_loss": "1.295", "held_out_loss": "1.32"},
]
TABLES = {
    "users": schemas.USERS,
    "items": schemas.ITEMS,
    "exposures": schemas.EXPOSURES,
    "splits": schemas.SPLITS,
    "features": schemas.FEATURES,
    "tasks": schemas.TASKS,
    "task_init": schemas.TASK_EMBEDDINGS,
    "task_embeddings": schemas.TASK_EMBEDDINGS,
    "scores": schemas.SCORES,
}
TABLE_1 = [  # Gaussian, flow, and ratio: random, learned, graph, histogram
    *(["59.5", "61.5"], ["60.9", "58.3"]),
    *(["78.2", "64.2"], ["80.6", "66.1"], ["80.3", "68.0"], ["82.6", "73.4"]),
]
FIGURES = ("auc", "ci95_low", "ci95_high", "perfect_label", "supervised")
CSVS = ("task_auc", "roc", "features_history", "pretrain_history", "ratio_history")


@pytest.fixture(scope="module")
def params_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's params.yaml, of a small world."""
    yaml = YAML()
    content = yaml.load(ROOT / "params.yaml")
    content["simulation"] = {"users": 300, "items": 40, "exposures": 4000, "seed": 0}
    content["evaluate"] = {"labels": ["age", "occupation"], "bootstrap": 100}
    content["tasks"]["min_exposures"] = 40
    file = tmp_path_factory.mktemp("params") / "params.yaml"
    yaml.dump(content, file)
    return file


@pytest.fixture(scope="module")
def params(params_file: Path) -> Params:
    return load_params(params_file, *Params.model_fields)


@pytest.fixture(scope="module")
def artefacts(params: Params) -> Artefacts:
    """The small world with random scores, features and embeddings, and its true metrics."""
    gen = np.random.default_rng(0)
    source = simulate(params.simulation)
    ids = source.users["user_id"].to_numpy()
    splits = split_users(ids, test_share=0.3, valid_share=0.2, seed=0)
    exposures = hold_out(source.exposures, splits, share=0.3, seed=0)
    tasks = select_tasks(count_items(source.users, exposures, splits, params.labels), params.tasks)
    scored = ids[splits["split"].to_numpy(zero_copy_only=False) != "train"]
    drawn = gen.normal(size=(tasks.num_rows, len(scored))).astype(np.float32)
    start, trained = (
        embedding_table((gen.random((tasks.num_rows, 4)) - 0.5).astype(np.float32), tasks)
        for _ in range(2)
    )
    tables = Tables(
        scores=score_table(drawn, tasks, scored),
        tasks=tasks,
        users=source.users,
        splits=splits,
        exposures=exposures,
        features=pa.table({"user_id": ids, "x": vectors(gen.random((len(ids), 3)))}),
    )
    found = evaluate(
        tables,
        params,
        features_history=DEEPFM_HISTORY,
        graph_links=[{"triples": "0"}],
        ratio_history=HISTORY,
        gen=gen,
    )
    return Artefacts(
        users=source.users,
        items=source.items,
        exposures=exposures,
        splits=splits,
        features=tables.features,
        tasks=tasks,
        task_init=start,
        task_embeddings=trained,
        net=RatioNet(x_dim=3, task_dim=4),
        scores=tables.scores,
        metrics=found.metrics,
        task_auc=as_text(found.task_auc),
        roc=as_text(found.roc),
        features_history=DEEPFM_HISTORY,
        pretrain_history=HISTORY,
        ratio_history=HISTORY,
    )


def as_text(rows: list[dict]) -> list[dict[str, str]]:
    return [{k: "" if v is None else str(v) for k, v in row.items()} for row in rows]


@pytest.fixture(scope="module")
def content(artefacts: Artefacts, params: Params) -> Content:
    return gather(artefacts, params)


@pytest.fixture(scope="module")
def html(content: Content) -> str:
    return render(content, [])


@pytest.fixture(scope="module")
def page(html: str) -> ET.Element:
    return parsed(html)


def parsed(page: str) -> ET.Element:
    """The page as a tree: fails unless it is well-formed."""
    return ET.fromstring(page)  # noqa: S314 - our own


def text(element: ET.Element) -> str:
    return " ".join("".join(element.itertext()).split())


def of_source(params: Params, source: str) -> Params:
    return params.model_copy(update={"data": params.data.model_copy(update={"source": source})})


def write(artefacts: Artefacts, folder: Path) -> list[str]:
    """Write the artefacts below `folder`; the options by which the stage finds them."""
    options = []
    for name, schema in TABLES.items():
        write_table(getattr(artefacts, name), folder / f"{name}.parquet", schema)
        options.append(f"--{name.replace('_', '-')}={folder}/{name}.parquet")
    for name in CSVS:
        write_csv(getattr(artefacts, name), folder / f"{name}.csv")
        options.append(f"--{name.replace('_', '-')}={folder}/{name}.csv")
    write_json(artefacts.metrics, folder / "auc.json")
    write_network(artefacts.net, folder / "model.safetensors")
    options.append(f"--model={folder}/model.safetensors")
    return [*options, f"--auc={folder}/auc.json", f"--run-info={folder}/info"]


def test_the_page_fetches_nothing_and_runs_nothing(page: ET.Element) -> None:
    fetching = ("src", "srcset", "href", LINK, "data", "poster", "action", "background")
    for element in page.iter():
        tag = element.tag.rpartition("}")[2]
        assert tag not in {"script", "link", "iframe", "object", "embed", "img", "image", "base"}
        assert not [name for name in element.attrib if name.startswith("on")]
        for name in fetching:
            assert element.get(name, "#").startswith("#")
        style = element.get("style", "") + (element.text or "" if tag == "style" else "")
        assert "@import" not in style
        assert style.count("url(") == style.count("url(#")


def test_every_figure_is_there_and_says_how_to_read_it(page: ET.Element) -> None:
    figures = {figure.get("id"): figure for figure in page.iter(f"{HTML}figure")}
    portraits = {f"portrait-{n}" for n in range(3)}
    assert set(figures) == {"aucs", "tasks", "roc", "similarity", "losses"} | portraits
    drawn = {name: len(list(figure.iter(f"{SVG}svg"))) for name, figure in figures.items()}
    assert drawn == {
        **dict.fromkeys({"aucs", "roc"} | portraits, 1),
        **{"tasks": 3, "similarity": 2, "losses": 3},
    }
    for figure in figures.values():
        (caption,) = figure.iter(f"{HTML}figcaption")
        assert len(text(caption)) > 60


def test_ids_are_unique_and_every_reference_finds_its_own(page: ET.Element) -> None:
    ids = [element.get("id") for element in page.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    for element in page.iter():
        named = [element.get(LINK, "#")[1:], *element.get("aria-labelledby", "").split()]
        named.append(element.get("clip-path", "url(#)")[5:-1])
        assert {name for name in named if name} <= set(ids)


SLOPES = ("calibration.visible.slope", "calibration.held_out.slope")


def test_the_numbers_shown_are_those_of_auc_json(page: ET.Element, content: Content) -> None:
    shown = [(span.get("title"), text(span)) for span in page.iter(f"{HTML}span") if span.keys()]
    shown = [(key, number) for key, number in shown if key]
    keys = {f"{name}.{figure}" for name in ("age", "occupation") for figure in FIGURES}
    of_exposures = ("exposure", "exposure_valid")
    keys |= {f"{name}.{figure}" for name in of_exposures for figure in FIGURES[:3]}
    rivals = [f"trivial.{rival}" for rival in ("random", "activity")]
    keys |= {f"{rival}.{name}" for rival in rivals for name in ("age", "occupation", "exposure")}
    keys |= {"leak.age", "leak.occupation", "deepfm.pair_auc", "truth.spearman"}
    keys |= {"calibration.log_mean", "truth.rmse"} | set(SLOPES)
    assert {key for key, _ in shown} == keys
    others = dict.fromkeys(("truth.spearman", "truth.rmse", *SLOPES), "{:.2f}".format)
    others["calibration.log_mean"] = lambda value: signed(value, 3)
    for key, number in shown:
        value = content.figures[key]
        assert number == (others[key](value) if key in others else f"{100 * value:.1f}")


def test_three_scores_are_taken_apart_into_parts_that_add_up(
    page: ET.Element, content: Content, artefacts: Artefacts
) -> None:
    assert len(content.why) == 3
    for why in content.why:
        parts = [reason.contribution for reason in why.reasons]
        assert sum(parts) == pytest.approx(why.score, abs=1e-9)
        assert why.reasons[0].part == "average user"
        assert sum(bool(reason.title) for reason in why.reasons) == 8
    tables = [t for t in page.iter(f"{HTML}table") if "why" in t.get("class", "").split()]
    assert len(tables) == 3
    for table in tables:
        rows = [[text(cell) for cell in row] for row in table.iter(f"{HTML}tr")][1:]
        *parts, score = [float(row[0].replace("\N{MINUS SIGN}", "-")) for row in rows]
        assert rows[-1][1] == "the score"
        assert sum(parts) == pytest.approx(score, abs=0.0005 * len(rows))


def test_equal_inputs_give_equal_pages_outside_the_run_facts(
    artefacts: Artefacts, params_file: Path, tmp_path: Path
) -> None:
    """In another process, whose sets have another order and whose matplotlib another style."""
    options = [*write(artefacts, tmp_path), f"--params={params_file}"]
    first = CliRunner().invoke(app, [*options, f"--out={tmp_path}/first.html"])
    assert first.exit_code == 0, first.output
    assert first.stdout == f"the report: {tmp_path}/first.html\n"
    (tmp_path / "matplotlibrc").write_text("axes.grid: True\nfont.size: 20\nsvg.fonttype: path\n")
    facts = json.loads((tmp_path / "info" / "report.json").read_text())
    facts["outputs"] = {"splits": sha256(tmp_path / "splits.parquet")}
    write_json(facts, tmp_path / "info" / "prepare.json")  # restored
    facts["outputs"] = {"scores": sha256(tmp_path / "scores.parquet")}
    write_json(facts, tmp_path / "info" / "score.json")
    subprocess.run(
        [sys.executable, "-m", "stages.report", *options, f"--out={tmp_path}/second.html"],
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": "7", "MPLCONFIGDIR": str(tmp_path)},
    )
    pages = [parsed((tmp_path / f"{name}.html").read_text()) for name in ("first", "second")]
    facts_shown = [text(cut(page, "run-facts")) for page in pages]
    assert facts_shown[0].count(NOT_RECORDED) == 9
    assert facts_shown[1].count(NOT_RECORDED) == 7
    assert RESTORED in facts_shown[1]
    assert f"score {facts['device']}" in facts_shown[1]
    assert ET.tostring(pages[0]) == ET.tostring(pages[1])


def cut(page: ET.Element, identity: str) -> ET.Element:
    """Take the element of that id out of the page."""
    for parent in page.iter():
        for child in parent:
            if child.get("id") == identity:
                parent.remove(child)
                return child
    raise AssertionError(identity)


def test_run_facts_belong_to_the_files_at_hand_or_are_not_shown(tmp_path: Path) -> None:
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    one.write_text("1")
    two.write_text("2")
    told = {
        "device": "CPU",
        "seconds": 1.5,
        "peak_memory_mb": 300,
        "python": "3.11",
        "versions": {},
    }
    outputs = {"elsewhere/one.csv": sha256(one), "elsewhere/two.csv": sha256(two)}
    write_json({**told, "outputs": outputs}, tmp_path / "train.json")
    (ran,) = run_facts(tmp_path, {"train": [one, two]})
    assert ran.ran is not None
    assert (ran.ran.device, ran.ran.seconds, ran.ran.versions) == ("CPU", 1.5, "Python 3.11")
    two.write_text("changed")
    stale = run_facts(tmp_path, {"train": [one, two], "score": [one]})
    assert stale == [RunFacts("train", None, RESTORED), RunFacts("score", None, NOT_RECORDED)]
    (tmp_path / "train.json").write_text('{"stage": "train"}')
    with pytest.raises(PipelineError, match=r"train\.json: holds no run facts; delete it"):
        run_facts(tmp_path, {"train": [one]})


def test_a_hostile_title_is_shown_as_it_is(artefacts: Artefacts, params: Params) -> None:
    title = "<script>&\"'$x$ {{ 1 }}"
    titles = pa.array([title] * artefacts.items.num_rows)
    items = artefacts.items.set_column(1, "title", titles)
    page = parsed(render(gather(replace(artefacts, items=items), params), []))
    assert not list(page.iter(f"{HTML}script"))
    assert [text(head) for head in page.iter(f"{HTML}h3")][:3] == [title] * 3
    assert text(next(page.iter(f"{HTML}figure"))).count(title) == 0
    letters = [text(t) for t in page.iter(f"{SVG}text")]
    assert sum(t.startswith(title) for t in letters) == 18


def test_a_control_character_of_a_title_or_an_id_is_shown_as_a_space(
    artefacts: Artefacts, params: Params
) -> None:
    """Some of them end a line, and others no page may hold."""
    items, users = artefacts.items, artefacts.users
    titles = pa.array(["one\ntwo\x00 \x0bthree"] * items.num_rows)
    keys = pa.array([f"a\r{n}\x85" for n in range(users.num_rows)])
    named = replace(
        artefacts,
        items=items.set_column(1, "title", titles),
        users=users.append_column("user_key", keys),
    )
    content = gather(named, params)
    rendered = render(content, [])
    assert content.portraits[0].title == "one\ntwo\x00 \x0bthree"
    assert not set(rendered) & {"\x00", "\x0b", "\r", "\x85"}
    page = parsed(rendered)
    heads = ["".join(head.itertext()) for head in page.iter(f"{HTML}h3")]
    assert heads[:3] == ["one two   three"] * 3
    letters = ["".join(t.itertext()) for t in page.iter(f"{SVG}text")]
    assert sum(t.startswith("one two   three  ") for t in letters) == 18


def test_titles_without_a_space_are_broken_where_a_page_ends(page: ET.Element) -> None:
    """All that shows titles or ids does so in headings, cells and .meta."""
    style = text(next(page.iter(f"{HTML}style")))
    (selectors,) = re.findall(r"([^{}]*) { overflow-wrap: anywhere; }", style)
    assert {one.strip() for one in selectors.split(",")} == {"h1", "h2", "h3", "h4", "td", ".meta"}


def test_what_was_not_measured_is_left_out(artefacts: Artefacts, params: Params) -> None:
    """No DeepFM where x is ready-made, no truth of MovieLens; nor is any shown as zero."""
    metrics = {k: v for k, v in artefacts.metrics.items() if k not in {"deepfm", "truth", "leak"}}
    bare = replace(artefacts, metrics=metrics, features_history=[{"epoch": "0"}])
    page = parsed(render(gather(bare, params), []))
    assert "DeepFM" not in text(page)
    assert "Against the truth" not in text(page)
    losses = next(f for f in page.iter(f"{HTML}figure") if f.get("id") == "losses")
    assert len(list(losses.iter(f"{SVG}svg"))) == 2
    cells = {text(cell) for cell in page.iter(f"{HTML}td")}
    assert not cells & {"0", "0.0", "0.00"}


def test_the_papers_figures_stand_beside_those_of_movielens_only(
    artefacts: Artefacts, params: Params, page: ET.Element
) -> None:
    assert not [table for table in page.iter(f"{HTML}table") if table.get("id") == "paper"]
    assert "they do not apply to a simulated world" in text(page)
    other = parsed(render(gather(artefacts, of_source(params, "movielens-1m")), []))
    (table,) = [table for table in other.iter(f"{HTML}table") if table.get("id") == "paper"]
    rows = [[text(cell) for cell in row] for row in table.iter(f"{HTML}tr")]
    assert [row[1:] for row in rows[1:-1]] == TABLE_1
    age, occupation = (artefacts.metrics[label]["auc"] for label in ("age", "occupation"))
    assert rows[-1][1:] == [f"{100 * age:.1f}", f"{100 * occupation:.1f}"]
    assert "they do not apply" not in text(other)
    assert "come from user_id alone" in text(other)


@pytest.mark.parametrize(
    ("init", "age", "occupation"),
    [
        ("random", 0.782, 0.642),
        ("learned", 0.806, 0.661),
        ("mean", None, None),
        ("histogram", 0.826, None),  # projection.histogram_label is age
        ("graph", 0.803, 0.680),
    ],
)
def test_the_papers_figure_is_that_of_the_same_init(
    params: Params, init: Init, age: float | None, occupation: float | None
) -> None:
    assert init in get_args(Init)
    movielens = of_source(params.model_copy(update={"init": init}), "movielens-1m")
    for label, expected in {"age": age, "occupation": occupation, "age7": None}.items():
        assert paper_auc(label, movielens) == (expected and pytest.approx(expected))
        assert paper_auc(label, of_source(movielens, "simulated")) is None


def test_settings_that_are_not_the_papers_are_told(params: Params) -> None:
    fields = ["zip_code", "gender", "age", "occupation"]
    features = params.features.model_copy(update={"user_fields": fields})
    tasks = params.tasks.model_copy(update={"min_exposures": 100})
    ratio = params.ratio.model_copy(update={"scaling": "none"})
    alike = params.model_copy(update={"features": features, "tasks": tasks, "ratio": ratio})
    assert departures(alike) == []
    ratio = params.ratio.model_copy(
        update={
            **{"base": "users", "linear": 0.1, "mode": "grid", "visible": "all", "stop": "auc"},
            **{"scaling": "platt", "freeze_e": True, "hidden": [8, 4], "dropout": [0.1, 0.1]},
        }
    )
    features = features.model_copy(update={"activity": True, "min_users": 10, "visible": "train"})
    other = alike.model_copy(update={"features": features, "ratio": ratio, "init": "mean"})
    told = departures(other)
    words = (
        *("fewer than 10 users", "training users alone", "user's activity"),
        *("base p is uniform", "with every training user", "visible exposures of all users"),
        *("validation users' AUC", "one slope", "stay where they start", "layers are 8-4 wide"),
        *("dropout is 0.1, 0.1", "head that is linear", "no embedding called"),
    )
    assert len(told) == len(words)
    assert all(word in line for word, line in zip(words, told, strict=True))


def test_other_tasks_seed_tasks_and_graphs_than_the_papers_are_told(params: Params) -> None:
    def other(section: str, **changed: object) -> Params:
        part = getattr(params, section).model_copy(update=changed)
        return params.model_copy(update={section: part})

    def told(changed: Params) -> list[str]:
        return [line for line in departures(changed) if line not in departures(params)]

    assert "a share of 0.3 of the items with" in told(other("tasks", keep_share=0.3))[0]
    few = other("pretrain", seed_tasks=10)
    assert "learned 10 seed tasks" in told(few)[0]
    assert not told(few.model_copy(update={"init": "random"}))
    graph = {"init": "graph"}
    assert "TransH's of genres and years" in told(params.model_copy(update=graph))[0]
    ktup = other("graph", model="ktup").model_copy(update=graph)
    assert "KTUP's of genres and years" in told(ktup)[0]
    base = other("graph", model="ktup", triples="kg.tsv").model_copy(update=graph)
    assert not told(base)


def test_portraits_show_the_users_at_either_end(artefacts: Artefacts, content: Content) -> None:
    scores, users = artefacts.scores.to_pandas(), artefacts.users.to_pandas()
    test = artefacts.splits.to_pandas().query("split == 'test'").user_id
    pairs = artefacts.exposures.to_pandas()
    tasks = artefacts.tasks.to_pandas().sort_values("exposures", ascending=False, kind="stable")
    titles = artefacts.items.to_pandas().set_index("item_id").title
    assert [portrait.title for portrait in content.portraits] == list(titles[tasks.item_id[:3]])
    for portrait, task in zip(content.portraits, tasks.itertuples(), strict=False):
        mine = scores[(scores.task_id == task.task_id) & scores.user_id.isin(test)]
        met = pairs[pairs.item_id == task.item_id].set_index("user_id").held_out
        how = mine.user_id.map(met).map({True: "held out", False: "visible"}).fillna("never")
        for people, ascending in ((portrait.familiar, False), (portrait.fresh, True)):
            rows = mine.assign(how=how).sort_values("score", ascending=ascending)[:6]
            assert [p.score for p in people] == pytest.approx(rows.score.tolist())
            assert [p.met for p in people] == rows.how.tolist()
            visible = pairs[~pairs.held_out].groupby("user_id").size()
            assert [p.exposures for p in people] == rows.user_id.map(visible).tolist()
            labels = users.set_index("user_id").loc[rows.user_id]
            names = ("age", "occupation", "gender")
            assert [p.who for p in people] == [
                ", ".join([str(user.Index), *(NAMES[name][getattr(user, name)] for name in names)])
                for user in labels.itertuples()
            ]
        medians = mine.groupby(how).score.median()
        assert portrait.medians == pytest.approx(medians.to_dict())


def test_classes_are_told_in_words(artefacts: Artefacts, content: Content) -> None:
    """By the training exposures, counted here with pandas."""
    people = artefacts.users.to_pandas().merge(artefacts.splits.to_pandas())
    exposed = artefacts.exposures.to_pandas().merge(people[people.split == "train"])
    titles = artefacts.items.to_pandas().set_index("item_id").title
    for portrait in content.portraits:
        mine = exposed[exposed.item_id.map(titles) == portrait.title]
        bins = pd.cut(mine.age, [0, 25, 35, 45, 56, 99], right=False)
        names = ["<25", "25-34", "35-44", "45-55", "56+"]
        counts = bins.value_counts(sort=False).to_numpy()
        assert portrait.classes["age"] == (names[counts.argmax()], names[counts.argmin()])
        frequent = int(mine.occupation.mode()[0])
        assert portrait.classes["occupation"][0] == NAMES["occupation"][frequent]


def test_extremes_are_the_best_and_worst_of_the_well_measured(
    artefacts: Artefacts, content: Content
) -> None:
    rows = pd.DataFrame(artefacts.task_auc).query("label == 'exposure'")
    rows = rows[rows.auc != ""].astype({"auc": float, "n_nominal": int})
    rows = rows[rows.n_nominal >= rows.n_nominal.median()].sort_values("auc", kind="stable")
    assert [task.auc for task in content.worst] == rows.auc[:6].tolist()
    assert [task.auc for task in content.best] == rows.auc[:-7:-1].tolist()
    assert [task.held_out for task in content.worst] == rows.n_nominal[:6].tolist()


def test_of_few_tasks_none_is_both_among_the_best_and_the_worst(artefacts: Artefacts) -> None:
    best, worst = extremes(artefacts, 10**6)
    assert 0 <= len(best) - len(worst) <= 1
    assert not {task.title for task in best} & {task.title for task in worst}
    assert best[-1].auc >= worst[-1].auc


def test_the_films_compared_are_the_well_known_ones_that_are_tasks_and_others_after_them() -> None:
    ids = [1, 260, 588, 999, 1196]
    tasks = pa.table({"item_id": ids, "exposures": [100, 200, 300, 900, 200]})
    assert ids[3] not in WELL_KNOWN
    compared = compared_tasks(tasks, "movielens-1m")
    assert [ids[row] for row in compared] == [260, 1196, 1, 588, 999]
    assert [ids[row] for row in portrayed_tasks(tasks, "movielens-1m")] == [588, 999, 260]
    assert [ids[row] for row in compared_tasks(tasks, "simulated", n=3)] == [999, 588, 260]
    assert [ids[row] for row in portrayed_tasks(tasks, "simulated")] == [999, 588, 260]


def test_similarities_are_cosines_and_like_stands_beside_like(
    artefacts: Artefacts, params: Params
) -> None:
    m = artefacts.tasks.num_rows
    angle = np.pi * np.random.default_rng(0).permutation(m) / (2 * m)  # a quarter of a circle
    e = np.stack([np.cos(angle), np.sin(angle)], axis=1) * np.arange(1, m + 1)[:, None]
    trained = embedding_table(e, artefacts.tasks)
    fitting = RatioNet(x_dim=3, task_dim=2)
    found = gather(replace(artefacts, task_embeddings=trained, net=fitting), params).similarity
    titles = artefacts.task_items["title"].to_pylist()
    rows = [titles.index(title) for title in found.titles]
    assert sorted(rows) == sorted(compared_tasks(artefacts.tasks, "simulated").tolist())
    expected = np.cos(angle[rows][:, None] - angle[rows])
    np.testing.assert_allclose(found.trained, expected, atol=1e-5)
    assert np.all(np.diff(found.trained[0]) < 0)  # from one end to the other
    start = np.array(artefacts.task_init["e"].to_pylist())[rows]
    norm = np.linalg.norm(start, axis=1)
    np.testing.assert_allclose(found.start, start @ start.T / np.outer(norm, norm), atol=1e-5)


def test_one_task_is_like_itself() -> None:
    assert _line_up(np.ones((1, 1), np.float32)).tolist() == [0]


def test_activity_that_does_better_is_told(artefacts: Artefacts, params: Params) -> None:
    """Beside random scores it does by the held-out exposures, not by a label that is put above."""

    def beaten(key: str, **figures: float) -> list[str]:
        changed = {**artefacts.metrics[key], **figures}
        found = gather(replace(artefacts, metrics={**artefacts.metrics, key: changed}), params)
        return found.beaten

    found = beaten("age", auc=0.99, ci95_high=0.995)
    assert "held-out exposures" in found
    assert "age (5 classes)" not in found
    assert "held-out exposures" not in beaten("exposure", ci95_high=0.99)  # that may be chance


def test_activity_within_the_interval_is_told(artefacts: Artefacts, params: Params) -> None:
    def level(low: float, high: float) -> list[str]:
        changed = {**artefacts.metrics["exposure"], "ci95_low": low, "ci95_high": high}
        return gather(
            replace(artefacts, metrics={**artefacts.metrics, "exposure": changed}), params
        ).level

    activity = artefacts.metrics["trivial"]["activity"]["exposure"]
    assert "held-out exposures" in level(activity - 0.1, activity + 0.1)
    assert "held-out exposures" not in level(activity + 0.1, 1.0)
    assert "held-out exposures" not in level(0.0, activity - 0.1)


def test_a_page_says_that_nothing_was_learned(artefacts: Artefacts, params: Params) -> None:
    """And which training max_epochs ended; the one in HISTORY ended by itself."""
    flat = [{**row, "valid_loss": "1.3863"} for row in HISTORY]
    short = params.ratio.model_copy(update={"max_epochs": len(HISTORY)})
    short_params = params.model_copy(update={"ratio": short})
    page = text(parsed(render(gather(replace(artefacts, ratio_history=flat), short_params), [])))
    assert "Nothing was learned: the loss of the ratio never left 1.386" in page
    assert "after epoch 1 of 3, which max_epochs ended" in page
    page = text(parsed(render(gather(artefacts, params), [])))
    assert "Nothing was learned" not in page
    assert "max_epochs" not in page


def test_a_page_says_that_held_out_exposures_are_too_few(
    artefacts: Artefacts, params: Params
) -> None:
    by_exposure = [row for row in artefacts.task_auc if row["label"] == "exposure"]
    others = [row for row in artefacts.task_auc if row["label"] != "exposure"]
    alone = [{**row, "n_nominal": "2"} for row in by_exposure[:3]]
    rows = [*others, *alone, *({**row, "auc": ""} for row in by_exposure[3:])]
    counted = 2 * sum(bool(row["auc"]) for row in alone)
    assert 0 < counted < FEW
    page = text(parsed(render(gather(replace(artefacts, task_auc=rows), params), [])))
    told = f"Too few to tell: the figure by held-out exposures rests on {counted} of test users."
    assert told in page
    assert "Too few to tell" not in text(parsed(render(gather(artefacts, params), [])))


def test_every_source_has_a_name_for_people() -> None:
    assert set(SOURCES) == set(get_args(Source))


def test_the_epoch_that_was_kept_is_that_of_the_lowest_validation_loss(content: Content) -> None:
    assert [(network.best, network.by_auc) for network in content.learning] == [(2, False)] * 3
    assert content.learning[0].losses.keys() == {"train", "validation"}
    assert content.learning[2].losses["held out"].tolist() == [1.385, 1.31, 1.32]
    assert plots.CHANCE == CHANCE


def test_a_letter_that_our_typeface_lacks_is_written_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = plots.score_spread({"\u5343\u3068\u5343\u5c0b": np.array([0.0, 1.0])})
    assert "\u5343\u3068\u5343\u5c0b" in svg


def test_a_page_tells_by_what_the_epoch_was_kept_and_on_whom_the_ratio_was_trained(
    artefacts: Artefacts, params: Params
) -> None:
    judged = [
        {**row, "valid_miss": miss}
        for row, miss in zip(HISTORY, ("0.3", "0.2", "0.1"), strict=True)
    ]
    wide = params.model_copy(update={"ratio": params.ratio.model_copy(update={"visible": "all"})})
    content = gather(replace(artefacts, ratio_history=judged), wide)
    assert content.learning[-1].best == 3
    page = text(parsed(render(content, [])))
    assert "but for the last, which was judged by the AUC of validation users" in page
    assert "whose visible exposures the ratio was trained on" in page
    assert "on whom the ratio was not trained" not in page


@pytest.mark.parametrize(("slope", "told"), [("2.9", True), ("1.7", False)])
def test_a_page_tells_where_the_ratio_perhaps_rests_on_a_plateau(
    artefacts: Artefacts, params: Params, slope: str, *, told: bool
) -> None:
    history = [{**row, "slope": slope} for row in HISTORY] + [
        {**HISTORY[-1], "epoch": str(n), "slope": slope} for n in range(4, 13)
    ]
    page = text(parsed(render(gather(replace(artefacts, ratio_history=history), params), [])))
    assert ("The ratio perhaps rests on a plateau: try ratio.patience 30" in page) == told


WITHOUT = {
    "a few": lambda table: table.slice(0, 5),
    "no age": lambda users: users.drop_columns("age"),
    "no class": lambda tasks: tasks.set_column(
        tasks.column_names.index("nominal_age"), "nominal_age", pa.array([7] * tasks.num_rows)
    ),
    "no test": lambda splits: splits.filter(pc.not_equal(splits["split"], "test")),
    "no trivial": lambda metrics: {k: part for k, part in metrics.items() if k != "trivial"},
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": {"exposure": {}}}, "metrics/auc.json lacks age, occupation"),
        ({"metrics": "no trivial"}, "metrics/auc.json lacks the figure trivial.activity.age: it"),
        ({"users": "no age"}, "labels.age needs the column age of the users table"),
        ({"tasks": "no class"}, "names a class in nominal_age that is none of the 5 of the users"),
        ({"splits": "no test"}, "users of the splits table is in the split test; make it again"),
        ({"task_auc": []}, "metrics/task_auc.csv has 0 tasks"),
        ({"task_init": "a few"}, "the task embeddings are of 5 tasks"),
        ({"items": "a few"}, r"item \d+ is not among the 5 known ones"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(
    artefacts: Artefacts, params: Params, change: dict, message: str
) -> None:
    ((name, value),) = change.items()
    value = WITHOUT[value](getattr(artefacts, name)) if isinstance(value, str) else value
    with pytest.raises(PipelineError, match=message):
        gather(replace(artefacts, **{name: value}), params)


def test_a_missing_file_is_one_line_and_leaves_no_page(tmp_path: Path, params_file: Path) -> None:
    out = tmp_path / "report.html"
    given = [f"--users={tmp_path}/none.parquet", f"--out={out}", f"--params={params_file}"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"report: {tmp_path}/none.parquet: there is no such file.")
    assert result.stderr.count("\n") == 1
    assert not out.exists()


def test_json_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = tmp_path / "auc.json"
    with pytest.raises(PipelineError, match=r"auc\.json: there is no such file\. Build it with"):
        read_json(file)
    file.write_text('{"age": ')
    with pytest.raises(PipelineError, match=r"auc\.json: is not JSON \(.*\)\. Delete it and run"):
        read_json(file)


def test_the_stage_depends_on_its_template_and_its_style() -> None:
    stage = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]["report"]
    for suffix in ("html", "css"):
        (file,) = (ROOT / "pipeline" / "report").glob(f"*.{suffix}")
        assert str(file.relative_to(ROOT)) in stage["deps"]


def test_only_the_params_that_the_stage_declares_are_read(
    artefacts: Artefacts, params_file: Path, html: str
) -> None:
    handed_out = load_params(params_file, *PARAM_KEYS)
    assert render(gather(artefacts, handed_out), []) == html


def test_every_code_of_movielens_has_a_name() -> None:
    assert tuple(NAMES["age"]) == (1, 18, 25, 35, 45, 50, 56)
    assert tuple(NAMES["occupation"]) == tuple(range(21))
    assert set(NAMES["gender"]) == {"F", "M"}


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("Matrix, The (1999)", "The Matrix (1999)"),
        ("Star Wars: Episode V - The Empire Strikes Back (1980)", "Star Wars: Episode V…"),
        ("Terminator 2: Judgment Day (1991)", "Terminator 2: Judgment…"),
        ("Godfather: Part II, The (1974)", "The Godfather: Part II"),
        ("M" * 40, "M" * 24 + "…"),
    ],
)
def test_a_long_title_is_cut_for_a_figure(title: str, shown: str) -> None:
    assert short(readable(title)) == shown


def test_of_your_own_tables_users_are_named_and_codes_are_left_as_they_are(
    artefacts: Artefacts, params: Params
) -> None:
    own = of_source(params, "tables")
    portrait = gather(artefacts, own).portraits[0]
    users = artefacts.users.to_pandas().set_index("user_id")
    for person in portrait.familiar:
        user = users.loc[int(person.who.split(",")[0])]
        assert person.who.endswith(
            f"age {user.age}, occupation {user.occupation}, gender {user.gender}"
        )
    assert portrait.classes["occupation"][0].isdigit()
    keys = [f"key {user}" for user in artefacts.users["user_id"].to_pylist()]
    keyed = replace(artefacts, users=artefacts.users.append_column("user_key", [keys]))
    assert gather(keyed, own).portraits[0].familiar[0].who.startswith("key ")


def test_a_source_without_labels_and_genres_has_its_page(
    artefacts: Artefacts, params: Params
) -> None:
    unlabelled = of_source(params, "tables").model_copy(
        update={"labels": {}, "evaluate": params.evaluate.model_copy(update={"labels": []})}
    )
    genres = pa.array([[]] * artefacts.items.num_rows, pa.list_(pa.string()))
    bare = replace(artefacts, items=artefacts.items.set_column(2, "genres", genres))
    page = parsed(render(gather(bare, unlabelled), []))
    assert len(list(page.iter(f"{HTML}dt"))) == 1  # held-out exposures
    (first, *_) = [p for p in page.iter(f"{HTML}p") if p.get("class") == "meta"]
    assert text(first) == f"{max(artefacts.tasks['exposures'].to_pylist())} exposures."
    assert "your own tables" in text(page)
    for told in ("Diamond", "By a label", "Label from x", "taught labels", "perfect label"):
        assert told not in text(page)
