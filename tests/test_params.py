"""params.yaml: every mistake named at once, and only what is declared handed out."""

import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import reduce
from inspect import isclass
from itertools import takewhile
from operator import getitem
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from dvc.utils.hydra import apply_overrides
from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML

from pipeline.errors import PipelineError
from pipeline.params import FIGURES, Params, load_params
from pipeline.params_file import _covers, declared_params
from pipeline.sections import Runtime

ROOT = Path(__file__).parents[1]
Edit = Callable[[dict], object]


@pytest.fixture(autouse=True)
def outside_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if typed by hand, even where the suite itself is run by a DVC stage."""
    for name in ("DVC_STAGE", "DVC_ROOT"):
        monkeypatch.delenv(name, raising=False)


def edited(tmp_path: Path, edit: Edit) -> Path:
    """The repository's params.yaml with an edit."""
    yaml = YAML()
    content = yaml.load(ROOT / "params.yaml")
    edit(content)
    path = tmp_path / "params.yaml"
    yaml.dump(content, path)
    return path


def message(path: Path, *keys: str) -> str:
    with pytest.raises(PipelineError) as caught:
        load_params(path, *keys)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_repositorys_own_params_are_valid() -> None:
    params = load_params(ROOT / "params.yaml", "init", "seed")
    assert (params.init, params.seed) == ("learned", 0)


def test_every_mistake_stands_in_one_message_with_key_value_and_what_is_allowed(
    tmp_path: Path,
) -> None:
    def spoil(content: dict) -> None:
        content["features"]["visible"] = "trian"
        content["ratio"]["base"] = "people"
        content["ratio"]["lr"] = -0.5
        content["features"]["dropuot"] = 0.1
        del content["tasks"]["keep_share"]

    path = edited(tmp_path, spoil)
    told = message(path, "seed")  # whatever part is asked for
    assert told.startswith(f"{path}: ")
    assert told.removeprefix(f"{path}: ").split("; ") == [
        "features.visible: Input should be 'all' or 'train' (found 'trian')",
        "features.dropuot: Extra inputs are not permitted (found 0.1)",
        "tasks.keep_share: Field required",
        "ratio.lr: Input should be greater than 0 (found -0.5)",
        "ratio.base: Input should be 'exposures' or 'users' (found 'people')",
    ]


def choices(kind: type[BaseModel], *place: str) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Every key below a section whose values are names, and these names."""
    for name, field in kind.model_fields.items():
        if get_origin(field.annotation) is Literal:
            yield (*place, name), [str(one) for one in get_args(field.annotation)]
        elif isclass(field.annotation) and issubclass(field.annotation, BaseModel):
            yield from choices(field.annotation, *place, name)


def comment(lines: list[str], number: int) -> str:
    """What stands behind the key in a line, and in the lines below it that are comments alone."""
    below = takewhile(re.compile(" +#").match, lines[number + 1 :])
    return " ".join(line.partition("#")[2].strip() for line in (lines[number], *below))


def listed(text: str) -> list[str]:
    """The names of a comment such as "whose: all | train (the others are folded in)"."""
    first, *others = re.sub(r"\([^()]*\)", "", text).split("|")
    return [first.split()[-1], *(re.split(r"[\s,]+", one.strip())[0] for one in others)]


@pytest.mark.parametrize(
    "file",
    [
        *("params.yaml", "wide.yaml"),
        *(f"experiments/table1/{name}.yaml" for name in ("movielens", "oneseed", "small")),
    ],
)
def test_a_comment_that_lists_values_lists_all_of_them(file: str) -> None:
    """Of `graph.norm`, and of an init that a row sets, the files say something else."""
    text = (ROOT / file).read_text()
    content, lines, unlisted = YAML().load(text), text.splitlines(), set()
    for (*sections, key), names in choices(Params):
        section = reduce(getitem, sections, content)
        if key not in section:
            continue
        told = comment(lines, section.lc.key(key)[0])
        if "|" in told:
            assert sorted(listed(told)) == sorted(names), (file, *sections, key)
        else:
            unlisted.add(key)
    assert unlisted <= {"init", "norm"}


PARAMS_FILES = [
    *(ROOT / name for name in ("params.yaml", "wide.yaml")),
    *(file for file in sorted(ROOT.glob("experiments/*/*.yaml")) if file.name != "dvc.yaml"),
]


def lists(value: object, *place: str) -> Iterator[tuple[str, ...]]:
    """Every key whose value is a list."""
    if isinstance(value, list):
        yield place
    elif isinstance(value, dict):
        for key, one in value.items():
            yield from lists(one, *place, key)


@pytest.mark.parametrize("file", PARAMS_FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_dvc_can_empty_a_list_in_a_file_that_it_has_written(file: Path, tmp_path: Path) -> None:
    """`-S` makes a block of it, behind whose key a comment would then swallow the next key.

    So what is said of a list that may be empty stands above it.
    """
    whole, path = tmp_path / "whole.yaml", tmp_path / "params.yaml"
    whole.write_text(file.read_text())
    apply_overrides(whole, [])
    for *sections, key in lists(YAML(typ="safe").load(whole)):
        path.write_text(whole.read_text())
        apply_overrides(path, [f"{'.'.join([*sections, key])}=[]"])
        expected = YAML(typ="safe").load(whole)
        reduce(getitem, sections, expected)[key] = []
        assert YAML(typ="safe").load(path) == expected


def set_value(section: str, key: str, value: object) -> Edit:
    return lambda content: content[section].__setitem__(key, value)


MISTAKES: dict[str, tuple[Edit, str]] = {
    "unknown section": (
        lambda c: c.__setitem__("training", {"lr": 1}),
        "training: Extra inputs are not permitted",
    ),
    "unknown key": (
        set_value("data", "sorce", "simulated"),
        "data.sorce: Extra inputs are not permitted (found 'simulated')",
    ),
    "missing section": (lambda c: c.pop("runtime"), "runtime: Field required"),
    "text for a number": (
        set_value("ratio", "batch_size", "4096"),
        "ratio.batch_size: Input should be a valid integer (found '4096')",
    ),
    "text for a fraction": (
        set_value("ratio", "lr", "1e-3"),
        "ratio.lr: Input should be a valid number (found '1e-3')",
    ),
    "fraction for a count": (
        set_value("pretrain", "max_epochs", 2.0),
        "pretrain.max_epochs: Input should be a valid integer (found 2.0)",
    ),
    "number for a switch": (
        set_value("ratio", "freeze_e", 1),
        "ratio.freeze_e: Input should be a valid boolean (found 1)",
    ),
    "one for a list": (
        set_value("features", "user_fields", "user_id"),
        "features.user_fields: Input should be a valid list (found 'user_id')",
    ),
    "switch for a number": (
        lambda c: c.__setitem__("seed", True),
        "seed: Input should be a valid integer (found True)",
    ),
    "no number": (
        set_value("ratio", "lr", float("nan")),
        "ratio.lr: Input should be a finite number (found nan)",
    ),
    "a seed beyond 32 bits": (
        set_value("data", "split_seed", 10**20),
        "data.split_seed: Input should be less than 4294967296 (found 100000000000000000000)",
    ),
    "a share of one": (
        set_value("data", "test_share", 1.0),
        "data.test_share: Input should be less than 1 (found 1.0)",
    ),
    "a rate of one": (
        set_value("ratio", "dropout", [0.5, 1.0, 0.3]),
        "ratio.dropout.1: Input should be less than 1 (found 1.0)",
    ),
    "a rate too few": (
        set_value("pretrain", "dropout", [0.5]),
        "pretrain: hidden has 3 layers, dropout 1 rates",
    ),
    "heads that cannot learn": (
        lambda c: c["ratio"].update(linear=0.1, freeze_e=True),
        "ratio: linear: heads beside the network are part of e, which freeze_e true keeps where it",
    ),
    "a width that does not divide": (
        set_value("features", "user_fields", ["gender", "age", "zip_code"]),
        "features: f_dim (100) must be a multiple of the number of user_fields (3)",
    ),
    "a field twice": (
        set_value("features", "user_fields", ["age", "age"]),
        "features: user_fields must be distinct",
    ),
    "an activity beside vectors that are ready-made": (
        lambda c: c["features"].update(model="table", activity=True),
        "features: activity is appended to vectors that are learned; for model table set it to",
    ),
    "edges that fall": (
        set_value("labels", "age", {"column": "age", "bins": [35, 25]}),
        "labels.age: bins must rise",
    ),
    "a simulation too dense": (
        set_value("simulation", "exposures", 500_001),
        "simulation: exposures (500,001) must be at most half of users x items (1,000,000)",
    ),
    **{
        f"a label called {name}": (
            set_value("labels", name, {"column": "age"}),
            f"labels.{name}.[key]: a label cannot be called exposure, ",
        )
        for name in FIGURES
    },
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(tmp_path: Path, mistake: str) -> None:
    edit, told = MISTAKES[mistake]
    path = edited(tmp_path, edit)
    assert told in message(path)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("tasks", "labels", ["age", "income"]),
        ("evaluate", "labels", ["income"]),
        ("projection", "histogram_label", "income"),
    ],
)
def test_a_label_that_does_not_exist_is_named_beside_those_that_do(
    tmp_path: Path, section: str, key: str, value: object
) -> None:
    def spoil(content: dict) -> None:
        content["init"] = "histogram"
        content[section][key] = value

    told = message(edited(tmp_path, spoil))
    assert f"{section}.{key} names 'income'; the labels are" in told
    assert "age, age7, occupation, gender" in told


@pytest.mark.parametrize(("text", "value"), [("1e-3", 0.001), ("1e-05", 1e-5), ("2.5E-4", 0.00025)])
def test_an_exponent_makes_a_number(tmp_path: Path, text: str, value: float) -> None:
    """DVC writes 1e-05 after `-S ratio.lr=0.00001`; to PyYAML both 1e-05 and 1e-3 are text."""
    whole = (ROOT / "params.yaml").read_text().replace("  lr: 0.002\n", f"  lr: {text}\n")
    path = tmp_path / "params.yaml"
    path.write_text(whole)
    params = load_params(path, "ratio", "pretrain")
    assert (params.ratio.lr, params.pretrain.lr) == (value, value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"init: [learned", "is not YAML"),
        (b"init: \xff", "is not YAML"),
        (b"seed: 0\nseed: 1\n", "is not YAML"),
        (b"", "the file: Input should be a valid dictionary"),
        (b"- init\n", "the file: Input should be a valid dictionary"),
    ],
)
def test_a_file_that_holds_no_params_is_named(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    assert f"{path}: {told}" in message(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert message(tmp_path / "params.yaml").startswith(
        f"{tmp_path}/params.yaml: there is no such file; run from the project's root"
    )


def test_a_folder_in_the_place_of_the_file_is_named(tmp_path: Path) -> None:
    assert message(tmp_path) == (
        f"{tmp_path}: cannot be read (Is a directory); name another by --params."
    )


def test_only_what_was_asked_for_is_handed_out_and_runtime_always() -> None:
    params = load_params(ROOT / "params.yaml", "tasks", "ratio.base", "data.source")
    assert params.tasks.min_exposures == 100
    assert params.ratio.base == "exposures"
    assert params.data.source == "simulated"
    assert params.runtime.device == "auto"
    for section, key in ((params, "seed"), (params, "init"), (params.ratio, "lr")):
        with pytest.raises(AttributeError, match=key):
            getattr(section, key)


def test_params_cannot_be_changed() -> None:
    params = load_params(ROOT / "params.yaml", "tasks")
    with pytest.raises(ValueError, match="frozen"):
        params.tasks.min_exposures = 1


PIPELINE = """
stages:
  train:
    params: [ratio.base, seed]
  score:
    cmd: python -m stages.score
  each:
    foreach: [a, b]
    do:
      params:
        - experiments/one/params.yaml: [ratio, seed]
        - other.yaml: [tasks]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml and the pipeline above, and the same one level further down."""
    for folder in (tmp_path, tmp_path / "experiments" / "one"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
        (folder / "dvc.yaml").write_text(PIPELINE)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    return tmp_path


def test_declared_params_are_those_of_the_params_file_at_hand(project: Path) -> None:
    assert declared_params(project / "dvc.yaml", "train") == {"ratio.base", "seed"}
    assert declared_params(project / "dvc.yaml", "score") == set()
    assert declared_params(project / "dvc.yaml", "each") == {"ratio", "seed"}
    assert declared_params(project / "dvc.yaml", "each", "other.yaml") == {"tasks"}


@pytest.mark.parametrize(
    ("address", "keys"),
    [
        ("train", ["ratio.base", "seed"]),
        ("score", []),
        ("each@a", ["ratio.lr", "ratio"]),
        ("experiments/one/dvc.yaml:each@b", ["seed", "ratio.base"]),
    ],
)
def test_a_stage_under_dvc_is_handed_what_it_declares(
    project: Path, monkeypatch: pytest.MonkeyPatch, address: str, keys: list[str]
) -> None:
    monkeypatch.setenv("DVC_STAGE", address)
    load_params(project / "params.yaml", *keys)


@pytest.mark.parametrize(
    ("address", "keys", "told"),
    [
        ("train", ["seed", "ratio"], "dvc.yaml: stage train reads ratio, which its `params:`"),
        ("score", ["seed", "init"], "dvc.yaml: stage score reads seed, init, which its `params:`"),
        (
            "experiments/one/dvc.yaml:each@b",
            ["labels"],
            "experiments/one/dvc.yaml: stage each@b reads labels, which its `params:`",
        ),
    ],
)
def test_an_undeclared_key_under_dvc_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, address: str, keys: list[str], told: str
) -> None:
    monkeypatch.setenv("DVC_STAGE", address)
    assert message(project / "params.yaml", *keys).startswith(told)


def test_a_templates_part_of_a_declared_key_stands_for_any_one_key() -> None:
    declared = {"peers.${item.peer}", "seed"}
    assert all(_covers(declared, key) for key in ("peers.ease", "peers.ease.penalty", "seed"))
    assert not any(_covers(declared, key) for key in ("peers", "ratio.base", "seed2"))


@pytest.mark.parametrize(
    ("master", "known"),
    [
        *[(m, True) for m in ("local", "local[2]", "local[*]", "local-cluster[2,1,1024]", "yarn")],
        *[(m, True) for m in ("spark://a:7077,b:7077", "k8s://https://a:443")],
        *[(m, False) for m in ("nonsense", "", "local[]", "http://a", "yarn-client")],
    ],
)
def test_a_spark_master_is_of_a_kind_that_spark_knows(master: str, known: bool) -> None:
    given = {"device": "cpu", "threads": 0, "checkpoint_seconds": 5, "spark_master": master}
    with nullcontext() if known else pytest.raises(ValidationError, match="spark_master"):
        Runtime.model_validate(given)
