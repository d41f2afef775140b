"""The trained ratio from Python: ids in and tables out, as the command has them."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from pipeline.by_hand.naming import Names
from pipeline.by_hand.scorer import Scorer
from pipeline.errors import PipelineError
from stages.score import app
from tests.test_by_hand import COLUMNS, ITEMS, USERS, lay_out, lay_out_texts

TASKS = [10, 30, 40, 50, 60, 70, 80]
BEYOND = r"^users: ids are whole numbers from -2\^63 to 2\^63 - 1 here; found -?\d+\. Name them"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """What `dvc repro` leaves, of a ratio that nobody trained; ids are numbers."""
    lay_out(tmp_path, np.arange(1, USERS + 1), 10 * np.arange(1, ITEMS + 1))
    return tmp_path / "data"


@pytest.fixture
def scorer(data: Path) -> Scorer:
    return Scorer.open(data)


def by_command(data: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> object:
    monkeypatch.chdir(data.parent)
    ran = CliRunner().invoke(app, [*options, "--format", "json"])
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.stdout)


def rows_of(*tables: pa.Table) -> list[dict[str, object]]:
    """Rows, their numbers with the digits that JSON has."""
    return [
        {name: round(v, 6) if isinstance(v, float) else v for name, v in row.items()}
        for table in tables
        for row in table.to_pylist()
    ]


def test_it_answers_as_the_command_does(
    data: Path, scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data.parent / "p.csv").write_text("user_id,item_id\n7,40\n3,10\n7,40\n")
    pairs = scorer.pairs([7, 3, 7], [40, 10, 40])
    assert pairs.column_names == COLUMNS
    assert rows_of(pairs) == by_command(data, monkeypatch, "--pairs", "p.csv")
    assert rows_of(*scorer.grid([7, 3], [40, 50])) == by_command(
        data, monkeypatch, "--users", "7,3", "--items", "40,50"
    )
    assert rows_of(*scorer.grid(users=7, unseen=True)) == by_command(
        data, monkeypatch, "--user", "7", "--unseen"
    )
    assert rows_of(scorer.best_users([30, 10], 4, lowest=True, unseen=True)) == by_command(
        data, monkeypatch, "--items", "30,10", "--top", "4", "--fresh", "--unseen"
    )
    assert rows_of(scorer.best_items([8, 2], 3, items=[70, 60, 50, 10])) == by_command(
        data, monkeypatch, "--users", "8,2", "--items", "70,60,50,10", "--top", "3"
    )
    assert rows_of(scorer.explain(7, 40, 2)) == by_command(
        data, monkeypatch, "--user", "7", "--item", "40", "--explain", "2"
    )


def test_text_ids_go_in_and_come_out(tmp_path: Path) -> None:
    people, things = [f"user, {i}" for i in range(USERS)], [f"thing-{i}" for i in range(ITEMS)]
    lay_out_texts(tmp_path, people, things)
    scorer = Scorer.open(str(tmp_path / "data"))
    (row,) = scorer.pairs("user, 7", things[5]).to_pylist()
    assert (row["user_id"], row["item_id"], row["title"]) == ("user, 7", things[5], "Title, 5")
    assert set(scorer.users.names.to_pylist()) == set(people)
    assert scorer.best_users(things[5], 2).column("item_id").to_pylist() == [things[5]] * 2
    with pytest.raises(PipelineError, match=r"^users: ids are text here; found 7\. Name them as"):
        scorer.pairs(["user, 7", 7], [things[5], things[5]])
    with pytest.raises(PipelineError, match=r"^user user, 99 is not known; the 60 that can be ask"):
        scorer.best_items("user, 99", 3)


def test_ids_may_come_as_whatever_holds_them(scorer: Scorer) -> None:
    expected = scorer.pairs([7, 3], [40, 10])
    for kind in (tuple, np.array, pd.Series, pa.array, lambda ids: pa.chunked_array([ids])):
        assert scorer.pairs(kind([7, 3]), kind([40, 10])).equals(expected)
    assert scorer.pairs(np.int64(7), 40).equals(expected.slice(0, 1))


def test_an_array_or_a_column_of_whole_numbers_is_taken_as_a_whole(
    scorer: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, items = [7, 99, 3, 3], [40, 40, 90, 50]
    every, some = scorer.pairs(users, items, strict=False), scorer.pairs(users[::3], items[::3])
    kinds = [np.array, pd.Series, pa.array, lambda ids: pa.chunked_array([ids[:1], ids[1:]])]
    kinds += [lambda ids, width=width: np.array(ids, width) for width in (np.int8, np.uint32)]

    def one_by_one(names: Names, ids: object) -> None:
        pytest.fail(f"{names.who}s are looked at one by one: {ids}")

    monkeypatch.setattr(Names, "listed", one_by_one)
    for kind in kinds:
        assert scorer.pairs(kind(users), kind(items), strict=False).equals(every)
        assert scorer.pairs(kind(users[::3]), kind(items[::3])).equals(some)
    own = np.array(users)
    found = scorer.pairs(own, np.array(items), strict=False)
    own[:] = 0  # the answer is no view of it
    assert found.equals(every)


def test_of_texts_each_is_looked_at_twice_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people, things = [f"user {i}" for i in range(USERS)], [f"thing {i}" for i in range(ITEMS)]
    lay_out_texts(tmp_path, people, things)
    scorer = Scorer.open(tmp_path / "data")
    looked_at, listed = [], Names.listed

    def counted(names: Names, ids: object) -> object:
        looked_at.append(names.who)
        return listed(names, ids)

    monkeypatch.setattr(Names, "listed", counted)
    scorer.pairs(["user 7", "new"], [things[5], things[5]], strict=False)
    assert sorted(looked_at) == ["item", "item", "user", "user"]
    looked_at.clear()
    scorer.pairs("user 7", things[5])
    assert looked_at == ["user", "item"]


def test_what_is_no_id_is_refused_in_a_line(scorer: Scorer) -> None:
    arrays = np.array([7.0]), np.array([[7]]), np.array(["7"]), pa.array([7, None])
    for wrong in ("7", 7.0, None, {7}, [[7]], *arrays):
        with pytest.raises(PipelineError, match=r"^users: ids are whole numbers here; found "):
            scorer.pairs(wrong, 40)
    for strict in (True, False):
        for far in (2**63, -(2**63) - 1, 10**30, np.array([1, 2**63], np.uint64)):
            with pytest.raises(PipelineError, match=BEYOND):
                scorer.pairs(far, 40, strict=strict)
    with pytest.raises(PipelineError, match=r"^item 90: it is no task; filter_tasks kept 7 of 9 "):
        scorer.best_users([40, 90], 3)
    with pytest.raises(PipelineError, match=r"^user 999 is not known; the 60 that can be asked"):
        scorer.grid(999)  # before its first table is asked for
    with pytest.raises(ValueError, match=r"Got 2 users and 1 items\.$"):
        scorer.pairs([7, 3], 40)


def test_an_id_beyond_64_bits_is_not_taken_for_the_last_one(tmp_path: Path) -> None:
    last = 2**63 - 1
    lay_out(tmp_path, last - np.arange(USERS), 10 * np.arange(1, ITEMS + 1))
    scorer = Scorer.open(tmp_path / "data")
    assert scorer.pairs(last, 40)["user_id"].to_pylist() == [last]
    with pytest.raises(PipelineError, match=BEYOND):
        scorer.users.known([last, last + 1])


def test_the_unknown_are_told_from_the_known(scorer: Scorer) -> None:
    asked = [7, 999, 3, 3], [40, 40, 90, 50]
    found = scorer.pairs(*asked, strict=False)
    assert found["verdict"].to_pylist()[1:3] == ["unknown"] * 2
    assert [found[name].to_pylist() for name in ("user_id", "item_id")] == list(asked)
    assert found.take([0, 3]).to_pylist() == scorer.pairs([7, 3], [40, 50]).to_pylist()
    assert scorer.pairs(999, 90, strict=False).schema == found.schema == scorer.pairs(7, 40).schema
    assert scorer.pairs([], [], strict=False).schema == found.schema
    assert scorer.users.known([999, 7, 998, 7]) == [7, 7]
    assert scorer.items.known([90, 40, 11]) == [40]
    with pytest.raises(PipelineError, match=r"^users: ids are whole numbers here; found 'x'"):
        scorer.pairs("x", 40, strict=False)


def test_of_nobody_there_is_a_table_without_rows(scorer: Scorer) -> None:
    none = scorer.pairs([], [])
    assert (none.num_rows, none.schema) == (0, scorer.pairs(7, 40).schema)
    for tables in (scorer.grid([], [40]), scorer.grid([7], []), scorer.grid([], [])):
        assert [(table.num_rows, table.schema) for table in tables] == [(0, none.schema)]
    assert scorer.best_users([], 3).equals(none)
    assert scorer.best_items([], 3, items=[40]).equals(none)


def test_an_alpha_that_is_no_share_is_refused(data: Path) -> None:
    assert len(set(Scorer.open(data, alpha=0.5).pairs([7] * 7, TASKS)["verdict"].to_pylist())) > 1
    with pytest.raises(ValueError, match=r"alpha must be between 0 and 1\. Got 0\."):
        Scorer.open(data, alpha=0)


def test_threads_that_ask_at_a_time_are_answered_as_one_by_one(data: Path) -> None:
    asked = [(user, item) for user in (7, 3, 8, 2) for item in TASKS]

    def answer(scorer: Scorer, user: int, item: int) -> tuple[pa.Table, ...]:
        explained = scorer.explain(user, item)
        return explained, scorer.pairs(user, item), scorer.best_users(item, 3)

    alone, together = Scorer.open(data), Scorer.open(data)
    expected = [answer(alone, *pair) for pair in asked]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda pair: answer(together, *pair), asked))
    assert found == expected
