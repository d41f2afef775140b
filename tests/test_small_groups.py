"""Copies of groups that few rows place."""

import numpy as np

from pipeline.estimator.group_moments import GroupMoments
from pipeline.estimator.small_groups import COPIES, MANY, Variants
from pipeline.estimator.tabular import Rows

SIZES = [1, 2, MANY - 5, 400]


def made(seed: int) -> tuple[Rows, Rows, GroupMoments, Variants]:
    """Four groups, whose one column is the number of the row; and their variants."""
    train = Rows(np.arange(sum(SIZES), dtype=np.float32)[:, None], np.repeat(np.arange(4), SIZES))
    valid = Rows(np.zeros((800, 1), np.float32), np.arange(800) % 4)
    moments = GroupMoments.of(train, 4)
    return train, valid, moments, Variants.of(train, valid, moments, np.random.default_rng(seed))


def test_every_row_stays_in_its_group_or_goes_into_a_copy_of_it() -> None:
    train, valid, moments, variants = made(0)
    for before, after in ((train, variants.train), (valid, variants.valid)):
        assert (after.x == before.x).all()
        assert (after.task % 4 == before.task).all()
        assert set((after.task // 4).tolist()) == set(range(1 + COPIES))
    assert (variants.statistic[:4] == moments.statistic()).all()


def test_a_copy_is_placed_by_one_to_all_rows_of_its_group() -> None:
    log_rows = np.stack([made(seed)[3].statistic[4:, 0] for seed in range(60)])
    rows = np.expm1(log_rows).reshape(-1, COPIES, 4).round()
    assert (rows >= 1).all()
    assert (rows <= SIZES).all()
    assert abs(np.median(rows[..., 3]) - 20) < 8  # half of them by less than the root of 400


def test_no_row_is_learned_from_where_it_had_a_part_in_placing() -> None:
    """Mean and number tell which row placed a copy that a single one did."""
    checked = 0
    for seed in range(60):
        _, _, _, variants = made(seed)
        for row, task in zip(variants.train.x[:, 0], variants.train.task, strict=True):
            count, mean = np.expm1(variants.statistic[task, 0]).round(), variants.statistic[task, 1]
            if task >= 4 and count == 1:
                assert abs(row - mean) > 0.5
                checked += 1
    assert checked > 100


def test_a_small_group_learns_in_copies_and_a_large_one_in_both() -> None:
    variants = made(1)[3]
    of_group, copied = variants.train.task % 4, variants.train.task >= 4
    assert copied[of_group == 2].mean() > 0.8
    assert 0.6 < copied[of_group == 3].mean() < 0.9


def test_of_a_single_group_there_are_no_copies() -> None:
    rows = Rows(np.arange(9, dtype=np.float32)[:, None], np.zeros(9, np.int64))
    moments = GroupMoments.of(rows, 1)
    variants = Variants.of(rows, rows, moments, np.random.default_rng(0))
    assert variants.statistic.shape == (1, 3)
    assert (variants.train.task == 0).all()
