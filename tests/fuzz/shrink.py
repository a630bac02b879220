"""The smallest recipe that still fails in the same way."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

NAME = re.compile(r"@.*|[a-z][\w .-]{0,20}", re.IGNORECASE)  # of something in a recipe


def smallest(recipe: Any, fails: Callable[[Any], bool], attempts: int = 150) -> Any:
    """Take away and simplify, one thing at a time, for as long as it `fails`, in so many attempts at most."""
    left, found = attempts, True
    while found and left > 0:
        found = False
        for simpler in simpler_ones(recipe):
            left -= 1
            if fails(simpler):
                recipe, found = simpler, True
                break
            if left <= 0:
                break
    return recipe


def simpler_ones(value: Any) -> Iterator[Any]:
    """The same value with one thing taken away or made simpler, the largest changes first."""
    if isinstance(value, dict):
        for name in value:
            yield {other: each for other, each in value.items() if other != name}
        for name, each in value.items():
            yield from ({**value, name: simpler} for simpler in simpler_ones(each))
    elif isinstance(value, list):
        if len(value) > 3:
            half = len(value) // 2
            yield from (value[:half], value[half:])
        for index in range(len(value)):
            yield value[:index] + value[index + 1 :]
        for index, each in enumerate(value):
            yield from ([*value[:index], simpler, *value[index + 1 :]] for simpler in simpler_ones(each))
    elif isinstance(value, str) and len(value) > 1 and not NAME.fullmatch(value):
        half = len(value) // 2
        yield from (value[:half], value[half:], value[1:], value[:-1])
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) > 1:
        yield from (0, value // 2)
    elif isinstance(value, float) and value not in (0.0, 0.5):
        yield from (0.0, 0.5)
