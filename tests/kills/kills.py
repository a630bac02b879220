"""Kills drawn from a seed, over every command in turn, and what is left of its work."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from .commands import COMMANDS, give
from .compare import differences, files, torn, unfinished
from .ending import Ended, Ending, run

MOST_IN_A_ROW = 3  # kills before a command is let run to its end
KILLED = (-signal.SIGKILL, -signal.SIGXFSZ)


class Stage:
    """A command in an empty folder, again and again; what it leaves undisturbed lies beside it."""

    def __init__(self, name: str, root: Path):
        self.name, self.command = name, COMMANDS[name]
        self.place, self.expected = root / "work", root / "expected" / name.replace(" ", "_")

    def empty(self) -> None:
        """An empty folder to work in."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()

    def give(self) -> None:
        """The folder, and what the command finds there, where it is not there already."""
        self.place.mkdir(exist_ok=True)
        if self.command.changes_editor and not (self.place / "editor" / "editmgt").exists():
            shutil.copytree(self.place.parent / "given" / "tiny", self.place / "editor", dirs_exist_ok=True)

    @cached_property
    def undisturbed(self) -> Ended:
        """The first run, never stopped. Raises AssertionError where it fails, with what it said."""
        self.empty()
        self.give()
        ended = run(self.command, self.place)
        assert ended.status == 0, f"{self.name} fails undisturbed:\n{ended.said}"
        shutil.copytree(self.place, self.expected)
        assert not torn(self.expected) and not unfinished(self.expected)
        return ended

    def drawn(self, dice: random.Random) -> Ending:
        """A moment of the run, one of its changes, or a byte of a file that is written after such a change."""
        kind = dice.randrange(3)
        if kind == 0:
            return Ending(seconds=dice.uniform(0, self.undisturbed.seconds))
        change = dice.randrange(self.undisturbed.changes)
        if kind == 1:
            return Ending(change=change)
        sizes = [file.stat().st_size for file in files(self.expected).values() if file.is_file()]
        return Ending(change=change, size=dice.randrange(dice.choice(sizes) + 1))

    def left(self) -> tuple[list[str], list[str]]:
        """After a run to the end: what was lost, and what is too much."""
        lost = differences(self.expected, self.place, self.command.timed) + torn(self.place)
        return lost, sorted(files(self.place).keys() - files(self.expected).keys())


@dataclass
class Count:
    """Of one command. writing: kills after which something lay there half written; lost, leftover: one text each."""

    kills: int = 0
    writing: int = 0
    reruns: int = 0
    lost: list[str] = field(default_factory=list)
    leftover: list[str] = field(default_factory=list)


@contextmanager
def stages(names: Sequence[str]) -> Iterator[dict[str, Stage]]:
    """All commands of these names, and what they read; gone afterwards."""
    memory = Path("/dev/shm")  # waits for no disk
    root = Path(tempfile.mkdtemp(prefix="kills-", dir=memory if os.access(memory, os.W_OK) else None)).resolve()
    try:
        give(root / "given")
        yield {name: Stage(name, root) for name in names}
    finally:
        shutil.rmtree(root, ignore_errors=True)


def kill(stage: Stage, count: int, seed: int) -> Count:
    """So many kills of one command, up to MOST_IN_A_ROW before each run to the end; fewer where a run fails."""
    dice, found = random.Random(f"{seed}/{stage.name}"), Count()
    assert stage.undisturbed.status == 0  # made in the same place, which is empty again afterwards
    while found.kills < count:
        stage.empty()
        stage.give()
        told = []
        for _ in range(min(dice.randint(1, MOST_IN_A_ROW), count - found.kills)):
            ending = stage.drawn(dice)
            ended = run(stage.command, stage.place, ending)
            if ended.status == 0:
                continue  # it was at its end before
            if ended.status not in KILLED:
                found.lost.append(f"{stage.name}, after {told}, at {ending}: {ended}")
                return found
            told.append(f"{ending}".removeprefix("Ending"))
            found.kills += 1
            found.writing += bool(unfinished(stage.place))
            found.lost += [f"{stage.name}, after {told}: {each}" for each in torn(stage.place)]
        if not told:
            continue
        ended = run(stage.command, stage.place)
        found.reruns += 1
        if ended.status != 0:
            found.lost.append(f"{stage.name}, after {told}: the rerun {ended}")
            continue
        lost, leftover = stage.left()
        found.lost += [f"{stage.name}, after {told}: {each}" for each in lost]
        found.leftover += [f"{stage.name}, after {told}: {each}" for each in leftover]
    return found
