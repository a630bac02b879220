"""Lower and upper bounds as data: what a number may be, and by how much one misses it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..errors import SettingError
from .engine.operators import Verdict


@dataclass(frozen=True)
class Bounds:
    """Both count as within; None: no bound on this side.

    Raises SettingError for a range with nothing in it, and for what is no finite number.
    """

    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        for each in (self.low, self.high):
            number = isinstance(each, (int, float)) and not isinstance(each, bool)
            if each is not None and not (number and math.isfinite(each)):
                raise SettingError(f"a bound of {each!r}", expected="a finite number, or none", fix="correct it")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise SettingError(
                f"bounds from {self.low} to {self.high}",
                expected="a lower bound that is the lower",
                fix="exchange them",
            )

    def broken(self, rule: str, value: float | None, unit: str) -> Verdict | None:
        """The verdict on a value that is out of bounds; None for one within, and for what was not measured."""
        if value is None:
            return None
        if self.low is not None and not value >= self.low:  # NaN is within nothing
            return Verdict(f"{rule} too low", value, self.low, unit)
        if self.high is not None and not value <= self.high:
            return Verdict(f"{rule} too high", value, self.high, unit)
        return None

    def __str__(self) -> str:
        low, high = (None if each is None else f"{each:g}" for each in (self.low, self.high))
        if low and high:
            return f"{low} to {high}"
        return f"at least {low}" if low else f"at most {high}" if high else "anything"


def with_settings(bounds: Mapping[str, Bounds], settings: Sequence[str]) -> dict[str, Bounds]:
    """Bounds changed as a command line asks: "short_side=512:", "aspect=:2.5", "edges=0.01:0.4", "text=" for none.

    Raises SettingError for another form, and for a name that is none of theirs.
    """
    changed = dict(bounds)
    for setting in settings:
        name, sign, values = setting.partition("=")
        parts = values.split(":") if values else [None, None]
        try:
            low, high = (float(part) if part else None for part in parts)
        except ValueError:
            sign = ""
        if not sign or name not in bounds:
            raise SettingError(
                f"{setting!r} sets no rule",
                expected="NAME=LOW:HIGH, each of the two may be left out, with NAME one of " + ", ".join(bounds),
                fix='write it such as "short_side=512:"',
            )
        changed[name] = Bounds(low, high)
    return changed
