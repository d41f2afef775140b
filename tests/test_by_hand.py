"""Scoring by hand as a user types it: whom to name, what comes back, what is refused."""

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from pipeline import schemas
from pipeline.by_hand import output
from pipeline.datasets.own_ids import number_of
from pipeline.model_files import write_network
from pipeline.models.ratio import RatioNet
from pipeline.splits import hold_out, split_users
from pipeline.storage import vectors, write_table
from stages.score import app

ROOT = Path(__file__).parents[1]
USERS, ITEMS = 60, 9  # items 10, 20, ..., 90; all but 20 and 90 are tasks
COLUMNS = [
    *("user_id", "item_id", "title", "exposed", "score"),
    *("audience_percentile", "population_percentile", "p_value"),
    *("calibration", "calibration_pairs", "verdict"),
]
HEADING = (
    r"user_id +item_id +title +exposed +score +audience% +all% +p_value +counted on +pairs +verdict"
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a ratio that nobody trained, as the working directory; ids are numbers."""
    ids = np.arange(1, USERS + 1)
    lay_out(tmp_path, ids, 10 * np.arange(1, ITEMS + 1))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lay_out(folder: Path, user_ids: np.ndarray, item_ids: np.ndarray, **keys: list[str]) -> None:
    """Write all that is read; `keys` are user_key and item_key in the order of the ids."""
    gen, torch_gen = np.random.default_rng(0), torch.Generator().manual_seed(0)
    users, items = np.sort(user_ids), np.sort(item_ids)
    are_tasks = np.delete(np.arange(ITEMS), [1, 8])
    tasks = items[are_tasks]
    user, item = np.nonzero(gen.random((USERS, ITEMS)) < 0.5)
    pairs = pa.table(
        {
            "user_id": users[user],
            "item_id": items[item],
            "rating": pa.nulls(len(user), pa.int8()),
            "timestamp": pa.nulls(len(user), pa.int64()),
        }
    )
    splits = split_users(users, test_share=0.3, valid_share=0.4, seed=0)
    net = RatioNet(x_dim=4, task_dim=3)
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.3, generator=torch_gen)
    write_network(net, folder / "data/ratio/model.safetensors")
    number = np.arange(len(tasks), dtype=np.int32)
    count = np.bincount(item, minlength=ITEMS)[are_tasks]
    people = {"user_id": users} | ({"user_key": keys["user_key"]} if keys else {})
    things = {"item_id": items, "title": [f"Title, {i}" for i in range(ITEMS)]}
    things |= {"genres": pa.array([[]] * ITEMS, pa.list_(pa.string()))}
    things |= {"item_key": keys["item_key"]} if keys else {}
    x = gen.standard_normal((USERS, 4)).astype(np.float32)
    e = gen.standard_normal((len(tasks), 3)).astype(np.float32)
    named = {"task_id": number, "item_id": tasks}
    for place, schema, columns in (
        ("prepared/users", schemas.USERS, people),
        ("prepared/items", schemas.ITEMS, things),
        ("prepared/splits", schemas.SPLITS, splits),
        ("prepared/exposures", schemas.EXPOSURES, hold_out(pairs, splits, share=0.3, seed=0)),
        ("features/users", schemas.FEATURES, {"user_id": users, "x": vectors(x)}),
        ("ratio/task_embeddings", schemas.TASK_EMBEDDINGS, named | {"e": vectors(e)}),
        ("tasks", schemas.TASKS, named | {"exposures": count, "train_exposures": count}),
    ):
        table = columns if isinstance(columns, pa.Table) else pa.table(columns)
        write_table(table, folder / f"data/{place}.parquet", schema)
    (folder / "params.yaml").write_text((ROOT / "params.yaml").read_text())


def score(*options: str) -> Result:
    return CliRunner().invoke(app, list(options))


def rows(*options: str) -> list[dict[str, object]]:
    """The rows of the answer, as JSON has them."""
    ran = score(*options, "--format", "json")
    assert ran.exit_code == 0, ran.output
    answer: list[dict[str, object]] = json.loads(ran.stdout)
    return answer


@pytest.mark.usefixtures("project")
def test_users_and_items_are_crossed_and_shown_as_a_table() -> None:
    ran = score("--users", "7,3", "--items", "40,50")
    assert ran.exit_code == 0, ran.output
    heading, *lines = ran.stdout.splitlines()
    assert re.fullmatch(HEADING, heading)
    assert [line.split()[:2] for line in lines] == [
        ["7", "40"],
        ["3", "40"],
        ["7", "50"],
        ["3", "50"],
    ]
    assert all(line.startswith("      ") for line in lines)  # numbers to the right
    assert {line.index("Title, ") for line in lines} == {heading.index("title")}
    assert ran.stderr == (
        "fresh: at most 5 % of an item's own audience is called that by mistake; "
        "common: at most 5 % of all users score as high.\n"
    )


@pytest.mark.usefixtures("project")
def test_csv_json_and_parquet_say_the_same(tmp_path: Path) -> None:
    chosen = ("--users", "7,3", "--items", "40,50")
    as_json = rows(*chosen)
    text = score(*chosen, "--format", "csv").stdout
    as_csv = list(csv.DictReader(io.StringIO(text)))
    assert score(*chosen, "--to", str(tmp_path / "a.parquet")).stdout == ""
    as_parquet = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [list(row) for row in (as_json[0], as_csv[0], as_parquet[0])] == [COLUMNS] * 3
    for one, other, third in zip(as_json, as_csv, as_parquet, strict=True):
        for name in COLUMNS:
            if isinstance(third[name], float):
                assert one[name] == pytest.approx(third[name], rel=1e-5, abs=1e-6)
                assert float(other[name]) == pytest.approx(third[name], rel=1e-5, abs=1e-6)
            else:
                assert one[name] == third[name]
                assert other[name].capitalize() == str(third[name]).capitalize()


@pytest.mark.usefixtures("project")
def test_the_best_users_of_an_item_and_the_best_items_of_a_user() -> None:
    of_item = rows("--item", "30", "--top", "5")
    everybody = rows("--item", "30")
    by_score = sorted(everybody, key=lambda row: -row["score"])
    assert len(everybody) == USERS
    assert of_item == by_score[:5]
    assert rows("--item", "30", "--top", "5", "--fresh") == by_score[::-1][:5]
    of_user = rows("--user", "8", "--top", "3", "--unseen")
    unseen = [row for row in rows("--user", "8") if not row["exposed"]]
    assert len(unseen) >= 3
    assert of_user == sorted(unseen, key=lambda row: -row["score"])[:3]


@pytest.mark.usefixtures("project")
def test_files_name_users_and_pairs(tmp_path: Path) -> None:
    (tmp_path / "some.csv").write_text("user_id\n5\n9\n")
    assert rows("--users", "some.csv", "--item", "10") == rows("--users", "5,9", "--item", "10")
    (tmp_path / "often.csv").write_text("user_id\n9\n5\n9\n")
    assert rows("--users", "often.csv", "--top", "2") == rows("--users", "9,5", "--top", "2")
    (tmp_path / "some.tsv").write_text("note\tuser_id\n,\t5\n,\t9\n")
    assert rows("--users", "some.tsv", "--item", "10") == rows("--users", "5,9", "--item", "10")
    (tmp_path / "p.tsv").write_text("item_id\tuser_id\n70\t3\n10\t5\n")
    pq.write_table(pa.table({"item_id": [70, 10], "user_id": [3, 5]}), tmp_path / "p.parquet")
    found = rows("--pairs", "p.parquet")
    assert rows("--pairs", "p.tsv") == found
    assert [(row["user_id"], row["item_id"]) for row in found] == [(3, 70), (5, 10)]
    (alone,) = rows("--user", "5", "--item", "10")
    assert found[1] == pytest.approx(alone)


@pytest.mark.usefixtures("project")
def test_all_pairs_are_streamed_to_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "ROW_GROUP", 3 * USERS)
    for name in ("all.parquet", "all.csv", "all.json"):
        ran = score("--all", "--to", name)
        assert (ran.exit_code, ran.stdout) == (0, "")
    file = pq.ParquetFile(tmp_path / "all.parquet")
    sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    assert sizes == [3 * USERS, 3 * USERS, USERS]
    assert len(list(csv.DictReader((tmp_path / "all.csv").open()))) == 7 * USERS
    assert json.loads((tmp_path / "all.json").read_text()) == rows(
        "--items", "10,30,40,50,60,70,80"
    )
    assert not (tmp_path / "data/run_info").exists()
    assert not (tmp_path / "data/evaluation").exists()


@pytest.mark.usefixtures("project")
def test_an_answer_without_a_row_has_its_columns_in_every_format(tmp_path: Path) -> None:
    met = next(row for row in rows("--user", "7") if row["exposed"])
    chosen = ("--user", "7", "--item", str(met["item_id"]), "--unseen")
    assert rows(*chosen) == []
    text = score(*chosen, "--format", "csv").stdout
    assert list(csv.reader(io.StringIO(text))) == [COLUMNS]
    ran = score(*chosen, "--to", "none.parquet")
    assert (ran.exit_code, ran.stdout) == (0, "")
    score("--user", "7", "--to", "some.parquet")
    none, some = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("none", "some"))
    assert (none.num_rows, none.schema) == (0, some.schema)


@pytest.mark.usefixtures("project")
def test_alpha_moves_the_verdicts_and_what_is_said_of_them() -> None:
    strict, loose = (
        [row["verdict"] for row in rows("--item", "10", "--alpha", alpha)]
        for alpha in ("0.05", "0.5")
    )
    assert strict.count("fresh") < loose.count("fresh")
    assert "at most 50 % of" in score("--item", "10", "--alpha", "0.5").stderr


@pytest.mark.usefixtures("project")
def test_json_of_tables_without_a_row_is_json() -> None:
    """A block of a grid may be empty: a user who has met all of its items."""
    empty, full = pa.table({"a": pa.array([], pa.int8())}), pa.table({"a": [1, 2]})
    for tables, expected in (
        ([empty, full, empty, full], [{"a": 1}, {"a": 2}] * 2),
        ([empty], []),
        ([], []),
    ):
        assert json.loads("".join(output.as_text(tables, "json"))) == expected


def test_of_pairs_the_unknown_keep_their_row_if_only_known_ones_are_scored(project: Path) -> None:
    lines = ["7,40", "999,40", "3,90", "7,40", "998,11", "999,11"]
    (project / "p.csv").write_text("\n".join(["user_id,item_id", *lines]) + "\n")
    assert score("--pairs", "p.csv").exit_code == 1
    ran = score("--pairs", "p.csv", "--known", "--format", "csv")
    assert ran.exit_code == 0, ran.output
    assert ran.stderr.splitlines()[0] == (
        "score: 4 of 6 pairs are unknown: user 999 (and 1 more) is not known; item 11 is not known;"
        " item 90: it is no task; filter_tasks kept 7 of 9 items, see `tasks` in params.yaml."
    )
    (known, *_) = rows("--user", "7", "--item", "40")
    expected = [
        known if line == "7,40" else dict.fromkeys(COLUMNS) | {"verdict": "unknown"}
        for line in lines
    ]
    for row, line in zip(expected, lines, strict=True):
        row |= dict(zip(("user_id", "item_id"), map(int, line.split(",")), strict=True))
    expected[1] |= {"title": known["title"]}  # of an item that is known
    assert rows("--pairs", "p.csv", "--known") == expected
    found = list(csv.DictReader(io.StringIO(ran.stdout)))
    assert [row["verdict"] for row in found] == [row["verdict"] for row in expected]
    assert set(found[4].values()) == {"998", "11", "", "unknown"}
    heading, _, shown, *_ = score("--pairs", "p.csv", "--known").stdout.splitlines()
    assert re.fullmatch(HEADING, heading)
    assert re.fullmatch(r" +999 +40  Title, 3 +unknown", shown)
    unmet = rows("--pairs", "p.csv", "--known", "--unseen")
    assert unmet == [row for row in expected if not row["exposed"]]
    schemas_found = []
    for name in ("p", "k"):
        (project / "k.csv").write_text("user_id,item_id\n7,40\n")
        assert score("--pairs", f"{name}.csv", "--known", "--to", f"{name}.parquet").exit_code == 0
        schemas_found.append(pq.read_schema(project / f"{name}.parquet"))
    assert score("--pairs", "k.csv", "--to", "k.parquet").exit_code == 0
    schemas_found.append(pq.read_schema(project / "k.parquet"))
    assert schemas_found[0] == schemas_found[1] == schemas_found[2]


def test_if_nobody_is_known_there_is_an_answer_all_the_same(project: Path) -> None:
    (project / "p.csv").write_text("user_id,item_id\n999,40\n7,90\n")
    assert [row["verdict"] for row in rows("--pairs", "p.csv", "--known")] == ["unknown"] * 2
    for chosen in (("--user", "999"), ("--item", "90"), ("--user", "999", "--top", "3")):
        assert rows(*chosen, "--known") == []
    assert rows("--pairs", "p.csv", "--known", "--explain", "2") == []
    ran = score("--item", "90", "--known", "--to", "none.parquet")
    assert ran.exit_code == 0, ran.output
    assert pq.read_table(project / "none.parquet").column_names == COLUMNS
    ran = score("--user", "999", "--known")
    assert (ran.exit_code, len(ran.stdout.splitlines())) == (0, 1)


def test_of_lists_the_unknown_are_left_out_and_told_of(project: Path) -> None:
    (project / "some.csv").write_text("user_id\n999\n7\n998\n3\n999\n")
    chosen = ("--users", "some.csv", "--items", "90,40,50", "--known")
    ran = score(*chosen)
    assert ran.stderr.splitlines()[0] == (
        "score: left out: user 999 (and 1 more) is not known; item 90: it is no task; filter_tasks "
        "kept 7 of 9 items, see `tasks` in params.yaml."
    )
    assert rows(*chosen) == rows("--users", "7,3", "--items", "40,50")
    assert rows(*chosen, "--top", "1") == rows("--users", "7,3", "--items", "40,50", "--top", "1")
    why = ("--explain", "1")
    assert rows(*chosen, *why) == rows("--users", "7,3", "--items", "40,50", *why)
    (project / "p.csv").write_text("user_id,item_id\n7,40\n999,40\n3,50\n")
    (project / "k.csv").write_text("user_id,item_id\n7,40\n3,50\n")
    ran = score("--pairs", "p.csv", "--known", *why)
    assert ran.stderr.startswith("score: 1 of 3 pairs is unknown: user 999 is not known.\n")
    assert rows("--pairs", "p.csv", "--known", *why) == rows("--pairs", "k.csv", *why)
    told = score("--users", "7", "--items", "40", "--known").stderr
    assert told == score("--users", "7", "--items", "40").stderr


def test_from_another_folder_data_names_all_files_but_those_that_are_named(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = ("--users", "7,3", "--items", "40,50")
    explained = ("--user", "7", "--item", "40", "--explain", "1")
    here, why = rows(*chosen), rows(*explained)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    there = ("--data", str(project / "data"), "--params", str(project / "params.yaml"))
    assert rows(*chosen, *there) == here
    assert rows(*explained, *there) == why
    for option in ("model", "task-embeddings", "features", "tasks", "splits", "exposures"):
        ran = score(*chosen, *there, f"--{option}", "data/none.parquet")
        assert ran.stderr.startswith("score: data/none.parquet: there is no such file.")
    default = "data/ratio/model.safetensors"  # if it is said, it is meant
    ran = score(*chosen, *there, "--model", default)
    assert ran.stderr.startswith(f"score: {default}: there is no such file.")
    ran = score(*chosen, "--data", "no", "--params", str(project / "params.yaml"))
    assert ran.stderr.startswith("score: no/ratio/task_embeddings.parquet: there is no such file.")
    assert not any(Path.cwd().iterdir())


def lay_out_texts(folder: Path, people: list[str], things: list[str]) -> None:
    """As `lay_out`, of ids that are text; brings them into the order of their numbers."""
    for names in (people, things):
        names.sort(key=number_of)
    user_id, item_id = (np.array([number_of(text) for text in of]) for of in (people, things))
    lay_out(folder, user_id, item_id, user_key=people, item_key=things)


def test_text_ids_are_typed_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    people, things = (
        [f"user{',' * (i == 8)} {i}" for i in range(USERS)],
        [f"thing-{i}" for i in range(ITEMS)],
    )
    lay_out_texts(tmp_path, people, things)
    monkeypatch.chdir(tmp_path)
    (row,) = rows("--user", "user 7", "--item", things[5])
    assert (row["user_id"], row["item_id"], row["title"]) == ("user 7", things[5], "Title, 5")
    (tmp_path / "p.csv").write_text(f"user_id,item_id\nuser 7,{things[5]}\n")
    assert rows("--pairs", "p.csv") == [row]
    (tmp_path / "q.csv").write_text(f"user_id,item_id\nnew,{things[5]}\nuser 7,{things[5]}\n")
    new, same = rows("--pairs", "q.csv", "--known")
    assert (new["user_id"], new["item_id"], new["verdict"]) == ("new", things[5], "unknown")
    assert same == row
    (comma,) = rows("--user", "user, 8", "--item", things[5])
    assert comma["user_id"] == "user, 8"
    ran = score("--user", "user 99")
    assert "user user 99 is not known; the 60 that can be asked for are user 0, " in ran.stderr
    ran = score("--user", "\udcff")  # what a shell's byte 0xff comes as
    assert (ran.exit_code, type(ran.exception)) == (1, SystemExit)
    assert "user \\udcff is not known; the 60 that can be asked for are" in ran.stderr


def test_a_text_id_is_taken_as_it_stands_before_commas_and_spaces_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = ["lead", " lead", *(f"user {i}" for i in range(USERS - 2))]
    things = [f"thing,{i}" for i in range(ITEMS)]
    lay_out_texts(tmp_path, people, things)
    monkeypatch.chdir(tmp_path)
    for wanted, found in (
        (" lead,user 7", [" lead", "user 7"]),
        ("user 7, lead", ["user 7", " lead"]),
        ("user 7,lead", ["user 7", "lead"]),
        ("user 7, user 9 ", ["user 7", "user 9"]),
        (" user 7 ", ["user 7"]),
    ):
        named = rows("--users", wanted, "--items", things[5])
        assert [row["user_id"] for row in named] == found
    ran = score("--items", things[1])
    assert ran.stderr.startswith(f"score: item {things[1]}: it is no task; filter_tasks kept 7 of")
    ran = score("--items", "thing,99")
    assert ran.stderr.startswith("score: item thing (and 1 more) is not known; the 7 that can be ")


def test_a_control_character_breaks_no_row_of_a_table_and_stays_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [f"user\n{i}" for i in range(USERS)]
    things = [f"thing\t{i}" for i in range(ITEMS)]
    lay_out_texts(tmp_path, people, things)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "data/prepared/items.parquet"
    items = pq.read_table(path)
    titles = pa.array([f"a\r\x1b[31m\u2028{i}" for i in range(ITEMS)])
    write_table(items.set_column(1, "title", titles), path, schemas.ITEMS)
    chosen = ("--users", "user\n7,user\n3", "--item", things[5])
    heading, *lines = score(*chosen).stdout.split("\n")
    assert [line[:7] for line in lines] == ["user 7 ", "user 3 ", ""]
    assert {line.index("a  [31m 5  ") for line in lines[:2]} == {heading.index("title")}
    (first, _), text = rows(*chosen), score(*chosen, "--format", "csv").stdout
    exact = ("user\n7", things[5], "a\r\x1b[31m\u20285")
    assert (first["user_id"], first["item_id"], first["title"]) == exact
    as_csv = next(csv.DictReader(io.StringIO(text, newline="")))
    assert (as_csv["user_id"], as_csv["item_id"], as_csv["title"]) == exact
    ran = score("--user", "user\n99")
    assert re.fullmatch(r"score: user user 99 is not known; .* are user 0, .*\n", ran.stderr)


MISTAKES = {
    "--user 99": (
        r"user 99 is not known; the 60 that can be asked for are 1, 2, 3, 4, 5, \.\.\. up to 60\."
    ),
    "--user 99,1,-4": r"user 99 \(and 1 more\) is not known; the 60 that can be asked for are .*",
    f"--user {'9' * 30}": r"users: ids are whole numbers from .* here; found 9{30}\. Name .*",
    f"--user 7,{'9' * 30} --known": r"users: ids are whole numbers from .*; found 9{30}\. .*",
    "--pairs far.csv --known": r"far.csv, row 2: .* from .* as user_id, found '9{30}'\. .*",
    "--item 11": r"item 11 is not known; the 7 that can be asked for are 10, 30, .* up to 80\.",
    "--item 90": r"item 90: it is no task; filter_tasks kept 7 of 9 items, see `tasks` in .*",
    "--items 90,11,20,90,12": r"item 90 \(and 1 more\): it is no task; filter_tasks kept 7 of 9 .*",
    "--items 11,90,12,12": r"item 11 \(and 1 more\) is not known; the 7 that can be asked for .*",
    "--item ten": r"--items: expected whole numbers separated by commas, .*; found 'ten'\.",
    "--users 7,007": r"--users: 007 has a zero before it, .* write 7 if you mean that\.",
    "--users no.csv": r"no.csv: there is no such file; name another\.",
    f"--users=-{'9' * 30}": r"users: ids are whole numbers from .* here; found -9{30}\. .*",
    "--user 1 --to a.xlsx": r"--to a.xlsx: expected a name that ends in \.csv, .*",
    "--user 1 --to no/a.csv": r"--to no/a.csv: there is no folder no; make it, or name another\.",
    "--user 1 --to bad.csv/a.csv": r"--to bad.csv/a.csv: there is no folder bad.csv; make it, .*",
    "--state nowhere": r"scoring by hand takes one of .*; found none of them\.",
    "--data data": r"scoring by hand takes one of .*; found none of them\.",
    "--known": r"scoring by hand takes one of .*; found none of them\.",
    "--alpha 0.1": r"scoring by hand takes one of .*; found none of them\.",
    **{
        f"--pairs {name}": f"{name}: expected a name that ends in .csv, .tsv or .parquet. Write .*"
        for name in ("/dev/stdin", "p.txt", "half.csv.gz")
    },
    "--item 1.txt": r"--items: expected whole numbers .*, or a \.csv, \.tsv or \.parquet file .*",
    "--pairs half.csv": r"half.csv: expected a column item_id, found user_id\..*",
    "--pairs bad.csv": r"bad.csv, row 2: expected a whole number as user_id, found 'x'\..*",
    "--pairs padded.csv": r"padded.csv, row 1: .* without zeros before it as user_id, found '01'.*",
    "--users padded.csv": r"padded.csv, row 1: .* without zeros before it as user_id, found '01'.*",
    "--top 3": r"scoring by hand takes one of --users or --items, .*; found none of them\.",
    "--user 1 --all": r"scoring by hand takes one of .*; found --users or --items and --all\.",
    "--pairs half.csv --top 3": r"--top picks from what --users or --items name; name either\.",
    "--user 1 --fresh": r"--fresh takes the lowest scores first; say how many by --top\.",
    "--all": r"that is nothing to show on a screen; name a file by --to\.",
    "--user 1 --format parquet": r"that is nothing to show on a screen; name a file by --to\.",
}


@pytest.mark.parametrize("options", MISTAKES)
def test_a_mistake_ends_in_one_line_that_says_what_is_known(project: Path, options: str) -> None:
    (project / "half.csv").write_text("user_id\n1\n")
    (project / "bad.csv").write_text("user_id,item_id\n1,10\nx,10\n")
    (project / "padded.csv").write_text("user_id,item_id\n01,10\n")
    (project / "far.csv").write_text(f"user_id,item_id\n1,10\n{'9' * 30},10\n")
    ran = score(*options.split())
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert re.fullmatch(f"score: {MISTAKES[options]}\n", ran.stderr)


def test_without_such_options_the_stage_scores_validation_and_test_users(project: Path) -> None:
    ran = score()
    assert ran.exit_code == 0, ran.output
    assert re.fullmatch(r"7 tasks x \d+ validation and test users scored\n", ran.stdout)
    assert (project / "data/evaluation/scores.parquet").exists()
    assert (project / "data/run_info/score.json").exists()


@pytest.mark.usefixtures("project")
def test_a_score_is_explained_by_parts_that_add_up_to_it(tmp_path: Path) -> None:
    scores = {(row["user_id"], row["item_id"]): row["score"] for row in rows("--users", "7,3")}
    parts = rows("--users", "7,3", "--items", "40,50", "--explain", "2")
    assert list(parts[0]) == [
        *("user_id", "item_id", "part", "because_id", "because", "likeness", "contribution")
    ]
    pairs = list(dict.fromkeys((row["user_id"], row["item_id"]) for row in parts))
    assert pairs == [(7, 40), (3, 40), (7, 50), (3, 50)]
    for pair in pairs:
        own = [row for row in parts if (row["user_id"], row["item_id"]) == pair]
        assert sum(row["contribution"] for row in own) == pytest.approx(scores[pair], abs=1e-4)
        assert [row["because_id"] is None for row in own] == [True, *[False] * 4, *[True] * 3]
    exposures = pq.read_table("data/prepared/exposures.parquet")
    visible = exposures.filter(pa.array(~exposures.column("held_out").to_numpy())).to_pylist()
    met = {(row["user_id"], row["item_id"]) for row in visible}
    for row in parts:
        if row["because_id"] is not None:
            assert row["part"] == (
                "met" if (row["user_id"], row["because_id"]) in met else "not met"
            )
            assert row["because"] == f"Title, {row['because_id'] // 10 - 1}"
    (tmp_path / "p.csv").write_text("user_id,item_id\n3,50\n7,40\n")
    listed = rows("--pairs", "p.csv", "--explain", "2")
    assert listed == parts[-8:] + parts[:8]
    shown = score("--user", "7", "--item", "40", "--explain", "1")
    assert shown.stderr == "the contributions of a user and item add up to the score, in nats.\n"
    assert re.search(r"\n +7 +40  other items not met .*[+-]\d\.\d{3}\n", shown.stdout)


@pytest.mark.usefixtures("project")
def test_explanations_are_of_a_few_named_pairs() -> None:
    for options, message in (
        (["--explain", "2"], "takes one of"),
        (["--all", "--explain", "2", "--to", "a.csv"], "--explain takes named pairs"),
        (["--item", "40", "--top", "3", "--explain", "2"], "--explain takes named pairs"),
        (["--users", "7", "--unseen", "--explain", "2"], "--explain takes named pairs"),
        (["--user", "7", "--explain", "2", "--alpha", "0.1"], "--explain gives no verdicts"),
        (["--items", "40,50", "--explain", "2"], "--explain takes at most 100 pairs, found 120"),
    ):
        ran = score(*options)
        assert ran.exit_code == 1
        assert message in ran.stderr
