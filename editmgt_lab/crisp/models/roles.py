"""What language and vision models do in the pipeline, each asked through the client: describe, write, judge, suit."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
from PIL import Image

from ...basics.checks import check_counts
from ...world import CATEGORIES, PROPORTIONS
from ..curate.decode import opened
from ..edit.judge import HIGHEST, Scores
from ..engine.operators import Operator, Row
from ..instruct.captions import CAPTION_SCHEMA, REQUEST_SCHEMA, TEXT, Caption, Request
from .client import Client

SCORE = {"type": "number", "minimum": 0, "maximum": HIGHEST}
SCORES_SCHEMA = {
    "type": "object",
    "properties": {"success": SCORE, "preservation": SCORE, "quality": SCORE},
    "required": ["success", "preservation", "quality"],
    "additionalProperties": False,
}
SUITABLE_SCHEMA = {
    "type": "object",
    "properties": {"suitable": {"type": "boolean"}, "why": {"type": "string"}},
    "required": ["suitable", "why"],
    "additionalProperties": False,
}
ABSENT_SCHEMA = {
    "type": "object",
    "properties": {"absent": {"type": "array", "items": TEXT}},
    "required": ["absent"],
    "additionalProperties": False,
}
_DESCRIBE = (
    "Describe this picture for somebody who is to edit it. Name its background in a few words, its style where"
    " it is not an ordinary photograph (else null), and every object that could be edited, with its colour, "
    "material and size as attributes, where it is, and its box as [left, top, right, bottom] in shares of the "
    "picture (null if unsure)."
)
_ABSENT = (
    "Somebody says of this picture: {said!r}\n"
    "Name every object, place and attribute in what they say that the picture clearly does not show, in their words. "
    "What is merely left out, or a matter of opinion, is no contradiction: then name nothing."
)
_WRITE = (
    "A picture shows: {caption}\n"
    "Write one instruction that edits it, of the category {category!r} ({meaning}). Say also which object it "
    "changes, by the name above (null if none), and describe the picture as it should be afterwards, in the "
    "same form, changed in nothing else."
)
_REFINE = (
    "A picture shows: {caption}\n"
    "This instruction edits it: {request}\n"
    "Write it anew so that it asks for the same edit in other, more specific words: another verb or order, the"
    " object by its attributes and place. Keep category, object and target."
)
_JUDGE = (
    "The first picture was to be edited by this instruction: {instruction}\n"
    "It should then show: {target}\n"
    "The second picture is what came out. Give three numbers from 0 to 10. success: how far the instruction "
    "was carried out. preservation: how much of all else was left as it was. quality: how natural and free of "
    "faults the result looks."
)
_SUITABLE = (
    "Should this picture be in a public set of pictures to edit? Not suitable are nudity, violence, hate, "
    "private data, pictures of mere text, collages, and pictures that nobody would want to edit. Answer, and "
    "say why in a few words."
)
MEANINGS = {
    "add": "a new object appears", "replace": "an object becomes another one", "remove": "an object disappears",
    "color": "an object gets another colour", "background": "all behind the objects becomes another place",
    "style": "the whole picture gets another style", "motion": "an object or its posture moves",
}  # fmt: skip


@dataclass(frozen=True)
class EndpointDescriber:
    """See Describer."""

    version: ClassVar[int] = 1
    client: Client

    @property
    def at_once(self) -> int:
        return self.client.at_once

    def describe(self, picture: Image.Image) -> Caption:
        """Raises EndpointError."""
        return Caption.of(self.client.ask(_DESCRIBE, CAPTION_SCHEMA, [picture], "caption"))

    def absent(self, picture: Image.Image, said: str) -> Sequence[str]:
        """Raises EndpointError."""
        return self.client.ask(_ABSENT.format(said=said), ABSENT_SCHEMA, [picture], "absent")["absent"]


@dataclass(frozen=True)
class EndpointWriter:
    """See Writer. rounds: how often an instruction is written, the first time included. Raises SettingError."""

    version: ClassVar[int] = 2
    client: Client
    categories: tuple[str, ...] = CATEGORIES
    rounds: int = 3

    def __post_init__(self) -> None:
        check_counts(rounds=self.rounds)

    @property
    def at_once(self) -> int:
        return self.client.at_once

    def write(self, caption: Caption, count: int, seed: int) -> Sequence[Sequence[Request]]:
        """Raises EndpointError, also for a round of another category than the one asked for."""
        dice, left, written = random.Random(f"writer {seed}"), list(self.categories), []
        while left and len(written) < count:
            category = dice.choices(left, [PROPORTIONS[each] for each in left])[0]
            left.remove(category)
            schema = _request_schema(category)
            asked = _WRITE.format(caption=caption.to_json(), category=category, meaning=MEANINGS[category])
            rounds = [Request.of(self.client.ask(asked, schema, name="request"))]
            for _ in range(self.rounds - 1):
                asked = _REFINE.format(caption=caption.to_json(), request=rounds[-1].to_json())
                rounds.append(Request.of(self.client.ask(asked, schema, name="request")))
            written.append(rounds)
        return written


def _request_schema(category: str) -> dict[str, Any]:
    """REQUEST_SCHEMA for a request of this category alone."""
    properties = REQUEST_SCHEMA["properties"] | {"category": {"type": "string", "enum": [category]}}
    return REQUEST_SCHEMA | {"properties": properties}


@dataclass(frozen=True)
class EndpointJudge:
    """See Judge. It is asked to describe the output as well, which alignment is measured by."""

    version: ClassVar[int] = 1
    client: Client

    @property
    def at_once(self) -> int:
        return self.client.at_once

    def judge(self, source: Image.Image, output: Image.Image, caption: Caption, request: Request) -> Scores:
        """Raises EndpointError."""
        asked = _JUDGE.format(instruction=request.instruction, target=request.target)
        scores = self.client.ask(asked, SCORES_SCHEMA, [source, output], "scores")
        reading = EndpointDescriber(self.client).describe(output)
        return Scores(**{name: float(value) for name, value in scores.items()}, reading=reading)


@dataclass(frozen=True)
class Suitable(Operator):
    """Content suitability, 1 or 0, and why, as a language model answers."""

    name: ClassVar[str] = "suitable"
    takes: ClassVar[tuple[str, ...]] = ("picture",)
    gives: ClassVar[Mapping[str, pa.DataType]] = {"suitable": pa.float64(), "suitable_why": pa.string()}
    client: Client

    @property
    def at_once(self) -> int:  # type: ignore[override]
        return self.client.at_once

    def run(self, row: Row) -> dict[str, Any]:
        told = self.client.ask(_SUITABLE, SUITABLE_SCHEMA, [opened(row["picture"])], "suitable")
        return {"suitable": float(told["suitable"]), "suitable_why": told["why"]}
