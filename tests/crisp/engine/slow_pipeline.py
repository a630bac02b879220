"""A pipeline of two stages that leaves a line in a file for every row it works on: to be killed by a test."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from editmgt_lab.crisp.engine.operators import Drop, Operator, Verdict
from editmgt_lab.crisp.engine.runner import start
from editmgt_lab.crisp.engine.shards import Store
from editmgt_lab.crisp.engine.stages import Stage, finished
from tests.crisp.engine.rows import Rows

SHARDS, ROWS = 10, 5


@dataclass(frozen=True)
class Slow(Operator):
    """n → 10 n + add, after a while; multiples of 7 are dropped, and of 11 broken."""

    name: ClassVar[str] = "slow"
    takes: ClassVar[tuple[str, ...]] = ("id", "n")
    gives: ClassVar[dict] = {"n": pa.int64()}
    log: str = field(compare=False)
    add: int = 1
    seconds: float = field(default=0.02, compare=False)

    def run(self, row):
        with open(self.log, "a") as file:
            file.write(f"{self.add} {row['id']}\n")
        time.sleep(self.seconds)
        if row["n"] % 7 == 0:
            raise Drop(Verdict("a multiple of 7", row["n"], 6, "units"))
        return {"n": 10 * (row["n"] // (row["n"] % 11)) + self.add}  # 11 divides by zero


def inputs():
    for shard in range(SHARDS):
        numbers = range(shard * ROWS + 1, shard * ROWS + ROWS + 1)
        yield Rows(f"shard {shard}", pa.table({"id": [f"{n:04d}" for n in numbers], "n": list(numbers)}))


def run(folder, log, adds=(1, 2), seconds=0.02):
    store = Store(Path(folder))
    first = Stage("first", (Slow(str(log), adds[0], seconds),)).run(inputs(), store, progress=False)
    second = Stage("second", (Slow(str(log), adds[1], seconds),)).run(finished(first, store), store, progress=False)
    return store, first, second


def run_alone(folder, log):
    """As a process of its own."""
    start("native")
    run(folder, log)
