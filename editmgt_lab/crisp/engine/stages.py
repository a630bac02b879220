"""A stage: operators in a row, run on one shard after the other; what is finished is not done again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from ...basics.folders import write_text
from .keys import described, key_of
from .operators import ERROR, Operator, apply, has_failed
from .runner import load_daft
from .shards import DROPPED, Shard, Store

ROWS = 64  # of a source's shard: what a kill may cost


class Input(Protocol):
    """A shard that is worked on: one of a source, or of the stage before."""

    key: str

    def frame(self, columns: set[str]) -> Any:
        """Its rows as a Daft frame, with an `id` that sorts them, and the columns of pictures among `columns`."""


@dataclass(frozen=True)
class Finished:
    """An input that an earlier stage left, with columns joined to it by id that only a look at all shards could give.

    joined: a table of the columns and of `id`. The key changes with the rows, which may be others where a shard is made
    again.
    """

    shard: Shard
    store: Store
    joined: pa.Table | None = None

    @property
    def key(self) -> str:
        joined = {row.pop("id"): row for row in self.joined.to_pylist()} if self.joined is not None else {}
        made = [self.shard.made] if self.shard.made else []
        return key_of(self.shard.stage, self.shard.key, joined, *made)

    @property
    def lies(self) -> Mapping[str, str]:
        return self.shard.lies

    def frame(self, columns: set[str]) -> Any:
        daft = load_daft()
        frame = daft.from_arrow(pq.read_table(self.store.kept(self.shard)))  # its own reader takes a name for a pattern
        for column in sorted(columns & set(self.shard.lies)):
            if column not in frame.column_names:
                heavy = pq.read_table(self.store.folder / self.shard.lies[column], columns=[f"{column}_id", column])
                frame = frame.join(daft.from_arrow(heavy), on=f"{column}_id", how="left")
        if self.joined is not None:
            frame = frame.join(daft.from_arrow(self.joined), on="id", how="left")
        return frame


class Choice(Protocol):
    """The last step of a stage, where rows of a shard compete: (row, None) stays, (row, error) is dropped."""

    def choose(self, rows: Sequence[dict[str, Any]]) -> Iterable[tuple[dict[str, Any], dict[str, str] | None]]: ...


@dataclass(frozen=True)
class Stage:
    """name: of its folder; pictures: columns of pictures that it makes; choice: see Choice, a frozen dataclass."""

    name: str
    operators: tuple[Operator, ...]
    pictures: tuple[str, ...] = ()
    choice: Choice | None = None

    def key(self, given: Input) -> str:
        """Of the shard that this stage makes of another: operators, choice and the other's key."""
        operators = [[each.name, each.version, described(each)] for each in self.operators]
        return key_of(self.name, operators, self.choice, given.key)

    def run(
        self, inputs: Iterable[Input], store: Store, *, total: int | None = None, progress: bool = True
    ) -> list[Shard]:
        """All shards, in order; those that the store has are not made again, unless a row of theirs has `failed`.

        total: how many shards there are, for the bar. Raises DiskError; rows raise nothing.
        """
        shards = []
        with tqdm(inputs, desc=self.name, unit="shard", total=total, disable=not progress) as bar:
            for given in bar:
                shard = store.find(self.name, self.key(given))
                shard = shard if shard and not shard.failed else self._make(given, store)
                shards.append(shard)
                bar.set_postfix(kept=sum(each.kept for each in shards), dropped=sum(each.dropped for each in shards))
        return shards

    def _make(self, given: Input, store: Store) -> Shard:
        began = time.perf_counter()
        key = self.key(given)
        frame = given.frame({name for operator in self.operators for name in operator.takes})
        came, table = _collected(frame, self.operators)
        fetched = [name for name in given.lies if name in table.column_names]
        table = table.drop_columns([name for name in fetched if name not in self.pictures])
        kept, dropped = self._parted(table)
        lies = dict(given.lies) | {name: f"{self.name}/{key}.parquet" for name in self.pictures}
        failed = [row["id"] for row in dropped.select(["id", "reason"]).to_pylist() if has_failed(row)]
        seconds = time.perf_counter() - began
        shard = Shard(key, self.name, came, kept.num_rows, dropped.num_rows, seconds, lies, failed)
        return store.write(shard, kept, dropped)

    def _parted(self, table: pa.Table) -> tuple[pa.Table, pa.Table]:
        """Rows without and with an error; those of `choice` as it says."""
        columns = [field for field in table.schema if field.name != "error"]
        rows = [(row, row.pop("error")) for row in table.to_pylist()]
        if self.choice:
            lost = [(row, error) for row, error in rows if error]
            rows = sorted(
                [*lost, *self.choice.choose([row for row, e in rows if not e])], key=lambda pair: pair[0]["id"]
            )
        kept = [row for row, error in rows if not error]
        dropped = [row | error | {"stage": self.name} for row, error in rows if error]
        reasons = [pa.field(name, kind) for name, kind in DROPPED.items()]
        return pa.Table.from_pylist(kept, pa.schema(columns)), pa.Table.from_pylist(
            dropped, pa.schema(columns + reasons)
        )


def _collected(frame: Any, operators: Sequence[Operator]) -> tuple[int, pa.Table]:
    """How many rows went in, and all that came out, by id, with `error`."""
    daft = load_daft()
    frame = frame.collect()
    came = frame.count_rows()
    frame = frame.with_column("error", daft.lit(None).cast(daft.DataType.from_arrow_type(ERROR)))
    for operator in operators:
        frame = apply(frame, operator)
    table = _small(frame.to_arrow())
    return came, table.sort_by("id")


def _small(table: pa.Table) -> pa.Table:
    """Daft's large strings and lists as plain ones, which every reader of parquet knows; plain binaries end at 2 GiB,
    which the pictures of a shard may pass."""
    return table.cast(pa.schema([pa.field(field.name, _plain(field.type)) for field in table.schema]))


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_large_list(kind) or pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(each.name, _plain(each.type)) for each in kind])
    return kind


def finished(shards: Iterable[Shard], store: Store) -> Iterator[Finished]:
    """The shards of one stage as the input of the next."""
    return (Finished(shard, store) for shard in shards)


def write_manifest(store: Store, stages: Sequence[tuple[Stage, Sequence[Shard]]]) -> Path:
    """manifest.json: of every stage its operators with their settings, and its shards in order."""
    told = [
        {
            "stage": stage.name,
            "operators": [
                {"name": op.name, "version": op.version, "settings": described(op)} for op in stage.operators
            ],
            "choice": described(stage.choice),
            "shards": [asdict(shard) for shard in shards],
        }
        for stage, shards in stages
    ]
    path = store.folder / "manifest.json"
    write_text(path, json.dumps(told, indent=1))
    return path
