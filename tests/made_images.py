"""Tiny CIFAR-10 and MNIST, drawn by a script and written in the publishers' formats."""

from pathlib import Path

import numpy as np

from pipeline.arrays import Bytes
from pipeline.datasets.images import CIFAR10_FOLDER, MNIST_FOLDER, TEST_BATCH, TRAIN_BATCHES

# The segments of a seven-segment display, as (row, column, height, width) on 12 x 8 pixels.
SEGMENTS = (
    *((0, 1, 2, 6), (1, 6, 5, 2), (6, 6, 5, 2), (10, 1, 2, 6)),
    *((6, 0, 5, 2), (1, 0, 5, 2), (5, 1, 2, 6)),
)
LIT = ("012345", "12", "01346", "01236", "1256", "02356", "023456", "012", "0123456", "012356")


def drawn(digit: int, side: int, gen: np.random.Generator) -> Bytes:
    """A digit of a seven-segment display, somewhere near the middle, on a noisy ground."""
    image = gen.integers(0, 60, (side, side))
    top = (side - 24) // 2 + gen.integers(-2, 3)
    left = (side - 16) // 2 + gen.integers(-2, 3)
    for segment in LIT[digit]:
        row, column, height, width = SEGMENTS[int(segment)]
        rows = slice(top + 2 * row, top + 2 * (row + height))
        columns = slice(left + 2 * column, left + 2 * (column + width))
        image[rows, columns] = gen.integers(180, 256)
    return image.astype(np.uint8)


def digits(n: int, side: int, gen: np.random.Generator) -> tuple[Bytes, Bytes]:
    """`n` drawn digits (n, side, side) and which they are (n,), in turn."""
    category = (np.arange(n) % 10).astype(np.uint8)
    return np.stack([drawn(c, side, gen) for c in category]), category


def write_mnist(raw: Path, *, train: int, test: int) -> Path:
    """Write the four IDX files with so many images; return their folder."""
    gen = np.random.default_rng(0)
    folder = raw / MNIST_FOLDER
    folder.mkdir(parents=True)
    for part, n in (("train", train), ("t10k", test)):
        images, labels = digits(n, 28, gen)
        head = b"\0\0\x08\x03" + np.array([n, 28, 28], ">u4").tobytes()
        (folder / f"{part}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        head = b"\0\0\x08\x01" + np.array([n], ">u4").tobytes()
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())
    return folder


def write_cifar10(raw: Path, *, train: int, test: int) -> Path:
    """Write the six batches with so many images in all, digits of random colour; return their
    folder."""
    gen = np.random.default_rng(1)
    folder = raw / CIFAR10_FOLDER
    folder.mkdir(parents=True)
    for name in (*TRAIN_BATCHES, TEST_BATCH):
        n = test if name == TEST_BATCH else train // len(TRAIN_BATCHES)
        grey, labels = digits(n, 32, gen)
        tint = gen.uniform(0.4, 1, (n, 3, 1, 1))
        pixels = (grey[:, None] * tint).astype(np.uint8)  # (n, 3, 32, 32)
        records = np.concatenate([labels[:, None], pixels.reshape(n, -1)], axis=1)
        (folder / name).write_bytes(records.tobytes())
    return folder
