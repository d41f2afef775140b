"""Rows as the network takes them, and its scores as they are told: equal rows score equally."""

import numpy as np
from sklearn.preprocessing import StandardScaler

from pipeline.arrays import Doubles, Ints, Singles
from pipeline.estimator.tabular import Rows

DIGITS = 30  # binary, of a score


def single(scaler: StandardScaler, x: Doubles) -> Singles:
    """Rows standardised, in the single precision of those kept: equal rows stay equal."""
    with np.errstate(over="ignore"):
        z: Singles = scaler.transform(x).astype(np.float32)
    return z


def standardised(scaler: StandardScaler, x: Doubles, code: Ints) -> Rows:
    """The rows of groups as the network takes them.

    Raises:
        ValueError: a row that is beyond single precision.
    """
    z = single(scaler, x)
    beyond = ~np.isfinite(z).all(1)
    if beyond.any():
        raise ValueError(
            f"Row {np.argmax(beyond)} lies too far from the others to be learned from: "
            "standardised, it is beyond single precision."
        )
    return Rows(z, code)


def finished(score: Doubles, z: Singles) -> Doubles:
    """Scores of rows z without their last bits, which vary with a row's neighbours.

    Nine digits are left, or nine decimals under 1. Minus infinity stands where a row is so far
    away that single precision or the network overflows.
    """
    step = np.ldexp(1.0, np.frexp(np.maximum(np.abs(score), 1))[1] - DIGITS)
    known = np.isfinite(z).all(1) & ~np.isnan(score)
    return np.where(known, np.round(score / step) * step, -np.inf)
