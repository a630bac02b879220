"""One edit of a benchmark, before and after its pictures are opened; and what a benchmark is."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..basics.fingerprints import fingerprint
from ..basics.folders import plain, written_whole
from ..data.rows import BadRow, Opened, open_edit
from ..errors import SettingError
from ..images import fit_mask
from ..metrics.measures import Measure, Plan

MADE_OF = "made of"  # in a picture's file


@dataclass(frozen=True)
class Row:
    """One row as its data set has it; pictures are whatever `opening.load_image` takes, unopened, or None.

    key: its own in the benchmark; file: where its output goes, in the layout of the authors' scripts, without folder
    of the answer; group: what it is averaged with (the benchmark's task). after: the key of the row whose output this
    one edits further; its source is then that output. lines_up: whether target and mask must have the source's aspect.
    read_mask: (mask as opened, its alpha with it; source) → "L" of the mask's size, white where the edit is; None:
    masks.read_mask. problem: why the reader could not make anything of it. extra: what the benchmark's own files need.
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


def open_row(row: Row) -> Opened:
    """Open and check all that a row has; its mask "L" and of the source's size. Raises BadRow."""
    if Path(row.file).is_absolute() or ".." in Path(row.file).parts:
        raise BadRow("its output would lie elsewhere", f"its output would lie at {row.file}", expected="a plain name")
    if re.search("[\0\ud800-\udfff]", row.file):  # nulls, and half letters, which JSON may hold
        raise BadRow("its name is no text", f"no file can be called {row.file!r}", expected="a plain name")
    if row.problem:
        raise BadRow(row.problem, expected="a row in the published schema")
    opened = open_edit(
        row.instruction, row.source, row.target, row.mask, wants_target=row.wants_target, lines_up=row.lines_up,
        region=row.read_mask,
    )  # fmt: skip
    return opened if opened.mask is None else replace(opened, mask=fit_mask(opened.mask, opened.source.size))


class Benchmark(Protocol):
    """What `run` needs of a benchmark.

    name, hub: of the data set there (None where it has none); plan: its authors' measures and what they compare with,
    then ours; masks: whether rows come with masks; networks: those that measure where no others are named, as fields of
    `Tools`; headline: the group that stands for it, `ALL` where each finished row counts once.
    """

    name: str
    hub: str | None
    plan: Plan
    masks: bool
    networks: Mapping[str, str]
    headline: str

    def rows(self, data: str | os.PathLike[str]) -> Iterator[Row]:
        """All rows, in order, bad ones included. Raises DataError for data that is none of this benchmark."""

    def groups(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
        """Which of the finished rows (as in rows.jsonl) are averaged together."""

    def about(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """What is to be said under the table of these rows, finished or skipped."""

    def keep(self, row: Row, opened: Opened, folder: Path) -> None:
        """Write what the authors' scripts need beside the outputs, such as source or ground truth."""

    def finish(self, rows: Sequence[Mapping[str, Any]], measures: Sequence[Measure], folder: Path) -> None:
        """Write what the authors' scripts write or read once all is done, such as tables of scores."""


def check_whole(split: str, default: str, file: Path) -> None:
    """Of a data set that comes as one zip. Raises SettingError for another split than the one that nobody named."""
    if split != default:
        raise SettingError(
            f"the split {split!r} was asked of {file.name}",
            expected="no split: the zip is one",
            fix="leave --split out, or read the hub's files",
        )


def by_group(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
    """The rows of each group, groups in the order of their names."""
    found: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        found.setdefault(row["group"], []).append(index)
    return dict(sorted(found.items()))


def folder_name(answer: str) -> str:
    """Of an answer's name, without what a file system or a script could stumble over."""
    return re.sub(r"[^\w.-]+", "_", answer).strip("._")


def save_picture(picture: Image.Image, path: Path, made_of: str | None = None) -> None:
    """As PNG, whole or not at all. made_of: a fingerprint of what made it, kept in the file. Raises DiskError."""
    about = PngInfo()
    if made_of:
        about.add_text(MADE_OF, made_of)
    with written_whole(path) as unfinished:
        picture.save(unfinished, format="PNG", pnginfo=about)


def made_of(path: Path) -> str | None:
    """What `save_picture` was told of a picture; None for a picture from elsewhere, or one that cannot be opened."""
    try:
        with Image.open(plain(path)) as picture:
            return picture.info.get(MADE_OF)
    except OSError:
        return None


def row_fingerprint(row: Row, number: int, before: str = "") -> str:
    """Of all that a row asks and shows, the pictures' content among it. number: its place, which its seed follows;
    before: of the row that it goes on from."""
    texts = (row.instruction, row.source_caption, row.target_caption, row.group, row.file, row.problem, dict(row.extra))
    return fingerprint(texts, [_content(each) for each in (row.source, row.target, row.mask)], number, before)


def _content(picture: Any) -> Any:
    """A picture in what `fingerprint` takes: a name stands for the file's content."""
    return Path(picture) if isinstance(picture, str) else picture
