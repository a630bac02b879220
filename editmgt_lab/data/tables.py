"""Rows of a data set as the hub keeps them: parquet, arrow or JSON, in a local folder or streamed from the hub.

Parquet and arrow are read a file and a few rows at a time, so that one bad file costs no other, and damage within a
file no row before it. Pictures stay bytes until a row is opened.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..basics.folders import check_plain, files_in, is_stray, within
from ..errors import DataError

if TYPE_CHECKING:
    import pyarrow

KINDS = (".parquet", ".arrow", ".jsonl", ".json")
NOT_ROWS = ("dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json")
INDEXED = b"ARROW1"  # how an arrow file begins that has an index of its batches
BATCH = 16  # rows in memory at a time: with their pictures some 50 MB
MOST_ABSENT = 100_000  # files; numbers that leave out more are dates or the like
_HUB_NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_NUMBERED = re.compile(r"(.*?[-_])(\d+)((?:-of-\d+)?\.\w+)")


@dataclass(frozen=True)
class Table:
    """One file of rows. name: in its data set; url: where it lies, "hf://…" on the hub; stamp: changes with it."""

    name: str
    url: str
    stamp: str


def tables_of(source: str | os.PathLike[str], split: str | None = None) -> list[Table]:
    """The files of a data set, in order. source and split: see read_rows. Raises DataError for none."""
    if root := root_of(source):
        path = Path(os.path.expanduser(source))
        files = [path] if path.is_file() else files_of(path)
        tables = [Table(each.relative_to(root).as_posix(), str(each), file_stamp(each)) for each in files]
    elif _HUB_NAME.fullmatch(os.fspath(source)):
        tables = _on_the_hub(os.fspath(source))
    else:
        raise DataError(
            f"there is no data set {os.fspath(source)!r}",
            expected="a local folder, or a hub name such as facebook/emu_edit_test_set",
            fix="check the path, or download the data set there",
        )
    tables = sorted((each for each in tables if _holds_rows(each.name, split)), key=lambda each: each.name)
    if not tables:
        raise DataError(
            f"{os.fspath(source)} holds no rows" + (f" of the split {split!r}" if split else ""),
            expected=f"files of {', '.join(KINDS)}" + (f" whose name begins with {split}" if split else ""),
            fix="check the folder and the split",
        )
    return tables


def root_of(source: str | os.PathLike[str]) -> Path | None:
    """The folder of a local data set, in which its rows' names of pictures are looked up; None for the hub's, which
    hold their pictures, and for what is not there."""
    path = Path(os.path.expanduser(source))
    if not os.path.exists(path):  # False, where Path's own raises, for what no file can be called
        return None
    return path.parent if path.is_file() else path


def files_of(folder: Path, pattern: str = "*") -> list[Path]:
    """`folders.files_in`. Raises DataError where a folder in it may be listed and not entered."""
    try:
        return files_in(folder, pattern)
    except OSError as error:
        raise DataError(
            f"the files of {folder} cannot be told: {error}",
            expected="folders that can be entered",
            fix="give yourself the right to enter them, or name the folder that is meant",
        ) from error


def rows_of(table: Table) -> Iterator[dict[str, Any]]:
    """The rows of one file, in order. Raises DataError, perhaps after some rows, for one that is not whole."""
    try:
        if table.name.endswith((".parquet", ".arrow")):
            yield from _column_rows(table)
        else:
            yield from _json_rows(table)
    except DataError:
        raise
    except Exception as error:  # pyarrow, JSON and the hub's client have their own kinds
        raise DataError(
            f"{table.name} cannot be read: {str(error).strip() or type(error).__name__}",
            expected="a whole parquet, arrow or JSON file",
            fix="download it again (a file of about 130 bytes is a Git LFS pointer)",
        ) from error


def read_rows(source: str | os.PathLike[str], split: str | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a data set in the order of its files, one at a time.

    source: a local folder or file, or a hub name ("facebook/emu_edit_test_set") of which only what is read is fetched.
    split: only files whose name or folder begins with it ("test" takes data/test-00000-of-00003.parquet); None: all.
    Raises DataError for a source that cannot be read.
    """
    for table in tables_of(source, split):
        yield from rows_of(table)


def in_split(name: str, split: str) -> bool:
    """Whether a file's name, or that of a folder above it, begins with the word `split`."""
    return any(re.match(rf"{re.escape(split)}(?![a-z0-9])", part) for part in Path(name).parts)


def absent_files(names: Iterable[str]) -> tuple[int, str | None]:
    """How many files are not there, as the numbers in the names of the others say (train-00001-of-00003, add_00012),
    and the first of them. Numbers too far apart count nothing.
    """
    groups: dict[tuple[str, str], set[str]] = {}
    for name in names:
        if match := _NUMBERED.fullmatch(name):
            groups.setdefault((match[1], match[3]), set()).add(match[2])
    lost, example = 0, None
    for (before, after), numbers in groups.items():
        total = re.match(r"-of-(\d+)", after)
        known = set(map(int, numbers))
        wanted = range(min(known), max(known) + 1)
        if total:
            first = int(0 not in known and int(total[1]) in known)  # some count from 1
            wanted = range(first, int(total[1]) + first)
        absent = wanted.stop - wanted.start - sum(each in wanted for each in known)
        if 0 < absent <= MOST_ABSENT:
            number = next(each for each in wanted if each not in known)
            lost, example = lost + absent, example or before + str(number).zfill(min(map(len, numbers))) + after
    return lost, example


def file_stamp(path: Path) -> str:
    """Size in bytes and time of the last change."""
    status = path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def picture_bytes(value: Any, root: Path | None = None, table: str = "") -> Any:
    """What the hub's Image column holds, {"bytes", "path"}, or a name → bytes, a path, or None.

    root: the folder in which names are looked up; table: a file in it, beside which they are looked up where they are
    not in the root itself. Where there is no root, or a name leads out of it, the DataError that says so is returned
    for `rows.open_edit` to raise, since it is of one row and ends no reading.
    """
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if not isinstance(value, str):
        return value
    if not value or root is None:
        return _unheld(value) if value else None
    names = dict.fromkeys((value, os.path.join(os.path.dirname(table), value)))  # one, of a table in the root itself
    places = [_within(root, name) for name in names]
    return next((place for place in places if isinstance(place, Path) and os.path.isfile(place)), places[0])


def _within(root: Path, name: str) -> Path | DataError:
    try:
        return within(root, name)
    except DataError as error:
        return error


def text_or_none(value: Any) -> str | None:
    """A cell that should hold a text, such as a caption; None where it does not."""
    return value if isinstance(value, str) and value.strip() else None


def _unheld(name: str) -> DataError:
    return DataError(
        f"the row names the picture {name!r} and does not hold it",
        expected="the picture's bytes, in a column as the hub's Image",
        fix="write the data set with its pictures in it",
    )


def read_json_file(file: Path) -> Any:
    """The content of a JSON file. Raises DataError."""
    try:
        check_plain(file, DataError)
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}", expected="a JSON file", fix="download it again") from error


def _holds_rows(name: str, split: str | None) -> bool:
    path = Path(name)
    if path.suffix not in KINDS or path.name in NOT_ROWS or is_stray(path):
        return False
    return split is None or in_split(name, split)


def _column_rows(table: Table) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet  # takes a moment

    with _stream(table) as stream:
        if table.name.endswith(".arrow"):
            batches = iter(_arrow_file(stream))
        else:
            file = pyarrow.parquet.ParquetFile(stream)
            groups = range(file.num_row_groups)
            # One group after the other: read ahead by threads, how many rows are lost to damage would be chance.
            batches = (each for group in groups for each in file.iter_batches(BATCH, [group], use_threads=False))
        for batch in batches:
            batch.validate(full=True)  # of damaged offsets the next line would end the process
            yield from batch.to_pylist()


def _stream(table: Table) -> AbstractContextManager[BinaryIO]:
    """fsspec takes a local name with "::" in it for a chain of file systems."""
    if not table.url.startswith("hf://"):
        return open(table.url, "rb")
    import fsspec

    return fsspec.open(table.url, "rb")


def _arrow_file(stream: BinaryIO) -> Iterator[pyarrow.RecordBatch]:
    """The batches of either kind of arrow file, of streams (as the hub's `datasets` writes) or with an index."""
    import pyarrow

    if stream.read(len(INDEXED)) == INDEXED:
        file = pyarrow.ipc.open_file(stream)
        return (file.get_batch(i) for i in range(file.num_record_batches))
    stream.seek(0)
    return iter(pyarrow.ipc.open_stream(stream))


def _json_rows(table: Table) -> Iterator[dict[str, Any]]:
    with _stream(table) as stream:
        if table.name.endswith(".jsonl"):
            yield from (_object(json.loads(line)) for line in stream if line.strip())
            return
        content = json.load(stream)
    if not isinstance(content, list):
        raise DataError(f"{table.name} is no list of rows", expected="a JSON list of objects", fix="check the data set")
    yield from map(_object, content)


def _object(row: Any) -> dict[str, Any]:
    """A row that is no object has no columns."""
    return row if isinstance(row, dict) else {}


def _on_the_hub(name: str) -> list[Table]:
    import fsspec

    root = f"datasets/{name}"
    try:
        files = fsspec.filesystem("hf").find(root, detail=True)
    except Exception as error:  # offline, gated, misspelt: the hub's client passes on every library's own errors
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(
            f"{name!r} is no folder here and could not be had from the hub: {reason}",
            expected="a local folder, or a hub data set that can be reached",
            fix="check the spelling and the connection, accept its terms on its page, or download it elsewhere",
        ) from error
    return [Table(path.removeprefix(root + "/"), f"hf://{path}", _hub_stamp(about)) for path, about in files.items()]


def _hub_stamp(about: Mapping[str, Any]) -> str:
    """Size and content's hash, which another revision of the data set has otherwise."""
    return " ".join(str(about[name]) for name in ("size", "blob_id") if about.get(name) is not None)
