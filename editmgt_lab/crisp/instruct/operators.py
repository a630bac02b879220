"""Stage 2 as operators: describe a picture, write requests for it round by round, check that they make sense."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import pyarrow as pa
from PIL import Image

from ...errors import SettingError
from ..curate.decode import opened
from ..edit.protocol import seed_of
from ..engine.operators import Drop, Operator, Row, Verdict
from .captions import Caption, Request
from .checks import broken_before


class Describer(Protocol):
    """Says what is to see. A frozen dataclass, part of the key of what it said."""

    def describe(self, picture: Image.Image) -> Caption:
        """Raises LabError."""

    def absent(self, picture: Image.Image, said: str) -> Sequence[str]:
        """What a text that came with the picture names and the picture does not show. Raises LabError."""


class Writer(Protocol):
    """Writes requests for a described picture. A frozen dataclass, part of the key of what it wrote."""

    def write(self, caption: Caption, count: int, seed: int) -> Sequence[Sequence[Request]]:
        """Up to `count` lists: of each request its rounds, from the first draft to the last. Raises LabError."""


@dataclass(frozen=True)
class Describe(Operator):
    """picture → caption, as JSON in CAPTION_SCHEMA. So many at the same time as the describer says, `at_once`."""

    name: ClassVar[str] = "describe"
    takes: ClassVar[tuple[str, ...]] = ("picture",)
    gives: ClassVar[Mapping[str, pa.DataType]] = {"caption": pa.string()}
    describer: Describer

    @property
    def at_once(self) -> int:  # type: ignore[override]
        return getattr(self.describer, "at_once", 1)

    def run(self, row: Row) -> dict[str, Any]:
        return {"caption": self.describer.describe(opened(row["picture"])).to_json()}


@dataclass(frozen=True)
class CheckCaption(Operator):
    """Drops pictures whose caption, which came with them, names what the describer does not see; none is no caption."""

    name: ClassVar[str] = "check caption"
    takes: ClassVar[tuple[str, ...]] = ("picture", "given")
    gives: ClassVar[Mapping[str, pa.DataType]] = {"caption_checked": pa.bool_()}
    describer: Describer

    @property
    def at_once(self) -> int:  # type: ignore[override]
        return getattr(self.describer, "at_once", 1)

    def run(self, row: Row) -> dict[str, Any]:
        said = (row["given"] or "").strip()
        absent = self.describer.absent(opened(row["picture"]), said) if said else ()
        if absent:
            raise Drop(Verdict(f"the caption contradicts the picture: {', '.join(absent)}", len(absent), 0, "names"))
        return {"caption_checked": bool(said)}


@dataclass(frozen=True)
class Write(Operator):
    """caption → `count` requests, each a row: the last round, and all rounds as a JSON list of texts."""

    name: ClassVar[str] = "write"
    takes: ClassVar[tuple[str, ...]] = ("id", "caption")
    gives: ClassVar[Mapping[str, pa.DataType]] = {
        "id": pa.string(), "instruction_id": pa.string(), "type": pa.string(), "instruction": pa.string(),
        "request": pa.string(), "rounds": pa.string(),
    }  # fmt: skip
    many: ClassVar[bool] = True
    writer: Writer
    count: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise SettingError(f"{self.count} instructions a picture", expected="1 or more", fix="1 or 2 are usual")

    @property
    def at_once(self) -> int:  # type: ignore[override]
        return getattr(self.writer, "at_once", 1)

    def run(self, row: Row) -> list[dict[str, Any]]:
        seed = seed_of(row["id"], self.seed)
        made = []
        for number, rounds in enumerate(self.writer.write(Caption.of(row["caption"]), self.count, seed)):
            name, last = f"{row['id']}/{number}", rounds[-1]
            texts = json.dumps([each.instruction for each in rounds], ensure_ascii=False)
            made.append(
                {"id": name, "instruction_id": name, "type": last.category, "instruction": last.instruction}
                | {"request": last.to_json(), "rounds": texts}
            )
        return made


@dataclass(frozen=True)
class CheckRequest(Operator):
    """Drops requests that are not valid or contradict the caption, before anything is spent on them."""

    name: ClassVar[str] = "check request"
    takes: ClassVar[tuple[str, ...]] = ("caption", "request")
    gives: ClassVar[Mapping[str, pa.DataType]] = {"checked": pa.bool_()}

    def run(self, row: Row) -> dict[str, Any]:
        if broken := broken_before(Caption.of(row["caption"]), Request.of(row["request"])):
            raise Drop(*broken)
        return {"checked": True}


def rounds_of(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The instructions of every round, of rows with the column `rounds`."""
    told = [json.loads(row["rounds"]) for row in rows]
    return [[each[min(number, len(each) - 1)] for each in told] for number in range(max(map(len, told), default=0))]
