"""A user's own tables: what becomes of them, and the file and row of every mistake in them."""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import schemas
from pipeline.datasets import own_ids
from pipeline.datasets.own_ids import number_of
from pipeline.datasets.own_table import OwnTable
from pipeline.datasets.tables import first_of_each, read_exposures, read_tables
from pipeline.errors import PipelineError
from pipeline.features.own_vectors import own_vectors
from pipeline.labels import label_classes
from pipeline.params import Label
from pipeline.vocabulary import raw_codes

SMALL = st.integers(-2, 2)
FAR = st.integers(-(2**63), 2**63 - 1)  # too far apart for one key of both ids
PAIRS = st.one_of(
    *(st.lists(st.tuples(ids, ids, st.none() | st.integers(0, 2))) for ids in (SMALL, FAR | SMALL))
)
FILES = {
    "exposures": (
        "user_id,item_id,rating,timestamp,channel\n"
        "3,20,5,,app\n"
        "3,20,4,978300003,web\n"
        "1,10,5,978300009,app\n"
        "1,10,2,978300001,web\n"
        "3,20,1,978300003,web\n"
        "1,30,,,web\n"
        "2,20,3,978300002,app\n"
    ),
    "users": "user_id,age,plan\n2,30,free\n1,25,pro\n3,41,free\n4,19,free\n",
    "items": "item_id,title,genres\n20,Beta,News|Sport\n10,Alpha,\n30,Gamma,News\n40,Delta,Sport\n",
    "features": "user_id,a,b\n4,0,1\n1,1,2\n2,2.5,3\n3,3,4\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with all four tables as CSV, none of them with a fault."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / f"{name}.csv").write_text(text)
    return folder


@given(PAIRS)
def test_of_pairs_that_come_again_the_earliest_stays_and_of_equals_the_first(
    rows: list[tuple[int, int, int | None]],
) -> None:
    user, item, moment = zip(*rows, strict=True) if rows else ((), (), ())
    table = pa.table(
        {
            "user_id": pa.array(user, pa.int64()),
            "item_id": pa.array(item, pa.int64()),
            "timestamp": pa.array(moment, pa.int64()),
            "row": np.arange(len(rows)),
        }
    )
    earliest = {}
    for row, (*pair, when) in enumerate(rows):
        found = (2**63 if when is None else when, row)
        earliest[tuple(pair)] = min(earliest.get(tuple(pair), found), found)
    expected = [earliest[pair][1] for pair in sorted(earliest)]
    assert first_of_each(table).column("row").to_pylist() == expected


def to_parquet(
    folder: Path, name: str, change: Callable[[pa.Table], pa.Table] = lambda t: t
) -> None:
    """Replace a CSV by a Parquet file with the same values."""
    path = folder / f"{name}.csv"
    pq.write_table(change(csv.read_csv(path)), path.with_suffix(".parquet"))
    path.unlink()


def test_the_tables_are_sorted_and_a_repeat_counts_once_at_its_earliest_moment(
    folder: Path,
) -> None:
    source = read_tables(folder, text_ids=False)
    assert source.exposures.to_pydict() == {
        "user_id": [1, 1, 2, 3],
        "item_id": [10, 30, 20, 20],
        "rating": [2, None, 3, 4],
        "timestamp": [978300001, None, 978300002, 978300003],
    }
    assert source.repeats == 3
    assert source.users.to_pydict() == {
        "user_id": [1, 2, 3, 4],
        "age": [25, 30, 41, 19],
        "plan": ["pro", "free", "free", "free"],
    }
    assert source.items.to_pydict() == {
        "item_id": [10, 20, 30, 40],
        "title": ["Alpha", "Beta", "Gamma", "Delta"],
        "genres": [[], ["News", "Sport"], ["News"], ["Sport"]],
    }
    schemas.USERS.check(source.users, "here")
    schemas.ITEMS.check(source.items, "here")


def test_parquet_gives_what_csv_gives(folder: Path) -> None:
    from_csv = read_tables(folder, text_ids=False)
    for name in ("exposures", "users", "items"):
        to_parquet(folder, name)
    again = read_tables(folder, text_ids=False)
    for field in ("users", "items", "exposures", "repeats"):
        assert getattr(again, field) == getattr(from_csv, field)


def test_what_pandas_writes_is_understood(folder: Path) -> None:
    """Whole numbers as doubles, categories, moments, large strings, lists of genres."""

    def as_pandas_has_it(table: pa.Table) -> pa.Table:
        seconds = table["timestamp"].cast(pa.timestamp("s"))
        table = table.set_column(3, "timestamp", seconds.cast(pa.timestamp("us", "UTC")))
        table = table.set_column(0, "user_id", table["user_id"].cast(pa.float64()))
        return table.set_column(2, "rating", table["rating"].cast(pa.float64()))

    def with_lists(table: pa.Table) -> pa.Table:
        genres = pa.array([["News", "Sport"], None, ["News"], ["Sport"]])
        title = table["title"].cast(pa.large_string()).dictionary_encode()
        return table.set_column(1, "title", title).set_column(2, "genres", genres)

    expected = read_tables(folder, text_ids=False)
    to_parquet(folder, "exposures", as_pandas_has_it)
    to_parquet(folder, "items", with_lists)
    found = read_tables(folder, text_ids=False)
    assert found.exposures.equals(expected.exposures)
    assert found.items.equals(expected.items)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floats_that_hold_whole_numbers_exactly_are_ids(folder: Path, kind: type) -> None:
    (folder / "users.csv").unlink()
    most = 2.0 ** (np.finfo(kind).nmant + 1) - 1
    ids = pa.table({"user_id": np.array([1, 2, 3, -most, most], kind)})
    pq.write_table(ids, folder / "users.parquet")
    found = read_tables(folder, text_ids=False).users["user_id"].to_pylist()
    assert found == [-int(most), 1, 2, 3, int(most)]


@pytest.fixture
def far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize("others", ["", "978300001"])
@pytest.mark.parametrize("moment", ["2000-12-31 22:00:01", "2000-12-31T23:00:01+01:00"])
@pytest.mark.usefixtures("far_from_utc")
def test_a_moment_is_seconds_or_a_date_even_in_one_column(
    folder: Path, moment: str, others: str
) -> None:
    """A date that names no time zone is in UTC, wherever the machine stands."""
    (folder / "exposures.csv").write_text(
        f"user_id,item_id,timestamp\n1,10,{moment}\n2,10,\n3,10,{others}\n"
    )
    read = read_tables(folder, text_ids=False).exposures["timestamp"].to_pylist()
    assert read == [978300001, None, int(others) if others else None]


@pytest.mark.parametrize(
    "moments",
    [
        [20240131, None, 20240132],  # seconds of which only some could be dates
        [20240131, 20240132, None],
        pa.array([20240131, None, 20240229], pa.timestamp("s")),  # which were in August 1970
        [None, None, None],
    ],
)
def test_seconds_are_no_dates_unless_all_could_be(folder: Path, moments: object) -> None:
    (folder / "exposures.csv").unlink()
    table = pa.table({"user_id": [1, 2, 3], "item_id": [10] * 3, "timestamp": moments})
    pq.write_table(table, folder / "exposures.parquet")
    found = read_tables(folder, text_ids=False).exposures["timestamp"]
    assert found.equals(table["timestamp"].cast(pa.int64()))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_every_number_of_64_bits_is_one(folder: Path, ending: str) -> None:
    """However many zeros it has in front, where it is no id."""
    for name in ("users", "items", "features"):
        (folder / f"{name}.csv").unlink()
    users = [-(2**63), -1, 0, 2**63 - 2, 2**63 - 1]
    (folder / "exposures.csv").write_text(
        "user_id,item_id\n" + "".join(f"{u},{2**63 - 1}\n" for u in users)
    )
    if ending == "parquet":
        to_parquet(folder, "exposures")
    else:
        with (folder / "exposures.csv").open("a") as file:
            file.write(f"{2**63 - 1},-0\n")
    source = read_tables(folder, text_ids=False)
    assert source.users["user_id"].to_pylist() == users
    assert source.items["item_id"].to_pylist()[-1] == 2**63 - 1
    unsigned = pa.table({"user_id": pa.array([0, 2**63 - 1], pa.uint64())})
    assert OwnTable(Path("u"), unsigned).numbers("user_id").to_pylist() == [0, 2**63 - 1]
    padded = pa.table({"rating": [f"{2**63 - 1:040d}", "-007"]})
    assert OwnTable(Path("e"), padded).numbers("rating").to_pylist() == [2**63 - 1, -7]


def test_a_value_may_run_over_several_lines(folder: Path) -> None:
    """Many of them, more than one block of the reader."""
    titles = "".join(f'{number},"one\ntwo"\n' for number in range(100_000))
    (folder / "items.csv").write_text(f"item_id,title\n{titles}")
    assert set(read_tables(folder, text_ids=False).items["title"].to_pylist()) == {"one\ntwo"}


def test_users_and_items_may_be_missing(folder: Path) -> None:
    for name in ("users", "items", "features"):
        (folder / f"{name}.csv").unlink()
    source = read_tables(folder, text_ids=False)
    assert source.users.to_pydict() == {"user_id": [1, 2, 3]}
    assert source.items.to_pydict() == {
        "item_id": [10, 20, 30],
        "title": ["10", "20", "30"],
        "genres": [[], [], []],
    }


def test_a_text_id_keeps_its_number_when_others_are_appended(folder: Path) -> None:
    def numbers() -> dict[str, int]:
        users = read_tables(folder, text_ids=True).users.to_pydict()
        return dict(zip(users["user_key"], users["user_id"], strict=True))

    (folder / "users.csv").unlink()
    (folder / "items.csv").unlink()
    path = folder / "exposures.csv"
    path.write_text("user_id,item_id\nann,x\n007,y\n7,y\n")
    before = numbers()
    path.write_text("user_id,item_id\nann,x\n007,y\n7,y\nbob,x\n")
    after = numbers()
    assert len(set(after.values())) == 4
    assert {key: after[key] for key in before} == before
    assert all(0 <= number < 2**63 for number in after.values())


def test_text_ids_match_across_the_tables_and_give_untitled_items_a_name(folder: Path) -> None:
    for name, column in (("exposures", "user_id"), ("users", "user_id"), ("features", "user_id")):
        path = folder / f"{name}.csv"
        path.write_text(re.sub(r"(?m)^(\d)", r"u\1", path.read_text()))
        assert column in path.read_text()
    (folder / "items.csv").unlink()
    source = read_tables(folder, text_ids=True)
    assert sorted(source.users["user_key"].to_pylist()) == ["u1", "u2", "u3", "u4"]
    assert source.items["title"].equals(source.items["item_key"])
    assert source.exposures.num_rows == 4
    x, scale = own_vectors(folder, source.users, np.ones(4, bool), text_ids=True)
    raw = x * scale.scale.numpy() + scale.mean.numpy()
    by_key = dict(zip(source.users["user_key"].to_pylist(), raw.tolist(), strict=True))
    assert by_key["u2"] == pytest.approx([2.5, 3])


def test_two_texts_of_one_hash_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_ids, "number_of", lambda text: 5)
    with pytest.raises(PipelineError, match=r"exposures.csv: two values of user_id have one hash"):
        read_tables(folder, text_ids=True)


def test_text_ids_are_hashed_once_where_no_table_names_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("users", "items", "features"):
        (folder / f"{name}.csv").unlink()
    hashed: list[str] = []

    def spy(text: str) -> int:
        hashed.append(text)
        return number_of(text)

    monkeypatch.setattr(own_ids, "number_of", spy)
    read_tables(folder, text_ids=True)
    assert sorted(hashed) == ["1", "10", "2", "20", "3", "30"]


def test_more_than_2_gib_of_text_ids_are_read() -> None:
    """As much as no single Arrow array of text holds; the chunks share their memory."""
    texts = [f"{n:08d}" * 2**17 for n in range(64)]
    users = pa.chunked_array([pa.array(texts)] * 33)
    table = pa.table({"user_id": users, "item_id": ["a"] * len(users)})
    source = read_exposures(OwnTable(Path("exposures.parquet"), table), text_ids=True)
    assert (source.exposures.num_rows, source.repeats) == (64, 32 * 64)
    key = {number_of(text): text[:8] for text in texts}
    assert source.users["user_id"].to_pylist() == sorted(key)
    shown = [text[:8] for text in source.users["user_key"].to_pylist()]
    assert shown == [key[number] for number in sorted(key)]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_empty_text_is_a_missing_value_and_na_is_text(folder: Path, ending: str) -> None:
    """As a gap among numbers is missing: who needs a value of every user refuses it."""
    (folder / "users.csv").write_text("user_id,plan,zip\n1,pro,NA\n2,,\n3,free,a\n4,free,b\n")
    if ending == "parquet":
        to_parquet(folder, "users")
    users = read_tables(folder, text_ids=False).users
    assert users["plan"].to_pylist() == ["pro", None, "free", "free"]
    assert users["zip"].to_pylist() == ["NA", None, "a", "b"]
    with pytest.raises(PipelineError, match=r"user 2 has no value for plan"):
        label_classes(users, "plan", Label(column="plan"))
    with pytest.raises(PipelineError, match="1 of 4 users have no zip"):
        raw_codes(users, "zip")


def test_a_code_keeps_the_zeros_before_it(folder: Path) -> None:
    """Else two codes would be one class; numbers without such zeros stay numbers."""
    (folder / "users.csv").write_text(
        "user_id,zip,age,dose\n1,01234,0,01\n2,1234,20,1\n3,,,2.5\n4,00,7,0.5\n"
    )
    users = read_tables(folder, text_ids=False).users
    assert users["zip"].to_pylist() == ["01234", "1234", None, "00"]
    assert users["age"].to_pylist() == [0, 20, None, 7]
    assert users["dose"].to_pylist() == ["01", "1", "2.5", "0.5"]  # guessed to be fractions
    to_parquet(folder, "users")  # which says what is a number
    assert pa.types.is_integer(read_tables(folder, text_ids=False).users["zip"].type)


@dataclass(frozen=True)
class Fault:
    """One mistake: the file that is written, and what the message must say of it."""

    name: str
    file: str
    content: bytes | pa.Table | None  # None: the file is removed
    message: str
    row: int | None = None


def lines(*rows: str) -> bytes:
    return "".join(f"{row}\n" for row in rows).encode()


E, U, T, F = (f"{name}.csv" for name in FILES)
PAIR = "user_id,item_id"
WHEN = f"{PAIR},timestamp"
RATED = f"{PAIR},rating"
TWO = pa.array([1, 2], pa.int64())
PADDED = "a whole number without zeros before it as "
READ_FAULTS = [
    Fault("misspelt table", "user.csv", lines("user_id", "1"), "is none of the tables exposures, "),
    Fault("capital ending", "users.CSV", lines("user_id", "1"), "users.csv or users.parquet, f"),
    Fault("TSV", "items.tsv", lines("item_id", "10"), "items.csv or items.parquet, found anot"),
    Fault("packed", "users.csv.gz", b"", "the table users as users.csv or users.parquet, found an"),
    Fault("no ending", "Items", lines("item_id", "10"), "the table items as items.csv or items"),
    Fault("empty file", E, b"", "is not readable as CSV .*Empty CSV"),
    Fault("no rows", E, lines(PAIR), "expected at least one row, found none"),
    Fault("no Parquet", "users.parquet", b"PAR", "is not readable as Parquet"),
    Fault(
        "UTF-16",
        E,
        "user_id,item_id\n1,10\n".encode("utf-16"),
        "line 1: .*UTF-8 text, found .* 0xff",
    ),
    Fault(
        "latin-1 label",
        U,
        "user_id,t\n1,x\n2,ö\n".encode("latin-1"),
        "line 3: .* UTF-8 text, found .* 0xf6",
    ),
    Fault(
        "latin-1 title",
        T,
        "item_id,title\n10,ö\n".encode("latin-1"),
        "line 2: .*UTF-8 text, found .* 0xf6",
    ),
    Fault("no header", E, lines("1,10", "2,20"), "a column user_id, found 1, 10"),
    Fault("semicolons", E, lines("user_id;item_id", "1;10"), "found user_id;item_id.*by commas"),
    Fault(
        "no such column", E, lines("user_id,movie", "1,10"), "a column item_id, found user_id, m"
    ),
    Fault(
        "column twice", U, lines("user_id,age,age", "1,2,3"), "distinct columns, found user_id, a"
    ),
    Fault("short row", E, lines(PAIR, "1,10", "2"), "expected 2 fields, found 1: '2'", 2),
    Fault("long row", E, lines(PAIR, "1,10", "2,20,7"), "expected 2 fields, found 3: '2,20,7'", 2),
    Fault("no user", E, lines(PAIR, "1,10", ",20"), "a user_id, found ''. Mend or", 2),
    Fault(
        "text id", E, lines(PAIR, "1,10", "1,b"), "item_id, found 'b'. .*data.text_ids to true", 2
    ),
    Fault("fraction", E, lines(PAIR, "1.5,10"), "a whole number as user_id, found '1.5'", 1),
    Fault("huge id", E, lines(PAIR, f"{2**63},10"), r"from -2\^63 to 2\^63 - 1 as user_id, f", 1),
    Fault("low id", E, lines(PAIR, f"{-(2**63) - 1},10"), r"from -2\^63 to .* as user_id", 1),
    Fault("long value", E, lines(PAIR, "9" * 500 + ",10"), "found '9{79}…. If", 1),
    Fault("padded user", E, lines(PAIR, "7,10", "007,10"), f"{PADDED}user_id, found '007'. If", 2),
    Fault("padded item", E, lines(PAIR, "1,10", "1,-01"), f"{PADDED}item_id, found '-01'. If", 2),
    Fault("padded in users", U, lines("user_id", "1", "01"), f"{PADDED}user_id, found '01'. If", 2),
    Fault("padded in items", T, lines("item_id", "1", "00"), f"{PADDED}item_id, found '00'. If", 2),
    Fault(
        "padded text",
        "exposures.parquet",
        pa.table({"user_id": ["1", "2"], "item_id": ["10", "010"]}),
        f"{PADDED}item_id, found '010'. If your ids are text, set data.text_ids to true",
        2,
    ),
    Fault("rating in words", E, lines(RATED, "1,10,5", "2,20,good"), "rating, found 'good'", 2),
    Fault("half a star", E, lines(RATED, "1,10,4", "2,20,4.5"), "found 4.5. Leave the column", 2),
    Fault("rating of 300", E, lines(RATED, "1,10,300"), "rating from -128 to 127, found 300", 1),
    Fault("no date", E, lines(WHEN, "1,10,978300001", "1,20,soon"), "a date .*, found 'soon'", 2),
    Fault("month 13", E, lines(WHEN, "1,10,2024-13-01"), "as timestamp, found '2024-13-01'", 1),
    Fault(
        "dates as numbers",
        E,
        lines(WHEN, "1,10,", "1,20,20240131", "2,20,19001231", "3,20,20240229"),
        "a date such as 2024-01-31 12:00:00 as timestamp, found 20240131. Write dates as 20",
        2,
    ),
    Fault(
        "dates as digits",
        "exposures.parquet",
        pa.table({"user_id": TWO, "item_id": TWO, "timestamp": ["20240131", "21001231"]}),
        "as timestamp, found 20240131. Write dates as 2024-01-31",
        1,
    ),
    Fault(
        "milliseconds",
        E,
        lines(WHEN, "1,10,978300001", "1,20,978300001000"),
        "before the year 3000 as timestamp, found 978300001000. Divide milliseconds by 1,000",
        2,
    ),
    Fault(
        "milliseconds as digits",
        "exposures.parquet",
        pa.table({"user_id": TWO, "item_id": TWO, "timestamp": ["2024-01-31", f"{10**12}"]}),
        "before the year 3000 as timestamp, found '1000000000000'. Divide milliseconds by 1,000",
        2,
    ),
    Fault(
        "never",
        "exposures.parquet",
        pa.table({"user_id": TWO, "item_id": TWO, "timestamp": [datetime(9999, 12, 31)] * 2}),
        "before the year 3000 as timestamp, found '9999-12-31 .*leave empty what is",
        1,
    ),
    Fault(
        "truth for time", E, lines(WHEN, "1,10,true"), "numbers in the column timestamp, found b"
    ),
    Fault(
        "unknown user",
        E,
        lines(PAIR, "1,10", "9,10"),
        "a user_id of the users table, found '9'. Such rows: 1, such users: 1. Add such users to",
        2,
    ),
    Fault(
        "unknown items",
        E,
        lines(PAIR, "1,10", "1,9", "2,10", "2,7", "3,9"),
        "an item_id of the items table, found '9'. Such rows: 3, such items: 2. Add such items to",
        2,
    ),
    Fault(
        "unknown users",
        E,
        lines(PAIR, "7,10", "7,20"),
        "a user_id of the users table, found '7'. Such rows: 2, such users: 1. Add such users to",
        1,
    ),
    Fault("no item", E, lines(PAIR, "1,10", "1,"), "expected an item_id, found ''. Mend or", 2),
    Fault("user twice", U, lines("user_id", "1", "2", "1"), "user_id once, found that of row 1", 3),
    Fault("item twice", T, lines("item_id", "7", "8", "8"), "item_id once, found that of row 2", 3),
    Fault("our column", U, lines("user_id,user_key", "1,a"), "the column user_key is ours to fill"),
    Fault("no title", T, lines("item_id,title", "10,A", "20,"), "expected a title, found ''", 2),
    Fault("empty genre", T, lines("item_id,genres", "10,A", "20,A||B"), "genres .*found .*''", 2),
    Fault(
        "null id",
        "exposures.parquet",
        pa.table({"user_id": TWO, "item_id": [1, None]}),
        "expected an item_id, found None",
        2,
    ),
    Fault(
        "moment beyond 64 bits",
        "exposures.parquet",
        pa.table({"user_id": TWO, "item_id": TWO, "timestamp": ["2024-01-31", "9" * 20]}),
        "a date .*, found '9{20}'",
        2,
    ),
    Fault(
        "two ids in one float",
        "users.parquet",
        pa.table({"user_id": [1.0, float(2**60 + 1)]}),
        r"between -2\^53 and 2\^53 as user_id, found 1.15.*Two numbers .* write them as whole",
        2,
    ),
    Fault(
        "two ids in one single float",
        "users.parquet",
        pa.table({"user_id": pa.array([1, 2**24], pa.float32())}),
        r"between -2\^24 and 2\^24 as user_id, found 16777216",
        2,
    ),
    Fault(
        "two ids in one half float",
        "users.parquet",
        pa.table({"user_id": np.array([1, 2**11], np.float16)}),
        r"between -2\^11 and 2\^11 as user_id, found 2048",
        2,
    ),
    Fault("infinite id", "users.parquet", pa.table({"user_id": [1, np.inf]}), "found inf", 2),
    Fault(
        "unsigned",
        "users.parquet",
        pa.table({"user_id": pa.array([5, None, 2**63], pa.uint64())}),
        r"a whole number from -2\^63 to 2\^63 - 1 as user_id, found 9223372036854775808. If",
        3,
    ),
    Fault(
        "boolean id",
        "users.parquet",
        pa.table({"user_id": [True]}),
        "numbers .*user_id, found bool",
    ),
    Fault(
        "list",
        "users.parquet",
        pa.table({"user_id": TWO, "t": [[1], [2]]}),
        "one value .*column t,",
    ),
    Fault(
        "genre 2", "items.parquet", pa.table({"item_id": TWO, "genres": [[1], [2]]}), "genres as", 1
    ),
]
VECTOR_FAULTS = [
    Fault("no features", F, None, "expected features.csv or .* features.model is table"),
    Fault(
        "user missing",
        F,
        lines("user_id,a", "1,1", "2,1"),
        "each of 4 users, found none for 2 .* 3",
    ),
    Fault(
        "vector twice", F, lines("user_id,a", "1,1", "1,1"), "user_id once, found that of row 1", 2
    ),
    Fault("padded", F, lines("user_id,a", "1,1", "02,1"), f"{PADDED}user_id, found '02'. If", 2),
    Fault("no numbers", F, lines("user_id", "1", "2", "3", "4"), "expected x or numeric columns"),
    Fault(
        "words",
        F,
        lines("user_id,a", "1,1", "2,b", "3,1", "4,1"),
        "numbers in the column a, found str",
    ),
    Fault("a gap", F, lines("user_id,a", "1,1", "2,", "3,1", "4,1"), "number in a, found None", 2),
    Fault(
        "infinity", F, lines("user_id,a", "1,1", "2,1", "3,inf", "4,1"), "number in a, found inf", 3
    ),
    Fault(
        "beyond floats", F, lines("user_id,a", "1,1e99", "2,1", "3,1", "4,1"), "found 1e\\+99", 1
    ),
    Fault(
        "x in a CSV",
        F,
        lines("user_id,x", *(f"{u},0 1" for u in range(1, 5))),
        "numbers .*x, found",
    ),
    Fault(
        "records",
        "features.parquet",
        pa.table({"user_id": [1, 2, 3, 4], "x": [{"a": 1.0}] * 4}),
        "numbers in the column x, found struct",
    ),
    Fault(
        "maps",
        "features.parquet",
        pa.table(
            {
                "user_id": [1, 2, 3, 4],
                "x": pa.array([[("a", 1.0)]] * 4, pa.map_(pa.string(), pa.float64())),
            }
        ),
        "numbers in the column x, found map",
    ),
    Fault(
        "ragged x",
        "features.parquet",
        pa.table({"user_id": [1, 2, 3, 4], "x": [[1.0, 2.0], [1.0, 2.0], [1.0], [1.0, 2.0]]}),
        r"2 numbers in x, as in the first row, found \[1.0\]",
        3,
    ),
    Fault(
        "gap in x",
        "features.parquet",
        pa.table({"user_id": [1, 2, 3, 4], "x": [[1.0, 2.0], [1.0, None], [1.0, 1.0], [0.0, 2.0]]}),
        "a finite number in x, found None",
        2,
    ),
    Fault(
        "no x",
        "features.parquet",
        pa.table({"user_id": [1, 2, 3, 4], "x": [[1.0, 2.0], None, [1.0, 1.0], [0.0, 2.0]]}),
        "2 numbers in x, as in the first row, found None",
        2,
    ),
]


def told(folder: Path, fault: Fault, read: Callable[[], object]) -> None:
    """Make the mistake, and see it told in one line: where it is, what was found, what to do."""
    path = folder / fault.file
    path.with_suffix(".csv").unlink(missing_ok=True)
    if isinstance(fault.content, bytes):
        path.write_bytes(fault.content)
    elif fault.content is not None:
        pq.write_table(fault.content, path)
    with pytest.raises(PipelineError) as caught:
        read()
    place = re.escape(str(path if fault.content is not None else folder))
    row = "" if fault.row is None else f", row {fault.row}"
    assert re.fullmatch(rf"{place}{row}: .*{fault.message}.*\.", str(caught.value))


@pytest.mark.parametrize("fault", READ_FAULTS, ids=lambda fault: fault.name)
def test_a_mistake_is_told_with_its_file_and_row(folder: Path, fault: Fault) -> None:
    told(folder, fault, lambda: read_tables(folder, text_ids=False))


@pytest.mark.parametrize("fault", VECTOR_FAULTS, ids=lambda fault: fault.name)
def test_a_mistake_in_the_vectors_is_told_with_its_file_and_row(folder: Path, fault: Fault) -> None:
    users = pa.table({"user_id": pa.array([1, 2, 3, 4], pa.int64())})
    told(folder, fault, lambda: own_vectors(folder, users, np.ones(4, bool), text_ids=False))


def test_padded_ids_are_ids_where_they_are_text(folder: Path) -> None:
    for name in ("users", "items", "features"):
        (folder / f"{name}.csv").unlink()
    (folder / "exposures.csv").write_text("user_id,item_id\n42,7\n00042,007\n")
    source = read_tables(folder, text_ids=True)
    assert sorted(source.users["user_key"].to_pylist()) == ["00042", "42"]
    assert sorted(source.items["item_key"].to_pylist()) == ["007", "7"]


def test_a_missing_folder_a_missing_table_and_one_too_many_are_told(folder: Path) -> None:
    with pytest.raises(PipelineError, match=r"nowhere: is no folder. data.tables_dir must name"):
        read_tables(folder / "nowhere", text_ids=False)
    shutil.copy(folder / "users.csv", folder / "users.parquet")
    with pytest.raises(PipelineError, match=r"users.parquet: there is users.csv too; keep one"):
        read_tables(folder, text_ids=False)
    (folder / "users.parquet").unlink()
    (folder / "exposures.csv").unlink()
    with pytest.raises(PipelineError, match=r"mine: expected exposures.csv or .*, found features"):
        read_tables(folder, text_ids=False)


def test_what_only_lies_beside_the_tables_is_no_table(folder: Path) -> None:
    for name in ("users.csv.dvc", ".users.csv.swp", "README.md", "more-users.txt"):
        (folder / name).write_text("notes")
    assert read_tables(folder, text_ids=False).users.num_rows == 4


def test_an_empty_text_id_is_told(folder: Path) -> None:
    (folder / "exposures.csv").write_text("user_id,item_id\na,x\n,x\n")
    with pytest.raises(PipelineError, match=r"exposures.csv, row 2: expected a user_id, found ''"):
        read_tables(folder, text_ids=True)


def test_vectors_come_from_numeric_columns_or_from_lists_and_are_standardised(folder: Path) -> None:
    """In the order of the users table, over the visible users; other users' rows are left out."""
    users = pa.table({"user_id": pa.array([1, 2, 3], pa.int64())})
    visible = np.array([True, True, False])
    from_columns, scale = own_vectors(folder, users, visible, text_ids=False)
    raw = np.array([[1, 2], [2.5, 3], [3, 4]], np.float32)
    spread = raw[:2].std(0)
    np.testing.assert_allclose(from_columns, (raw - raw[:2].mean(0)) / spread, rtol=1e-5)
    np.testing.assert_allclose(scale.scale, spread, rtol=1e-5)

    def listed(table: pa.Table) -> pa.Table:
        rows = [
            list(row) for row in zip(table["a"].to_pylist(), table["b"].to_pylist(), strict=True)
        ]
        return pa.table({"user_id": table["user_id"], "x": pa.array(rows, pa.list_(pa.float64()))})

    to_parquet(folder, "features", listed)
    from_lists, _ = own_vectors(folder, users, visible, text_ids=False)
    np.testing.assert_array_equal(from_lists, from_columns)
    text = "user_id,x\n" + "".join(f"{u},{u * u}\n" for u in (1, 2, 3))
    (folder / "features.parquet").unlink()
    (folder / "features.csv").write_text(text)  # one number a user, called x, is a column too
    assert own_vectors(folder, users, visible, text_ids=False)[0].shape == (3, 1)
