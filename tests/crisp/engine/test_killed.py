"""SIGKILL for the whole command, again and again, while it draws, works, writes and publishes."""

import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq

from tests.crisp.engine import killed_command
from tests.support import until

KILLS, COUNT = 20, 16
MOST_WAIT = 0.05  # s, from a file that was written to the kill


def written(folder):
    """(file, time of its last change) of all that is whole."""
    found = set()
    files = (Path(place) / name for place, _, names in os.walk(folder) for name in names)  # rglob stumbles over changes
    for path in files:
        try:
            if ".unfinished" not in str(path):
                found.add((path.relative_to(folder), path.stat().st_mtime_ns))
        except OSError:  # moved away meanwhile
            continue
    return found


def tables(folder):
    """The tables of all shards that the manifest names, in order."""
    stages = json.loads((folder / "shards" / "manifest.json").read_text())
    return [
        folder / "shards" / stage["stage"] / f"{shard['key']}{ending}"
        for stage in stages
        for shard in stage["shards"]
        for ending in (".parquet", ".dropped.parquet")
    ]


def ended(process, folder, dice, most):
    """Kill a process a moment after it has written up to `most` files; False if it finished first."""
    before, wanted = written(folder), dice.randrange(most + 1)
    until(lambda: len(written(folder) - before) >= wanted or not process.is_alive(), f"{wanted} files or the end")
    time.sleep(dice.uniform(0, MOST_WAIT))
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def test_killed_at_20_moments_it_publishes_the_same(tmp_path, server):
    """The same files in the end, byte for byte, nothing twice, at most a shard's work repeated for each kill."""
    folders = whole, killed = tmp_path / "whole", tmp_path / "killed"
    logs = [tmp_path / "whole.log", tmp_path / "killed.log"]
    arguments = [["--count", str(COUNT), "--shard", "4", "--output", str(folder)] for folder in folders]

    def started(which):
        process = server.Process(target=killed_command.run, args=(arguments[which], str(logs[which])), daemon=True)
        process.start()
        return process

    first = started(0)
    first.join()
    assert first.exitcode == 0
    expected = {path for path, _ in written(whole)}
    dice, kills, torn, kept = random.Random(0), 0, 0, set()
    while kills < KILLS:
        kills += ended(started(1), killed, dice, most=2 * len(expected) // KILLS)
        torn += bool([*killed.rglob(".*.unfinished")])
        now = {each for each in written(killed) if each[0].suffix == ".json" and each[0].parent.parent.name == "shards"}
        assert kept <= now  # a shard that is whole is not made again
        kept = now
    last = started(1)
    last.join()
    assert last.exitcode == 0 and torn  # some kills came while something was half written
    assert not [*killed.rglob(".*.unfinished")]
    published = {path for path in expected if path.parts[0] != "shards"}
    assert {path for path, _ in written(killed) if path.parts[0] != "shards"} == published
    for path in sorted(published - {Path("crisp.json")}):  # which says how long everything took
        assert (killed / path).read_bytes() == (whole / path).read_bytes(), path
    assert (
        json.loads((killed / "crisp.json").read_text())["funnel"]
        == json.loads((whole / "crisp.json").read_text())["funnel"]
    )
    pairs = [*zip(tables(whole), tables(killed), strict=True)]
    assert len(pairs) == len(
        {path for path, _ in written(killed) if path.suffix == ".parquet" and path.parts[0] == "shards"}
    )
    for one, other in pairs:  # named by the times of the pictures' files, which differ
        assert pq.read_table(one).equals(pq.read_table(other)), one
    begun, once = (Counter(log.read_text().splitlines()) for log in logs[::-1])
    again = sum(begun.values()) - len(begun)
    assert len(begun) == len(once) and again <= kills
    print(f"{kills} kills, {torn} while a file was half written: {again} of {len(begun)} shards were begun twice")
