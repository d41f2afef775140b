"""Every reader, fed with spoiled files: a PipelineError of one line, or what is still whole."""

import hashlib
import io
import shutil
import signal
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import schemas
from pipeline.datasets.download import Archive, fetch
from pipeline.datasets.images import SIDE, TEST_BATCH, TRAIN_BATCHES, read_cifar10, read_mnist
from pipeline.datasets.movielens import read_movielens
from pipeline.datasets.tables import read_tables
from pipeline.datasets.triples import read_graph
from pipeline.errors import PipelineError
from pipeline.features.extractor import Extractor
from pipeline.features.own_vectors import own_vectors
from pipeline.model_files import read_model, read_network
from pipeline.models.ratio import PreEmbeddingNet, RatioNet
from pipeline.params import load_params
from pipeline.schemas import Schema
from pipeline.storage import read_table
from pipeline.text_files import read_history, read_json
from tests.mutations import spoiled, wrong_table
from tests.projects import ROOT, invoke, set_params
from tests.results import record

FEW, MANY = 25, 600
AMOUNTS = [FEW, pytest.param(MANY, marks=pytest.mark.full)]
Files = Mapping[str, bytes]


def fuzz(examples: int, inputs: st.SearchStrategy, trial: Callable[..., str]) -> Counter[str]:
    """Try many inputs, none for longer than a minute; count what `trial` says of each."""
    said: Counter[str] = Counter()

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=examples <= FEW,  # `make test` does the same each time
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs)
    def one(value: object) -> None:
        with at_most(seconds=60):
            said[trial(value)] += 1

    one()
    return said


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    def hung(signum: int, frame: FrameType | None) -> None:
        raise AssertionError(f"still at it after {seconds} s")

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(read: Callable[[], object], folder: Path) -> str:
    """What became of reading: "read", or "refused" in one line that names a file of `folder`."""
    try:
        read()
    except PipelineError as error:
        said = str(error)
    else:
        return "read"
    assert "\n" not in said
    assert str(folder) in said
    return "refused"


def told(reader: str, said: Counter[str], examples: int) -> None:
    if examples == MANY:
        record(
            f"Fuzz: {reader}",
            __file__,
            [f"{said.total():,} inputs: {said['refused']:,} refused, {said['read']:,} read."],
        )


@dataclass(frozen=True)
class Reader:
    """Whole files, and what reads the folder that they lie in."""

    files: Files
    read: Callable[[Path], object]


def bytes_of(folder: Path, *names: str) -> Files:
    paths = [folder / name for name in names] if names else [*folder.iterdir()]
    return {path.name: path.read_bytes() for path in paths}


def shown(table: pa.Table, suffix: str) -> bytes:
    buffer = io.BytesIO()
    if suffix == "parquet":
        pq.write_table(table, buffer)
    else:
        comma = "\t" if suffix == "tsv" else ","
        form = pacsv.WriteOptions(
            delimiter=comma, quoting_style="none" if comma == "\t" else "needed"
        )
        pacsv.write_csv(table, buffer, form)
    return buffer.getvalue()


OWN = {
    "exposures": pa.table(
        {
            "user_id": [1, 1, 2, 3, 3],
            "item_id": [7, 8, 7, 9, 8],
            "rating": [5, None, 3, 1, 1],
            "timestamp": [978300000, 978300001, 978300002, None, 978300004],
        }
    ),
    "users": pa.table({"user_id": [1, 2, 3], "age": [20, 30, 40], "country": ["DE", "PL", "ES"]}),
    "items": pa.table({"item_id": [7, 8, 9], "title": ["A", "B", "C"], "genres": ["X|Y", "X", ""]}),
    "features": pa.table({"user_id": [1, 2, 3], "a": [0.5, 1.5, -0.5], "b": [1, 2, 3]}),
}


def own_tables(suffix: str, *, text_ids: bool) -> Reader:
    names = ("exposures", "users", "items")
    files = {f"{name}.{suffix}": shown(OWN[name], suffix) for name in names}
    return Reader(files, lambda folder: read_tables(folder, text_ids=text_ids))


def own_features(suffix: str) -> Reader:
    def read(folder: Path) -> object:
        users = pa.table({"user_id": pa.array([1, 2, 3], pa.int64())})
        visible = torch.ones(3, dtype=torch.bool).numpy()
        return own_vectors(folder, users, visible, text_ids=False)

    return Reader({f"features.{suffix}": shown(OWN["features"], suffix)}, read)


def archive() -> Reader:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name in ("README", "ratings.dat"):
            opened.writestr(f"made/{name}", b"1::1::5::9\n" * 20)

    def read(folder: Path) -> object:
        """As if the publisher named the checksum of the spoiled archive."""
        file = folder / "made.zip"
        digest = hashlib.sha256(file.read_bytes() if file.exists() else b"").hexdigest()
        expected = Archive("http://127.0.0.1:9/made.zip", digest, "made", ("README", "ratings.dat"))
        return fetch(expected, folder, lambda done, total: None)

    return Reader({"made.zip": buffer.getvalue()}, read)


def triples(suffix: str) -> Reader:
    facts = {"head": ["Q1", "Q1", "Q2"], "relation": ["by", "in", "by"], "tail": ["a", "b", "a"]}
    tables = {
        "facts": pa.table(facts),
        "items": pa.table({"movie_id": [7, 8], "uri": ["Q1", "Q2"]}),
    }
    items = pa.table({"item_id": pa.array([7, 8, 9], pa.int64())})
    base = load_params(ROOT / "params.yaml", "graph").graph

    def read(folder: Path) -> object:
        names = {"triples": f"{folder}/facts.{suffix}", "items": f"{folder}/items.{suffix}"}
        return read_graph(base.model_copy(update=names), items)

    return Reader(
        {f"{name}.{suffix}": shown(table, suffix) for name, table in tables.items()}, read
    )


def images() -> dict[str, Reader]:
    """The smallest files of MNIST, two images a part, and of CIFAR-10, two a batch."""
    idx = {}
    for part in ("train", "t10k"):
        pixels = bytes(range(256)) * 7  # 1,792 of them, two images' worth and more
        header = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (2, 28, 28))
        idx[f"{part}-images-idx3-ubyte"] = header + pixels[: 2 * 28 * 28]
        idx[f"{part}-labels-idx1-ubyte"] = b"\0\0\x08\x01\0\0\0\x02\x03\x09"
    record = bytes([7]) + bytes(3 * SIDE * SIDE)
    batches = dict.fromkeys((*TRAIN_BATCHES, TEST_BATCH), record * 2)
    return {"MNIST": Reader(idx, read_mnist), "CIFAR-10": Reader(batches, read_cifar10)}


def readers(built: Path, movielens: Path) -> dict[str, Reader]:
    cpu = torch.device("cpu")
    ratio, pretrain, features = (built / "data" / n for n in ("ratio", "pretrain", "features"))
    return {
        "MovieLens": Reader(bytes_of(movielens), read_movielens),
        "params.yaml": Reader(
            bytes_of(ROOT, "params.yaml"), lambda f: load_params(f / "params.yaml", "data")
        ),
        **images(),
        "own tables, CSV": own_tables("csv", text_ids=False),
        "own tables, CSV, text ids": own_tables("csv", text_ids=True),
        "own tables, Parquet": own_tables("parquet", text_ids=False),
        "own vectors, CSV": own_features("csv"),
        "own vectors, Parquet": own_features("parquet"),
        "triples, CSV": triples("csv"),
        "triples, TSV": triples("tsv"),
        "triples, Parquet": triples("parquet"),
        "archive": archive(),
        "Parquet artefact": Reader(
            bytes_of(built / "data", "tasks.parquet"),
            lambda f: read_table(f / "tasks.parquet", schemas.TASKS),
        ),
        "ratio network": Reader(
            bytes_of(ratio, "model.safetensors"),
            lambda f: read_network(RatioNet, f / "model.safetensors"),
        ),
        "pre-embedding network": Reader(
            bytes_of(pretrain, "model.safetensors"),
            lambda f: read_network(PreEmbeddingNet, f / "model.safetensors"),
        ),
        "DeepFM": Reader(
            bytes_of(features, "deepfm.safetensors"),
            lambda f: Extractor.read(f / "deepfm.safetensors", cpu),
        ),
        "projection": Reader(
            bytes_of(built / "data", "projection.safetensors"),
            lambda f: read_model(f / "projection.safetensors"),
        ),
        "history": Reader(
            bytes_of(ratio, "history.csv"), lambda f: read_history(f / "history.csv")
        ),
        "metrics": Reader(
            bytes_of(built / "metrics", "auc.json"), lambda f: read_json(f / "auc.json")
        ),
    }


@st.composite
def spoiled_files(draw: st.DrawFn, files: Files) -> Files:
    """The files with one of them spoiled or removed, or with two of them swapped."""
    name = draw(st.sampled_from(sorted(files)))
    how = draw(st.sampled_from(["spoiled"] * 8 + ["removed", "swapped"]))
    if how == "removed" and name != "made.zip":  # which would then be downloaded
        return {key: content for key, content in files.items() if key != name}
    if how == "swapped":
        other = draw(st.sampled_from(sorted(files)))
        return {**files, name: files[other], other: files[name]}
    return {**files, name: draw(spoiled(files[name]))}


READERS = [
    *("MovieLens", "MNIST", "CIFAR-10", "params.yaml", "archive", "history", "metrics"),
    *("own tables, CSV", "own tables, CSV, text ids", "own tables, Parquet"),
    *("own vectors, CSV", "own vectors, Parquet", "Parquet artefact"),
    *("triples, CSV", "triples, TSV", "triples, Parquet"),
    *("ratio network", "pre-embedding network", "DeepFM", "projection"),
]


@pytest.mark.parametrize("examples", AMOUNTS)
@pytest.mark.parametrize("name", READERS)
def test_spoiled_bytes_are_refused_in_one_line_or_read_as_something_whole(
    name: str, examples: int, built: Path, made_movielens: Path, tmp_path: Path
) -> None:
    reader = readers(built, made_movielens)[name]
    folder = tmp_path / "spoiled"

    def trial(files: Files) -> str:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for file, content in files.items():
            (folder / file).write_bytes(content)
        return outcome(lambda: reader.read(folder), folder)

    said = fuzz(examples, spoiled_files(reader.files), trial)
    assert said["refused"] > 0
    told(name, said, examples)


TABLES: dict[str, tuple[str, Schema]] = {
    "users": ("data/prepared/users.parquet", schemas.USERS),
    "items": ("data/prepared/items.parquet", schemas.ITEMS),
    "exposures": ("data/prepared/exposures.parquet", schemas.EXPOSURES),
    "splits": ("data/prepared/splits.parquet", schemas.SPLITS),
    "features": ("data/features/users.parquet", schemas.FEATURES),
    "tasks": ("data/tasks.parquet", schemas.TASKS),
    "seed tasks": ("data/pretrain/seed_tasks.parquet", schemas.SEED_TASKS),
    "task embeddings": ("data/ratio/task_embeddings.parquet", schemas.TASK_EMBEDDINGS),
    "scores": ("data/evaluation/scores.parquet", schemas.SCORES),
}


def some_rows(path: Path) -> pa.Table:
    return pq.read_table(path).slice(0, 40)


@pytest.mark.parametrize("examples", AMOUNTS)
@pytest.mark.parametrize("name", TABLES)
def test_a_wrong_table_is_refused_in_one_line_or_fits_its_schema(
    name: str, examples: int, built: Path, tmp_path: Path
) -> None:
    path = tmp_path / "table.parquet"
    file, schema = TABLES[name]
    others = [some_rows(built / other) for other, _ in TABLES.values()]

    def trial(table: pa.Table) -> str:
        pq.write_table(table, path)
        return outcome(lambda: read_table(path, schema), tmp_path)

    said = fuzz(examples, wrong_table(some_rows(built / file), others), trial)
    assert said["refused"] > 0
    told(f"table of {name}", said, examples)


WRITES: dict[str, tuple[str, ...]] = {  # a stage, and the folders or files that it writes
    "extract_features": ("data/features",),
    "filter_tasks": ("data/tasks.parquet",),
    "pretrain": ("data/pretrain",),
    "graph": ("data/graph",),
    "project": ("data/task_init.parquet", "data/projection.safetensors"),
    "train": ("data/ratio",),
    "score": ("data/evaluation",),
    "evaluate": ("metrics",),
    "report": ("data/report",),
}
READS = [  # a stage, and a file among its inputs
    *(("extract_features", name) for name in ("users", "items", "exposures", "splits")),
    *(("filter_tasks", name) for name in ("users", "exposures", "splits")),
    *(("pretrain", name) for name in ("features", "tasks", "exposures", "splits")),
    *(("graph", name) for name in ("items", "exposures", "splits")),
    *(("project", name) for name in ("users", "features", "tasks", "exposures", "splits")),
    *(("project", name) for name in ("item vectors", "pre-embedding network")),
    *(("train", name) for name in ("features", "tasks", "exposures", "splits", "starts")),
    *(("score", name) for name in ("task embeddings", "features", "tasks", "splits")),
    ("score", "ratio network"),
    *(("evaluate", name) for name in ("scores", "tasks", "users", "splits", "exposures")),
    *(("evaluate", name) for name in ("features", "DeepFM's history", "links", "ratio's history")),
    *(("report", name) for name in ("users", "items", "tasks", "exposures", "splits", "scores")),
    *(
        ("report", name)
        for name in ("task embeddings", "metrics", "AUCs", "ROC", "ratio's history")
    ),
    *(("report", name) for name in ("features", "starts", "ratio network", "DeepFM's history")),
    ("report", "pre-embedding's history"),
]
OTHER_FILES = {
    "DeepFM's history": "data/features/history.csv",
    "item vectors": "data/graph/items.parquet",
    "pre-embedding's history": "data/pretrain/history.csv",
    "pre-embedding network": "data/pretrain/model.safetensors",
    "links": "data/graph/link_prediction.csv",
    "starts": "data/task_init.parquet",
    "ratio network": "data/ratio/model.safetensors",
    "ratio's history": "data/ratio/history.csv",
    "metrics": "metrics/auc.json",
    "AUCs": "metrics/task_auc.csv",
    "ROC": "metrics/roc.csv",
}


@pytest.mark.parametrize("examples", [pytest.param(100, marks=pytest.mark.full), 4])
@pytest.mark.parametrize(("stage", "name"), READS, ids=lambda part: part)
def test_a_stage_refuses_a_wrong_file_in_one_line_and_writes_nothing_or_does_its_work(
    stage: str, name: str, examples: int, built: Path, tmp_path: Path
) -> None:
    project = Path(shutil.copytree(built, tmp_path / "project"))
    for section in ("features", "pretrain", "graph", "ratio"):
        set_params(project, {section: {"max_epochs": 1}})
    written = [project / path for path in WRITES[stage]]
    file = project / (TABLES[name][0] if name in TABLES else OTHER_FILES[name])

    def trial(content: pa.Table | bytes) -> str:
        for path in written:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        file.parent.mkdir(exist_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            pq.write_table(content, file)
        result = invoke(project, stage)
        if result.exit_code == 0:
            return "read"
        assert isinstance(result.exception, SystemExit), result.exc_info
        assert all(line.startswith(f"{stage}: ") for line in result.stderr.splitlines())
        assert result.stderr.strip()
        assert not any(path.exists() for path in written)
        return "refused"

    said = fuzz(examples, wrong_file(file, built), trial)
    if examples == 100:
        told(f"stage {stage}, {name}", said, MANY)


def wrong_file(file: Path, built: Path) -> st.SearchStrategy[pa.Table | bytes]:
    if file.suffix != ".parquet":
        return spoiled(file.read_bytes())
    others = [pq.read_table(built / other) for other, _ in TABLES.values()]
    return wrong_table(pq.read_table(file), others)
