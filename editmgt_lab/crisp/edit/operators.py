"""Stage 3 as operators: a row for every candidate, each edited by its editor, each judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Semaphore
from typing import Any, ClassVar

import pyarrow as pa

from ...errors import SettingError
from ..curate.decode import encoded, opened
from ..engine.operators import Operator, Row
from ..instruct.captions import Caption, Request
from .judge import Judge
from .protocol import PictureEditor, seed_of


@dataclass(frozen=True)
class Candidates(Operator):
    """A row for each candidate of an instruction: which editor is to make it, and with which seed.

    editors: name → how many candidates it makes.
    """

    name: ClassVar[str] = "candidates"
    takes: ClassVar[tuple[str, ...]] = ("instruction_id",)
    gives: ClassVar[Mapping[str, pa.DataType]] = {"id": pa.string(), "editor": pa.string(), "seed": pa.int64()}
    many: ClassVar[bool] = True
    editors: Mapping[str, int]

    def run(self, row: Row) -> list[dict[str, Any]]:
        names = [name for name, count in self.editors.items() for _ in range(count)]
        return [
            {"id": f"{row['instruction_id']}/{i}", "editor": name, "seed": seed_of(row["instruction_id"], i)}
            for i, name in enumerate(names)
        ]


@dataclass(frozen=True)
class Edit(Operator):
    """picture, instruction → output, by the editor that the row names; an editor that fails costs its candidate.

    Each editor is asked for as many edits at once as its own `at_once` says, one where it says nothing.
    """

    name: ClassVar[str] = "edit"
    takes: ClassVar[tuple[str, ...]] = ("id", "picture", "instruction", "editor", "seed")
    gives: ClassVar[Mapping[str, pa.DataType]] = {"output_id": pa.string(), "output": pa.binary()}
    grouped_by: ClassVar[str | None] = "editor"
    editors: tuple[PictureEditor, ...]

    def __post_init__(self) -> None:
        names = [editor.name for editor in self.editors]
        if not names or len(set(names)) < len(names):
            raise SettingError(
                f"editors {', '.join(names) or 'none'}",
                expected="one or more, each with a name of its own",
                fix="name each once, and models by folders of different names",
            )

    @property
    def at_once(self) -> int:  # type: ignore[override]
        return max(map(_at_once, self.editors))

    def run(self, row: Row) -> dict[str, Any]:
        editor = next(each for each in self.editors if each.name == row["editor"])
        picture = opened(row["picture"])
        with _turn(editor):
            output = editor.edit(picture, row["instruction"], row["seed"])
        return {"output_id": row["id"], "output": encoded(output.convert("RGB"))}


_turns: dict[tuple[str, int], Semaphore] = {}  # of this process: operators travel to others, and no lock does


def _turn(editor: PictureEditor) -> Semaphore:
    at_once = _at_once(editor)
    return _turns.setdefault((editor.name, at_once), Semaphore(at_once))


def _at_once(editor: PictureEditor) -> int:
    return getattr(editor, "at_once", 1)


@dataclass(frozen=True)
class Judged(Operator):
    """picture, output → the judge's scores, and what it reads in the output."""

    name: ClassVar[str] = "judge"
    takes: ClassVar[tuple[str, ...]] = ("picture", "output", "caption", "request")
    gives: ClassVar[Mapping[str, pa.DataType]] = {
        "success": pa.float64(), "preservation": pa.float64(), "quality": pa.float64(), "overall": pa.float64(),
        "reading": pa.string(), "unexplained": pa.float64(),
    }  # fmt: skip
    judge: Judge

    @property
    def at_once(self) -> int:  # type: ignore[override]
        return getattr(self.judge, "at_once", 1)

    def run(self, row: Row) -> dict[str, Any]:
        source, output = opened(row["picture"]), opened(row["output"])
        if output.size != source.size:
            output = output.resize(source.size)
        scores = self.judge.judge(source, output, Caption.of(row["caption"]), Request.of(row["request"]))
        reading = scores.reading.to_json() if scores.reading else None
        names = ("success", "preservation", "quality", "overall", "unexplained")
        return {name: getattr(scores, name) for name in names} | {"reading": reading}
