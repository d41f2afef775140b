"""The detector's parameters, checked when they are used: what is wrong with one is a ValueError."""

from collections.abc import Mapping
from numbers import Real
from operator import index
from typing import Any

import torch
from pydantic import ValidationError

from pipeline.params import Ratio

Given = Mapping[str, Any]  # by name, as `get_params` has them


def require_shares(given: Given) -> None:
    """Raise ValueError unless all that are shares are."""
    for name, high in (("alpha", 0.5), ("background", 0.9), ("calibration_share", 0.5)):
        value = given[name]
        if not isinstance(value, Real) or not 0 < float(value) <= high:
            raise ValueError(f"{name} must be above 0 and at most {high}. Got {value!r}.")


def schedule_of(given: Given) -> Ratio:
    """The network and its schedule; all other parameters are checked with them.

    Raises:
        ValueError: one of them is of another kind, or out of range.
    """
    require_shares(given)
    device_of(given["device"])
    if _whole(given, "memory") < 0:
        raise ValueError(f"memory must be at least 0 rows. Got {given['memory']!r}.")
    lr, hidden = given["lr"], given["hidden"]
    if not isinstance(lr, Real) or not float(lr) > 0:
        raise ValueError(f"lr must be greater than 0. Got {lr!r}.")
    try:
        widths = [index(width) for width in hidden]
    except TypeError:
        raise ValueError(
            f"hidden must be a list of whole numbers, such as [64]. Got {hidden!r}."
        ) from None
    try:
        return Ratio(
            base="exposures",
            visible="train",
            hidden=widths,
            dropout=[0.0] * len(widths),
            freeze_e=False,
            lr=float(lr),
            batch_size=_whole(given, "batch_size"),
            max_epochs=_whole(given, "max_epochs"),
            patience=_whole(given, "patience"),
        )
    except ValidationError as error:
        first = error.errors()[0]
        what = first["msg"].replace("Input should be", "must be")
        raise ValueError(f"{first['loc'][0]} {what}. Got {first['input']!r}.") from None


def device_of(name: str) -> torch.device:
    """Where to train, once torch has put something there.

    Raises:
        ValueError: torch has no such device here.
    """
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, TypeError, AssertionError):  # the last where torch has no CUDA
        raise ValueError(
            f"device must be one that torch has here, such as 'cpu'. Got {name!r}."
        ) from None


def _whole(given: Given, name: str) -> int:
    """The parameter of that name, a whole number."""
    try:
        return index(given[name])
    except TypeError:
        raise ValueError(f"{name} must be a whole number. Got {given[name]!r}.") from None
