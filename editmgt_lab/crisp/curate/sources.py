"""Where pictures come from: a folder of files, tables (local or on the hub), or tar files of a webdataset.

A source gives shards of raw rows: id, origin (for people to find it again), bytes (None where a row has no picture),
unread (why a picture that is there could not be read this time), refused (why one is not read at all), and given, a
caption that came with the picture, where it is asked for. A picture that a table names is looked up in the source's
folder, then in the table's own; tables on the hub hold theirs. Nothing is decoded here. The key of a shard changes with
the files that it is of: the table, the pictures that it names, and whether they are there.
"""

from __future__ import annotations

import errno
import os
import tarfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...basics.folders import is_stray, plain
from ...data.tables import Table, file_stamp, files_of, picture_bytes, root_of, rows_of, tables_of
from ...errors import DataError, SettingError
from ...images.opening import MAX_PIXELS
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
TABLES = (".parquet", ".arrow")
LARGEST = 4 * MAX_PIXELS  # bytes of a file, which no picture that is opened has, even uncompressed
NO_PICTURE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL, errno.ELOOP, errno.ENAMETOOLONG)  # nor ever will
RAW = pa.schema(
    {"id": pa.string(), "origin": pa.string(), "bytes": pa.binary(), "unread": pa.string(), "refused": pa.string()}
)
Raw = tuple[str, Any, str | None]  # origin; bytes, path, None or a DataError; the caption that came with it


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
        if self.limit is not None and self.limit < 1:
            raise SettingError(f"{self.limit} pictures", expected="1 or more", fix="leave it out for all")

    def shards(self) -> Iterator[RawRows]:
        """In order, ids counting through. Raises DataError for a source that is not there or holds no pictures."""
        path, number = Path(os.path.expanduser(self.place)), 0
        schema = RAW.append(pa.field("given", pa.string())) if self.caption else RAW
        for shard in self._files(path) if os.path.isdir(path) and not _tables_in(path) else self._rows(path):
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
        self._without_columns(folder)
        files = [file for file in files_of(folder) if file.suffix.lower() in PICTURES]
        for start in range(0, len(files), self.rows):
            part = files[start : start + self.rows]
            names = [file.relative_to(folder).as_posix() for file in part]
            yield names, None, [(name, picture_bytes(name, folder), None) for name in names]

    def _rows(self, path: Path) -> Iterator[tuple[Any, Any, list[Raw]]]:
        tars = [path] if path.suffix == ".tar" and os.path.isfile(path) else []
        tars = tars or (files_of(path, "*.tar") if os.path.isdir(path) else [])
        if tars:
            self._without_columns(path)
        columns = [self.column, self.caption] if self.caption else [self.column]
        tables = [Table(tar.name, str(tar), file_stamp(tar)) for tar in tars] or tables_of(self.place)
        for table in tables:
            rows = _of_tar(table) if tars else self._of_table(table)
            start = 0
            while part := list(islice(rows, self.rows)):
                yield [table.name, start, *columns], table.stamp, part
                start += len(part)

    def _without_columns(self, path: Path) -> None:
        for name, what, column in (("caption", "captions", self.caption), ("column", "pictures", self.column)):
            if column:
                raise SettingError(
                    f"{path} is no table, and has no {what} in {column!r}",
                    expected=f"tables with a column of {what}",
                    fix=f"leave --{name} out, or name a table of the pictures, such as a .jsonl file, as the source",
                )

    def _of_table(self, table: Table) -> Iterator[Raw]:
        """What comes after damage is one more row without a picture, so that it is counted. JSON lines may leave out
        what they have not. Raises DataError where the first rows have none of a column that is needed."""
        rows, first, damage, number, root = rows_of(table), [], None, 0, root_of(self.place)
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
                value = picture_bytes(row.get(column), root, table.name)
                given = row.get(self.caption) if self.caption else None
                yield f"{table.name}#{number}", value, None if given is None else str(given)
                number += 1
        except DataError as error:
            damage = error
        if damage:
            yield f"{table.name}#{number} and after: {damage.problem}", None, None


def _tables_in(folder: Path) -> bool:
    """Whether its pictures are taken from tables or .tar files; a warning names what else is there.

    It is no error: tables may name the pictures beside them, and .tar files come with tables of their captions. JSON
    lines alone are no reason to leave pictures out.
    """
    files = files_of(folder)
    pictures = [file for file in files if file.suffix.lower() in PICTURES]
    tars, tables, lines = ([f for f in files if f.suffix in kinds] for kinds in ((".tar",), TABLES, (".jsonl",)))
    read, left = (tars, pictures + tables + lines) if tars else (tables, pictures) if tables else (pictures, lines)
    if read and left:
        warnings.warn(
            f"the pictures of {folder} are taken from {len(read)} files such as {read[0].name}. {len(left)} others, "
            f"such as {left[0].name}, are not looked at by themselves; name the one that is meant as the source, or "
            "move it to a folder of its own",
            stacklevel=3,
        )
    return bool(tars or tables)


def _of_tar(table: Table) -> Iterator[Raw]:
    """The first picture of every sample: of KEY.jpg, KEY.txt and KEY.mask.png, where a key has no dot, KEY.jpg. A name
    with more dots is a sample of its own where there is no such KEY.jpg."""
    seen, whole = set(), _whole(table)
    try:
        with tarfile.open(table.url) as tar:
            for member in tar:
                key, ending = os.path.splitext(member.name)
                first = _first_dot(member.name)[0]
                part = (first in whole and key != first) or is_stray(os.path.basename(member.name))
                if member.isfile() and ending.lower() in PICTURES and not part and key not in seen:
                    seen.add(key)
                    origin = f"{table.name}/{member.name}"
                    if large := _too_large(member.size):
                        yield f"{origin}: {large}", None, None
                    else:
                        yield origin, tar.extractfile(member).read(), None
    except Exception as error:  # tarfile and its decompressors have their own kinds, and pass on plain ValueErrors
        yield f"{table.name} after {len(seen)} pictures: {error}", None, None


def _first_dot(name: str) -> tuple[str, str]:
    """a.b/0001.mask.png → a.b/0001 and .mask.png."""
    folder, base = os.path.split(name)
    key, dot, ending = base.partition(".")
    return os.path.join(folder, key), dot + ending.lower()


def _whole(table: Table) -> set[str]:
    """The keys of which a tar has a picture KEY.jpg or the like, as far as it can be read."""
    found = set()
    with suppress(Exception), tarfile.open(table.url) as tar:  # which `_of_tar` reports
        for member in tar:
            key, ending = _first_dot(member.name)
            if ending in PICTURES:
                found.add(key)
    return found


def _stamp(value: Any) -> str | None:
    """Of a picture that lies in a file; None where there is none."""
    try:
        return file_stamp(Path(value)) if isinstance(value, (str, Path)) else None
    except (OSError, ValueError):  # ValueError: of a name with a null in it
        return None


def _numbered(rows: list[Raw], first: int) -> Callable[[], list[dict[str, Any]]]:
    return lambda: [_row(f"{first + i:08d}", *raw) for i, raw in enumerate(rows)]


def _row(name: str, origin: str, value: Any, given: str | None) -> dict[str, Any]:
    content, unread = value if isinstance(value, (bytes, bytearray)) else None, None
    if isinstance(value, (str, Path)):
        try:
            if large := _too_large(plain(Path(value)).stat().st_size):
                origin = f"{origin}: {large}"
            else:
                content = Path(value).read_bytes()
        except ValueError:  # of a name with a null in it
            pass
        except OSError as error:
            unread = None if error.errno in NO_PICTURE else str(error)
    refused = f"{value.problem}; {value.fix}" if isinstance(value, DataError) else None
    known = {"id": name, "origin": legible(origin), "bytes": content, "refused": refused}
    return known | {"unread": unread and legible(unread), "given": given and legible(given)}


def _too_large(size: int) -> str | None:
    """What to say of a file that no picture is; a .tar file may claim any size without holding it."""
    return f"{size} bytes are more than any picture has" if size > LARGEST else None
