"""The finished data set as CrispEdit-2M is published, which `data.pairs` reads as it is; and the losers beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from ...basics.folders import written_whole
from ...errors import DataError
from ..edit.judge import TIE
from ..engine.operators import is_verdict
from ..pipeline import Run

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
COLUMNS = pa.schema([("input_img", IMAGE), ("output_img", IMAGE), ("instruction", pa.string()), ("type", pa.string())])
LOSERS = pa.schema(
    [*COLUMNS, ("chosen_img", IMAGE), ("editor", pa.string()), ("stage", pa.string()), ("rule", pa.string())]
    + [("value", pa.float64()), ("bound", pa.float64()), ("by", pa.float64()), ("unit", pa.string())]
    + [("verdicts", pa.string())]
)
ROWS, BYTES = 256, 64_000_000  # of a file; CrispEdit-2M has 255 rows in the mean


def publish(run: Run, folder: Path, *, progress: bool = True) -> tuple[Path, Path]:
    """Write folder/dataset/{type}_{number}.parquet of the edits that passed, folder/losers/… of the others.

    A loser is an edit that another candidate was preferred to or that breaks a rule of stage 4: rule, value, bound and
    by how much are of the first rule that it breaks, verdicts has all as JSON, chosen_img is the edit that passed for
    the same instruction (null where none did): with it the row is a preference pair. One that nobody could judge or
    measure is no loser, nor is one that is the chosen picture over again or as good as the picked one. Whole or not at
    all: what was there is replaced at the end. Raises DataError where no edit passed, DiskError for a full disk.
    """
    written = []
    for name, schema, rows in (("dataset", COLUMNS, _winners(run)), ("losers", LOSERS, _losers(run))):
        with written_whole(folder / name) as unfinished:
            unfinished.mkdir()
            count = _write(unfinished, schema, tqdm(rows, desc=name, unit="edit", disable=not progress))
            if name == "dataset" and not count:
                raise DataError(
                    "no edit passed every stage",
                    expected="one or more",
                    fix="look at the reasons in the dropped tables, and at the bounds",
                )
        written.append(folder / name)
    return written[0], written[1]


def _winners(run: Run) -> Iterator[dict[str, Any]]:
    for row in run.rows("assure", pictures=("picture", "output")):
        yield _pair(row)


def _losers(run: Run) -> Iterator[dict[str, Any]]:
    """Shard by shard: the candidates of an instruction never part."""
    pictures = ("picture", "output")
    for picked, assured in zip(run.shards["pick"], run.shards["assure"], strict=True):
        won = {row["instruction_id"]: row["output"] for row in run.store.rows(assured, pictures=pictures)}
        for shard in (picked, assured):
            for row in run.store.rows(shard, dropped=True, pictures=pictures):
                chosen = won.get(row["instruction_id"])
                if row["output"] not in (None, chosen) and is_verdict(row) and row["reason"] != TIE:
                    yield _loser(row, chosen)


def _pair(row: Mapping[str, Any]) -> dict[str, Any]:
    images = {"input_img": row["picture"], "output_img": row["output"]}
    told = {name: {"bytes": content, "path": None} for name, content in images.items()}
    return told | {"instruction": row["instruction"], "type": row["type"]}


def _loser(row: Mapping[str, Any], chosen: bytes | None) -> dict[str, Any]:
    first = json.loads(row["verdicts"])[0]
    told = {name: first[name] for name in ("rule", "value", "bound", "by", "unit")}
    better = {"chosen_img": chosen and {"bytes": chosen, "path": None}}
    return _pair(row) | better | told | {name: row[name] for name in ("editor", "stage", "verdicts")}


def _write(folder: Path, schema: pa.Schema, rows: Iterator[dict[str, Any]]) -> int:
    """A file for every ROWS edits of a category, or every BYTES of their pictures; how many edits there were."""
    waiting: dict[str, list[dict[str, Any]]] = {}
    numbers: dict[str, int] = {}
    count = 0

    def flush(category: str) -> None:
        number = numbers[category] = numbers.get(category, -1) + 1
        table = pa.Table.from_pylist(waiting.pop(category), schema=schema)
        pq.write_table(table, folder / f"{category}_{number:05d}.parquet", row_group_size=32)

    for row in rows:
        count += 1
        part = waiting.setdefault(row["type"], [])
        part.append(row)
        if len(part) >= ROWS or _size(part) >= BYTES:
            flush(row["type"])
    for category in sorted(waiting):
        flush(category)
    return count


def _size(rows: Sequence[Mapping[str, Any]]) -> int:
    return sum(len(row[name]["bytes"]) for row in rows for name in ("input_img", "output_img"))
