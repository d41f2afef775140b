"""Vectors of items: who gets which, what ktup may see, and the stages that make and use them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from ruamel.yaml import YAML
from typer.testing import CliRunner

from pipeline import schemas
from pipeline.datasets.simulation import simulate
from pipeline.datasets.triples import graph_of_items
from pipeline.errors import PipelineError
from pipeline.graph import GraphVectors, embed_items, learned_exposures
from pipeline.params import Graph, Simulation, load_params
from pipeline.splits import hold_out, split_users
from pipeline.storage import matrix, read_table, vectors, write_table
from pipeline.text_files import read_csv
from pipeline.training.contrast import Exposed
from pipeline.training.session import Session
from stages.graph import app

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
Tables = tuple[pa.Table, pa.Table, pa.Table]  # items, exposures, splits


@pytest.fixture(scope="module")
def tables() -> Tables:
    """A simulated world of 80 users and 60 items; the last item has no genres and no year."""
    source = simulate(Simulation(users=80, items=60, exposures=1500, seed=0))
    ids = source.users.column("user_id").to_numpy()
    splits = split_users(ids, test_share=0.2, valid_share=0.2, seed=0)
    exposures = hold_out(source.exposures, splits, share=0.3, seed=0)
    bare = pa.table({"item_id": [61], "title": ["Item 61"], "genres": [[]]}, source.items.schema)
    return pa.concat_tables([source.items, bare]), exposures, splits


def wanted(**changed: object) -> Graph:
    graph = load_params(ROOT / "params.yaml", "graph").graph
    return graph.model_copy(update={"dim": 8, "max_epochs": 3} | changed)


def embedded(tables: Tables, **changed: object) -> GraphVectors:
    items, exposures, splits = tables
    made = embed_items(
        graph_of_items(items),
        lambda: learned_exposures(exposures, splits, items, CPU),
        wanted(**changed),
        seed=0,
        session=Session(),
    )
    assert made is not None
    return made


@pytest.mark.parametrize("kind", ["transe", "transh", "ktup"])
def test_an_item_that_the_graph_does_not_know_gets_the_mean_of_the_others(
    tables: Tables, kind: str
) -> None:
    made = embedded(tables, model=kind)
    assert made.x.shape == (61, 8)
    assert made.known.tolist() == [True] * 60 + [False]
    np.testing.assert_allclose(made.x[60], made.x[:60].mean(0), rtol=1e-5, atol=1e-6)
    assert len(np.unique(made.x[:60], axis=0)) == 60


def test_ktup_knows_an_item_by_its_exposures_too(tables: Tables) -> None:
    items, exposures, splits = tables
    user = splits.filter(pa.array(splits["split"].to_numpy(zero_copy_only=False) == "train"))
    row = pa.table([[user["user_id"][0].as_py()], [61], [None], [None], [False]], exposures.schema)
    more = pa.concat_tables([exposures, row]).sort_by(
        [("user_id", "ascending"), ("item_id", "ascending")]
    )
    assert embedded((items, more, splits), model="ktup").known.all()
    assert not embedded((items, more, splits), model="transh").known.all()


def test_only_exposures_of_training_users_are_learned_from(tables: Tables) -> None:
    items, exposures, splits = tables
    learned = learned_exposures(exposures, splits, items, CPU)
    pairs = exposures.to_pandas().merge(splits.to_pandas())
    train = pairs[pairs.split == "train"]
    users = train.user_id.unique()
    assert learned.users == len(users)
    assert users[learned.user.numpy()].tolist() == train.user_id.tolist()
    assert (learned.item.numpy() + 1).tolist() == train.item_id.tolist()


def test_a_user_who_has_seen_every_item_is_left_out(tables: Tables) -> None:
    items, exposures, splits = tables
    train = splits["split"].to_numpy(zero_copy_only=False) == "train"
    one = splits["user_id"].to_numpy()[train][0]
    rest = exposures.filter(pa.array(exposures["user_id"].to_numpy() != one))
    every = pa.table(
        [[one] * 61, items["item_id"], [None] * 61, [None] * 61, [False] * 61], exposures.schema
    )
    full = pa.concat_tables([every, rest]).sort_by(
        [("user_id", "ascending"), ("item_id", "ascending")]
    )
    without = learned_exposures(rest, splits, items, CPU)
    with_them = learned_exposures(full, splits, items, CPU)
    assert torch.equal(with_them.user, without.user)
    assert torch.equal(with_them.item, without.item)


def test_held_out_triples_are_ranked_and_told_by_relation(tables: Tables) -> None:
    everything, *relations = embedded(tables, held_out_share=0.4).links
    assert everything["relation"] == "(all)"
    assert {row["relation"] for row in relations} <= {"followed by", "has genre", "released in"}
    assert sum(row["triples"] for row in relations) == everything["triples"]
    count = graph_of_items(tables[0]).triples.shape[1]
    assert 0.05 * count < everything["triples"] <= round(0.2 * count)


@pytest.mark.parametrize("model", ["transe", "transh", "ktup"])
def test_where_no_triple_can_be_spared_all_are_learned_from(
    tables: Tables, tmp_path: Path, model: str
) -> None:
    """A catalogue of one category an item: items of one are placed together."""
    items, exposures, splits = tables
    genres = pa.array([["odd", "even"][n % 2 : n % 2 + 1] for n in range(61)])
    plain = items.set_column(1, "title", pa.array(["?"] * 61)).set_column(2, "genres", genres)
    (line,) = run_stage((plain, exposures, splits), tmp_path / "run", model=model, max_epochs=60)
    assert line.startswith("vectors of 61 items; 0 are not in the graph")
    assert line.endswith(
        "too few triples to hold one out that is not the first of something: none measured"
    )
    assert read_csv(tmp_path / "run" / "links.csv") == [{"triples": "0"}]
    x = matrix(read_table(tmp_path / "run" / "out.parquet", schemas.ITEM_VECTORS)["x"])
    apart = np.linalg.norm(x[:, None] - x[None], axis=2)
    alike = np.arange(61)[:, None] % 2 == np.arange(61)[None] % 2
    assert apart[alike].mean() < apart[~alike].mean()


def unread() -> Exposed:
    raise AssertionError("no exposure is asked for")


def test_exposures_that_leave_nothing_to_learn_from_are_one_line_of_error(tables: Tables) -> None:
    items, exposures, splits = tables
    with pytest.raises(PipelineError, match=r"graph\.model ktup: 1 exposures of training users"):
        learned_exposures(of_training_users(exposures, splits).slice(0, 1), splits, items, CPU)


def of_training_users(exposures: pa.Table, splits: pa.Table) -> pa.Table:
    train = splits.filter(pc.equal(splits["split"], "train"))["user_id"]
    return exposures.filter(pc.is_in(exposures["user_id"], train.combine_chunks()))


def run_stage(tables: Tables, folder: Path, seed: int = 0, **changed: object) -> list[str]:
    """Run the stage in `folder`; the lines that it says."""
    yaml = YAML()
    content = yaml.load(ROOT / "params.yaml")
    content["graph"] |= {"dim": 8, "max_epochs": 3} | changed
    content["seed"] = seed
    folder.mkdir()
    yaml.dump(content, folder / "params.yaml")
    for name, table in zip(("items", "exposures", "splits"), tables, strict=True):
        write_table(table, folder / f"{name}.parquet", getattr(schemas, name.upper()))
    given = [f"--{name}={folder}/{name}.parquet" for name in ("items", "exposures", "splits")]
    given += [f"--history={folder}/history.csv", f"--links={folder}/links.csv"]
    given += [f"--out={folder}/out.parquet", f"--run-info={folder}/info"]
    result = CliRunner().invoke(app, [*given, f"--params={folder}/params.yaml"])
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def test_the_stage_writes_a_vector_of_every_item_and_says_who_got_the_mean(
    tables: Tables, tmp_path: Path
) -> None:
    """Twice from the same seed come the same bytes."""
    (line,) = run_stage(tables, tmp_path / "one")
    assert line.startswith(
        "vectors of 61 items; 1 are not in the graph and get the mean: filtered MRR 0."
    )
    run_stage(tables, tmp_path / "two")
    run_stage(tables, tmp_path / "other", seed=1)
    one, two, other = (tmp_path / name for name in ("one", "two", "other"))
    for name in ("out.parquet", "history.csv", "links.csv"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
        assert (one / name).read_bytes() != (other / name).read_bytes()
    table = read_table(one / "out.parquet", schemas.ITEM_VECTORS)
    assert table["item_id"].to_pylist() == list(range(1, 62))
    assert [*read_csv(one / "history.csv")[0]] == ["epoch", "train_loss", "valid_loss"]


def test_without_a_graph_the_stage_says_so_and_writes_zeros(tables: Tables, tmp_path: Path) -> None:
    items, exposures, splits = tables
    no_genres = pa.array([[]] * 61, pa.list_(pa.string()))
    bare = items.set_column(1, "title", pa.array(["?"] * 61)).set_column(2, "genres", no_genres)
    (line,) = run_stage((bare, exposures, splits), tmp_path / "run")
    assert line == "there are no triples: no item has a vector"
    x = matrix(read_table(tmp_path / "run" / "out.parquet", schemas.ITEM_VECTORS)["x"])
    assert x.shape == (61, 8)
    assert not x.any()
    assert read_csv(tmp_path / "run" / "links.csv") == [{"triples": "0"}]


def test_the_vectors_are_a_schema_of_their_own() -> None:
    good = pa.table({"item_id": [1, 2], "x": vectors(np.ones((2, 3), np.float32))})
    schemas.ITEM_VECTORS.check(good, "here")
    with pytest.raises(PipelineError, match="duplicate"):
        schemas.ITEM_VECTORS.check(good.take([0, 0]), "here")
