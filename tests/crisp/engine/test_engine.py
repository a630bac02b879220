"""The engine: one bad row costs itself, a kill costs a shard, a changed operator what hangs on it."""

import json
import random
import signal
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from editmgt_lab.basics.folders import write_text
from editmgt_lab.crisp.engine import runner, stages
from editmgt_lab.crisp.engine.keys import described, key_of
from editmgt_lab.crisp.engine.operators import Drop, Operator, Verdict
from editmgt_lab.crisp.engine.shards import Store
from editmgt_lab.crisp.engine.stages import Stage, finished, write_manifest
from editmgt_lab.errors import DiskError, EndpointError, SettingError
from tests.crisp.engine.rows import Rows
from tests.crisp.engine.slow_pipeline import ROWS, SHARDS, run, run_alone
from tests.support import until


@dataclass(frozen=True)
class Copies(Operator):
    """As many copies of a row as its n says."""

    name: ClassVar[str] = "copies"
    takes: ClassVar[tuple[str, ...]] = ("id", "n", "picture")
    gives: ClassVar[dict] = {"id": pa.string(), "length": pa.int64()}
    many: ClassVar[bool] = True

    def run(self, row):
        return [{"id": f"{row['id']}/{i}", "length": len(row["picture"])} for i in range(row["n"])]


@dataclass(frozen=True)
class Draws(Operator):
    name: ClassVar[str] = "draws"
    takes: ClassVar[tuple[str, ...]] = ("id", "n")
    gives: ClassVar[dict] = {"picture_id": pa.string(), "picture": pa.binary()}
    at_once: ClassVar[int] = 4

    def run(self, row):
        if row["n"] == 3:
            raise Drop(Verdict("too odd", 3, 2.5, "px"), Verdict("too prime"))
        return {"picture_id": row["id"], "picture": b"p" * row["n"]}


def rows_of(store, shards, **options):
    return [row for shard in shards for row in store.rows(shard, **options)]


def test_a_bad_row_costs_itself_and_is_kept_with_its_reason(tmp_path):
    store, first, _ = run(tmp_path, tmp_path / "log", seconds=0)
    kept, dropped = rows_of(store, first), rows_of(store, first, dropped=True)
    assert [row["id"] for row in kept] == [f"{n:04d}" for n in range(1, SHARDS * ROWS + 1) if n % 7 and n % 11]
    assert [row["n"] for row in kept if row["id"] == "0013"] == [61]
    reasons = {row["id"]: (row["operator"], row["reason"]) for row in dropped}
    assert reasons["0014"] == ("slow", "a multiple of 7") and reasons["0022"] == ("slow", "error in slow")
    assert sorted(reasons) == [f"{n:04d}" for n in range(1, SHARDS * ROWS + 1) if not (n % 7 and n % 11)]
    row = next(row for row in dropped if row["id"] == "0014")
    assert (
        row["problem"] == "a multiple of 7: 14 units, the bound is 6" and row["stage"] == "first" and row["n"] is None
    )
    assert json.loads(row["verdicts"]) == [
        {"rule": "a multiple of 7", "value": 14, "bound": 6, "unit": "units", "by": 8}
    ]
    broken = next(row for row in dropped if row["id"] == "0022")
    assert "ZeroDivisionError" in broken["problem"]
    assert sum(shard.kept + shard.dropped for shard in first) == sum(shard.came for shard in first) == SHARDS * ROWS


@dataclass(frozen=True)
class Says(Operator):
    """What no table takes, in a value or in an error."""

    name: ClassVar[str] = "says"
    takes: ClassVar[tuple[str, ...]] = ("n",)
    gives: ClassVar[dict] = {"text": pa.string(), "count": pa.int32()}

    def run(self, row):
        if row["n"] == 3:
            raise ValueError("half a pair \ud83d")
        if row["n"] == 4:
            raise Drop(Verdict("too far", float("nan"), 1.0, "px"))
        return {"text": "\ud83d" if row["n"] == 1 else "🔵", "count": 2**40 if row["n"] == 2 else row["n"]}


def test_a_value_that_no_table_takes_costs_its_row(tmp_path):
    store, table = Store(tmp_path), pa.table({"id": ["a", "b", "c", "d", "e"], "n": [0, 1, 2, 3, 4]})
    shards = Stage("said", (Says(),)).run([Rows("k", table)], store, progress=False)
    assert [(row["id"], row["text"]) for row in rows_of(store, shards)] == [("a", "🔵")]
    dropped = rows_of(store, shards, dropped=True)
    problems = {row["id"]: row["problem"] for row in dropped}
    assert problems["e"].startswith("too far: nan px")
    (verdict,) = json.loads(dropped[-1]["verdicts"], parse_constant=pytest.fail)
    assert verdict["value"] is None is verdict["by"] and verdict["bound"] == 1
    assert "UnicodeEncodeError" in problems["b"] and "in says" in problems["c"] and "pair \\ud83d" in problems["d"]


def test_what_is_finished_is_not_done_again(tmp_path):
    log = tmp_path / "log"
    run(tmp_path, log, seconds=0)
    before = log.read_text()
    run(tmp_path, log, seconds=0)
    assert log.read_text() == before


def test_a_changed_operator_reruns_what_hangs_on_it_and_nothing_else(tmp_path):
    log = tmp_path / "log"
    run(tmp_path, log, adds=(1, 2), seconds=0)
    log.write_text("")
    run(tmp_path, log, adds=(1, 3), seconds=0)
    assert {line.split()[0] for line in log.read_text().splitlines()} == {"3"}  # the first stage stood
    log.write_text("")
    run(tmp_path, log, adds=(4, 3), seconds=0)
    assert {line.split()[0] for line in log.read_text().splitlines()} == {"4", "3"}
    log.write_text("")
    run(tmp_path, log, adds=(1, 2), seconds=0)  # what was made before is still there
    assert log.read_text() == ""


def test_a_version_and_a_setting_are_part_of_the_key_and_a_secret_is_not():
    @dataclass(frozen=True)
    class Setting:
        bound: float
        secret: str = field(default="", compare=False)
        version: ClassVar[int] = 1

    keys = [key_of(Setting(1.0)), key_of(Setting(2.0))]
    assert key_of(Setting(1.0, "hidden")) == keys[0] != keys[1]
    assert "hidden" not in json.dumps(described(Setting(1.0, "hidden")))
    Setting.version = 2
    assert key_of(Setting(1.0)) not in keys
    with pytest.raises(SettingError, match="cannot be part of a shard's key"):
        key_of(lambda: 1)


def test_pictures_lie_once_and_are_found_from_later_stages(tmp_path):
    store = Store(tmp_path)
    table = pa.table({"id": ["a", "b", "c", "d"], "n": [1, 2, 3, 0]})
    first = Stage("drawn", (Draws(),), pictures=("picture",)).run([Rows("k", table)], store, progress=False)
    second = Stage("copied", (Copies(),)).run(finished(first, store), store, progress=False)
    assert "picture" not in pq.read_schema(store.kept(second[0])).names
    kept = rows_of(store, second, pictures=("picture",))
    assert [(row["id"], row["length"], row["picture"]) for row in kept] == [
        ("a/0", 1, b"p"), ("b/0", 2, b"pp"), ("b/1", 2, b"pp"),
    ]  # fmt: skip
    assert [row["reason"] for row in rows_of(store, second, dropped=True)] == ["copies made nothing"]
    (odd,) = rows_of(store, first, dropped=True)
    assert odd["problem"] == "too odd: 3 px, the bound is 2.5; too prime"
    told = json.loads(write_manifest(store, [(Stage("drawn", (Draws(),)), first)]).read_text())
    assert told[0]["operators"][0]["name"] == "draws" and told[0]["shards"][0]["kept"] == 3


def test_no_table_of_pictures_ends_at_2_gib(tmp_path, monkeypatch):
    """Neither those that a stage makes nor those that it fetches; what an operator says of them is a plain binary."""
    seen, small = [], stages._small
    monkeypatch.setattr(stages, "_small", lambda table: seen.append(small(table).schema) or small(table))
    store, table = Store(tmp_path), pa.table({"id": ["a", "b"], "n": [1, 2]})
    first = Stage("drawn", (Draws(),), pictures=("picture",)).run([Rows("k", table)], store, progress=False)
    Stage("copied", (Copies(),)).run(finished(first, store), store, progress=False)
    schemas = [*seen, pq.read_schema(store.kept(first[0]))]
    assert [each.field("picture").type for each in schemas] == [pa.large_binary()] * 3
    assert Draws.gives["picture"] == pa.binary() and schemas[-1].field("id").type == pa.string()


def test_a_shard_with_a_file_missing_or_an_entry_torn_is_made_again(tmp_path):
    log = tmp_path / "log"
    store, first, _ = run(tmp_path, log, seconds=0)
    kept = rows_of(store, first)
    log.write_text("")
    store.kept(first[2]).unlink()
    store.path("first", first[4].key, ".json").write_text('{"key": "')
    store, again, _ = run(tmp_path, log, seconds=0)
    assert rows_of(store, again) == kept
    done = {int(line.split()[1]) for line in log.read_text().splitlines() if line.startswith("1 ")}
    assert done == {*range(11, 16), *range(21, 26)}


@dataclass(frozen=True)
class Asks(Operator):
    """Somebody who answers otherwise every time, and never about some rows."""

    name: ClassVar[str] = "asks"
    takes: ClassVar[tuple[str, ...]] = ("id",)
    gives: ClassVar[dict] = {"answer": pa.string(), "picture_id": pa.string(), "picture": pa.binary()}
    run_number: str = field(compare=False)
    never: tuple[str, ...] = field(default=(), compare=False)

    def run(self, row):
        if row["id"] in self.never:
            raise EndpointError("nobody there", expected="a server", fix="start it")
        return {"answer": self.run_number, "picture_id": row["id"], "picture": self.run_number.encode()}


@dataclass(frozen=True)
class Repeats(Operator):
    name: ClassVar[str] = "repeats"
    takes: ClassVar[tuple[str, ...]] = ("picture",)
    gives: ClassVar[dict] = {"seen": pa.string()}

    def run(self, row):
        return {"seen": row["picture"].decode()}


def asked(folder, *stages):
    store, shards = Store(folder), [Rows("k", pa.table({"id": ["a", "b"]}))]
    for stage in stages:
        shards = stage.run(finished(shards, store) if stage is not stages[0] else shards, store, progress=False)
    return store, shards


@pytest.mark.parametrize("again", ["a row failed", "its file is missing", "killed before its entry was anew"])
def test_what_hangs_on_a_shard_that_is_made_again_is_made_again_too(tmp_path, monkeypatch, again):
    never = ("a",) if again == "a row failed" else ()
    second, third = (Stage(name, (Repeats(),)) for name in ("second", "third"))

    def run_all(number):
        return asked(tmp_path, Stage("first", (Asks(number, never),), pictures=("picture",)), second, third)

    run_all("one")
    if not never:
        (file,) = (path for path in (tmp_path / "first").glob("*.parquet") if "dropped" not in path.name)
        file.unlink()
    if again.startswith("killed"):
        with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
            broken.setattr("editmgt_lab.crisp.engine.shards.write_text", raising(KeyboardInterrupt))
            run_all("two")
    for number in ("three", "four"):
        store, shards = run_all(number)
        rows = rows_of(store, shards, pictures=("picture",))
        assert {row["id"] for row in rows} == {"a", "b"} - {*never}
        assert all(row["seen"] == row["answer"] == row["picture"].decode() for row in rows)
    assert {row["seen"] for row in rows} == ({"four"} if never else {"three"}), "a whole shard is not made again"


@pytest.mark.parametrize("error", ["AcceleratorError", "RuntimeError"])
def test_a_device_that_is_broken_is_no_rows_fault(tmp_path, monkeypatch, error):
    """Every row behind the first fails as well, and the next run asks about all of them again."""
    kind = RuntimeError if error == "RuntimeError" else getattr(torch, error, None)
    if kind is None:
        pytest.skip("this torch raises a RuntimeError")
    stage = Stage("first", (Repeats(),))
    table = pa.table({"id": ["a", "b"], "picture": [b"a", b"b"]})
    with monkeypatch.context() as broken:
        broken.setattr(Repeats, "run", raising(kind("CUDA error: an illegal memory access was encountered")))
        (shard,) = stage.run([Rows("k", table)], Store(tmp_path), progress=False)
        assert shard.failed == ["a", "b"]
        broken.setattr(Repeats, "run", raising(RuntimeError("mat1 and mat2 shapes cannot be multiplied")))
        (other,) = stage.run([Rows("other", table)], Store(tmp_path), progress=False)
        assert not other.failed, "what is of the rows is not asked again"
    (again,) = stage.run([Rows("k", table)], Store(tmp_path), progress=False)
    assert again.kept == 2


def raising(error):
    def raises(*_):
        raise error

    return raises


@dataclass(frozen=True)
class Parts(Asks):
    """Rows of other names, which those that fail do not get."""

    name: ClassVar[str] = "parts"
    gives: ClassVar[dict] = {"id": pa.string(), "answer": pa.string()}
    many: ClassVar[bool] = True

    def run(self, row):
        answer = super().run(row)["answer"]
        return [{"id": f"{row['id']}/{i}", "answer": answer} for i in range(2)]


def test_a_row_that_fails_where_rows_get_new_names_keeps_its_own(tmp_path):
    keys = []
    for never in ("a", "b"):
        store, (shard,) = asked(tmp_path / never, Stage("first", (Parts("one", (never,)),)))
        assert [row["id"] for row in store.rows(shard, dropped=True)] == [never] == [*shard.failed]
        keys.append(next(finished([shard], store)).key)
    assert keys[0] != keys[1]


@pytest.mark.parametrize("name", ["{a,b}", "a\\b", "[1] *?"])
def test_a_folder_may_have_any_name(tmp_path, name):
    first, second = Stage("first", (Asks("one"),), pictures=("picture",)), Stage("second", (Repeats(),))
    store, shards = asked(tmp_path / name, first, second)
    assert [row["seen"] for row in rows_of(store, shards)] == ["one", "one"]


def test_killed_at_20_moments_it_costs_a_shard_each(tmp_path, server):
    """SIGKILL again and again: the same rows in the end, none twice, at most a shard repeated for each kill."""
    whole, killed, log = tmp_path / "whole", tmp_path / "killed", tmp_path / "log"
    store, *expected = run(whole, tmp_path / "other", seconds=0)
    dice, kills, log_lines = random.Random(0), 0, lambda: log.read_text().splitlines() if log.exists() else []

    def wait(process, rows):
        until(lambda: len(log_lines()) >= rows or not process.is_alive(), "a row or the end")

    while True:
        process = server.Process(target=run_alone, args=(str(killed), str(log)), daemon=True)
        begun = len(log_lines())
        wanted = begun + (dice.randrange(1, 2 * ROWS) if kills < 20 else 10**6)  # rows after which this run is killed
        process.start()
        wait(process, wanted)
        process.kill()
        process.join()
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
        kills += 1
    assert kills >= 10  # the shards may be done before 20
    counts = Counter(log_lines())
    assert sum(counts.values()) - len(counts) <= kills * ROWS
    made, *found = run(killed, log, seconds=0)
    assert Counter(log_lines()) == counts  # nothing was left to do
    for stage, again in zip(expected, found, strict=True):
        assert rows_of(made, again) == rows_of(store, stage)
        assert rows_of(made, again, dropped=True) == rows_of(store, stage, dropped=True)
    assert not list(killed.glob("*/.*.unfinished"))


@dataclass(frozen=True)
class Keeps(Operator):
    """Writes where nothing can be written, as a cache of answers may."""

    name: ClassVar[str] = "keeps"
    takes: ClassVar[tuple[str, ...]] = ("id",)
    gives: ClassVar[dict] = {"kept": pa.bool_()}

    def run(self, row):
        write_text(Path("/dev/null/answer"), row["id"])


def test_a_full_disk_is_no_rows_fault(tmp_path):
    given = Rows("key", pa.table({"id": ["a", "b"]}))
    with pytest.raises(DiskError, match="cannot be written"):
        Stage("one", (Keeps(),)).run([given], Store(tmp_path), progress=False)
    assert not list(tmp_path.rglob("*.parquet"))


def test_without_daft_or_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "daft", None)
    with pytest.raises(SettingError, match=r"editmgt-lab\[crisp\]"):
        runner.load_daft()
    monkeypatch.undo()
    with pytest.raises(SettingError, match="runs on native already"):
        runner.start("ray")
    monkeypatch.setattr(runner, "_started", None)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingError, match=r"editmgt-lab\[cluster\]"):
        runner.start("ray")
    with pytest.raises(SettingError, match="native without an address"):
        runner.start("native", "ray://head:10001")
