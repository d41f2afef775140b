"""Which users are for training, validation and test, and which of their exposures are held out.

All is decided by a hash of ids and `data.split_seed` (`pipeline.hashing`), so that they are the
same on every machine, engine and library version, and a user's split never changes when others are
appended.

* A user is in `test` if hash(0, split_seed, user_id) is below test_share, else in `valid` if
  hash(1, split_seed, user_id) is below valid_share, else in `train`.
* Of the n exposures of a user of `valid` or `test`, the floor(held_out_share n + 1/2) with the
  smallest hash(2, split_seed, user_id, item_id) are held out, but never all n.
* Where only some users of `valid` and of `test` are measured (`Measured`), they are those with the
  smallest hash(3, user_id): the same whatever was learned, and fewer of them are a part of more.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.arrays import Bools, Ints
from pipeline.errors import PipelineError
from pipeline.hashing import HELD_OUT, MEASURED, TEST, VALID, fraction, hash_of
from pipeline.pairs import ids_of, rows_of, split_rows

NAMES = ("train", "valid", "test")


def split_users(user_ids: Ints, *, test_share: float, valid_share: float, seed: int) -> pa.Table:
    """The splits table of `user_ids` (U,), which are sorted.

    Args:
        user_ids: all users.
        test_share: expected share of all users in `test`.
        valid_share: expected share of the users not in `test` in `valid`.
        seed: `data.split_seed`.

    Raises:
        PipelineError: no user falls into one of the splits.
    """
    split = split_of(user_ids, test_share=test_share, valid_share=valid_share, seed=seed)
    for name in NAMES:
        if not (split == name).any():
            raise PipelineError(
                f"params.yaml: data.test_share {test_share} and data.valid_share {valid_share} "
                f"leave the {name} split of {len(user_ids):,} users empty; change the shares or "
                f"data.split_seed (found {seed})."
            )
    return pa.table({"user_id": user_ids, "split": pa.array(split.tolist(), pa.string())})


def split_of(
    user_ids: Ints, *, test_share: float, valid_share: float, seed: int
) -> npt.NDArray[np.str_]:
    """The split of each of any users (n,), by the law of `split_users`."""
    test = fraction(hash_of(TEST, seed, user_ids)) < test_share
    valid = fraction(hash_of(VALID, seed, user_ids)) < valid_share
    return np.where(test, "test", np.where(valid, "valid", "train"))


def hold_out(exposures: pa.Table, splits: pa.Table, *, share: float, seed: int) -> pa.Table:
    """The exposures with a column `held_out`: pairs that are shown to nothing that learns.

    Args:
        exposures: distinct pairs.
        splits: from `split_users`.
        share: of the exposures of every validation and test user, rounded half up; at least one
            exposure of a user stays visible. Training users have none held out.
        seed: `data.split_seed`.
    """
    user_id, item_id = (exposures.column(name).to_numpy() for name in ("user_id", "item_id"))
    known = ids_of(splits, "user_id")
    user = rows_of(user_id, known, "user")
    count = np.bincount(user, minlength=len(known))  # (U,) exposures of each user
    training = splits.column("split").to_numpy(zero_copy_only=False) == "train"
    quota = np.minimum(np.floor(share * count + 0.5), count - 1).astype(np.int64)
    quota[training | (count == 0)] = 0
    held_out: Bools = np.zeros(len(user), bool)
    rows = np.flatnonzero(quota[user])  # of users of whom something is held out
    user_id, item_id, user = user_id[rows], item_id[rows], user[rows]
    order = np.lexsort((item_id, hash_of(HELD_OUT, seed, user_id, item_id), user))
    sorted_of = np.where(quota > 0, count, 0)  # (U,) pairs in that order
    first = np.cumsum(sorted_of) - sorted_of  # (U,) where each user's begin in it
    held_out[rows[order]] = np.arange(len(rows)) - first[user[order]] < quota[user[order]]
    return exposures.append_column("held_out", pa.array(held_out))


@dataclass(frozen=True)
class Measured:
    """The validation and test users whose scores are measured: all, or a sample of each.

    Attributes:
        valid: rows of the validation users, rising.
        test: rows of the test users, rising.
        valid_of: how many validation users there are.
        test_of: how many test users there are.
    """

    valid: Ints
    test: Ints
    valid_of: int
    test_of: int

    @property
    def rows(self) -> Ints:
        """Rows of both, rising: the users that are scored."""
        return np.sort(np.concatenate((self.valid, self.test)))

    @property
    def test_columns(self) -> Ints:
        """Where the test users are among `rows`."""
        return np.searchsorted(self.rows, self.test)

    @property
    def valid_columns(self) -> Ints:
        """Where the validation users are among `rows`."""
        return np.searchsorted(self.rows, self.valid)

    @property
    def is_sample(self) -> bool:
        """Whether anybody is left out."""
        return (len(self.valid), len(self.test)) != (self.valid_of, self.test_of)

    def __str__(self) -> str:
        """Such as "1,208 validation and test users", or how many of how many."""
        whole = f"{self.valid_of + self.test_of:,} validation and test users"
        return f"a sample of {len(self.rows):,} of {whole}" if self.is_sample else whole


def measured_users(splits: pa.Table, users: pa.Table, most: int | None) -> Measured:
    """Whose scores are measured, as rows of `users`: at most `most` of either split, None for all.

    Raises:
        PipelineError: a split without users, or with one who is not among `users`.
    """
    valid, test = (split_rows(splits, users, name) for name in ("valid", "test"))
    ids = ids_of(users, "user_id")
    return Measured(_sample(valid, ids, most), _sample(test, ids, most), len(valid), len(test))


def _sample(rows: Ints, user_ids: Ints, most: int | None) -> Ints:
    """`most` of the rows, rising, whatever order they come in."""
    if most is None or most >= len(rows):
        return rows
    return np.sort(rows[np.argsort(hash_of(MEASURED, user_ids[rows]), kind="stable")[:most]])
