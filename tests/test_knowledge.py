"""Knowledge graphs: read from files of any names, made of genres and years, and split."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.datasets.triples import graph_of_items, read_graph
from pipeline.errors import PipelineError
from pipeline.knowledge import KnowledgeGraph
from pipeline.params import Graph, load_params

ROOT = Path(__file__).parents[1]
TRIPLES = 'head\trelation\ttail\n"b" f\tby\tann\na,f\tby\tbob\na,f\tstars\tann\na,f\tby\tbob\n'
ENTITIES = 'movie_id\turi\n30\tnowhere\n10\ta,f\n99\tann\n20\t"b" f\n'
ITEMS = pa.table(
    {
        "item_id": [10, 20, 30, 40],
        "title": ["A (1995)", "B (1984) (1999)", "Blade Runner 2049", "D (1995) "],
        "genres": [["Drama", "War"], [], ["War"], ["Drama"]],
    }
)


def wanted(folder: Path, **changed: object) -> Graph:
    """The default params with files in `folder`."""
    graph = load_params(ROOT / "params.yaml", "graph").graph
    files = {"triples": str(folder / "triples.tsv"), "items": str(folder / "items.tsv")}
    return graph.model_copy(update=files | changed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "triples.tsv").write_text(TRIPLES)
    (tmp_path / "items.tsv").write_text(ENTITIES)
    return tmp_path


def names_of(graph: KnowledgeGraph, entities: list[str]) -> set[tuple[str, str, str]]:
    return {(entities[h], graph.relations[r], entities[t]) for h, r, t in graph.triples.T}


def test_a_graph_is_read_from_files_of_triples_and_of_the_entities_of_items(folder: Path) -> None:
    graph = read_graph(wanted(folder), ITEMS)
    entities = ['"b" f', "a,f", "ann", "bob"]
    assert graph.entities == 4
    assert graph.relations == ["by", "stars"]
    assert graph.triples.shape == (3, 3)  # the repeated one counts once
    assert names_of(graph, entities) == {
        ('"b" f', "by", "ann"),
        ("a,f", "by", "bob"),
        ("a,f", "stars", "ann"),
    }
    assert graph.of_item.tolist() == [1, 0, -1, -1]  # 30's entity is in no triple, 40 has none


def test_csv_and_parquet_files_of_other_column_names_give_the_same_graph(
    folder: Path, tmp_path: Path
) -> None:
    graph = wanted(folder)
    facts = pa.table(
        [["a,f", '"b" f', "a,f"], ["by", "by", "stars"], ["bob", "ann", "ann"]], ["s", "p", "o"]
    )
    pq.write_table(facts, tmp_path / "facts.parquet")
    (tmp_path / "who.csv").write_text('item,entity\n10,"a,f"\n20,"""b"" f"\n')
    names = {"head": "s", "relation": "p", "tail": "o", "item": "item", "entity": "entity"}
    other = wanted(
        tmp_path,
        triples=str(tmp_path / "facts.parquet"),
        items=str(tmp_path / "who.csv"),
        columns=graph.columns.model_copy(update=names),
    )
    one, two = read_graph(graph, ITEMS), read_graph(other, ITEMS)
    assert (one.triples == two.triples).all()
    assert one.of_item.tolist() == two.of_item.tolist()


def test_ids_that_are_text_are_named_by_their_text(folder: Path) -> None:
    keyed = ITEMS.append_column("item_key", pa.array(["x", "y", "10", "20"]))
    assert read_graph(wanted(folder), keyed).of_item.tolist() == [-1, -1, 1, 0]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("triples.tsv", "head\trelation\ttail\na\tby\n", r"row 1: expected 3 fields, found 2"),
        ("triples.tsv", "head\trelation\ttail\na\t\tb\n", r"row 1: expected a relation, found ''"),
        ("triples.tsv", "head\trel\ttail\na\tby\tb\n", r"relation, found head, .*graph\.columns"),
        ("triples.tsv", "", r"triples\.tsv: is not readable as TSV in UTF-8"),
        ("items.tsv", "movie_id\turi\n10\ta\n10\tb\n", r"row 2: expected each movie_id once"),
        ("items.tsv", "movie_id\turi\n50\ta,f\n", r"none of its 1 items is both in the items"),
    ],
)
def test_a_faulty_file_is_named_with_what_to_do(
    folder: Path, file: str, text: str, message: str
) -> None:
    (folder / file).write_text(text)
    with pytest.raises(PipelineError, match=message) as error:
        read_graph(wanted(folder), ITEMS)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "found"),
    [("gone.tsv", "none"), ("triples.txt", "another ending"), ("folder.tsv", "a folder")],
)
def test_a_file_that_is_missing_or_of_another_kind_is_named(
    folder: Path, name: str, found: str
) -> None:
    (folder / "triples.txt").write_text(TRIPLES)
    (folder / "folder.tsv").mkdir()
    with pytest.raises(PipelineError, match=rf"{name}: expected a file .*, found {found}"):
        read_graph(wanted(folder, triples=str(folder / name)), ITEMS)


def test_the_params_name_both_files_or_neither(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    text = (ROOT / "params.yaml").read_text()
    file.write_text(text.replace("  triples: null", "  triples: facts.tsv"))
    with pytest.raises(PipelineError, match=r"graph: triples and items belong together"):
        load_params(file, "graph")


def test_without_files_genres_and_years_make_the_graph() -> None:
    graph = graph_of_items(ITEMS)
    entities = ["genre Drama", "genre War", "item 10", "item 20", "item 30", "item 40"]
    entities += ["year 1995", "year 1999"]
    assert names_of(graph, entities) == {
        ("item 10", "has genre", "genre Drama"),
        ("item 10", "has genre", "genre War"),
        ("item 30", "has genre", "genre War"),
        ("item 40", "has genre", "genre Drama"),
        ("item 10", "released in", "year 1995"),
        ("item 20", "released in", "year 1999"),
        ("item 40", "released in", "year 1995"),
        ("year 1995", "followed by", "year 1999"),
    }
    assert graph.of_item.tolist() == [2, 3, 4, 5]


def test_items_without_genres_and_years_have_no_entity() -> None:
    bare = ITEMS.slice(2, 1).set_column(2, "genres", pa.array([[]], pa.list_(pa.string())))
    graph = graph_of_items(bare)
    assert graph.triples.shape == (3, 0)
    assert graph.of_item.tolist() == [-1]


def test_held_out_triples_leave_one_to_every_entity_and_relation() -> None:
    gen = np.random.default_rng(0)
    triples = np.unique(
        np.stack(
            [gen.integers(30, size=300), gen.integers(4, size=300), gen.integers(30, 50, 300)]
        ),
        axis=1,
    )
    graph = KnowledgeGraph(triples, 50, list("abcd"), np.arange(30))
    learn, stop, test = graph.hold_out(0.2, np.random.default_rng(1))
    together = np.concatenate([learn, stop, test], axis=1)
    assert (np.unique(together, axis=1) == triples).all()
    assert together.shape == triples.shape
    assert stop.shape == test.shape == (3, round(0.1 * triples.shape[1]))
    assert set(np.unique(learn[[0, 2]])) == set(np.unique(triples[[0, 2]]))
    assert set(learn[1]) == set(triples[1])
    _, stop, test = graph.hold_out(0.99, np.random.default_rng(1))  # more than there are to spare
    assert stop.shape == test.shape
    assert 0 < stop.shape[1] < round(0.495 * triples.shape[1])


def test_nothing_is_held_out_of_a_graph_that_needs_all_its_triples() -> None:
    graph = graph_of_items(ITEMS.slice(0, 1))
    learn, stop, test = graph.hold_out(0.9, np.random.default_rng(0))
    assert learn.shape == graph.triples.shape
    assert stop.shape == test.shape == (3, 0)
