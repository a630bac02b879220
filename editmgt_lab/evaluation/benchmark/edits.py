"""One edit of a benchmark, before and after its pictures are opened; and what a benchmark is."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from ...errors import DataError, ImageError
from ...images import load_image
from ..measures import Measure, Plan

SHORTEST = 16  # px; a smaller picture is a placeholder
MOST_OFF = 0.02  # by which the aspect ratios of pictures may differ that line up


@dataclass(frozen=True)
class Row:
    """One row as its data set has it; pictures are whatever `images.load_image` takes, unopened, or None.

    key: its own in the benchmark; file: where its output goes, in the layout of the authors' scripts, without folder
    of the answer; group: what it is averaged with (the benchmark's task). after: the key of the row whose output this
    one edits further; its source is then that output. lines_up: whether target and mask must have the source's aspect.
    read_mask: (mask as opened, source) → "L", white where the edit is; None: it is that already. problem: why the
    reader could not make anything of it. extra: what the benchmark's own files need of it.
    """

    key: str
    file: str
    group: str
    instruction: Any
    source: Any
    target: Any = None
    mask: Any = None
    source_caption: str | None = None
    target_caption: str | None = None
    wants_target: bool = False
    lines_up: bool = True
    after: str | None = None
    read_mask: Callable[[Image.Image, Image.Image], Image.Image] | None = None
    problem: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Opened:
    """The pictures of a row, whole and RGB (mask: "L", of the source's size)."""

    source: Image.Image
    target: Image.Image | None
    mask: Image.Image | None


def open_row(row: Row) -> Opened:
    """Open and check all that a row has. Raises DataError, ImageError."""
    if Path(row.file).is_absolute() or ".." in Path(row.file).parts:
        raise DataError(f"its output would lie at {row.file}", expected="a plain name", fix="it is left out")
    if row.problem:
        raise DataError(row.problem, expected="a row in the published schema", fix="it is left out")
    if not isinstance(row.instruction, str) or not row.instruction.strip():
        raise DataError("the instruction is empty", expected="a sentence", fix="it is left out")
    source = _picture(row.source, "source")
    target = None if row.target is None and not row.wants_target else _picture(row.target, "target")
    mask = None if row.mask is None else _picture(row.mask, "mask")
    for name, picture in (("target", target), ("mask", mask)):
        if row.lines_up and picture is not None and _aspects_differ(picture.size, source.size):
            raise DataError(
                f"the {name} is {picture.width}×{picture.height} px and the source {source.width}×{source.height} px",
                expected="pictures that line up",
                fix="it is left out",
            )
    if mask is not None:
        mask = mask.resize(source.size, Image.Resampling.NEAREST)
        mask = (row.read_mask(mask, source) if row.read_mask else mask).convert("L")
    return Opened(source, target, mask)


class Benchmark(Protocol):
    """What `run` needs of a benchmark.

    name, hub: of the data set there (None where it has none); plan: its authors' measures and what they compare with,
    then ours; masks: whether rows come with masks; about: what is to be said under the table.
    """

    name: str
    hub: str | None
    plan: Plan
    masks: bool
    about: str

    def rows(self, data: str | os.PathLike[str]) -> Iterator[Row]:
        """All rows, in order, bad ones included. Raises DataError for data that is none of this benchmark."""

    def groups(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
        """Which of the finished rows (as in rows.jsonl) are averaged together."""

    def keep(self, row: Row, opened: Opened, folder: Path) -> None:
        """Write what the authors' scripts need beside the outputs, such as source or ground truth."""

    def finish(self, rows: Sequence[Mapping[str, Any]], measures: Sequence[Measure], folder: Path) -> None:
        """Write what the authors' scripts write or read once all is done, such as tables of scores."""


def by_group(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """The rows of each group, groups in the order of their names."""
    found: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        found.setdefault(row["group"], []).append(index)
    return dict(sorted(found.items()))


def folder_name(answer: str) -> str:
    """Of an answer's name, without what a file system or a script could stumble over."""
    return re.sub(r"[^\w.-]+", "_", answer).strip("_")


def save_picture(picture: Image.Image, path: Path) -> None:
    """As PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    picture.save(unfinished, format="PNG")
    unfinished.replace(path)


def _picture(value: Any, name: str) -> Image.Image:
    if value is None:
        raise DataError(f"the {name} is missing", expected=f"a {name} picture", fix="it is left out")
    try:
        picture = load_image(value)
    except ImageError as error:
        raise ImageError(f"{name}: {error.problem}", expected=error.expected, fix="it is left out") from error
    if min(picture.size) < SHORTEST:
        raise ImageError(
            f"the {name} is {picture.width}×{picture.height} px",
            expected=f"at least {SHORTEST} px",
            fix="it is left out",
        )
    return picture


def _aspects_differ(size: tuple[int, int], other: tuple[int, int]) -> bool:
    ratio = size[0] * other[1] / (size[1] * other[0])
    return abs(ratio - 1) > MOST_OFF
