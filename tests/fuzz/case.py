"""A kind of bad input, one case of it, and what became of it."""

from __future__ import annotations

import json
import random
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editmgt_lab.errors import LabError

if TYPE_CHECKING:
    from .bench import Bench

PACKAGE = "editmgt_lab"
ENDS = ("right", "LabError", "foreign", "wrong", "black", "hang", "memory", "died")
GOOD = ENDS[:2]


class Black(AssertionError):
    """A picture came out black that was not."""


class Wrong(AssertionError):
    """A result that breaks what it promises."""


@dataclass(frozen=True)
class Kind:
    """make: a recipe, plain JSON, from dice; run: does it, and returns if its result is right. share: of all cases;
    turns: what cases take in turn, as `make`'s second argument, so that a few of them have tried all."""

    make: Callable[..., Any]
    run: Callable[[Any, Bench], None]
    share: int
    turns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """end: of ENDS; where: tells one fault from another; told: what was raised."""

    end: str
    where: str = ""
    told: str = ""


def recipe_of(kind: Kind, name: str, seed: int, number: int) -> Any:
    """As JSON keeps it, so that what was drawn is what is done again."""
    turn = [kind.turns[number % len(kind.turns)]] if kind.turns else []
    return json.loads(json.dumps(kind.make(random.Random(f"{seed} {name} {number}"), *turn)))


@contextmanager
def owed(right: bool) -> Iterator[None]:
    """Where a right result is owed, as nothing is wrong with what was given, a LabError is wrong."""
    try:
        yield
    except LabError as error:
        if right:
            raise Wrong(f"refused without a reason: {error.problem}") from error
        raise


def attempt(kind: Kind, recipe: Any, bench: Bench) -> Outcome:
    try:
        kind.run(recipe, bench)
    except LabError as error:
        if all((error.problem.strip(), error.expected.strip(), error.fix.strip())):
            return Outcome("LabError", type(error).__name__, error.problem[:200])
        return Outcome("wrong", "a LabError that says nothing", repr(error))
    except Black as error:
        return Outcome("black", _place(error), str(error))
    except Wrong as error:
        return Outcome("wrong", _place(error), str(error))
    except Exception as error:
        return Outcome("foreign", _place(error), "".join(traceback.format_exception(error))[-4000:])
    return Outcome("right")


def _place(error: BaseException) -> str:
    """The error's kind and the innermost line of the package that it came through; of the tests where there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"/{PACKAGE}/" in frame.filename] or list(frames)
    last = ours[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno} {last.name}"
