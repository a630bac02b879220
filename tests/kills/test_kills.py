"""A few kills of each command, with every test run; and that what a careless command loses and leaves is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image
from tqdm import tqdm

from tests.support import ROOT

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the commands run in forks")
COMMANDS = ("train", "finetune", "benchmark", "figure", "training_size", "choose")


def run(*arguments: str, module: str = "tests.kills", **variables: str) -> subprocess.CompletedProcess[str]:
    """In a process that has no threads yet, so that it may fork. variables: of its environment."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=900,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | variables,
    )  # fmt: skip


def test_a_rerun_ends_as_if_there_had_been_no_kill():
    ran = run("--count", "6", "--seed", "2026", "--troubles", "0", "--commands", *COMMANDS)
    assert ran.returncode == 0, ran.stdout + ran.stderr[-2000:]
    table = [line.strip("| ").split(" | ") for line in ran.stdout.splitlines() if line.count("|") == 7]
    assert [row[:2] for row in table[2:]] == [*([name, "1"] for name in COMMANDS), ["all", "6"]]


def test_a_disk_that_takes_nothing_is_said_and_nothing_is_lost():
    from tests.kills.disks import can_mount

    ran = run("--count", "0", "--seed", "2026", "--troubles", "1", "--commands", "finetune")
    assert ran.returncode == 0, ran.stdout + ran.stderr[-2000:]
    left_out = "full disk: left out" in ran.stdout
    assert left_out is not can_mount()
    for trouble in ("full disk", "read-only folder", "folder deleted")[left_out:]:
        assert f"| {trouble} | 1 | 0 | 0 |" in ran.stdout


@pytest.fixture(scope="module")
def found():
    """What is found in the commands below."""
    ran = run(module=__name__, LAB_TEST_PATIENCE="1")
    assert ran.returncode == 0, ran.stderr[-2000:]
    return json.loads(ran.stdout)


def test_what_a_careless_command_loses_and_leaves_is_found(found):
    assert found["careless"]["kills"] == 6
    assert any("numbers.json is torn" in each for each in found["careless"]["lost"])
    assert any("of_process" in each for each in found["careless"]["leftover"])


@pytest.mark.parametrize("how, said", [("fails", "ended with 1"), ("hangs", "hung for ")])
def test_a_command_that_fails_or_hangs_where_it_goes_on_is_found(found, how, said):
    assert any(said in each for each in found[how]["lost"]), found[how]


def test_a_command_that_swallows_what_the_disk_says_is_found(found):
    assert found["swallows"].pop("full disk", True)
    assert found["swallows"] == {"read-only folder": True, "folder deleted": True}


def test_what_differs_is_told_and_times_are_not(tmp_path):
    from tests.kills.compare import differences, torn, unfinished

    for folder, seconds in ((tmp_path / "one", 1.5), (tmp_path / "two", 2.5)):
        folder.mkdir()
        (folder / "a.json").write_text(
            json.dumps({"seconds": seconds, "note": f"hold: {seconds:.3f} s an edit", "score": 1})
        )
        Image.effect_noise((32, 32), 50).save(folder / "a.png")
    assert differences(tmp_path / "one", tmp_path / "two", timed=("a.png",)) == []
    assert differences(tmp_path / "one", tmp_path / "two") == ["a.png is another"]
    (tmp_path / "two" / "a.png").write_bytes((tmp_path / "two" / "a.png").read_bytes()[:300])
    (tmp_path / "two" / "a.json").write_text(json.dumps({"seconds": 1.5, "note": "", "score": 2}))
    (tmp_path / "two" / ".b.unfinished").touch()
    assert [each.split(":")[0] for each in torn(tmp_path / "two")] == ["a.png is torn"]
    assert unfinished(tmp_path / "two") == [".b.unfinished"]
    assert "a.json is another" in differences(tmp_path / "one", tmp_path / "two")
    (tmp_path / "two" / "a.json").unlink()
    assert "a.json is missing" in differences(tmp_path / "one", tmp_path / "two")


def main(arguments: list[str]) -> int:
    """A careless command of each kind."""
    {"careless": careless, "fails": fails, "hangs": hangs, "swallows": swallows}[arguments[0]]()
    return 0


def careless() -> None:
    """It writes in place, and what it needs meanwhile has its process's number. It holds the lock of the progress bars,
    which a kill must not keep from the rerun."""
    tqdm.get_lock().acquire()
    meanwhile = Path(f"of_process_{os.getpid()}")
    meanwhile.mkdir()
    with open("numbers.json", "w") as file:
        file.write("[1, ")
        file.flush()
        Path("between").mkdir(exist_ok=True)
        file.write("2]")
    meanwhile.rmdir()


def fails() -> None:
    Path("begun").mkdir()  # but not twice
    Path("done").write_text("done")


def hangs() -> None:
    if Path("begun").exists():
        time.sleep(3600)
    Path("begun").mkdir()
    Path("done").write_text("done")


def swallows() -> None:
    with suppress(OSError):
        Path("numbers.txt").write_text("1" * 100_000)


if __name__ == "__main__":
    from tests.kills import disks, kills
    from tests.kills.commands import COMMANDS as ALL
    from tests.kills.commands import Command

    troubles = [trouble for trouble in disks.TROUBLES if disks.can_mount() or trouble != "full disk"]
    names = ("careless", "fails", "hangs", "swallows")
    ALL.update({name: Command("tests.kills.test_kills", name) for name in names})
    for name in names:
        ALL[name].imported()  # children have it then
    with kills.stages(names) as stages:
        found = {name: asdict(kills.kill(stages[name], 6, 0)) for name in names[:-1]}
        found["swallows"] = {
            trouble: bool(disks.disturb(stages["swallows"], trouble, 3, 0, disks.Outcome())) for trouble in troubles
        }
    print(json.dumps(found))
