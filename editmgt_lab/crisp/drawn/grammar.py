"""The drawn world's instructions, both ways: written for a scene, and understood in one.

Written are the phrasings of the train split (`world.PHRASINGS`), understood also those that the test split holds out.
The name of an object may have its colour before it and its place after it: "the red ball at the top left".
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from ...errors import TextError
from ...world import (
    BACKGROUNDS,
    CATEGORIES,
    COLOURS,
    HELD_OUT_PHRASINGS,
    KINDS,
    PHRASINGS,
    PLACES,
    STYLES,
    TRAIN_PAIRS,
    Item,
    Scene,
)
from ...world.edits import RELATIONS, fill, relations

ROUNDS = ("plain", "with its colour", "with its colour and place")  # how the object to edit is named, round by round


@dataclass(frozen=True)
class Asked:
    """What an instruction asks of a scene. thing: the kind of the object that it changes; after: the scene then."""

    category: str
    thing: str | None
    after: Scene


def understand(instruction: str, scene: Scene) -> Asked:
    """What an instruction means in a scene. Raises TextError for one that means nothing there.

    Nothing: other words, an object that is not there, a place that is taken or does not exist.
    """
    problems = []
    for category, words in parses(instruction):
        try:
            return _carried_out(category, words, scene)
        except TextError as error:
            problems.append(error.problem)
    why = problems[0] if problems else "its words are none of the drawn world's phrasings"
    raise _meaningless(f"{instruction!r} means nothing here: {why}")


def parses(instruction: str) -> Iterator[tuple[str, dict[str, str]]]:
    """(category, words) of every phrasing that the instruction fits; words: old, old_colour, old_place, kind, …"""
    text = re.sub(r"\ban\b", "a", " ".join(instruction.lower().strip().rstrip(".").split()))
    for category, pattern in _patterns():
        if match := pattern.fullmatch(text):
            yield category, {name: value for name, value in match.groupdict().items() if value}


def ask(scene: Scene, category: str, dice: random.Random, refined: int = 0) -> tuple[str, Asked]:
    """An instruction of a category for a scene, and what it asks. refined: the round, see ROUNDS.

    The same dice ask for the same edit in every round, in other words. Raises TextError where the scene has no room
    for such an edit.
    """
    words = _drawn_words(scene, category, dice)
    phrasings = PHRASINGS[category]
    phrasing = phrasings[0 if not refined else dice.randrange(len(phrasings))]
    old = next((item for item in scene.items if item.kind == words.get("old")), None)
    if old and refined >= 1:
        words["old"] = f"{old.colour} {old.kind}"
    if old and refined >= 2:
        words["old"] += f" at the {old.place}"
    if "place" in words:
        beside = relations(scene, words["place"], old.kind if old else None) if refined else []
        related = dice.choice(beside) if beside else None
        words |= {"where": related or f"at the {words['place']}", "goal": related or f"to the {words['place']}"}
    instruction = fill(phrasing, words)
    return instruction, understand(instruction, scene)


def ask_in_vain(scene: Scene, category: str, dice: random.Random) -> tuple[str, Asked]:
    """An instruction that makes no sense in a scene: of an object that is not there, or for what is already so.

    As a careless writer makes them, who believes that all is well: `Asked.after` is the scene as it is.
    """
    if category == "style" and scene.style is None:
        category = "remove"  # every style would be new to a plain picture
    kind = dice.choice([kind for kind in KINDS if all(item.kind != kind for item in scene.items)])
    words = {"old": kind, "kind": kind, "colour": dice.choice(tuple(COLOURS)), "place": dice.choice(PLACES)}
    words |= {"background": scene.background, "style": scene.style or STYLES[0]}
    if category == "replace":
        words["kind"] = dice.choice([other for other in KINDS if other != kind])
    if category == "add":
        words["place"] = dice.choice([item.place for item in scene.items])
    if category == "color" and dice.random() < 0.5:
        item = dice.choice(scene.items)
        words |= {"old": item.kind, "colour": item.colour}
    words |= {"where": f"at the {words['place']}", "goal": f"to the {words['place']}"}
    asked = Asked(category, words["old"] if category in ("replace", "remove", "color", "motion") else None, scene)
    return fill(PHRASINGS[category][0], words), asked


def _drawn_words(scene: Scene, category: str, dice: random.Random) -> dict[str, str]:
    """The words of an edit that changes something."""
    if category not in CATEGORIES:
        raise TextError(
            f"no edits of the category {category!r}", expected=", ".join(CATEGORIES), fix="name one of these"
        )
    absent = [pair for pair in TRAIN_PAIRS if all(item.kind != pair[0] for item in scene.items)]
    words: dict[str, str] = {}
    if category in ("replace", "remove", "color", "motion"):
        if not scene.items:
            raise _meaningless("the scene has no object")
        old = dice.choice(scene.items)
        words["old"] = old.kind
        if category == "color":
            words["colour"] = dice.choice([colour for colour in COLOURS if colour != old.colour])
    if category in ("add", "replace"):
        words["kind"], words["colour"] = dice.choice(absent)
    if category in ("add", "motion"):
        if not scene.empty_places:
            raise _meaningless("every place is taken")
        words["place"] = dice.choice(scene.empty_places)
    if category == "background":
        words["background"] = dice.choice([name for name in BACKGROUNDS if name != scene.background])
    if category == "style":
        words["style"] = dice.choice([name for name in STYLES if name != scene.style])
    return words


def _carried_out(category: str, words: dict[str, str], scene: Scene) -> Asked:
    if category == "background":
        return Asked(category, None, replace(scene, background=words["background"]))
    if category == "style":
        return Asked(category, None, replace(scene, style=words["style"]))
    if category == "add":
        new = Item(words["kind"], words["colour"], _free_place(words["where"], scene))
        return Asked(category, None, replace(scene, items=(*scene.items, new)))
    old = _the(words, scene)
    if category == "remove":
        return Asked(category, old.kind, scene.swapped(old))
    if category == "motion":
        there = replace(old, place=_free_place(words["where"], scene), start=(0, 0))
        return Asked(category, old.kind, scene.swapped(old, there))
    changed = replace(old, colour=words["colour"], kind=words.get("kind", old.kind))
    return Asked(category, old.kind, scene.swapped(old, changed))


def _the(words: dict[str, str], scene: Scene) -> Item:
    """The one object that is meant."""
    asked = words.get("old_colour"), words.get("old_place")
    meant = [
        item
        for item in scene.items
        if item.kind == words["old"] and asked[0] in (None, item.colour) and asked[1] in (None, item.place)
    ]
    if len(meant) != 1:
        named = " ".join(filter(None, (words.get("old_colour"), words["old"], words.get("old_place"))))
        raise _meaningless(f"there {'is no' if not meant else 'are several'} {named}")
    return meant[0]


def _free_place(where: str, scene: Scene) -> str:
    """The place that "at the top left", "to the left" or "above the car" names, if nothing stands there."""
    place = re.sub(r"^(at|to) the ", "", where)
    if place not in PLACES:
        relation, _, kind = where.partition(" the ")
        anchor = next((item for item in scene.items if item.kind == kind), None)
        offsets = {name: offset for offset, name in RELATIONS.items()}
        if relation.startswith("to"):  # "to the left of the car" has a "the" of its own
            relation, kind = where.rsplit(" the ", 1)
            anchor = next((item for item in scene.items if item.kind == kind), None)
        if anchor is None or relation not in offsets:
            raise _meaningless(f"there is no {kind}")
        row, column = (a + b for a, b in zip(divmod(PLACES.index(anchor.place), 3), offsets[relation], strict=True))
        if not (0 <= row < 3 and 0 <= column < 3):
            raise _meaningless(f"there is no place {where}")
        place = PLACES[3 * row + column]
    if place not in scene.empty_places:
        raise _meaningless(f"something stands {where} already")
    return place


def _meaningless(problem: str) -> TextError:
    return TextError(problem, expected="an edit of what is in the picture", fix="leave the row out")


@lru_cache(maxsize=1)
def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    def one_of(words: object) -> str:
        return "|".join(sorted(map(re.escape, words), key=len, reverse=True))

    colours, kinds, places = one_of(COLOURS), one_of(KINDS), one_of(PLACES)
    beside = f"(?:{one_of(RELATIONS.values())}) the (?:{kinds})"
    parts = {
        "old": f"(?:(?P<old_colour>{colours}) )?(?P<old>{kinds})(?: at the (?P<old_place>{places}))?",
        "kind": f"(?P<kind>{kinds})",
        "colour": f"(?P<colour>{colours})",
        "background": f"(?P<background>{one_of(BACKGROUNDS)})",
        "style": f"(?P<style>{one_of(STYLES)})",
        "where": f"(?P<where>at the (?:{places})|{beside})",
        "goal": f"(?P<where>to the (?:{places})|{beside})",
        "place": f"(?P<where>(?:{places}))",
    }
    found = []
    for category in CATEGORIES:
        for phrasing in (*PHRASINGS[category], *HELD_OUT_PHRASINGS[category]):
            pattern = "".join(
                parts[piece[1:-1]] if piece.startswith("{") else re.escape(piece)
                for piece in re.split(r"(\{\w+\})", re.sub(r"\ban\b", "a", phrasing))
            )
            found.append((category, re.compile(pattern)))
    return found
