"""New exposures without training: equal to a rebuild, and no more work than what is new."""

import csv
import errno
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from pipeline import schemas, storage
from pipeline.conditional import train_conditional
from pipeline.datasets.source import Source
from pipeline.datasets.table_files import read_own
from pipeline.datasets.tables import read_exposures
from pipeline.embedding_matrix import embedding_table
from pipeline.embeddings import task_means
from pipeline.errors import PipelineError
from pipeline.estimation import CHANCE
from pipeline.examples import Examples
from pipeline.features.extraction import extract
from pipeline.features.extractor import Extractor
from pipeline.model_files import write_model, write_network
from pipeline.models.deepfm import DeepFM
from pipeline.models.ratio import RatioNet
from pipeline.newcomers.drift import Drift
from pipeline.newcomers.placement import FEWEST
from pipeline.newcomers.running import Running, alone_in
from pipeline.newcomers.update import skill_left, update
from pipeline.pairs import ids_of
from pipeline.storage import matrix, vectors, write_table
from pipeline.text_files import write_csv
from pipeline.training.history import best_row
from pipeline.training.session import Session
from stages import score as score_stage
from stages import update as update_stage
from tests.projects import set_params
from tests.worlds import SmallWorld, default_params, small_world

ROOT = Path(__file__).parents[1]
PERHAPS = (
    "perhaps tastes have changed, or these users had met most of what they would: to train again, "
    "append what came to your exposures, then `dvc repro` (docs/newcomers.md)"
)


@dataclass(frozen=True)
class Trained:
    """A small pipeline's outcome, in which the test users' held-out pairs were never there."""

    running: Running
    splits: pa.Table
    extractor: Extractor | None
    net: RatioNet
    history: list[dict[str, float]]
    kept_back: pa.Table


@pytest.fixture(scope="module")
def trained() -> Trained:
    """Its user vectors are DeepFM's, of little training."""
    world = small_world(users=400, items=50, exposures=8000, least=60)
    params = default_params(
        features={"f_dim": 6, "hidden": [8], "max_epochs": 6, "batch_size": 512}
    ).features
    made = extract(
        world.users,
        world.world.items,
        world.exposures,
        world.splits,
        params,
        seed=0,
        session=Session(),
    )
    return learned(world, made.x, made.extractor, epochs=4)


@pytest.fixture(scope="module")
def foresighted() -> Trained:
    """Its user vectors are the true tastes, so that there is something to foresee."""
    world = small_world(users=900, items=60, exposures=18_000, least=60)
    return learned(world, matrix(world.features.column("x")), None, epochs=25)


def learned(world: SmallWorld, x: np.ndarray, extractor: Extractor | None, epochs: int) -> Trained:
    test = world.users.column("user_id").to_numpy()[world.rows("test")]
    back = world.exposures.column("held_out").to_numpy() & np.isin(
        world.exposures.column("user_id"), test
    )
    known = world.exposures.filter(pa.array(~back))
    params = default_params(
        ratio={"batch_size": 256, "max_epochs": epochs, "dropout": [0.1, 0.1, 0.1], "lr": 0.01}
    ).ratio
    features = pa.table({"user_id": world.users.column("user_id"), "x": vectors(x)})
    examples = Examples.of(features, world.tasks, known, world.splits)
    start = task_means(examples.x, examples.learned, examples.tasks)
    ratio = train_conditional(examples, start, params=params, seed=0, session=Session())
    items = world.world.items
    running = Running.of(world.users, items, known, world.splits, features, world.tasks, ratio.e)
    kept_back = world.exposures.filter(pa.array(back))
    return Trained(running, world.splits, extractor, ratio.net, ratio.history, kept_back)


def new_exposures(tmp_path: Path, rows: list[tuple[int, int]]) -> Source:
    path = tmp_path / "new.csv"
    path.write_text("user_id,item_id\n" + "".join(f"{u},{i}\n" for u, i in rows))
    return read_exposures(read_own(path), text_ids=False)


def pairs_of(exposures: pa.Table) -> list[tuple[int, int]]:
    ids = (exposures.column(name).to_pylist() for name in ("user_id", "item_id"))
    return list(zip(*ids, strict=True))


def newcomers(trained: Trained) -> list[tuple[int, int]]:
    """Three new users who meet 12 items each, and a new item that meets them and four others."""
    items = trained.running.tasks.column("item_id").to_numpy()
    rows = [(9001 + n, int(item)) for n in range(3) for item in items[n : n + 12]]
    learned = trained.running.learned[:4].tolist()
    return rows + [(user, 777) for user in (9001, 9002, 9003, *learned)]


def run(trained: Trained, running: Running, new: Source) -> tuple[Running, object]:
    fold = partial(trained.extractor.newcomers_apart, seed=0) if trained.extractor else None
    return update(running, new, trained.net, base="exposures", fold=fold)


def same(one: Running, other: Running) -> None:
    for name in ("users", "items", "exposures", "features", "tasks"):
        assert getattr(one, name).equals(getattr(other, name)), name
    assert (one.later == other.later).all()
    np.testing.assert_allclose(one.e, other.e, atol=1e-4)
    for name in ("item_id", "exposures", "counted"):
        assert (getattr(one.audience, name) == getattr(other.audience, name)).all()
    np.testing.assert_allclose(one.audience.sums, other.audience.sums, atol=1e-4)


def test_two_updates_end_where_one_does(trained: Trained, tmp_path: Path) -> None:
    rows = newcomers(trained)
    at_once, report = run(trained, trained.running, new_exposures(tmp_path, rows))
    assert vars(report) == {"pairs": 43, "users": 3, "folded": 3, "items": 1, "tasks": 1}
    half, _ = run(trained, trained.running, new_exposures(tmp_path, rows[::2]))
    whole, report = run(trained, half, new_exposures(tmp_path, rows[::-1]))
    assert (report.pairs, report.users, report.folded) == (21, 0, 3)
    same(whole, at_once)


def test_the_running_sums_are_those_of_a_rebuild(trained: Trained, tmp_path: Path) -> None:
    done, _ = run(trained, trained.running, new_exposures(tmp_path, newcomers(trained)))
    for before in (trained.running, done):
        x, ids = before.x, before.features.column("user_id").to_numpy()
        for row, item in enumerate(before.audience.item_id):
            met = (before.exposures.column("item_id").to_numpy() == item) & ~(
                before.exposures.column("held_out").to_numpy()
            )
            users = before.exposures.column("user_id").to_numpy()[met]
            counts = np.isin(users, before.learned) | (users > 9000)
            assert before.audience.exposures[row] == len(users)
            assert before.audience.counted[row] == counts.sum()
            sums = x[np.searchsorted(ids, users[counts])].sum(0, dtype=np.float64)
            np.testing.assert_allclose(before.audience.sums[row], sums, atol=1e-4)


def test_what_was_trained_stays_and_what_came_later_is_placed(
    trained: Trained, tmp_path: Path
) -> None:
    before = trained.running
    done, _ = run(trained, before, new_exposures(tmp_path, newcomers(trained)))
    stays = np.isin(done.features.column("user_id").to_numpy(), before.before)
    assert (done.x[stays] == before.x).all()
    assert (done.e[~done.later] == before.e).all()
    place = done.tasks.column("item_id").to_pylist().index(777)
    assert done.later.tolist().index(True) == place
    own = done.audience.means[done.audience.item_id == 777]
    assert (done.e[place] == before.placement.apply(own)[0]).all()
    assert done.tasks.slice(place, 1).to_pylist()[0] | {"task_id": 0} == {
        "task_id": 0,
        "item_id": 777,
        "exposures": 7,
        "train_exposures": 7,
    }


def test_an_item_is_a_task_once_enough_users_who_count_have_met_it(
    trained: Trained, tmp_path: Path
) -> None:
    users = trained.running.learned[:FEWEST].tolist()
    ids = trained.running.before
    others = np.setdiff1d(ids, trained.running.learned)[:9].tolist()
    few = new_exposures(tmp_path, [(u, 888) for u in users[1:] + others])
    done, report = run(trained, trained.running, few)
    assert (report.items, report.tasks) == (1, 0)
    done, report = run(trained, done, new_exposures(tmp_path, [(users[0], 888)]))
    assert (report.items, report.tasks) == (0, 1)


def test_known_pairs_are_nothing_new(trained: Trained, tmp_path: Path) -> None:
    known = trained.running.exposures.slice(0, 50)
    rows = zip(
        known.column("user_id").to_pylist(), known.column("item_id").to_pylist(), strict=True
    )
    done, report = run(trained, trained.running, new_exposures(tmp_path, list(rows)))
    assert set(vars(report).values()) == {0}
    same(done, trained.running)


def test_only_users_with_something_new_are_fitted(trained: Trained, tmp_path: Path) -> None:
    done, _ = run(trained, trained.running, new_exposures(tmp_path, newcomers(trained)))
    asked: list[list[int]] = []

    def fold(users: pa.Table, exposures: pa.Table) -> np.ndarray:
        asked.append(users.column("user_id").to_pylist())
        assert exposures.num_rows == 14  # all that user 9002 has met, not the new one alone
        return trained.extractor.newcomers_apart(users, exposures, seed=0)

    item = int(done.tasks.column("item_id").to_numpy()[30])
    learned = int(done.learned[50])
    met = new_exposures(tmp_path, [(9002, item), (learned, item), (learned, 777)])
    update(done, met, trained.net, base="exposures", fold=fold)
    assert asked == [[9002]]


def test_drift_is_none_where_new_pairs_are_like_those_held_out(
    foresighted: Trained, tmp_path: Path
) -> None:
    """Kept back pairs of test users; then, for each of them, an item drawn blindly."""
    back = foresighted.kept_back
    user = back.column("user_id").to_numpy()
    pairs = pairs_of(back)
    loss = best_row(foresighted.history)["scaled_held_out_loss"]
    assert loss < CHANCE - 0.02
    alike, _ = run(foresighted, foresighted.running, new_exposures(tmp_path, pairs))
    share, error = skill_left(alike.drift, loss)
    assert 0.05 < error < 0.6
    assert share == pytest.approx(1, abs=3 * error)
    blind = np.random.default_rng(0).permutation(foresighted.running.tasks.column("item_id"))
    pairs = [(int(u), int(blind[n % len(blind)])) for n, u in enumerate(user)]
    strange, _ = run(foresighted, foresighted.running, new_exposures(tmp_path, pairs))
    share, error = skill_left(strange.drift, loss)
    assert share + 2 * error < 0.3
    assert skill_left(Drift(99, 99.0), loss) is None
    assert skill_left(Drift(1000, 1000 * CHANCE), loss)[0] == pytest.approx(0)


def test_users_who_came_later_are_no_part_of_the_drift(trained: Trained, tmp_path: Path) -> None:
    first, _ = run(trained, trained.running, new_exposures(tmp_path, newcomers(trained)))
    more = [(9001, int(item)) for item in first.tasks.column("item_id").to_numpy()[20:40]]
    second, done = run(trained, first, new_exposures(tmp_path, more))
    assert done.pairs > 0
    assert second.drift == first.drift


def test_the_drift_of_pairs_is_the_same_whatever_came_before_them(
    foresighted: Trained, tmp_path: Path
) -> None:
    """The vectors of those who met an item since do not hold it: they are negatives as before."""
    pairs = pairs_of(foresighted.kept_back)
    first, second = pairs[::2], pairs[1::2]

    def taken(running: Running, rows: list[tuple[int, int]]) -> Running:
        return run(foresighted, running, new_exposures(tmp_path, rows))[0]

    alone = taken(foresighted.running, second).drift
    before = taken(foresighted.running, first)
    after = taken(before, second)
    assert after.drift.pairs == before.drift.pairs + alone.pairs
    assert after.drift.loss == pytest.approx(before.drift.loss + alone.loss, rel=1e-6)
    assert len(after.foreseen) == after.drift.pairs


def test_each_loss_of_the_drift_is_of_the_user_it_is_added_to(
    foresighted: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self: Drift, user: np.ndarray, loss: np.ndarray) -> Drift:
        added.append((user, loss))
        return self

    def losses(model: object, user: torch.Tensor, task: torch.Tensor) -> torch.Tensor:
        return user[0].double()  # the row of the user who met it

    monkeypatch.setattr(Drift, "add", add)
    monkeypatch.setattr("pipeline.newcomers.update.pair_losses", losses)
    run(foresighted, foresighted.running, new_exposures(tmp_path, pairs_of(foresighted.kept_back)))
    ((user, loss),) = added
    assert len(set(user.tolist())) > 50
    assert loss.tolist() == user.tolist()


def test_the_error_of_the_drift_is_that_of_other_users() -> None:
    """Pairs of a user are alike: 300 populations of 200 users with 1 to 9 pairs each."""
    gen = np.random.default_rng(0)
    means, errors = [], []
    for _ in range(300):
        pairs = gen.integers(1, 10, 200)
        user = np.repeat(np.arange(200), pairs)
        loss = 1.3 + np.repeat(gen.normal(0, 0.3, 200) + 0.05 * pairs, pairs)
        drift = Drift().add(user, loss + gen.normal(0, 0.1, len(user)))
        means.append(drift.mean)
        errors.append(drift.error)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.15)
    by_pair = np.sqrt(0.3**2 + 0.1**2) / np.sqrt(1000)
    assert np.mean(errors) > 1.5 * by_pair


def test_users_of_two_updates_add_up() -> None:
    gen = np.random.default_rng(0)
    user, loss = gen.integers(0, 30, 200), gen.normal(size=200)
    first = user < 12
    apart = Drift().add(user[first], loss[first]).add(user[~first], loss[~first])
    whole = Drift().add(user, loss)
    assert vars(apart) == pytest.approx(vars(whole))


def test_drift_adds_up_over_updates(foresighted: Trained, tmp_path: Path) -> None:
    back = foresighted.kept_back
    pairs = pairs_of(back)
    first, _ = run(foresighted, foresighted.running, new_exposures(tmp_path, pairs[::2]))
    second, _ = run(foresighted, first, new_exposures(tmp_path, pairs))
    assert second.drift.pairs > 1.5 * first.drift.pairs
    assert second.drift.loss > 1.5 * first.drift.loss


def test_a_new_user_is_refused_where_vectors_are_ready_made(
    trained: Trained, tmp_path: Path
) -> None:
    new = new_exposures(tmp_path, [(9001, 1)])
    with pytest.raises(PipelineError, match=r"user 9001 is new \(1 such users\)"):
        update(trained.running, new, trained.net, base="users", fold=None)


def test_a_new_user_is_named_as_in_the_table_where_ids_are_text(
    trained: Trained, tmp_path: Path
) -> None:
    keys = [f"user {n}" for n in range(trained.running.users.num_rows)]
    users = trained.running.users.append_column("user_key", pa.array(keys))
    path = tmp_path / "new.csv"
    path.write_text("user_id,item_id\nann,a film\n")
    new = read_exposures(read_own(path), text_ids=True)
    with pytest.raises(PipelineError, match=r"user ann is new \(1 such users\)"):
        update(replace(trained.running, users=users), new, trained.net, base="users", fold=None)


def with_listed(trained: Trained) -> Running:
    """What runs, had user 8001 and item 888 been listed, whom nobody and nothing had met."""
    running = trained.running

    def more(table: pa.Table, **row: object) -> pa.Table:
        return pa.concat_tables([table, pa.Table.from_pylist([row], schema=table.schema)])

    return Running.of(
        more(running.users, user_id=8001),
        more(running.items, item_id=888, title="Unmet", genres=[]),
        running.exposures,
        more(trained.splits, user_id=8001, split="train"),
        more(running.features, user_id=8001, x=running.x.mean(0).tolist()),
        running.tasks,
        running.e,
    )


def test_who_was_listed_and_had_met_nothing_is_new_when_they_do(
    trained: Trained, tmp_path: Path
) -> None:
    """And so is an item that nobody had met."""
    running = with_listed(trained)
    items = running.tasks.column("item_id").to_pylist()[:12]
    meet = [(user, 888) for user in (8001, *running.learned[:4].tolist())]
    new = new_exposures(tmp_path, [(8001, item) for item in items] + meet)
    done, report = run(trained, running, new)
    assert (report.users, report.folded, report.items, report.tasks) == (0, 1, 0, 1)
    assert 888 in done.tasks.column("item_id").to_pylist()
    row = done.features.column("user_id").to_pylist().index(8001)
    assert np.abs(done.x[row] - running.x[row]).max() > 0.01
    ready_made, report = update(running, new, trained.net, base="exposures", fold=None)
    assert (report.folded, report.tasks) == (0, 1)  # they have the vector that their table gives
    assert ready_made.features.equals(running.features)


def test_a_folder_of_other_things_is_no_state(trained: Trained, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    trained.running.write(mine, "this one")  # an empty one is filled
    assert Running.is_in(mine)
    (mine / "running.safetensors").rename(mine / "thesis")
    with pytest.raises(PipelineError, match="mine: holds something else than what `update` writes"):
        trained.running.write(mine, "this one")
    assert (mine / "thesis").exists()


def test_what_runs_is_read_as_it_was_written(trained: Trained, tmp_path: Path) -> None:
    done, _ = run(trained, trained.running, new_exposures(tmp_path, newcomers(trained)))
    done = replace(done, drift=Drift(7, 8.5, 9.0, 10.5, 11.25))
    done.write(tmp_path / "running", "this one")
    done.write(tmp_path / "running", "this one")
    back, model = Running.read(tmp_path / "running")
    assert model == "this one"
    assert back.drift == done.drift
    same(back, done)
    assert (back.placement.weight == done.placement.weight).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.csv", "running"]


def test_a_state_that_is_replaced_while_it_is_read_is_read_anew(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, _ = run(trained, trained.running, new_exposures(tmp_path, newcomers(trained)))
    trained.running.write(tmp_path / "running", "before")
    replace_at_third_read(done, tmp_path / "running", "after", monkeypatch)
    back, model = Running.read(tmp_path / "running")
    assert model == "after"
    same(back, done)


def replace_at_third_read(
    running: Running, folder: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Write to the folder when the third table of it is about to be read."""
    read, paths = storage.read_parquet, []

    def replacing(path: Path) -> pa.Table:
        paths.append(path)
        if len(paths) == 3:
            running.write(folder, model)
        return read(path)

    monkeypatch.setattr(storage, "read_parquet", replacing)


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def of_no_state(path: Path) -> None:
    write_model({}, {}, path)


@pytest.mark.parametrize("name", ["running.safetensors", "features.parquet"])
@pytest.mark.parametrize("spoil", [Path.unlink, damaged, of_no_state])
def test_what_is_wrong_with_a_state_is_told_with_what_mends_it(
    trained: Trained, tmp_path: Path, spoil: Callable[[Path], None], name: str
) -> None:
    """`dvc repro` does not: it knows nothing of the state."""
    folder = tmp_path / "running"
    trained.running.write(folder, "this one")
    spoil(folder / name)
    with pytest.raises(PipelineError) as caught:
        Running.read(folder)
    fault, _, mending = str(caught.value).rpartition(" Delete")
    assert re.fullmatch(rf"{folder}.*\.", fault)
    assert mending == f" the folder {folder} and take in again what `dvc repro` has not seen."
    assert "dvc repro" not in fault


def test_a_write_that_was_killed_between_its_renames_has_lost_nothing(
    trained: Trained, tmp_path: Path
) -> None:
    trained.running.write(tmp_path / "running", "this one")
    (tmp_path / ".running.part").mkdir()
    (tmp_path / "running").rename(tmp_path / ".running.old")  # and there it was killed
    assert Running.is_in(tmp_path / "running")
    same(Running.read(tmp_path / "running")[0], trained.running)
    (tmp_path / "running").rename(tmp_path / ".running.old")
    trained.running.write(tmp_path / "running", "another")
    assert [path.name for path in tmp_path.iterdir()] == ["running"]


def test_what_was_set_aside_does_not_come_back_once_the_new_was_there(
    trained: Trained, tmp_path: Path
) -> None:
    trained.running.write(tmp_path / ".running.old", "killed before it was removed")
    assert not Running.is_in(tmp_path / "running")  # which the user has removed since
    trained.running.write(tmp_path / "running", "this one")
    assert [path.name for path in tmp_path.iterdir()] == ["running"]


def test_a_write_that_fails_leaves_nothing_beside(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise PipelineError("the disk is full")

    trained.running.write(tmp_path / "running", "this one")
    monkeypatch.setattr("pipeline.newcomers.running.write_model", full)
    with pytest.raises(PipelineError, match="the disk is full"):
        trained.running.write(tmp_path / "running", "another")
    assert [path.name for path in tmp_path.iterdir()] == ["running"]
    assert Running.read(tmp_path / "running")[1] == "this one"


def test_a_state_may_be_a_link_to_a_folder(trained: Trained, tmp_path: Path) -> None:
    """The link stays, and where it leads to nothing yet, or to nothing any more, all is as ever."""
    link, real = tmp_path / "link", tmp_path / "elsewhere/real"
    link.symlink_to(real)
    assert not Running.is_in(link)
    for model in ("one", "two", "three"):
        with alone_in(link):
            trained.running.write(link, model)
        assert Running.read(link)[1] == Running.read(real)[1] == model
    (real.parent / ".real.part").mkdir()
    real.rename(real.parent / ".real.old")  # as if killed between the renames
    assert Running.is_in(link)
    trained.running.write(link, "four")
    assert link.is_symlink()
    assert Running.read(real)[1] == "four"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "link"]
    assert [path.name for path in real.parent.iterdir()] == ["real"]


@pytest.mark.parametrize("moved", ["running", ".running.part"])
def test_a_state_that_cannot_be_replaced_is_told_and_stays(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moved: str
) -> None:
    """Such as a mount point."""
    rename = Path.rename

    def busy(self: Path, target: Path) -> Path:
        if self.name == moved:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return rename(self, target)

    trained.running.write(tmp_path / "running", "this one")
    monkeypatch.setattr(Path, "rename", busy)
    with pytest.raises(PipelineError, match=r"running: cannot be .* is a mount point, which stays"):
        trained.running.write(tmp_path / "running", "another")
    assert [path.name for path in tmp_path.iterdir()] == ["running"]
    assert Running.read(tmp_path / "running")[1] == "this one"


@pytest.fixture
def project(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a small pipeline, as the working directory."""
    running, data = trained.running, tmp_path / "data"
    for place, table, schema in (
        ("prepared/users", running.users, schemas.USERS),
        ("prepared/items", running.items, schemas.ITEMS),
        ("prepared/exposures", running.exposures, schemas.EXPOSURES),
        ("prepared/splits", trained.splits, schemas.SPLITS),
        ("features/users", running.features, schemas.FEATURES),
        ("tasks", running.tasks, schemas.TASKS),
    ):
        write_table(table, data / f"{place}.parquet", schema)
    e = embedding_table(running.e, running.tasks)
    write_table(e, data / "ratio/task_embeddings.parquet", schemas.TASK_EMBEDDINGS)
    write_network(trained.net, data / "ratio/model.safetensors", base="exposures", seed="0")
    write_csv(trained.history, data / "ratio/history.csv")
    trained.extractor.write(data / "features/deepfm.safetensors")
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_by_hand_newcomers_are_scored_once_an_update_knows_them(
    trained: Trained, project: Path
) -> None:
    new_exposures(project, newcomers(trained))
    runner = CliRunner()
    early = runner.invoke(score_stage.app, ["--users", "1", "--state", "data/running"])
    assert early.stderr.startswith("score: data/running: nothing came later yet; `python -m ")
    ran = runner.invoke(update_stage.app, ["new.csv"])
    assert ran.exit_code == 0, ran.output
    assert ran.stdout == (
        "43 new exposures; 3 new users, 3 fitted; 1 new items; 1 tasks that came later in all\n"
        "drift: needs 100 pairs of users who did not train; so far 0\n"
    )
    asked = ["--users", "9001", "--items", "777", "--format", "csv"]
    assert "is not known" in runner.invoke(score_stage.app, asked).stderr
    ran = runner.invoke(score_stage.app, [*asked, "--state", "data/running"])
    assert ran.exit_code == 0, ran.output
    found = next(csv.DictReader(io.StringIO(ran.stdout)))
    fold = partial(trained.extractor.newcomers_apart, seed=0)
    done, _ = update(
        trained.running,
        new_exposures(project, newcomers(trained)),
        trained.net,
        base="exposures",
        fold=fold,
    )
    x = matrix(done.features.column("x"))[np.searchsorted(done.features.column("user_id"), 9001)]
    e = done.e[done.later][0]
    with torch.no_grad():
        expected = float(trained.net(torch.from_numpy(x), torch.from_numpy(e)))
    assert float(found["score"]) == pytest.approx(expected, abs=1e-4)
    assert (found["exposed"], found["title"]) == ("true", "777")


@pytest.mark.parametrize("options", [[], ["--explain", "2"]])
def test_by_hand_a_state_that_is_replaced_meanwhile_is_read_as_one(
    trained: Trained, project: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    new_exposures(project, newcomers(trained))
    runner = CliRunner()
    assert runner.invoke(update_stage.app, ["new.csv"]).exit_code == 0
    state = project / "data/running"
    asked = ["--users", "9001", "--items", "777", "--state", "data/running", *options]
    before = runner.invoke(score_stage.app, asked).stdout
    now, model = Running.read(state)
    x = pa.table({"user_id": now.features.column("user_id"), "x": vectors(now.x + 1)})
    moved = replace(now, e=now.e + 1, features=x)
    moved.write(state, model)
    after = runner.invoke(score_stage.app, asked).stdout
    now.write(state, model)
    replace_at_third_read(moved, state, model, monkeypatch)
    ran = runner.invoke(score_stage.app, asked)
    assert ran.exit_code == 0, ran.output
    assert ran.stdout == after != before


def test_by_hand_a_damaged_state_is_told_with_what_mends_it(
    trained: Trained, project: Path
) -> None:
    new_exposures(project, newcomers(trained))
    runner = CliRunner()
    assert runner.invoke(update_stage.app, ["new.csv"]).exit_code == 0
    (project / "data/running/tasks.parquet").unlink()
    for app, options in (
        (update_stage.app, ["new.csv"]),
        (score_stage.app, ["--users", "1", "--state", "data/running"]),
    ):
        ran = runner.invoke(app, options)
        assert ran.exit_code == 1
        assert ran.stderr.partition(": ")[2] == (
            "data/running/tasks.parquet: there is no such file. Delete the folder data/running and "
            "take in again what `dvc repro` has not seen.\n"
        )


def test_a_user_s_id_may_be_negative(trained: Trained, project: Path) -> None:
    new_exposures(project, [(-5, item) for _, item in newcomers(trained)[:3]])
    ran = CliRunner().invoke(update_stage.app, ["new.csv"])
    assert ran.exit_code == 0, ran.output
    assert ", 1 fitted;" in ran.stdout


def test_it_goes_by_the_training_and_not_by_params_that_were_changed_since(
    trained: Trained, project: Path
) -> None:
    """The base decides the drift, the kind of x how newcomers get theirs."""
    untrained = np.setdiff1d(ids_of(trained.running.features, "user_id"), trained.running.learned)
    items = trained.running.tasks.column("item_id").to_pylist()
    known = set(pairs_of(trained.running.exposures))
    met = [(int(user), item) for user in untrained for item in items[:9]]
    new_exposures(project, [*newcomers(trained), *(pair for pair in met if pair not in known)])
    history = "epoch,valid_loss,held_out_loss\n1,1.3,1.2\n"
    (project / "data/ratio/history.csv").write_text(history)
    plain = CliRunner().invoke(update_stage.app, ["new.csv"])
    assert " such pairs; " in plain.stdout
    kept = Running.read(project / "data/running")[0].features
    shutil.rmtree(project / "data/running")
    set_params(project, {"seed": 7, "ratio": {"base": "users"}, "features": {"model": "table"}})
    assert CliRunner().invoke(update_stage.app, ["new.csv"]).stdout == plain.stdout
    assert Running.read(project / "data/running")[0].features.equals(kept)


def test_a_network_that_does_not_tell_its_base_is_refused(trained: Trained, project: Path) -> None:
    write_network(trained.net, project / "data/ratio/model.safetensors")
    new_exposures(project, newcomers(trained))
    ran = CliRunner().invoke(update_stage.app, ["new.csv"])
    assert ran.exit_code == 1
    assert "does not tell its base; delete it and run `dvc repro`." in ran.stderr


@pytest.mark.parametrize("text_ids", [False, True])
@pytest.mark.parametrize("kind", [pa.null(), pa.float64(), pa.int64(), pa.string()])
def test_a_table_without_rows_has_none_whatever_its_types(
    kind: pa.DataType, tmp_path: Path, *, text_ids: bool
) -> None:
    empty = pa.table({name: pa.array([], kind) for name in ("user_id", "item_id")})
    pq.write_table(empty, tmp_path / "new.parquet")
    own = read_own(tmp_path / "new.parquet", may_be_empty=True)
    assert read_exposures(own, text_ids=text_ids).exposures.num_rows == 0


@pytest.mark.parametrize("header", ["user_id,item_id", "user_id,item_id,timestamp,rating"])
def test_a_day_without_exposures_is_nothing_new(project: Path, header: str) -> None:
    (project / "new.csv").write_text(f"{header}\n")
    ran = CliRunner().invoke(update_stage.app, ["new.csv"])
    assert ran.exit_code == 0, ran.output
    assert ran.stdout.startswith("0 new exposures; 0 new users, 0 fitted; 0 new items;")


@pytest.mark.usefixtures("trained")
def test_an_id_with_a_zero_before_it_is_refused(project: Path) -> None:
    (project / "new.csv").write_text("user_id,item_id\n9001,1\n09001,2\n")
    ran = CliRunner().invoke(update_stage.app, ["new.csv"])
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert ran.stderr.startswith("update: new.csv, row 2: expected a whole number without zeros")


def test_a_new_user_is_refused_whose_further_fields_no_exposure_tells(
    trained: Trained, project: Path
) -> None:
    fields = {**trained.extractor.fields, "age": np.arange(3)}
    sizes = [len(table) for table in trained.extractor.net.user_fields]
    net = DeepFM(
        sizes=[*sizes, 3],
        genres=trained.extractor.net.genres,
        **trained.extractor.net.config | {"width": 4},
    )
    replace(trained.extractor, net=net, fields=fields).write(
        project / "data/features/deepfm.safetensors"
    )
    new_exposures(project, newcomers(trained))
    ran = CliRunner().invoke(update_stage.app, ["new.csv"])
    assert ran.exit_code == 1
    assert re.fullmatch(
        r"update: user 9001 is new \(3 such users\), and features.user_fields takes their age "
        r"besides, .* run `dvc repro`\.\n",
        ran.stderr,
    )
    assert not (project / "data/running").exists()


def test_a_second_update_at_once_is_refused_and_changes_nothing(
    trained: Trained, project: Path
) -> None:
    new_exposures(project, newcomers(trained))
    with alone_in(project / "data/running"):
        second = CliRunner().invoke(update_stage.app, ["new.csv"])
    assert second.exit_code == 1
    assert f"process {os.getpid()} is taking in other exposures" in second.stderr
    assert second.stderr.count("\n") == 1
    assert not (project / "data/running").exists()
    assert CliRunner().invoke(update_stage.app, ["new.csv"]).exit_code == 0
    assert not list((project / "data").glob(".running.*"))


def test_a_training_that_foresaw_nothing_tells_no_drift(
    trained: Trained, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a damaged history is told before anything is taken in."""
    monkeypatch.setattr("pipeline.newcomers.update.ENOUGH", 0)
    history = project / "data/ratio/history.csv"
    new_exposures(project, newcomers(trained))
    history.write_text("epoch,valid_loss\n1,1.5\n")
    ran = CliRunner().invoke(update_stage.app, ["new.csv"])
    assert (ran.exit_code, ran.stderr.count("\n")) == (1, 1)
    assert "history.csv: lacks the column held_out_loss" in ran.stderr
    assert not (project / "data/running").exists()
    for loss, told in (("nan", "had no held-out pairs"), ("1.5", "pairs no better than chance")):
        history.write_text(f"epoch,valid_loss,held_out_loss\n1,1.5,{loss}\n")
        assert told in CliRunner().invoke(update_stage.app, ["new.csv"]).output


@pytest.mark.parametrize(
    ("history", "loss"),
    [
        ("epoch,valid_loss,held_out_loss\n1,1.3,1.35\n", 1.35),
        ("epoch,valid_loss,held_out_loss,scaled_held_out_loss\n1,1.3,1.35,1.2\n", 1.2),
    ],
)
def test_drift_is_held_against_the_loss_of_the_network_as_it_is_scaled(
    trained: Trained, project: Path, monkeypatch: pytest.MonkeyPatch, history: str, loss: float
) -> None:
    asked: list[float] = []

    def skill(drift: Drift, held_out_loss: float) -> tuple[float, float]:
        asked.append(held_out_loss)
        return 0.7, 0.1

    monkeypatch.setattr("pipeline.newcomers.update.skill_left", skill)
    (project / "data/ratio/history.csv").write_text(history)
    new_exposures(project, newcomers(trained))
    told = CliRunner().invoke(update_stage.app, ["new.csv"]).output.splitlines()[-1]
    assert told.startswith("drift: 0.70 ± 0.10 of what was learned is left, by 0 such pairs; ")
    assert asked == [loss]


@pytest.mark.parametrize(
    ("left", "advice"),
    [
        ((0.5, 0.1), PERHAPS),
        ((0.5, 0.2), "train again once it is clearly below 0.8"),
        ((0.9, 0.01), "train again once it is clearly below 0.8"),
    ],
)
def test_to_train_again_is_said_where_the_drift_is_beyond_its_error(
    trained: Trained,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    left: tuple[float, float],
    advice: str,
) -> None:
    monkeypatch.setattr("pipeline.newcomers.update.skill_left", lambda *_: left)
    (project / "data/ratio/history.csv").write_text("epoch,valid_loss,held_out_loss\n1,1.3,1.35\n")
    new_exposures(project, newcomers(trained))
    told = CliRunner().invoke(update_stage.app, ["new.csv"]).output
    assert told.endswith(f"such pairs; {advice}\n")


@pytest.mark.parametrize(
    ("left", "told"),
    [
        (None, {"drift": None, "error": None, "retrain": None}),
        ((0.5, 0.1), {"drift": 0.5, "error": 0.1, "retrain": True}),
        ((0.12345678, 0.5), {"drift": 0.123457, "error": 0.5, "retrain": False}),
    ],
)
def test_a_program_reads_what_was_done_and_whether_to_train_again(
    trained: Trained,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    left: tuple[float, float] | None,
    told: dict[str, object],
) -> None:
    monkeypatch.setattr("pipeline.newcomers.update.skill_left", lambda *_: left)
    new_exposures(project, newcomers(trained))
    ran = CliRunner().invoke(update_stage.app, ["new.csv", "--format", "json"])
    assert ran.exit_code == 0, ran.output
    done = {"pairs": 43, "users": 3, "folded": 3, "items": 1, "tasks": 1, "drift_pairs": 0}
    assert json.loads(ran.stdout) == done | told
    assert ran.stdout.count("\n") == 1


@pytest.mark.parametrize("text_ids", [False, True])
def test_all_exposures_are_written_again_as_the_page_says(
    trained: Trained, project: Path, *, text_ids: bool
) -> None:
    """docs/newcomers.md, Training again: its code gives back what `update` was given, and more."""
    new_exposures(project, newcomers(trained))
    assert CliRunner().invoke(update_stage.app, ["new.csv"]).exit_code == 0
    state = project / "data/running"
    known = pairs_of(pq.read_table(state / "exposures.parquet"))
    if text_ids:
        for who in ("user", "item"):
            table = pq.read_table(state / f"{who}s.parquet")
            keys = pa.array([f"the {id_}" for id_ in table.column(f"{who}_id").to_pylist()])
            pq.write_table(table.append_column(f"{who}_key", keys), state / f"{who}s.parquet")
        known = [(f"the {user}", f"the {item}") for user, item in known]
    page = (ROOT / "docs/newcomers.md").read_text()
    code = page.partition("```python\n")[2].partition("```")[0]
    exec(code.replace("/data/shop/", ""), {})  # noqa: S102 - the page's own
    with (project / "exposures.csv").open() as file:
        rows = [(row["user_id"], row["item_id"]) for row in csv.DictReader(file)]
    assert rows == [(str(user), str(item)) for user, item in known]


def test_a_state_of_another_training_is_refused(trained: Trained, project: Path) -> None:
    new_exposures(project, newcomers(trained))
    runner = CliRunner()
    assert runner.invoke(update_stage.app, ["new.csv"]).exit_code == 0
    write_network(
        RatioNet(**trained.net.config | {"dropout": [0.0, 0.0, 0.0]}),
        project / "data/ratio/model.safetensors",
    )
    for app, options in (
        (update_stage.app, ["new.csv"]),
        (score_stage.app, ["--users", "9001", "--state", "data/running"]),
    ):
        ran = runner.invoke(app, options)
        assert ran.exit_code == 1
        assert "data/running: belongs to another training" in ran.stderr
