"""Rows of a data set as the hub keeps them: parquet, arrow or JSON, in a local folder or streamed from the hub.

pyarrow alone reads all of that a batch at a time; the `datasets` library would add pandas and its own cache for nothing
that is used here. Pictures stay bytes until a row is opened.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import DataError

KINDS = (".parquet", ".arrow", ".jsonl", ".json")
NOT_ROWS = ("dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json")
BATCH = 16  # rows in memory at a time: with their pictures some 50 MB
_HUB_NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


def read_rows(source: str | os.PathLike[str], split: str | None = None) -> Iterator[dict[str, Any]]:
    """The rows of a data set in the order of its files, one at a time.

    source: a local folder or file, or a hub name ("facebook/emu_edit_test_set") of which only what is read is fetched.
    split: only files whose name or folder begins with it ("test" takes data/test-00000-of-00003.parquet); None: all.
    Raises DataError for a source that cannot be read.
    """
    path = Path(source).expanduser()
    if path.exists():
        files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
        root = path.parent if path.is_file() else path
        named = [(str(file.relative_to(root)), file) for file in files]
        opened = Path.open
    elif _HUB_NAME.fullmatch(os.fspath(source)):
        named, opened = _on_the_hub(os.fspath(source))
    else:
        raise DataError(
            f"there is no data set {os.fspath(source)!r}",
            expected="a local folder, or a hub name such as facebook/emu_edit_test_set",
            fix="check the path, or download the data set there",
        )
    tables = sorted((name, file) for name, file in named if _holds_rows(name, split))
    if not tables:
        raise DataError(
            f"{os.fspath(source)} holds no rows" + (f" of the split {split!r}" if split else ""),
            expected=f"files of {', '.join(KINDS)}" + (f" whose name begins with {split}" if split else ""),
            fix="check the folder and the split",
        )
    for name, file in tables:
        try:
            with opened(file, "rb") as stream:
                yield from _rows_of(name, stream)
        except DataError:
            raise
        except Exception as error:  # pyarrow, JSON and the hub's client have their own kinds
            raise DataError(
                f"{name} cannot be read: {str(error).strip() or type(error).__name__}",
                expected="a whole parquet, arrow or JSON file",
                fix="download it again (a file of about 130 bytes is a Git LFS pointer)",
            ) from error


def picture_bytes(value: Any, root: Path | None = None) -> Any:
    """What the hub's Image column holds, {"bytes", "path"}, or a path beside the table → bytes, a path, or None."""
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        return (root / value) if value and root else value or None
    return value


def read_json_file(file: Path) -> Any:
    """The content of a JSON file. Raises DataError."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {error}", expected="a JSON file", fix="download it again") from error


def _holds_rows(name: str, split: str | None) -> bool:
    path = Path(name)
    if path.suffix not in KINDS or path.name in NOT_ROWS or path.name.startswith("."):
        return False
    return split is None or any(re.match(rf"{re.escape(split)}(?![a-z0-9])", part) for part in path.parts)


def _rows_of(name: str, stream: Any) -> Iterator[dict[str, Any]]:
    if name.endswith(".parquet"):
        import pyarrow.parquet  # only the benchmarks need it

        for batch in pyarrow.parquet.ParquetFile(stream).iter_batches(batch_size=BATCH):
            yield from batch.to_pylist()
    elif name.endswith(".arrow"):
        import pyarrow.ipc

        for batch in pyarrow.ipc.open_stream(stream):
            for start in range(0, batch.num_rows, BATCH):
                yield from batch.slice(start, BATCH).to_pylist()
    elif name.endswith(".jsonl"):
        yield from (json.loads(line) for line in stream if line.strip())
    else:
        content = json.load(stream)
        if not isinstance(content, list):
            raise DataError(f"{name} is no list of rows", expected="a JSON list of objects", fix="check the data set")
        yield from content


def _on_the_hub(name: str) -> tuple[list[tuple[str, str]], Any]:
    from huggingface_hub import HfFileSystem

    files, root = HfFileSystem(), f"datasets/{name}"
    try:
        return [(path.removeprefix(root + "/"), path) for path in files.find(root)], files.open
    except Exception as error:  # offline, gated, misspelt: the hub's client passes on every library's own errors
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(
            f"{name!r} is no folder here and could not be had from the hub: {reason}",
            expected="a local folder, or a hub data set that can be reached",
            fix="check the spelling and the connection, accept its terms on its page, or download it elsewhere",
        ) from error
