"""Real data in: pairs of pictures with an instruction, from data sets in their published schemas or a plain folder.

- crispedit: WeiChow/CrispEdit-2M. input_img, output_img, instruction, type; files {type}_{number}.parquet at the top
  (the readme of Tangent0308/sam3-crispedit, whose code labels the set, lists both).
- anyedit: Bin1117/AnyEdit. image_file, edited_file, edit_instruction, edit_type; files data/train-* and
  data/validation-* (its dataset card; train/train.py of weichow23/EditMGT reads these columns). The types visual_* want
  a reference picture beside the instruction and are left out.
- magicbrush: osunlp/MagicBrush. source_img, target_img, instruction; files data/train-* and data/dev-* (its dataset
  card). Its mask_img is not used: nothing says that source and target are the same outside of it.
- folder: edits.jsonl with a line {"source": …, "target": …, "instruction": …, "category": … or nothing} for each pair:
  names of pictures in source/ and in target/ beside it.

`python -m editmgt_lab.data.pairs FOLDER` says what of a data set can be used.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm.auto import tqdm

from ..basics.checks import check_number
from ..errors import DataError, SettingError, command
from ..plain_text import say
from .rows import BadRow, Report, open_edit
from .tables import Table, absent_files, file_stamp, files_of, in_split, picture_bytes, root_of, rows_of, tables_of

EDITS = "edits.jsonl"
HELD_OUT = ("test", "validation", "val", "dev")  # splits that nothing is trained on unless they are asked for


@dataclass(frozen=True)
class Pair:
    """One edit: source and target (RGB, of one shape), what is asked for, and its kind, where the data set names one.

    mask: "L", white where the two differ, of the source's shape; None where that is not known.
    """

    source: Image.Image
    target: Image.Image
    instruction: str
    category: str | None = None
    mask: Image.Image | None = None


@dataclass(frozen=True)
class Schema:
    """The columns of a data set. incomplete: how the categories begin that want more than source and instruction."""

    source: str
    target: str
    instruction: str
    category: str | None
    incomplete: str | None = None

    def fits(self, columns: Sequence[str]) -> bool:
        return {self.source, self.target, self.instruction} <= set(columns)


SCHEMAS = {
    "crispedit": Schema("input_img", "output_img", "instruction", "type"),
    "anyedit": Schema("image_file", "edited_file", "edit_instruction", "edit_type", incomplete="visual_"),
    "magicbrush": Schema("source_img", "target_img", "instruction", None),
    "folder": Schema("source", "target", "instruction", "category"),
}


class PairReader:
    """The usable pairs of a data set, one at a time; `report` counts what was read, used and left out, and why.

    source: a local folder or file, or a hub name ("WeiChow/CrispEdit-2M"), which is streamed; schema: a name in SCHEMAS
    (None: recognised by its columns); split: only files whose name or folder begins with it, such as "style" of
    CrispEdit-2M (None: all but test and validation files); limit: pairs at most (None: all); held_out: whether test and
    validation files are among the tables, for who only counts.

    Bad rows and files that are cut short or missing are left out. Pictures may differ in size but by no more than 2% in
    shape. Raises DataError for a source that cannot be read or is in no known schema, SettingError for an unknown one.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        *,
        schema: str | None = None,
        split: str | None = None,
        limit: int | None = None,
        held_out: bool = False,
    ):
        if schema is not None and not (isinstance(schema, str) and schema in SCHEMAS):
            raise SettingError(f"unknown schema {schema!r}", expected=", ".join(SCHEMAS), fix="name one, or none")
        if limit is not None:
            check_number(limit, "limit", 1, math.inf, "leave it out for all pairs", whole=True)
        self.source, self.limit, self.report = os.fspath(source), limit, Report()
        self._folder = Path(os.path.expanduser(source))
        if self._folder.name == EDITS and self._folder.is_file():
            self._folder = self._folder.parent
        self._home = root_of(self._folder)
        self._plain = schema in (None, "folder") and os.path.isfile(self._folder / EDITS)
        if self._plain:
            if split is not None:
                raise SettingError(
                    f"split {split!r} of {self.source}, whose pairs are in one {EDITS}",
                    expected="no split",
                    fix="leave it out, or keep each split in a folder of its own",
                )
            self.tables = [Table(EDITS, str(self._folder / EDITS), file_stamp(self._folder / EDITS))]
        else:
            tables = tables_of(source, split)
            every = held_out or split
            self.tables = [each for each in tables if every or not any(in_split(each.name, out) for out in HELD_OUT)]
        if not self.tables:
            kept = next(out for out in HELD_OUT if any(in_split(each.name, out) for each in tables))
            raise DataError(
                f"{self.source} holds only rows that are kept for tests",
                expected="files that are not named for the splits " + ", ".join(HELD_OUT),
                fix=f"name the split to train on it all the same: split={kept!r}",
            )
        self.schema = "folder" if self._plain else self._recognise(schema)

    def __iter__(self) -> Iterator[Pair]:
        return self.read()

    def read(self, after: Report | None = None) -> Iterator[Pair]:
        """The pairs, or those that come after the rows which an earlier reading has reported.

        Raises DataError at the end if there was no usable one.
        """
        self.report = report = copy.deepcopy(after) if after else Report()
        if report.used == self.limit:
            return
        begin, position = report.rows, 0
        lost, example = absent_files(table.name for table in self.tables)
        if lost and not begin:
            report.lose("the numbers of the others say that there is one more file", example, lost)
        for table in self.tables:
            try:
                for number, row in enumerate(self.rows(table)):
                    position += 1
                    if position <= begin:
                        continue
                    report.rows = position
                    try:
                        pair = self._open(row)
                    except BadRow as error:
                        report.skip(error.reason, f"row {number} of {table.name}: {error.problem}")
                        continue
                    report.used += 1
                    yield pair
                    if report.used == self.limit:
                        return
            except DataError as error:
                if position >= begin:  # else it is in the report already
                    report.lose("the file cannot be read to its end", error.problem)
        if not report.used:
            raise DataError(
                f"{self.source} has no usable row. {report}",
                expected=f"rows in the schema {self.schema!r}, with pictures that can be opened",
                fix="download the data set again, or look at the rows that the report names",
            )

    def rows(self, table: Table) -> Iterator[dict[str, Any] | None]:
        """Of one of the tables, as it holds them; None for a line of a plain folder that is none. Raises DataError."""
        return _lines_of(table) if self._plain else rows_of(table)

    def pictures(self, row: dict[str, Any]) -> list[Any]:
        """Source and target of a row, as `rows.open_edit` takes them."""
        schema = SCHEMAS[self.schema]
        return [
            picture_bytes(row.get(column), self._folder / part if self._plain else self._home)
            for column, part in ((schema.source, "source"), (schema.target, "target"))
        ]

    def reject(self, reason: str, example: str) -> None:
        """Count the last pair as left out after all."""
        self.report.used -= 1
        self.report.skip(reason, example)

    def fingerprint(self) -> str:
        """Hexadecimal; another one where source, files, schema or limit are others."""
        stamps = [(table.name, table.stamp) for table in self.tables]
        if self._plain:
            pictures = [path for part in ("source", "target") for path in files_of(self._folder / part)]
        else:
            pictures = self._named()
        stamps += [(str(path.relative_to(self._home)), file_stamp(path)) for path in pictures]
        content = json.dumps([self.source, self.schema, self.limit, stamps])
        return hashlib.sha256(content.encode()).hexdigest()

    def _named(self) -> list[Path]:
        """The pictures that local tables name and do not hold, as JSON lines cannot; told by the first row with any."""
        found: set[Path] = set()
        for table in self.tables if self._home else ():
            with suppress(DataError):  # which reading reports
                for row in rows_of(table):
                    values = self.pictures(row)
                    if any(isinstance(value, bytes) for value in values):
                        break
                    found |= {value for value in values if isinstance(value, Path) and os.path.isfile(value)}
        return sorted(found)

    def _recognise(self, schema: str | None) -> str:
        columns, problem = None, None  # of the first one
        for table in self.tables:
            try:
                columns = next((list(row) for row in rows_of(table) if row), None)
            except DataError as error:
                problem = problem or error.problem
            if columns:
                break
        else:
            raise DataError(
                f"none of the {len(self.tables)} files of {self.source} can be used: {problem or 'they hold no rows'}",
                expected="whole parquet or arrow files",
                fix="download the data set again (a file of about 130 bytes is a Git LFS pointer)",
            )
        for name in [schema] if schema else SCHEMAS:
            if SCHEMAS[name].fits(columns):
                return name
        known = [f"{name} ({each.source}, {each.target}, {each.instruction})" for name, each in SCHEMAS.items()]
        raise DataError(
            f"{self.source} has the columns {', '.join(columns)}",
            expected=f"those of {schema or 'one of'} " + "; ".join(known),
            fix=f"rename its columns, or write it as a plain folder with {EDITS}",
        )

    def _open(self, row: dict[str, Any] | None) -> Pair:
        if row is None:
            raise BadRow("the line is no JSON object", expected='{"source": …, "target": …, "instruction": …}')
        schema = SCHEMAS[self.schema]
        category = row.get(schema.category) if schema.category else None
        category = str(category) if category else None
        if schema.incomplete and category and category.startswith(schema.incomplete):
            raise BadRow("it wants a reference picture", expected="an edit of one picture by an instruction")
        source, target = self.pictures(row)
        instruction = row.get(schema.instruction)
        opened = open_edit(instruction, source, target)
        return Pair(opened.source, opened.target, instruction.strip(), category)


def _lines_of(table: Table) -> Iterator[dict[str, Any] | None]:
    """The rows of a plain folder's EDITS; None for a line that is none."""
    try:
        content = Path(table.url).read_bytes()
    except OSError as error:
        raise DataError(
            f"{table.name} cannot be read: {error}",
            expected="a file that can be read",
            fix="give yourself the right to read it",
        ) from error
    for line in filter(bytes.strip, content.splitlines()):
        try:
            row = json.loads(line)
        except (RecursionError, ValueError):
            row = None
        yield row if isinstance(row, dict) else None


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Read a data set whole and print its report."""
    parser = argparse.ArgumentParser(description="Say what of a data set of edits can be used for training.")
    parser.add_argument("source", help="a folder, or a hub name, which is streamed")
    parser.add_argument("--split", help="only files whose name begins with it")
    parser.add_argument("--limit", type=int, help="stop after so many usable pairs")
    chosen = parser.parse_args(arguments)
    reader = PairReader(chosen.source, split=chosen.split, limit=chosen.limit)
    for _ in tqdm(reader, desc=reader.schema, unit="pair", total=chosen.limit):
        pass
    say(f"{reader.report.used} usable pairs in the schema {reader.schema}\n{reader.report}")


if __name__ == "__main__":
    raise SystemExit(main())
