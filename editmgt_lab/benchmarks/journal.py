"""The journal of a run: one line of JSON for each finished row, so that a run that was killed goes on where it was."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.tables import read_json_file
from ..errors import DataError, SettingError


class Journal:
    """rows.jsonl and settings.json of a folder. rows: what is finished, in order, by key.

    edits: what the pictures depend on; measures: what the numbers do. A folder that was begun with others is not gone
    on with: SettingError. afresh: rows are measured again, with other measures perhaps; the edits must be the same. A
    last line that was torn when the run was killed is cut off: its row counts as not done. Raises DataError where the
    journal is damaged elsewhere.
    """

    def __init__(self, folder: Path, edits: Mapping[str, Any], measures: Mapping[str, Any], *, afresh: bool = False):
        self.file, self.rows = folder / "rows.jsonl", {}
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / "settings.json"
        text = json.dumps({"edits": edits, "measures": measures}, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        if kept.exists():
            before, now = read_json_file(kept), json.loads(text)
            changed = _differences(before["edits"], now["edits"])
            if changed or (before["measures"] != now["measures"] and not afresh):
                raise SettingError(
                    f"{folder} was begun with other settings: {', '.join(changed) or 'other measures'}",
                    expected="the settings in its settings.json",
                    fix="take another --output" if changed else "pass --rescore to measure its pictures again",
                )
        if afresh:
            self.file.unlink(missing_ok=True)
        kept.write_text(text, encoding="utf-8")
        self._read()

    def add(self, row: Mapping[str, Any]) -> None:
        """Write one finished row; it is on the disk when this returns."""
        line = json.dumps(_storable(row), ensure_ascii=False, allow_nan=False) + "\n"
        with self.file.open("ab") as stream:
            stream.write(line.encode())
            stream.flush()
            os.fsync(stream.fileno())
        self.rows[row["key"]] = dict(row)

    def _read(self) -> None:
        if not self.file.exists():
            return
        content = self.file.read_bytes()
        whole, _, torn = content.rpartition(b"\n")
        if torn:
            with self.file.open("r+b") as stream:
                stream.truncate(len(whole) + 1 if whole else 0)
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                row = json.loads(line)
                self.rows[row["key"]] = _restored(row)
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"line {number} of {self.file} is no finished row: {error}",
                    expected="one JSON object with a key in each line",
                    fix="remove that line: its row will be done again",
                ) from error


def _storable(value: Any) -> Any:
    """JSON has no infinity, and "not measured" is null."""
    if isinstance(value, Mapping):
        return {key: _storable(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else "inf"
    return value


def _restored(row: dict[str, Any]) -> dict[str, Any]:
    special = {None: math.nan, "inf": math.inf}
    if "scores" in row:
        row["scores"] = {
            answer: {key: special.get(value, value) for key, value in values.items()}
            for answer, values in row["scores"].items()
        }
    return row


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = sorted({*before, *now})
    return [
        f"{name} {_short(before.get(name))}, now {_short(now.get(name))}"
        for name in names
        if before.get(name) != now.get(name)
    ]


def _short(value: Any) -> str:
    text = str(list(value) if isinstance(value, dict) else value)
    return text if len(text) < 80 else text[:77] + "…"
