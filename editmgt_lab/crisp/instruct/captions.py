"""What describers say of a picture and writers ask of it: structured values with a JSON schema each.

A caption names background, style and objects with their attributes; a request is an instruction with the caption that
holds once it is done. Both go through the pipeline as JSON texts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ...world import CATEGORIES

TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
OPTIONAL: dict[str, Any] = {"type": ["string", "null"]}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


THING_SCHEMA = _object(
    name=TEXT,
    attributes={"type": "array", "items": TEXT},
    place=OPTIONAL,
    box={
        "type": ["array", "null"],
        "items": {"type": "number", "minimum": 0, "maximum": 1},
        "minItems": 4,
        "maxItems": 4,
    },
)
CAPTION_SCHEMA = _object(background=TEXT, style=OPTIONAL, things={"type": "array", "items": THING_SCHEMA})
REQUEST_SCHEMA = _object(
    category={"type": "string", "enum": list(CATEGORIES)}, instruction=TEXT, thing=OPTIONAL, target=CAPTION_SCHEMA
)


@dataclass(frozen=True)
class Thing:
    """An object. attributes: its colour, size and so on; box: left, top, right, bottom as shares of the picture."""

    name: str
    attributes: tuple[str, ...] = ()
    place: str | None = None
    box: tuple[float, float, float, float] | None = None

    def __str__(self) -> str:
        return " ".join(filter(None, (*self.attributes, self.name, self.place)))


@dataclass(frozen=True)
class Caption:
    """A picture in words."""

    background: str
    things: tuple[Thing, ...] = ()
    style: str | None = None

    def named(self, name: str) -> list[Thing]:
        return [thing for thing in self.things if thing.name == name]

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.style, self.background, *map(str, self.things))))

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def of(cls, told: Mapping[str, Any] | str) -> Caption:
        """From a mapping in CAPTION_SCHEMA, or its JSON."""
        told = json.loads(told) if isinstance(told, str) else told
        things = (
            Thing(t["name"], tuple(t["attributes"]), t["place"], _box(*t["box"]) if t["box"] else None)
            for t in told["things"]
        )
        return cls(told["background"], tuple(things), told["style"])


def _box(left: float, top: float, right: float, bottom: float) -> tuple[float, float, float, float]:
    """Of whatever two corners a model names, the upper left and the lower right one."""
    return min(left, right), min(top, bottom), max(left, right), max(top, bottom)


@dataclass(frozen=True)
class Request:
    """An instruction. thing: the name of the object that it changes, if it is one; target: what shall be to see."""

    category: str
    instruction: str
    thing: str | None
    target: Caption

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def of(cls, told: Mapping[str, Any] | str) -> Request:
        """From a mapping in REQUEST_SCHEMA, or its JSON."""
        told = json.loads(told) if isinstance(told, str) else told
        return cls(told["category"], told["instruction"], told["thing"], Caption.of(told["target"]))


def statements(caption: Caption) -> set[tuple[str, ...]]:
    """A caption as single statements that hold or do not: ("background", b), ("style", s), (place, name, colour), …

    Where nothing stands nothing is said. Boxes are no statements: who counts pixels does not read words.
    """
    said = {("background", caption.background), ("style", caption.style or "plain")}
    return said | {(thing.place or "", thing.name, *thing.attributes) for thing in caption.things}
