"""The journal of a run: one line of JSON for each finished row, so that a run that was killed goes on where it was."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..basics.fingerprints import differences, fingerprint
from ..basics.folders import append_line, remove, write_text
from ..data.tables import read_json_file
from ..errors import DataError, SettingError
from .edits import folder_name

SETTINGS = "settings.json"
BESIDE = ("shown", "csv", "ground_truth", "gedit.txt")  # what runs write beside the answers' pictures


class Journal:
    """rows.jsonl and settings.json of a folder. rows: what is finished, in order, by key.

    edits: what the pictures depend on, weights and code among it; measures: what the numbers do. A folder that was
    begun with others is not gone on with: SettingError says where they differ. afresh: rows are measured again, with
    other measures perhaps; the edits must be the same. anew: all that was done there is forgotten. A last line that was
    torn when the run was killed is cut off: its row counts as not done. Raises DataError where the journal is damaged
    elsewhere.
    """

    def __init__(
        self,
        folder: Path,
        edits: Mapping[str, Any],
        measures: Mapping[str, Any],
        *,
        afresh: bool = False,
        anew: bool = False,
    ):
        self.file, self.rows = folder / "rows.jsonl", {}
        kept = folder / SETTINGS
        record = {"edits": edits, "measures": measures}
        text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False, default=fingerprint) + "\n"
        now = json.loads(text)
        self.edits = now["edits"]
        if kept.exists() and not anew:
            before = read_json_file(kept)
            if not isinstance(before, dict) or not all(isinstance(before.get(part), dict) for part in record):
                raise DataError(
                    f"{kept} is no record of a run's settings",
                    expected=f"an object with {' and '.join(record)}",
                    fix="take another folder (--output), or begin again in this one (--anew, anew=True)",
                )
            changed = differences(before["edits"], now["edits"])
            measured = differences(before["measures"], now["measures"])
            if changed or (measured and not afresh):
                again = "" if changed else "pass --rescore to measure its pictures again, "
                raise SettingError(
                    f"{folder} was begun with other {'settings' if changed else 'measures'}: "
                    + "; ".join(changed or measured),
                    expected="all that is in its settings.json, so that one table has one model's numbers alone",
                    fix=again + "take another folder (--output), or begin again in this one (--anew, anew=True)",
                )
        if afresh or anew:
            remove(self.file)
        write_text(kept, text)
        self._read()

    def add(self, row: Mapping[str, Any]) -> None:
        """Write one finished row; it is on the disk when this returns."""
        append_line(self.file, json.dumps(_storable(row), ensure_ascii=False, allow_nan=False))
        self.rows[row["key"]] = dict(row)

    def _read(self) -> None:
        if not self.file.exists():
            write_text(self.file, "")
        content = self.file.read_bytes()
        whole, _, torn = content.rpartition(b"\n")
        if torn:
            with self.file.open("r+b") as stream:
                stream.truncate(len(whole) + 1 if whole else 0)
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                row = json.loads(line)
                self.rows[row["key"]] = _restored(row)
            except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
                raise DataError(
                    f"line {number} of {self.file} is no finished row: {error}",
                    expected="one JSON object with a key in each line",
                    fix="remove that line: its row will be done again",
                ) from error


def forget(folder: Path, answers: Iterable[str]) -> None:
    """Remove what runs wrote into a folder beside the journal, for these answers and those that settings.json names.

    A run that begins anew and is stopped would else be gone on with by the old pictures. Where no run was begun,
    nothing is removed. Raises DiskError.
    """
    kept = folder / SETTINGS
    if not kept.exists():
        return
    names = {*map(folder_name, answers)}
    with suppress(DataError, KeyError, TypeError):  # a damaged record names none
        names |= {*map(folder_name, read_json_file(kept)["edits"]["answers"])}
    for name in names - {""} | {*BESIDE}:
        remove(folder / name)


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
