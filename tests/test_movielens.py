"""MovieLens' files: the real counts, and the file and line of every fault."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.datasets.dat_files import read_dat
from pipeline.datasets.movielens import RATINGS, read_movielens
from pipeline.errors import PipelineError
from pipeline.schemas import ITEMS, USERS


def test_the_real_files_have_their_published_counts(movielens_dir: Path) -> None:
    source = read_movielens(movielens_dir)
    user, item = (source.exposures[name].to_numpy() for name in ("user_id", "item_id"))
    assert source.exposures.num_rows == 1_000_209
    assert source.users.num_rows == 6_040
    assert source.items.num_rows == 3_883
    assert (user == 1).sum() == 53
    counts = np.bincount(item)
    assert counts[2858] == 3_428
    assert (counts >= 100).sum() == 2_019
    assert (counts > 0).sum() == 3_706
    assert np.bincount(source.exposures["rating"].to_numpy()).tolist() == [
        *(0, 56_174, 107_557, 261_197, 348_971, 226_310)
    ]
    titles = dict(
        zip(source.items["item_id"].to_pylist(), source.items["title"].to_pylist(), strict=True)
    )
    assert titles[73] == "Misérables, Les (1995)"


def test_the_tables_are_sorted_and_typed_whatever_the_order_of_the_lines(
    made_movielens: Path,
) -> None:
    source = read_movielens(made_movielens)
    for name in ("users", "movies", "ratings"):
        path = made_movielens / f"{name}.dat"
        path.write_bytes(
            b"".join(sorted(path.read_bytes().splitlines(keepends=True), reverse=True))
        )
    again = read_movielens(made_movielens)
    for field in fields(source):
        assert getattr(source, field.name) == getattr(again, field.name)
    USERS.check(source.users, "here")
    ITEMS.check(source.items, "here")
    assert source.users.slice(0, 1).to_pylist() == [
        {"user_id": 1, "gender": "M", "age": 18, "occupation": 1, "zip_code": "90001"}
    ]
    assert source.items.to_pylist()[0] == {
        "item_id": 1,
        "title": "Amélie (2001)",
        "genres": ["Comedy", "Romance"],
    }
    assert source.items["title"].to_pylist()[2:] == [
        '"Great" Escape, The (1963)',
        "Nobody Saw It (1999)",
        "Star Wars: Episode IV (1977)",
    ]


def test_no_thread_is_left_that_could_outlive_the_interpreter(made_movielens: Path) -> None:
    threads = """if True:
        import os, sys
        from pathlib import Path
        import pyarrow as pa
        from pipeline.datasets.movielens import read_movielens
        pa.enable_signal_handlers(False)  # they have a thread of their own, which holds no memory
        before = os.listdir("/proc/self/task")
        read_movielens(Path(sys.argv[1]))
        sys.exit(os.listdir("/proc/self/task") != before)
    """
    subprocess.run([sys.executable, "-c", threads, made_movielens], check=True)


def test_windows_line_ends_are_read_the_same(made_movielens: Path) -> None:
    source = read_movielens(made_movielens)
    for path in made_movielens.iterdir():
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_movielens(made_movielens).items.equals(source.items)
    assert read_movielens(made_movielens).exposures.equals(source.exposures)


@given(st.lists(st.tuples(*[st.integers(-(10**17), 10**17)] * 4), min_size=1))
def test_whole_numbers_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, ...]]
) -> None:
    path = tmp_path_factory.mktemp("dat") / "ratings.dat"
    path.write_text("".join("::".join(map(str, row)) + "\n" for row in rows))
    table = read_dat(path, RATINGS)
    assert [tuple(row.values()) for row in table.to_pylist()] == rows


@dataclass(frozen=True)
class Fault:
    """One thing wrong with one file, and what the message must say."""

    name: str
    file: str
    edit: Callable[[bytes], bytes]
    line: int | None
    message: str


def line(number: int, new: bytes) -> Callable[[bytes], bytes]:
    """Put `new` in the place of a line (from 1)."""

    def edit(content: bytes) -> bytes:
        lines = content.splitlines()
        lines[number - 1] = new
        return b"\n".join(lines) + b"\n"

    return edit


FAULTS = [
    Fault("short row", "ratings", line(7, b"4::1::5"), 7, "4 fields UserID::.*found 3"),
    Fault("long row", "ratings", line(7, b"4::1::5::978300000::1"), 7, "4 fields.*found 5"),
    Fault("blank line", "ratings", line(7, b""), 7, "4 fields.*found 1"),
    Fault("cut row", "ratings", lambda c: c[:-9], 120, "a whole last line, found '60::1::2::9'"),
    Fault("cut at a separator", "ratings", lambda c: c[:-10], 120, "a whole last line"),
    Fault(
        "cut with an end",
        "ratings",
        lambda c: c[:-10] + b"\n",
        120,
        "number as Timestamp, found ''",
    ),
    Fault(
        "bad number",
        "ratings",
        line(9, b"4::1::five::978300000"),
        9,
        "number as Rating, found 'five'",
    ),
    Fault(
        "fraction", "ratings", line(9, b"4::1::4.5::978300000"), 9, "number as Rating, found '4.5'"
    ),
    Fault(
        "not available",
        "ratings",
        line(9, b"4::1::NA::978300000"),
        9,
        "number as Rating, found 'NA'",
    ),
    Fault("huge number", "ratings", line(9, b"4::1::5::" + b"9" * 30), 9, "number as Timestamp"),
    Fault(
        "unknown user",
        "ratings",
        line(5, b"61::1::5::978300000"),
        5,
        "UserID of users.dat, found 61",
    ),
    Fault(
        "unknown movie",
        "ratings",
        line(5, b"3::6::5::978300000"),
        5,
        "MovieID of movies.dat, found 6",
    ),
    Fault(
        "rating of 9", "ratings", line(5, b"3::4::9::978300000"), 5, "Rating from 1 to 5, found 9"
    ),
    Fault(
        "rating of 0", "ratings", line(5, b"3::4::0::978300000"), 5, "Rating from 1 to 5, found 0"
    ),
    Fault("negative time", "ratings", line(5, b"3::4::1::-5"), 5, "Timestamp.*found -5"),
    Fault(
        "duplicate pair",
        "ratings",
        lambda c: c + c.splitlines(keepends=True)[2],
        121,
        "that of line 3 again",
    ),
    Fault(
        "tab", "ratings", line(5, b"3\t4\t5\t978300000"), 5, "fields separated by ::, found a tab"
    ),
    Fault(
        "wrong encoding",
        "ratings",
        lambda c: c.decode().encode("utf-16"),
        1,
        "ascii text, found the byte 0xff",
    ),
    Fault(
        "byte order mark",
        "ratings",
        lambda c: b"\xef\xbb\xbf" + c,
        1,
        "ascii text, found the byte 0xef",
    ),
    Fault(
        "binary", "ratings", lambda c: c[:30] + b"\0" + c[30:], 2, "ascii text, found the byte 0x00"
    ),
    Fault("empty file", "ratings", lambda c: b"", None, "is empty, expected UserID::MovieID"),
    Fault(
        "wrong gender",
        "users",
        line(4, b"4::X::1::1::12345"),
        4,
        "Gender to be one of F, M, found 'X'",
    ),
    Fault(
        "wrong age", "users", line(4, b"4::F::2::1::12345"), 4, "Age to be one of 1, 18, .*found 2"
    ),
    Fault("wrong occupation", "users", line(4, b"4::F::1::21::12345"), 4, "Occupation .*found 21"),
    Fault("no zip code", "users", line(4, b"4::F::1::1::"), 4, "a Zip-code, found ''"),
    Fault(
        "user twice",
        "users",
        line(4, b"3::F::1::1::12345"),
        4,
        "each UserID once, found that of line 3 again",
    ),
    Fault("user zero", "users", line(4, b"0::F::1::1::12345"), 4, "UserID of at least 1, found 0"),
    Fault("accent", "users", line(4, "4::F::1::1::1234é".encode("latin-1")), 4, "ascii text"),
    Fault(
        "movies in UTF-8",
        "movies",
        lambda c: c.decode("latin-1").encode(),
        1,
        "latin-1 text, found the byte 0xc3",
    ),
    Fault(
        "movies in a code page",
        "movies",
        line(2, b"2::It\x92s (1995)::Crime"),
        2,
        "found the byte 0x92",
    ),
    Fault("no title", "movies", line(2, b"2::::Crime"), 2, "a Title, found ''"),
    Fault("no genre", "movies", line(2, b"2::Se7en (1995)::"), 2, "Genres .*found ''"),
    Fault(
        "empty genre",
        "movies",
        line(2, b"2::Se7en (1995)::Crime||War"),
        2,
        r"Genres .*found 'Crime\|\|War'",
    ),
    Fault("movie twice", "movies", line(2, b"1::Se7en (1995)::Crime"), 2, "each MovieID once"),
    Fault("long line", "movies", line(2, b"2::" + b"x" * 10**6), 2, "3 fields .{80,130}…. The"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_told_with_its_file_and_line(made_movielens: Path, fault: Fault) -> None:
    path = made_movielens / f"{fault.file}.dat"
    path.write_bytes(fault.edit(path.read_bytes()))
    with pytest.raises(PipelineError) as caught:
        read_movielens(made_movielens)
    place = f"{path}:" if fault.line is None else f"{path}:{fault.line}: expected "
    assert str(caught.value).startswith(place)
    assert re.search(fault.message, str(caught.value))
    assert "unpack the publisher's archive again" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_first_of_several_faults_is_told(made_movielens: Path) -> None:
    path = made_movielens / "ratings.dat"
    content = path.read_bytes()
    path.write_bytes(line(90, b"1::1::7::1")(line(40, b"1::1::6::1")(content)))
    with pytest.raises(PipelineError, match=r"ratings.dat:40: .*found 6"):
        read_movielens(made_movielens)


@pytest.mark.parametrize("again", [(41, 3), (3, 41)])
def test_the_first_of_several_duplicates_is_told(
    made_movielens: Path, again: tuple[int, int]
) -> None:
    path = made_movielens / "ratings.dat"
    lines = path.read_bytes().splitlines(keepends=True)
    repeated = [lines[number - 1] for number in again]
    path.write_bytes(b"".join([*lines[:50], *repeated, *lines[50:]]))
    with pytest.raises(PipelineError, match=rf"ratings.dat:51: .*that of line {again[0]} again"):
        read_movielens(made_movielens)


@pytest.mark.parametrize("name", ["ratings.dat", "users.dat", "movies.dat"])
def test_a_missing_file_is_told_with_what_raw_dir_means(made_movielens: Path, name: str) -> None:
    (made_movielens / name).unlink()
    with pytest.raises(
        PipelineError, match=rf"{name}: cannot be read \(No such file.*data.raw_dir"
    ):
        read_movielens(made_movielens)
