"""Settings are looked at before anything runs with them."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from ..errors import SettingError


def check_number(value: Any, name: str, low: float, high: float, fix: str, *, whole: bool = False) -> None:
    """Raises SettingError for what is no number from `low` to `high`; True and False are none."""
    kind = Integral if whole else Real
    if isinstance(value, bool) or not isinstance(value, kind) or not (_finite(value) and low <= value <= high):
        noun = "a whole number" if whole else "a number"
        span = f"{low} or more" if high == math.inf else f"from {low} to {high:g}"
        raise SettingError(f"{name} is {value!r}", expected=f"{noun}, {span}", fix=fix)


def check_name(value: Any, name: str, known: Collection[str]) -> None:
    """Raises SettingError for what is not one of the names."""
    if not isinstance(value, str) or value not in known:
        raise SettingError(f"unknown {name} {value!r}", expected=f"one of {list(known)}", fix="choose one")


def check_switch(value: Any, name: str) -> None:
    """Raises SettingError for what is neither True nor False."""
    if not isinstance(value, bool):
        raise SettingError(f"{name} is {value!r}", expected="True or False", fix="pass one of them")


def check_counts(**counts: int) -> None:
    """Raises SettingError for a count, or a batch, that is no whole number of 1 or more."""
    for name, value in counts.items():
        check_number(value, name, 1, math.inf, "leave it out for the usual", whole=True)


def may_look(values: Tensor) -> bool:
    """Whether to read values is free: on any device but the CPU it would wait for all that is still to be computed."""
    return values.device.type == "cpu"


def whole_numbers(values: Any, name: str) -> tuple[int, ...]:
    """One whole number or several, as a tuple. Raises SettingError for anything else."""
    values = [values] if isinstance(values, Integral) else values
    if not isinstance(values, (Sequence, range)) or not all(
        isinstance(value, Integral) and not isinstance(value, bool) for value in values
    ):
        raise SettingError(f"{name} is {values!r}", expected="a whole number or a list of them", fix="pass numbers")
    return tuple(int(value) for value in values)


def _finite(value: Real) -> bool:
    """Whether the networks have such a number; NaN is none."""
    return abs(value) <= torch.finfo(torch.float32).max
