"""Knowledge graphs of items: from a table of triples, or from genres and release years."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.datasets.own_table import OwnTable
from pipeline.datasets.table_files import read_own
from pipeline.errors import PipelineError
from pipeline.knowledge import KnowledgeGraph
from pipeline.params import Graph, GraphColumns

ENDINGS = (".csv", ".tsv", ".parquet")
FACT = ("head", "relation", "tail")


def read_graph(params: Graph, items: pa.Table) -> KnowledgeGraph:
    """The graph that the params name, of the items of the items table.

    Raises:
        PipelineError: a file is missing or malformed, or tells nothing of the items.
    """
    if params.triples is None or params.items is None:
        return graph_of_items(items)
    names = params.columns
    facts = _read(params.triples, names.head, names.relation, names.tail)
    entities = _read(params.items, names.item, names.entity)
    graph = KnowledgeGraph.of_names(
        pa.table([facts.text(name) for name in (names.head, names.relation, names.tail)], FACT),
        _entity_of_each(items, entities, names),
    )
    if (graph.of_item < 0).all():
        raise PipelineError(
            f"{params.items}: none of its {entities.table.num_rows:,} items is both in the items "
            f"table and in a triple of {params.triples}; these files do not belong together."
        )
    return graph


def graph_of_items(items: pa.Table) -> KnowledgeGraph:
    """A graph of what the items table tells: genres, and the year that ends a title, as in (1995).

    Each year is followed by the next one that there is, so that near years come to lie near.
    There may be no triple at all.
    """
    genres = items.column("genres").combine_chunks()
    name = _prefixed("item", items.column("item_id").cast(pa.string()))
    year = pc.struct_field(
        pc.extract_regex(items.column("title"), r"\((?P<year>\d{4})\)\s*$"), "year"
    )
    dated = pc.is_valid(year)
    years = pc.unique(year.filter(dated)).sort()
    facts = [
        _facts(
            name.take(pc.list_parent_indices(genres)),
            "has genre",
            _prefixed("genre", pc.list_flatten(genres)),
        ),
        _facts(name.filter(dated), "released in", _prefixed("year", year.filter(dated))),
        _facts(_prefixed("year", years[:-1]), "followed by", _prefixed("year", years[1:])),
    ]
    return KnowledgeGraph.of_names(pa.concat_tables(facts), name)


def _prefixed(kind: str, names: pa.ChunkedArray) -> pa.ChunkedArray:
    """Names such as "genre Drama", apart from those of other kinds."""
    return pa.chunked_array([pc.binary_join_element_wise(kind, names, " ")], pa.string())


def _facts(head: pa.ChunkedArray, relation: str, tail: pa.ChunkedArray) -> pa.Table:
    names = pa.repeat(relation, len(head))
    return pa.table({"head": head, "relation": names, "tail": tail})


def _entity_of_each(items: pa.Table, entities: OwnTable, names: GraphColumns) -> pa.ChunkedArray:
    """Name of the entity of each row of the items table, null where there is none."""
    key = "item_key" if "item_key" in items.column_names else "item_id"  # ids that were text
    own = entities.text(names.item).combine_chunks()
    entities.require_distinct(own.dictionary_encode().indices.to_numpy(), names.item)
    return entities.text(names.entity).take(pc.index_in(items.column(key).cast(pa.string()), own))


def _read(name: str, *columns: str) -> OwnTable:
    """A table with these columns, which hold text."""
    path = Path(name)
    if path.suffix not in ENDINGS or not path.is_file():
        found = "a folder" if path.is_dir() else "another ending" if path.exists() else "none"
        raise PipelineError(
            f"{path}: expected a file that ends in {', '.join(ENDINGS)}, found {found}. "
            "graph.triples and graph.items name it."
        )
    table = read_own(path, columns)
    table.require_columns(*columns, mending="Name the columns under graph.columns.")
    return table
