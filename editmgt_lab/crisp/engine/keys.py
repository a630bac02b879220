"""The key of a shard: everything that its rows depend on, as a few characters."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from ...data.tables import file_stamp
from ...errors import SettingError


def described(value: Any) -> Any:
    """A setting as JSON, another one for every other setting.

    A dataclass is its class, its `version` where it has one, and its fields; those that do not count when two are
    compared (`compare=False`: secrets, caches, how many at a time) are left out. A path is its files with their sizes
    and times. Raises SettingError for what cannot be told apart in this way, such as a function.
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Path):
        files = sorted(value.rglob("*")) if value.is_dir() else [value]
        return {"path": str(value), "files": [[f.name, file_stamp(f)] for f in files if f.is_file()]}
    if is_dataclass(value) and not isinstance(value, type):
        known = {field.name: described(getattr(value, field.name)) for field in fields(value) if field.compare}
        return {"class": type(value).__qualname__, "version": getattr(value, "version", 1)} | known
    if isinstance(value, Mapping):
        return {str(name): described(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [described(each) for each in value]
    raise SettingError(
        f"a {type(value).__name__} cannot be part of a shard's key",
        expected="numbers, texts, paths, lists, mappings, or dataclasses of these",
        fix="make it a dataclass with a version, and its settings fields",
    )


def stamp_of(folder: str | Path) -> str | None:
    """The names, sizes and times of a local folder's files, by which other weights of one name are told apart; None for
    a hub's name."""
    folder = Path(folder).expanduser()
    return str(described(folder)["files"]) if folder.is_dir() else None


def key_of(*values: Any) -> str:
    """16 hexadecimal characters, others where any of the values is another."""
    text = json.dumps([described(value) for value in values], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
