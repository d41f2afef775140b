"""Images and their tasks: read exactly, counted, each image shown to one task, faults named."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from pipeline.datasets.images import SOURCES, Images, read_cifar10, read_mnist
from pipeline.errors import PipelineError
from pipeline.images.tasks import (
    active_categories,
    category_sides,
    expose,
    image_examples,
    make_tasks,
    split_images,
    standardised,
)
from pipeline.schemas import EXPOSURES, SPLITS, TASKS
from tests.made_images import write_cifar10, write_mnist


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Images:
    return read_cifar10(write_cifar10(tmp_path_factory.mktemp("raw"), train=400, test=100))


def users_of(images: Images) -> tuple[pa.Table, pa.Table]:
    rows, splits = split_images(images, train=None, valid=100, test=None, seed=0)
    return pa.table({"user_id": rows, "category": images.category[rows]}), splits


def test_the_real_mnist_has_its_published_counts(packed_data: Path, tmp_path: Path) -> None:
    unpack = packed_data / "unpack.py"
    subprocess.run([sys.executable, unpack, "mnist", tmp_path], check=True, capture_output=True)
    images = read_mnist(tmp_path / "mnist")
    assert np.bincount(images.test).tolist() == [60_000, 10_000]
    assert images.pixels.shape == (70_000, 1, 32, 32)
    of_train = images.category[~images.test]
    assert np.bincount(of_train).tolist() == [
        *(5_923, 6_742, 5_958, 6_131, 5_842, 5_421, 5_918, 6_265, 5_851, 5_949)
    ]
    # Resizing keeps the published mean of the training pixels, .1307.
    assert images.pixels[~images.test].mean() / 255 == pytest.approx(0.1307, abs=0.001)


def test_cifar_planes_and_labels_lie_where_the_format_says(tmp_path: Path) -> None:
    folder = write_cifar10(tmp_path, train=50, test=10)
    images = read_cifar10(folder)
    record = (folder / "data_batch_2.bin").read_bytes()[3 * 3073 : 4 * 3073]  # image 13 of all
    assert images.category[13] == record[0]
    assert images.pixels[13, 2, 5, 7] == record[1 + 2 * 1024 + 5 * 32 + 7]
    assert np.bincount(images.test).tolist() == [50, 10]


def test_mnist_labels_stay_with_their_images(tmp_path: Path) -> None:
    images = read_mnist(write_mnist(tmp_path, train=40, test=20))
    assert images.category.tolist() == [n % 10 for n in (*range(40), *range(20))]
    one, eight = images.pixels[images.category == 1], images.pixels[images.category == 8]
    assert eight.mean() > 1.5 * one.mean()  # an 8 has three times the ink of a 1


def cut(content: bytes) -> bytes:
    return content[:-1]


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("train-images-idx3-ubyte", cut, "expected 40 x 28 x 28 bytes .* found 31,359"),
        ("train-images-idx3-ubyte", lambda b: b"\x1f\x8b" + b[2:], "magic .* found 1f 8b 08 03"),
        ("train-images-idx3-ubyte", lambda b: b"", "magic number .* found an empty file"),
        ("train-images-idx3-ubyte", lambda b: b[:7], "found 0. The file is cut"),
        ("t10k-labels-idx1-ubyte", lambda b: b[:-1] + b"\x0a", "image 19: .* 0 to 9, found 10"),
        (
            "t10k-labels-idx1-ubyte",
            lambda b: b[:7] + b"\x13" + b[8:-1],
            "a label for each of 20 images, found 19",
        ),
        ("t10k-images-idx3-ubyte", None, r"cannot be read \(No such file.*data.raw_dir"),
    ],
)
def test_a_fault_of_mnist_is_named_in_one_line(
    tmp_path: Path, name: str, spoil: Callable[[bytes], bytes] | None, message: str
) -> None:
    _fault(write_mnist(tmp_path, train=40, test=20) / name, spoil, message, read_mnist)


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("data_batch_3.bin", cut, "records of 3,073 bytes, found 30,729 bytes"),
        ("data_batch_3.bin", lambda b: b[:-3073], "expected 10 images as in .*1.bin, found 9"),
        ("test_batch.bin", lambda b: b"", "found 0 bytes"),
        ("test_batch.bin", lambda b: b"\xff" + b[1:], "image 0: .* found 255"),
        ("data_batch_5.bin", None, r"cannot be read \(No such file"),
    ],
)
def test_a_fault_of_cifar10_is_named_in_one_line(
    tmp_path: Path, name: str, spoil: Callable[[bytes], bytes] | None, message: str
) -> None:
    _fault(write_cifar10(tmp_path, train=50, test=10) / name, spoil, message, read_cifar10)


def _fault(
    path: Path,
    spoil: Callable[[bytes], bytes] | None,
    message: str,
    read: Callable[[Path], Images],
) -> None:
    if spoil is None:
        path.unlink()
    else:
        path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(PipelineError, match=f"{re.escape(str(path))}: .*{message}") as raised:
        read(path.parent)
    assert "\n" not in str(raised.value)


def test_every_checksum_is_pinned() -> None:
    sums = [archive.sha256 for source in SOURCES.values() for archive in source.archives]
    assert len(set(sums)) == len(sums) == 5
    assert all(re.fullmatch("[0-9a-f]{64}", one) for one in sums)


@pytest.mark.parametrize(("k", "count"), [(1, 10), (2, 45), (3, 120), (4, 210), (5, 252)])
def test_the_tasks_are_all_choices_and_an_image_is_shown_to_one_active_task(
    cifar: Images, k: int, count: int
) -> None:
    users, splits = users_of(cifar)
    made = make_tasks(users, splits, k, seed=0)
    TASKS.check(made.tasks, "here")
    EXPOSURES.check(made.exposures, "here")
    SPLITS.check(splits, "here")
    active = active_categories(made.tasks)
    assert len(active) == count == len({tuple(row) for row in active})
    assert (active.sum(axis=1) == k).all()
    shown = made.exposures["user_id"].to_numpy()
    assert shown.tolist() == np.flatnonzero(~cifar.test).tolist()  # each once, no test image
    task = made.exposures["item_id"].to_numpy()
    assert active[task, cifar.category[shown]].all()
    assert made.tasks["exposures"].to_numpy().sum() == 400
    assert made.tasks["train_exposures"].to_numpy().sum() == 300


def test_an_image_is_equally_likely_in_each_task_of_its_category() -> None:
    task = expose(np.full(36_000, 7), 2, np.random.default_rng(0))
    counts = np.bincount(task, minlength=45)
    assert (counts > 0).sum() == 9  # the pairs that hold a 7
    assert counts[counts > 0] == pytest.approx(4_000, rel=0.06)


def test_the_split_keeps_test_images_apart_and_reduces_each_part(cifar: Images) -> None:
    rows, splits = split_images(cifar, train=90, valid=30, test=20, seed=3)
    split = splits["split"].to_numpy(zero_copy_only=False)
    assert {name: int((split == name).sum()) for name in ("train", "valid", "test")} == {
        "train": 90,
        "valid": 30,
        "test": 20,
    }
    assert (cifar.test[rows] == (split == "test")).all()


def test_more_images_than_there_are_is_one_line(cifar: Images) -> None:
    with pytest.raises(PipelineError, match="401 images are wanted of a part that has 400"):
        split_images(cifar, train=301, valid=100, test=None, seed=0)


def test_channels_are_standardised_over_the_training_images(cifar: Images) -> None:
    train = np.arange(300)
    x = torch.from_numpy(standardised(cifar.pixels, train)[train])
    assert x.mean((0, 2, 3)).tolist() == pytest.approx([0, 0, 0], abs=1e-4)
    assert x.std((0, 2, 3)).tolist() == pytest.approx([1, 1, 1], abs=1e-4)


def test_examples_and_sides_agree_on_who_is_nominal(cifar: Images) -> None:
    users, splits = users_of(cifar)
    made = make_tasks(users, splits, 3, seed=0)
    examples = image_examples(standardised(cifar.pixels, np.arange(400)), users, splits, made)
    sides = category_sides(active_categories(made.tasks), users["category"].to_numpy())
    assert sides.positive[examples.pairs.task, examples.pairs.user].all()
    assert (sides.positive ^ sides.negative).all()
    assert len(examples.learned) == 300
