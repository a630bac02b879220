"""Shards on the disk: rows that were kept, rows that were dropped, and an entry that says both are whole.

A stage's shard is three files named by its key, in the stage's folder: KEY.parquet, KEY.dropped.parquet, and the entry
KEY.json, which is written last. All are written beside and renamed, so a kill leaves a shard whole or not at all.
Columns of pictures lie once, in the shard of the stage that made them; the entries of later shards say where.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ...basics.fingerprints import fingerprint
from ...basics.folders import remove, write_text, written_whole

DROPPED = {"stage": pa.string(), "operator": pa.string(), "reason": pa.string(), "problem": pa.string()} | {
    "verdicts": pa.string()  # JSON: every rule that was broken, by how much
}


@dataclass(frozen=True)
class Shard:
    """One finished shard. came: rows that went in; kept, dropped: that came out; lies: column of pictures → file.

    failed: ids of the dropped rows that another run may keep, such as those for which a server was down: it makes the
    shard again. made: a fingerprint of the kept rows, others where a second making came to something else ("" in the
    entries of older versions).
    """

    key: str
    stage: str
    came: int
    kept: int
    dropped: int
    seconds: float
    lies: Mapping[str, str] = field(default_factory=dict)
    failed: Sequence[str] = ()
    made: str = ""


class Store:
    """A folder of shards. Raises DiskError where the disk does not take one."""

    def __init__(self, folder: Path):
        self.folder = Path(folder).absolute()  # Ray's workers need not run where this process does

    def find(self, stage: str, key: str) -> Shard | None:
        """The shard, if it is whole."""
        entry = self.path(stage, key, ".json")
        try:
            shard = Shard(**json.loads(entry.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None  # what cannot be read is not there, and is made again
        whole = all(self.path(stage, key, suffix).is_file() for suffix in (".parquet", ".dropped.parquet"))
        return shard if whole else None

    def write(self, shard: Shard, kept: pa.Table, dropped: pa.Table) -> Shard:
        """Put a shard on the disk, its entry last; the shard with `made`."""
        entry = self.path(shard.stage, shard.key, ".json")
        remove(entry)  # else a kill could leave it beside other rows
        for suffix, table in ((".parquet", kept), (".dropped.parquet", dropped)):
            with written_whole(self.path(shard.stage, shard.key, suffix)) as unfinished:
                pq.write_table(table, unfinished, compression="zstd")
        shard = replace(shard, made=fingerprint(self.kept(shard)))
        write_text(entry, json.dumps(asdict(shard)))
        return shard

    def path(self, stage: str, key: str, suffix: str) -> Path:
        return self.folder / stage / f"{key}{suffix}"

    def kept(self, shard: Shard) -> Path:
        return self.path(shard.stage, shard.key, ".parquet")

    def rows(
        self,
        shard: Shard,
        *,
        dropped: bool = False,
        pictures: tuple[str, ...] = (),
        columns: Sequence[str] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """The rows of a shard, with those of its columns of pictures that are asked for (None where one has none).

        columns: of the others, those that are wanted and there (None: all).
        """
        file = pq.ParquetFile(self.path(shard.stage, shard.key, ".dropped.parquet" if dropped else ".parquet"))
        wanted = None if columns is None else {*columns, *(f"{column}_id" for column in pictures)}
        table = file.read(wanted and [name for name in file.schema_arrow.names if name in wanted])
        seen = {}
        for column in pictures:
            if column in shard.lies and column not in table.column_names:
                heavy = pq.read_table(self.folder / shard.lies[column], columns=[f"{column}_id", column]).to_pydict()
                seen[column] = dict(zip(heavy[f"{column}_id"], heavy[column], strict=True))
        for row in table.to_pylist():
            yield row | {column: found.get(row.get(f"{column}_id")) for column, found in seen.items()}
