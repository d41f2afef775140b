"""User vectors: who may move them, who is folded in, and the stage that writes them."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from ruamel.yaml import YAML
from scipy.stats import spearmanr
from typer.testing import CliRunner

from pipeline import schemas
from pipeline.datasets.simulation import draw_world, simulate
from pipeline.errors import PipelineError
from pipeline.features.extraction import Extraction, extract, genre_shares
from pipeline.features.extractor import Extractor
from pipeline.features.scale import Scale
from pipeline.pairs import find
from pipeline.params import Features, Simulation, load_params
from pipeline.splits import hold_out, split_users
from pipeline.storage import matrix, read_table, write_table
from pipeline.text_files import read_csv
from pipeline.training.session import Session
from pipeline.vocabulary import as_tensor, from_tensor
from stages.extract_features import app

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
FIELDS = ["gender", "age", "occupation", "zip_code"]
Tables = tuple[pa.Table, pa.Table, pa.Table, pa.Table]  # users, items, exposures, splits


@pytest.fixture(scope="module")
def tables() -> Tables:
    """A simulated world of 150 users and 60 items, some 3,000 exposures."""
    source = simulate(Simulation(users=150, items=60, exposures=3000, seed=0))
    ids = source.users.column("user_id").to_numpy()
    splits = split_users(ids, test_share=0.2, valid_share=0.1, seed=0)
    exposures = hold_out(source.exposures, splits, share=0.3, seed=0)
    return source.users, source.items, exposures, splits


def wanted(**changed: object) -> Features:
    """The default params of a small network, with some of them changed."""
    features = load_params(ROOT / "params.yaml", "features").features
    small = {"f_dim": 8, "hidden": [16], "lr": 0.02, "batch_size": 256, "max_epochs": 6}
    return features.model_copy(update=small | changed)


def extracted(tables: Tables, seed: int = 0, **changed: object) -> Extraction:
    return extract(*tables, wanted(**changed), seed=seed, session=Session())


def with_other_items(tables: Tables, rows: np.ndarray, gen: np.random.Generator) -> Tables:
    """The tables with the items of the exposures `rows` replaced by others of the same user."""
    users, items, exposures, splits = tables
    user = exposures.column("user_id").to_numpy()
    item = exposures.column("item_id").to_numpy().copy()
    known = items.column("item_id").to_numpy()
    for row in np.flatnonzero(rows):
        item[row] = gen.choice(np.setdiff1d(known, item[user == user[row]]))
    changed = exposures.set_column(1, "item_id", pa.array(item)).sort_by(
        [("user_id", "ascending"), ("item_id", "ascending")]
    )
    return users, items, changed, splits


def of_split(tables: Tables, ids: pa.ChunkedArray, *names: str) -> np.ndarray:
    """Which of the users `ids` are in one of the splits."""
    splits = tables[3]
    chosen = np.isin(splits.column("split").to_numpy(zero_copy_only=False), names)
    return np.isin(ids.to_numpy(), splits.column("user_id").to_numpy()[chosen])


@pytest.mark.parametrize("fields", [["user_id"], FIELDS])
def test_equal_seeds_give_equal_vectors_byte_for_byte(tables: Tables, fields: list[str]) -> None:
    once, again, other = (extracted(tables, seed, user_fields=fields) for seed in (0, 0, 1))
    assert once.x.tobytes() == again.x.tobytes()
    assert once.history == again.history
    assert once.x.tobytes() != other.x.tobytes()


def test_held_out_exposures_move_nothing(tables: Tables) -> None:
    held_out = tables[2].column("held_out").to_numpy()
    moved = with_other_items(tables, held_out, np.random.default_rng(0))
    assert not moved[2].equals(tables[2])
    assert extracted(moved).x.tobytes() == extracted(tables).x.tobytes()


def test_with_visible_train_other_users_move_no_training_user(tables: Tables) -> None:
    ids = tables[2].column("user_id")
    others = of_split(tables, ids, "valid", "test") & ~tables[2].column("held_out").to_numpy()
    moved = with_other_items(tables, others, np.random.default_rng(0))
    before, after = (extracted(some, visible="train") for some in (tables, moved))
    train = of_split(tables, tables[0].column("user_id"), "train")
    assert (before.trained == train).all()
    assert before.x[train].tobytes() == after.x[train].tobytes()
    assert (before.x[~train] != after.x[~train]).any(1).all()


def test_items_that_no_training_user_has_seen_are_no_negatives_with_visible_train(
    tables: Tables,
) -> None:
    users, items, exposures, splits = tables
    train = of_split(tables, exposures.column("user_id"), "train")
    first = exposures.column("item_id").to_numpy() == items.column("item_id")[0].as_py()
    kept = exposures.filter(pa.array(~(train & first)))
    assert (kept.column("item_id").to_numpy() == items.column("item_id")[0].as_py()).any()
    made = extracted((users, items, kept, splits), visible="train")
    assert made.extractor.items.tolist() == items.column("item_id").to_pylist()[1:]


def test_vectors_are_standardised_over_the_users_trained_on(tables: Tables) -> None:
    made = extracted(tables, visible="train")
    x = made.x[made.trained]
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(0), 1, atol=1e-5)


@pytest.mark.parametrize("visible", ["all", "train"])
def test_activity_is_the_last_dimension_of_visible_exposures_only(
    tables: Tables, visible: str
) -> None:
    users, _, exposures, _ = tables
    made = extracted(tables, activity=True, visible=visible)
    assert made.x.shape[1] == 9
    shown = exposures.filter(pa.array(~exposures.column("held_out").to_numpy()))
    met = np.isin(users.column("user_id"), shown.column("user_id"))
    count = np.bincount(shown.column("user_id").to_numpy(), minlength=151)[1:]
    assert np.corrcoef(made.x[met, 8], np.log1p(count[met]))[0, 1] == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(made.x[made.trained].std(0), 1, atol=1e-5)


def test_a_dimension_without_variance_becomes_zero() -> None:
    x = torch.tensor([[0.1, 1.0, 1e6], [0.1, 2.0, 1e6], [0.1, 3.0, 1e6]])
    scaled = Scale.of(x).apply(x)
    torch.testing.assert_close(scaled[:, [0, 2]], torch.zeros(3, 2))
    torch.testing.assert_close(scaled[:, 1], torch.tensor([-1.0, 0, 1]) * 1.5**0.5)


def scores(extractor: Extractor, x: np.ndarray) -> np.ndarray:
    """DeepFM's logits (n, I) of users with vectors x, but for a constant a user."""
    net, n = extractor.net, len(extractor.items)
    raw = torch.from_numpy(x) * extractor.scale.scale + extractor.scale.mean
    embedded = torch.cat([torch.zeros(len(raw), 1, 1), raw[:, None]], 2)
    user, item = torch.arange(len(raw)).repeat_interleave(n), torch.arange(n).repeat(len(raw))
    with torch.no_grad():
        logits = net.of_pairs(net.user_side(embedded), net.item_side(), user, item)
    return logits.view(-1, n).numpy()


def test_a_user_folded_in_ranks_items_as_when_trained_on(tables: Tables) -> None:
    users, _, exposures, _ = tables
    made = extracted(tables, max_epochs=12)
    shown = exposures.filter(pa.array(~exposures.column("held_out").to_numpy()))
    # Everybody again, under ids that the network does not know.
    unknown = users.set_column(0, "user_id", pa.array(users.column("user_id").to_numpy() + 1000))
    again = shown.set_column(0, "user_id", pa.array(shown.column("user_id").to_numpy() + 1000))
    gen = torch.Generator().manual_seed(0)
    folded = scores(made.extractor, made.extractor.newcomers(unknown, again, gen))
    trained = scores(made.extractor, made.x)
    agreement = [spearmanr(a, b).statistic for a, b in zip(folded, trained, strict=True)]
    by_chance = [spearmanr(a, b).statistic for a, b in zip(folded, trained[::-1], strict=True)]
    assert np.mean(agreement) > 0.9
    assert np.mean(agreement) > np.mean(by_chance) + 0.1


def test_a_newcomer_without_exposures_gets_the_mean(tables: Tables) -> None:
    users, items, exposures, splits = tables
    kept = exposures.filter(pa.array(exposures.column("user_id").to_numpy() != 7))
    made = extracted((users, items, kept, splits))
    assert not made.trained[6]
    assert made.trained.sum() == 149
    np.testing.assert_allclose(made.x[6], 0, atol=1e-5)


def test_a_user_who_has_seen_every_item_is_folded_in(tables: Tables) -> None:
    users, items, exposures, splits = tables
    others = exposures.filter(pa.array(exposures.column("user_id").to_numpy() != 7))
    n = items.num_rows
    everything = pa.table(
        {
            "user_id": np.full(n, 7),
            "item_id": items.column("item_id"),
            "rating": pa.nulls(n, pa.int8()),
            "timestamp": pa.nulls(n, pa.int64()),
            "held_out": np.zeros(n, bool),
        }
    )
    exposures = pa.concat_tables([others, everything]).sort_by("user_id")
    made = extracted((users, items, exposures, splits))
    assert not made.trained[6]
    np.testing.assert_allclose(made.x[6], 0, atol=1e-5)


def test_an_unseen_code_of_a_field_counts_as_its_mean(tables: Tables) -> None:
    made = extracted(tables, user_fields=["gender", "age"])
    newcomer = pa.table({"user_id": [9999], "gender": ["G"], "age": [25]})
    none = tables[2].slice(0, 0)
    x = made.extractor.newcomers(newcomer, none, torch.Generator())[0]
    net, scale = made.extractor.net, made.extractor.scale
    age = made.extractor.fields["age"].tolist().index(25)
    expected = torch.cat([net.user_fields[0].mean(0)[1:], net.user_fields[1][age, 1:]])
    np.testing.assert_allclose(x, scale.apply(expected.detach()), rtol=1e-4, atol=1e-5)


def test_rare_codes_share_an_embedding_with_unseen_ones(tables: Tables, tmp_path: Path) -> None:
    users = tables[0]
    fields = ["user_id", "occupation"]
    made = extracted(tables, user_fields=fields, f_dim=8, min_users=6)
    jobs = users.column("occupation").to_numpy()
    _, code, count = np.unique(jobs, return_inverse=True, return_counts=True)
    rare = count[code] < 6
    assert 0 < rare.sum() < len(rare)
    assert len(np.unique(made.x[rare, 4:], axis=0)) == 1
    assert len(np.unique(made.x[~rare, 4:], axis=0)) == (count >= 6).sum()
    assert len(np.unique(made.x[:, :4], axis=0)) == users.num_rows  # user ids stay apart
    file = tmp_path / "deepfm.safetensors"
    made.extractor.write(file)
    newcomer = pa.table({"user_id": [9999], "occupation": [99]})
    x = Extractor.read(file, CPU).newcomers(newcomer, tables[2].slice(0, 0), torch.Generator())
    np.testing.assert_allclose(x[0, 4:], made.x[rare][0, 4:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("activity", [False, True])
def test_an_extractor_read_back_gives_the_same_vectors(
    tables: Tables, tmp_path: Path, activity: bool
) -> None:
    users, _, exposures, _ = tables
    fields = ["user_id", "zip_code"]
    made = extracted(tables, user_fields=fields, visible="train", activity=activity)
    file = tmp_path / "deepfm.safetensors"
    made.extractor.write(file)
    again = Extractor.read(file, CPU)
    known, others = users.filter(pa.array(made.trained)), users.filter(pa.array(~made.trained))
    shown = exposures.filter(pa.array(~exposures.column("held_out").to_numpy()))
    of_others = np.isin(shown.column("user_id"), others.column("user_id"))
    ours, theirs = shown.filter(pa.array(~of_others)), shown.filter(pa.array(of_others))
    assert again.vectors(known, ours).tobytes() == made.x[made.trained].tobytes()
    folded = again.newcomers(others, theirs, torch.Generator().manual_seed(0))
    assert folded.tobytes() == made.x[~made.trained].tobytes()


def test_genres_share_an_item_equally() -> None:
    genres = [["War"], ["Drama", "War"], [], ["Comedy", "Drama", "War"]]
    items = pa.table({"item_id": [3, 5, 8, 9], "genres": pa.array(genres, pa.list_(pa.string()))})
    shares = genre_shares(items, np.array([5, 8, 9]))
    np.testing.assert_allclose(shares, [[0, 0.5, 0.5], [0, 0, 0], [1 / 3] * 3])


@pytest.mark.parametrize(
    ("field", "column", "message"),
    [
        ("shoe_size", None, "has no column 'shoe_size'; its columns are user_id, gender"),
        ("nick", pa.array([None] + ["a"] * 149), "1 of 150 users have no nick"),
        ("height", pa.array([1.8] * 150), "column height is of type double"),
    ],
)
def test_an_unusable_field_is_named(
    tables: Tables, field: str, column: pa.Array | None, message: str
) -> None:
    users = tables[0] if column is None else tables[0].append_column(field, column)
    with pytest.raises(PipelineError, match=message):
        extracted((users, *tables[1:]), user_fields=[field])


def test_nothing_to_learn_from_is_an_error(tables: Tables) -> None:
    users, items, exposures, splits = tables
    with pytest.raises(PipelineError, match="0 visible exposures to learn from"):
        extracted((users, items, exposures.slice(0, 0), splits))


@pytest.fixture
def project(tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with prepared tables and the params that fit them, as the working directory."""
    folder = tmp_path / "project"
    prepared = folder / "data/prepared"
    names = ("users", "items", "exposures", "splits")
    kinds = (schemas.USERS, schemas.ITEMS, schemas.EXPOSURES, schemas.SPLITS)
    for table, name, schema in zip(tables, names, kinds, strict=True):
        write_table(table, prepared / f"{name}.parquet", schema)
    shutil.copy(ROOT / "params.yaml", folder)
    set_params(folder, "simulation", users=150, items=60, exposures=3000)
    set_params(folder, "features", f_dim=8, hidden=[16], max_epochs=2)
    monkeypatch.chdir(folder)
    return folder


def set_params(folder: Path, section: str, **values: object) -> None:
    yaml, path = YAML(), folder / "params.yaml"
    params = yaml.load(path)
    params[section].update(values)
    yaml.dump(params, path)


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "data/features").glob("*"))}


def test_the_stage_writes_vectors_network_and_history_the_same_each_time(project: Path) -> None:
    first = CliRunner().invoke(app)
    assert first.exit_code == 0, first.output
    assert first.stdout.startswith("x of 150 users, 8 wide: 0 folded in, pair AUC 0.")
    once = outputs(project)
    assert [*once] == ["deepfm.safetensors", "history.csv", "users.parquet"]
    features = read_table(project / "data/features/users.parquet", schemas.FEATURES)
    assert matrix(features.column("x")).shape == (150, 8)
    history = read_csv(project / "data/features/history.csv")
    assert [*history[0]] == ["epoch", "train_loss", "valid_loss", "pair_auc"]
    assert [row["epoch"] for row in history] == ["1", "2"]
    assert CliRunner().invoke(app).exit_code == 0
    assert outputs(project) == once


@pytest.mark.parametrize("model", ["svd", "als"])
def test_a_closed_form_needs_no_training_and_sees_visible_exposures_alone(
    project: Path, model: str
) -> None:
    set_params(project, "features", model=model, activity=True)
    result = CliRunner().invoke(app)
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        f"x of 150 users, 9 wide: {model} of the visible exposures to 60 items\n"
    )
    once = outputs(project)
    file = project / "data/prepared/exposures.parquet"
    exposures = read_table(file, schemas.EXPOSURES)
    held_out = exposures.column("held_out").to_numpy()
    assert held_out.any()
    write_table(exposures.filter(pa.array(~held_out)), file, schemas.EXPOSURES)
    assert CliRunner().invoke(app).exit_code == 0
    assert outputs(project) == once


def test_latents_are_the_simulation_s_own_standardised(project: Path) -> None:
    set_params(project, "features", model="latents")
    result = CliRunner().invoke(app)
    assert result.exit_code == 0, result.output
    x = matrix(read_table(project / "data/features/users.parquet", schemas.FEATURES).column("x"))
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(x.std(0), 1, atol=1e-5)
    world = draw_world(Simulation(users=150, items=60, exposures=3000, seed=0))
    for column, truth in zip(x.T, world.latents.T, strict=True):
        assert np.corrcoef(column, truth)[0, 1] == pytest.approx(1)
    assert "pair_auc" not in read_csv(project / "data/features/history.csv")[0]
    with pytest.raises(PipelineError, match="holds no DeepFM"):
        Extractor.read(project / "data/features/deepfm.safetensors", CPU)


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("data", {"source": "movielens-1m"}, "data.source is movielens-1m, whose latents nobody"),
        ("simulation", {"users": 200}, "the users table is not that of the simulated world"),
        ("simulation", {"seed": 1}, "the users table is not that of the simulated world"),
    ],
)
def test_latents_of_another_source_are_one_line_of_error(
    project: Path, section: str, change: dict[str, object], message: str
) -> None:
    set_params(project, "features", model="latents")
    set_params(project, section, **change)
    result = CliRunner().invoke(app)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not outputs(project)


@pytest.mark.parametrize("codes", [[], [4], [-3, 4, 9], ["", "a", "zz"]])
def test_a_code_has_its_place_in_the_vocabulary_or_one_past_the_last(codes: list[object]) -> None:
    asked = np.array([*codes, *codes[::-1], *(["", "b", "zzz"] if "a" in codes else [-9, 5, 99])])
    expected = [codes.index(one) if one in codes else len(codes) for one in asked.tolist()]
    assert find(asked, np.array(codes, asked.dtype)).tolist() == expected


@pytest.mark.parametrize("codes", [np.array(["1060", "", "ü"]), np.array([""]), np.array([], str)])
def test_a_vocabulary_of_text_comes_back_from_a_model_file_even_an_empty_one(
    codes: np.ndarray,
) -> None:
    again = from_tensor(as_tensor(codes))
    assert (again.tolist(), again.dtype.kind) == (codes.tolist(), "U")
