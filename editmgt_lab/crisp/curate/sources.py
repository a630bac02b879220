"""Where pictures come from: a folder of files, tables (local or on the hub), or tar files of a webdataset.

A source gives shards of raw rows: id, origin (for people to find it again), bytes (None where a row has no picture),
and given, a caption that came with the picture, where it is asked for. Nothing is decoded here. The key of a shard
changes with the files that it is of: the table, the pictures that it names, and whether they are there.
"""

from __future__ import annotations

import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...basics.folders import files_in, plain
from ...data.tables import Table, file_stamp, picture_bytes, rows_of, tables_of
from ...errors import DataError, SettingError
from ...plain_text import legible
from ..engine.keys import key_of
from ..engine.runner import load_daft
from ..engine.stages import ROWS

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
COLUMNS = (
    "image",
    "picture",
    "img",
    "jpg",
    "png",
    "webp",
    "input_img",
    "source_img",
    "image_file",
)  # first that is there
RAW = pa.schema([("id", pa.string()), ("origin", pa.string()), ("bytes", pa.binary())])
Raw = tuple[str, Any, str | None]  # origin; bytes, path or None; the caption that came with it


@dataclass(frozen=True)
class RawRows:
    """The pictures of a shard, all of one file or folder, read when they are needed."""

    key: str
    read: Callable[[], list[dict[str, Any]]]
    schema: pa.Schema = RAW
    lies: tuple[()] = ()

    def frame(self, columns: set[str]) -> Any:
        return load_daft().from_arrow(pa.Table.from_pylist(self.read(), schema=self.schema))


@dataclass(frozen=True)
class Source:
    """A place to take pictures from. place: a folder, a file, or a hub name; limit: pictures at most (None: all).

    column: of the tables, which holds the picture (None: the first known name that is there); caption: of the tables,
    which says what the picture shows (None: nobody says); rows: pictures of a shard, at most. Raises SettingError.
    """

    place: str
    limit: int | None = None
    column: str | None = None
    caption: str | None = None
    rows: int = ROWS

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise SettingError(f"shards of {self.rows} pictures", expected="1 or more", fix=f"{ROWS} are usual")

    def shards(self) -> Iterator[RawRows]:
        """In order, ids counting through. Raises DataError for a source that is not there or holds no pictures."""
        path, number = Path(self.place).expanduser(), 0
        schema = RAW.append(pa.field("given", pa.string())) if self.caption else RAW
        for shard in self._files(path) if path.is_dir() and not _tables_in(path) else self._rows(path):
            left = None if self.limit is None else self.limit - number
            if left is not None and left <= 0:
                return
            rows = shard[2][:left]
            found = [[origin, _stamp(value)] for origin, value, _ in rows if not isinstance(value, bytes)]
            yield RawRows(key_of(shard[0], shard[1], number, len(rows), found), _numbered(rows, number), schema)
            number += len(rows)
        if not number:
            raise DataError(
                f"{self.place} holds no pictures",
                expected=f"files of {', '.join(PICTURES)}, tables with a column of pictures, or .tar files of pictures",
                fix="check the path, or name the column that holds them",
            )

    def _files(self, folder: Path) -> Iterator[tuple[Any, Any, list[Raw]]]:
        self._without_captions(folder)
        files = [file for file in files_in(folder) if file.suffix.lower() in PICTURES]
        for start in range(0, len(files), self.rows):
            part = files[start : start + self.rows]
            names = [file.relative_to(folder).as_posix() for file in part]
            yield names, None, [(name, picture_bytes(name, folder), None) for name in names]

    def _rows(self, path: Path) -> Iterator[tuple[Any, Any, list[Raw]]]:
        tars = [path] if path.suffix == ".tar" and path.is_file() else files_in(path, "*.tar")
        if tars:
            self._without_captions(path)
        columns = [self.column, self.caption] if self.caption else [self.column]
        tables = [Table(tar.name, str(tar), file_stamp(tar)) for tar in tars] or tables_of(self.place)
        for table in tables:
            rows = _of_tar(table) if tars else self._of_table(table)
            start = 0
            while part := list(islice(rows, self.rows)):
                yield [table.name, start, *columns], table.stamp, part
                start += len(part)

    def _without_captions(self, path: Path) -> None:
        if self.caption:
            raise SettingError(
                f"{path} is no table, and has no captions in {self.caption!r}",
                expected="tables with a column of captions",
                fix="leave --caption out, or make a table of the pictures and their captions",
            )

    def _of_table(self, table: Table) -> Iterator[Raw]:
        """What comes after damage is one more row without a picture, so that it is counted. JSON lines may leave out
        what they have not. Raises DataError where the first rows have none of a column that is needed."""
        rows, first, damage, number = rows_of(table), [], None, 0
        try:
            for row in islice(rows, ROWS):
                first.append(row)
        except DataError as error:
            damage, rows = error, iter(())
        names = {name: None for row in first for name in row}
        column = self.column or next((name for name in COLUMNS if name in names), None)
        absent = next((name for name in (column, self.caption or column) if name not in names), names)
        if first and absent is not names:
            raise DataError(
                f"{table.name} has the columns {', '.join(names)}",
                expected=f"the column {absent!r}" if absent else "one that holds pictures",
                fix="name the columns: --column NAME for pictures, --caption NAME for their captions",
            )
        try:
            for row in chain(first, rows):
                value = picture_bytes(row.get(column), Path(table.url).parent)
                given = row.get(self.caption) if self.caption else None
                yield f"{table.name}#{number}", value, None if given is None else str(given)
                number += 1
        except DataError as error:
            damage = error
        if damage:
            yield f"{table.name}#{number} and after: {damage.problem}", None, None


def _tables_in(folder: Path) -> bool:
    return any(file.suffix in (".parquet", ".arrow", ".tar") for file in files_in(folder))


def _of_tar(table: Table) -> Iterator[Raw]:
    """The first picture of every sample: members of one name, apart from their endings, are one."""
    seen = set()
    try:
        with tarfile.open(table.url) as tar:
            for member in tar:
                stem, ending = os.path.splitext(member.name)
                if member.isfile() and ending.lower() in PICTURES and stem not in seen:
                    seen.add(stem)
                    yield f"{table.name}/{member.name}", tar.extractfile(member).read(), None
    except (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError) as error:
        yield f"{table.name} after {len(seen)} pictures: {error}", None, None


def _stamp(value: Any) -> str | None:
    """Of a picture that lies in a file; None where there is none."""
    try:
        return file_stamp(Path(value)) if isinstance(value, (str, Path)) else None
    except (OSError, ValueError):  # ValueError: of a name with a null in it
        return None


def _numbered(rows: list[Raw], first: int) -> Callable[[], list[dict[str, Any]]]:
    def read() -> list[dict[str, Any]]:
        return [
            {
                "id": f"{first + i:08d}",
                "origin": legible(origin),
                "bytes": _loaded(value),
                "given": given and legible(given),
            }
            for i, (origin, value, given) in enumerate(rows)
        ]

    return read


def _loaded(value: Any) -> bytes | None:
    """The bytes of a file; None where it cannot be read, which measuring then says."""
    try:
        content = plain(Path(value)).read_bytes() if isinstance(value, (str, Path)) else value
    except (OSError, ValueError):  # ValueError: of a name with a null in it
        return None
    return content if isinstance(content, (bytes, bytearray)) else None
