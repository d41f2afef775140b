"""CIFAR-10 and MNIST, read from their publishers' files.

CIFAR-10: Krizhevsky, "Learning multiple layers of features from tiny images", 2009, the binary
version. MNIST: LeCun, Cortes and Burges. Both have ten categories, and a test part of their own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from pipeline.arrays import Bools, Bytes, Ints
from pipeline.datasets.download import Archive
from pipeline.errors import PipelineError

SIDE = 32  # pixels; MNIST's 28 are resized to it (Bai et al., appendix D.1)
CATEGORIES = 10

MNIST_FOLDER = "mnist"
CIFAR10_FOLDER = "cifar-10-batches-bin"
TRAIN_BATCHES = tuple(f"data_batch_{n}.bin" for n in range(1, 6))
TEST_BATCH = "test_batch.bin"


@dataclass(frozen=True)
class Images:
    """Labelled images, those of the publisher's training part first.

    Attributes:
        pixels: (N, channels, SIDE, SIDE), 0 to 255.
        category: (N,), 0 to CATEGORIES - 1.
        test: (N,) whether the publisher put it into the test part.
    """

    pixels: Bytes
    category: Ints
    test: Bools


@dataclass(frozen=True)
class ImageSource:
    """A data set of images.

    Attributes:
        folder: that holds its files.
        archives: that these are downloaded in.
        read: from the folder.
        flips: whether an image's mirror image is one of the same kind; a digit's is not.
    """

    folder: str
    archives: tuple[Archive, ...]
    read: Callable[[Path], Images]
    flips: bool


def read_mnist(folder: Path) -> Images:
    """Read the four IDX files of MNIST, unpacked.

    Raises:
        PipelineError: a file is missing, cut, or not what its name says.
    """
    pixels, category = [], []
    for part in ("train", "t10k"):
        images = _read_idx(folder / f"{part}-images-idx3-ubyte", dimensions=3)
        path = folder / f"{part}-labels-idx1-ubyte"
        labels = _read_idx(path, dimensions=1)
        if len(labels) != len(images):
            raise PipelineError(
                f"{path}: expected a label for each of {len(images):,} images, found "
                f"{len(labels):,}. The files do not belong together; fetch all four again."
            )
        _check_categories(labels, path)
        pixels.append(_resized(images))
        category.append(labels)
    return _joined(pixels, category)


def read_cifar10(folder: Path) -> Images:
    """Read the six batches of CIFAR-10's binary version.

    Raises:
        PipelineError: a batch is missing, cut, or holds something else.
    """
    size = 1 + 3 * SIDE * SIDE  # a label, then the red, green and blue planes
    batches: list[Bytes] = []
    for name in (*TRAIN_BATCHES, TEST_BATCH):
        path = folder / name
        content = _content(path)
        if not len(content) or len(content) % size:
            raise PipelineError(
                f"{path}: expected records of {size:,} bytes, found {len(content):,} bytes, which "
                "is no multiple. The file is cut or another one; fetch it again."
            )
        batch = content.reshape(-1, size)
        if name in TRAIN_BATCHES and batches and len(batch) != len(batches[0]):
            raise PipelineError(
                f"{path}: expected {len(batches[0]):,} images as in {TRAIN_BATCHES[0]}, found "
                f"{len(batch):,}. One of the two is cut; fetch it again."
            )
        _check_categories(batch[:, 0], path)
        batches.append(batch)
    parts = [np.concatenate(batches[:-1]), batches[-1]]
    pixels = [part[:, 1:].reshape(-1, 3, SIDE, SIDE) for part in parts]
    return _joined(pixels, [part[:, 0] for part in parts])


def _read_idx(path: Path, dimensions: int) -> Bytes:
    """The array of bytes in an IDX file: magic number, one length a dimension, then the bytes."""
    content = _content(path)
    expected = f"00 00 08 {dimensions:02x}"  # 08 stands for unsigned bytes
    if (found := content[:4].tobytes().hex(" ")) != expected:
        raise PipelineError(
            f"{path}: expected the magic number {expected}, found {found or 'an empty file'}. "
            "It is not this IDX file, or still packed; fetch it again."
        )
    lengths = content[4 : 4 + 4 * dimensions]
    shape = tuple(int(n) for n in lengths[: len(lengths) // 4 * 4].view(">u4"))
    body = content[4 + 4 * dimensions :]
    if len(shape) < dimensions or len(body) != np.prod(shape):
        raise PipelineError(
            f"{path}: expected {' x '.join(f'{n:,}' for n in shape) or 'some'} bytes after the "
            f"header, found {len(body):,}. The file is cut or damaged; fetch it again."
        )
    return body.reshape(shape)


def _content(path: Path) -> Bytes:
    try:
        return np.fromfile(path, np.uint8)
    except OSError as error:
        raise PipelineError(
            f"{path}: cannot be read ({error.strerror}). Name the folder that holds "
            f"{path.parent.name}/ by data.raw_dir, or leave it out to have it downloaded."
        ) from None


def _check_categories(labels: Bytes, path: Path) -> None:
    wrong = np.flatnonzero(labels >= CATEGORIES)
    if len(wrong):
        raise PipelineError(
            f"{path}: image {wrong[0]:,}: expected a label from 0 to {CATEGORIES - 1}, found "
            f"{labels[wrong[0]]}. The file is damaged; fetch it again."
        )


def _resized(images: Bytes) -> Bytes:
    """Grey images (N, 28, 28) as (N, 1, SIDE, SIDE), bilinearly."""
    blocks = torch.from_numpy(images)[:, None].split(4096)
    resized = [F.interpolate(b.float(), (SIDE, SIDE), mode="bilinear").round() for b in blocks]
    pixels: Bytes = torch.cat([block.byte() for block in resized]).numpy()
    return pixels


def _joined(pixels: list[Bytes], category: list[Bytes]) -> Images:
    """The training part, then the test part."""
    test = np.repeat([False, True], [len(part) for part in category])
    return Images(np.concatenate(pixels), np.concatenate(category).astype(np.int64), test)


def _mnist(name: str, sha256: str) -> Archive:
    host = "https://ossci-datasets.s3.amazonaws.com/mnist"
    return Archive(f"{host}/{name}.gz", sha256, MNIST_FOLDER, (name,))


SOURCES: Mapping[str, ImageSource] = {
    "cifar10": ImageSource(
        CIFAR10_FOLDER,
        (
            Archive(
                "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                CIFAR10_FOLDER,
                ("batches.meta.txt", *TRAIN_BATCHES, "readme.html", TEST_BATCH),
            ),
        ),
        read_cifar10,
        flips=True,
    ),
    "mnist": ImageSource(
        MNIST_FOLDER,
        (
            _mnist(
                "train-images-idx3-ubyte",
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            _mnist(
                "train-labels-idx1-ubyte",
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            _mnist(
                "t10k-images-idx3-ubyte",
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            _mnist(
                "t10k-labels-idx1-ubyte",
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ),
        read_mnist,
        flips=False,
    ),
}
