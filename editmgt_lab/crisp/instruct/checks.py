"""Quality before the edit: is the instruction valid, and does it not contradict the picture?"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from ...world import CATEGORIES
from ..engine.operators import Verdict
from .captions import Caption, Request, statements

MOST_WORDS = 60
OF_THINGS = ("replace", "remove", "color", "motion")  # categories that change an object that is there


def _length(caption: Caption, request: Request) -> Verdict | None:
    words = len(request.instruction.split())
    if not words:
        return Verdict("the instruction is empty", 0, 1, "words")
    return Verdict("the instruction is too long", words, MOST_WORDS, "words") if words > MOST_WORDS else None


def _script(caption: Caption, request: Request) -> Verdict | None:
    """Editors' text encoders read Latin letters; others are tokens that they have not learned."""
    letters = [letter for letter in request.instruction if letter.isalpha()]
    other = sum(not unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
    share = other / len(letters) if letters else 1.0
    return Verdict("the instruction is in another script", share, 0.1, "share of letters") if share > 0.1 else None


def _category(caption: Caption, request: Request) -> Verdict | None:
    return None if request.category in CATEGORIES else Verdict(f"unknown category {request.category}")


def _is_there(caption: Caption, request: Request) -> Verdict | None:
    if request.category not in OF_THINGS:
        return None
    there = len(caption.named(request.thing or ""))
    return None if there else Verdict("the object is not there", 0, 1, "objects")


def _changes(caption: Caption, request: Request) -> Verdict | None:
    """Also true of an object that is to be added where something stands: its writer sees no other target."""
    if statements(caption) == statements(request.target):
        return Verdict("it is so already", 0, 1, "changed statements")
    return None


def _fits_category(caption: Caption, request: Request) -> Verdict | None:
    """Does what the target says to change match the kind of edit?"""
    before, after = caption, request.target
    grown = len(after.things) - len(before.things)
    wanted = {"add": 1, "remove": -1}.get(request.category, 0)
    changed = (before.background != after.background, before.style != after.style)
    allowed = (request.category == "background", request.category == "style")
    if grown != wanted or changed != allowed:
        return Verdict("the target is another edit than the category's")
    return None


CHECKS: tuple[Callable[[Caption, Request], Verdict | None], ...] = (
    _length, _script, _category, _is_there, _changes, _fits_category,
)  # fmt: skip


def broken_before(caption: Caption, request: Request) -> list[Verdict]:
    """Every check that a request does not pass, for a picture with this caption."""
    return [verdict for check in CHECKS if (verdict := check(caption, request))]
