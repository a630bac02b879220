"""One row of a data set of edits, checked and opened; and the account of the rows that were left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from ..errors import DataError, ImageError
from ..images import aspects_differ, load_image, open_picture, read_mask

SHORTEST = 16  # px; a smaller picture is a placeholder
MOST_OFF = 0.02  # by which the aspect ratios of pictures may differ that line up: stretched, at most a token at 1024 px


class BadRow(DataError):
    """A row that is left out. reason: one of few, to count by; the problem may say more."""

    def __init__(self, reason: str, problem: str | None = None, *, expected: str):
        super().__init__(problem or reason, expected=expected, fix="it is left out")
        self.reason = reason


@dataclass(frozen=True)
class Opened:
    """The pictures of a row, whole: source and target RGB, the mask "L", white where the edit is."""

    source: Image.Image
    target: Image.Image | None
    mask: Image.Image | None


def open_edit(
    instruction: Any,
    source: Any,
    target: Any,
    mask: Any = None,
    *,
    wants_target: bool = True,
    lines_up: bool = True,
    region: Callable[[Image.Image, Image.Image], Image.Image] | None = None,
) -> Opened:
    """Open and check all that a row has. Raises BadRow.

    source, target, mask: whatever `opening.load_image` takes, a DataError that says why it is not there, or None;
    wants_target: whether a row without one is bad; lines_up: whether target and mask must have the source's aspect;
    region: (mask as opened, its alpha with it; source) → "L" of the mask's size, white where the edit is (None:
    masks.read_mask).
    """
    if not isinstance(instruction, str) or not instruction.strip():
        raise BadRow("the instruction is empty", expected="a sentence")
    pictures = {"source": _open(source, "source")}
    for name, picture in (("target", target), ("mask", mask)):
        needed = picture is not None or (name == "target" and wants_target)
        pictures[name] = _open(picture, name, open_picture if name == "mask" else load_image) if needed else None
        if lines_up and needed and aspects_differ(pictures[name].size, pictures["source"].size) > MOST_OFF:
            sizes = [f"{each.width}×{each.height} px" for each in (pictures[name], pictures["source"])]
            raise BadRow(
                f"source and {name} are of different shapes",
                f"the {name} is {sizes[0]} and the source {sizes[1]}",
                expected="pictures that line up",
            )
    if pictures["mask"] is not None:
        pictures["mask"] = _region(pictures["mask"], pictures["source"], region)
    return Opened(**pictures)


@dataclass
class Report:
    """What became of the rows of a data set.

    rows: read; used: of these; skipped: reason → number of rows; files: reason → number of files that gave no rows, or
    not all; examples: reason → the first such row or file.
    """

    rows: int = 0
    used: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)

    def skip(self, reason: str, example: str) -> None:
        """Count one more row that is left out."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        self.examples.setdefault(reason, example)

    def lose(self, reason: str, example: str, count: int = 1) -> None:
        """Count files that gave no rows, or not all."""
        self.files[reason] = self.files.get(reason, 0) + count
        self.examples.setdefault(reason, example)

    def lines(self, most: int | None = None) -> Iterator[str]:
        """For reading: the number of rows left out, and the `most` frequent reasons (None: all)."""
        yield f"{sum(self.skipped.values())} of {self.rows} rows were skipped" + (":" if self.skipped else "")
        yield from self._reasons(self.skipped, most)
        if self.files:
            yield f"{sum(self.files.values())} files gave no rows, or not all:"
            yield from self._reasons(self.files, most)

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _reasons(self, counts: dict[str, int], most: int | None) -> Iterator[str]:
        for reason in sorted(counts, key=counts.get, reverse=True)[:most]:
            yield f"  {counts[reason]} × {reason} (such as {self.examples[reason]})"


def _region(
    mask: Image.Image, source: Image.Image, region: Callable[[Image.Image, Image.Image], Image.Image] | None
) -> Image.Image:
    try:
        return region(mask, source).convert("L") if region else read_mask(mask, source).image
    except ImageError as error:
        raise BadRow("the mask is unclear", error.problem, expected=error.expected) from error


def _open(value: Any, name: str, load: Callable[[Any], Image.Image] = load_image) -> Image.Image:
    if value is None:
        raise BadRow(f"the {name} is missing", expected=f"a {name} picture")
    if isinstance(value, DataError):
        raise BadRow(f"the {name} is not in the data set", value.problem, expected=value.expected)
    try:
        picture = load(value)
    except ImageError as error:
        raise BadRow(f"the {name} cannot be read", f"{name}: {error.problem}", expected=error.expected) from error
    if min(picture.size) < SHORTEST:
        problem = f"the {name} is {picture.width}×{picture.height} px"
        raise BadRow(f"the {name} is too small", problem, expected=f"at least {SHORTEST} px")
    return picture
