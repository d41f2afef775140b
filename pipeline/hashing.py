"""A hash of whole numbers: the same on every machine, engine and library version.

The hash of a sequence of integers k1, k2, ... starts at h = 0 and takes h = splitmix64(h xor k) for
each k, in unsigned 64-bit arithmetic. splitmix64 (Steele, Lea, Flood 2014) adds 0x9E3779B97F4A7C15
and mixes: h ^= h >> 30, h *= 0xBF58476D1CE4E5B9, h ^= h >> 27, h *= 0x94D049BB133111EB,
h ^= h >> 31. A hash becomes a number in [0, 1) as (h >> 11) / 2^53.

The first integer says what the hash is for, so that no two purposes share their draws.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from pipeline.arrays import Doubles, Ints

Hashes = npt.NDArray[np.uint64]

TEST: Final = 0  # whether a user is in the split test
VALID: Final = 1  # else, whether in the split valid
HELD_OUT: Final = 2  # which exposures of a user are held out
MEASURED: Final = 3  # which users are measured where not all are
PART: Final = 4  # which part of the exposures an item lies in


def hash_of(*keys: int | Ints) -> Hashes:
    """The hash of each row of the keys, broadcast against each other.

    Example:
        >>> hash_of(0).tolist() == [0xE220A8397B1DCDAF]
        True
    """
    state = np.zeros(1, np.uint64)
    for key in keys:
        state = _splitmix64(state ^ np.asarray(key).astype(np.uint64))
    return state


def fraction(hashes: Hashes) -> Doubles:
    """Hashes as numbers in [0, 1)."""
    return (hashes >> np.uint64(11)) / 2.0**53


def _splitmix64(z: Hashes) -> Hashes:
    z = z + np.uint64(0x9E3779B97F4A7C15)  # arrays of uint64 wrap around without a warning
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
