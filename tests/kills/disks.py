"""A disk that is full, a folder that may not be written to, one that is deleted: an error that says so, and no loss."""

from __future__ import annotations

import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from .ending import Ended, Ending, run
from .kills import Stage

PAGE = 4096  # bytes
PLENTY = 64 * 2**20  # bytes


@dataclass
class Outcome:
    """Of the cases of one trouble. told: ended in a LabError; right: came to their end all the same; wrong: all else,
    and what a run was lost after the trouble was over, one text each."""

    told: int = 0
    right: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, stage: Stage, trouble: str, ended: Ended) -> None:
        where = f"{stage.name}, {trouble}"
        if ended.status == 0:
            wrong = lost_or_left(stage)
            self.right += not wrong
            self.wrong += [f"{where}: ends as if all went well: {each}" for each in wrong]
        elif ended.status == 2 and "expected:" in ended.said and "Traceback" not in ended.said:
            self.told += 1
        else:
            self.wrong.append(f"{where}: {ended}")
        stage.give()
        again = run(stage.command, stage.place)
        wrong = [f"the rerun {again}"] if again.status else lost_or_left(stage)
        self.wrong += [f"{where}, mended: {each}" for each in wrong]


def lost_or_left(stage: Stage) -> list[str]:
    lost, leftover = stage.left()
    return [*lost, *(f"{each} is left over" for each in leftover)]


def full_disk(stage: Stage, dice: random.Random, outcome: Outcome) -> None:
    """A disk with room for a part of it. Needs `can_mount`."""
    given, needed = room(stage.place), room(stage.expected)
    size = round(given + dice.uniform(0, 0.9) * (needed - given))
    with mounted(stage, size) as remount:
        ended = run(stage.command, stage.place)
        remount(f"size={PLENTY}")
        outcome.add(stage, f"a disk of {size} bytes", ended)


def room(folder: Path) -> int:
    """Bytes that it takes, in whole pages, with one for the disk itself."""
    pages = [max(1, -(-path.stat().st_size // PAGE)) for path in folder.rglob("*")]
    return PAGE * (sum(pages) + 1)


def read_only(stage: Stage, dice: random.Random, outcome: Outcome) -> None:
    """A run that is killed, and the same again where it may not write. Root may everywhere, but on a disk that is
    mounted so."""
    with mounted(stage, PLENTY) if can_mount() else forbidden(stage.place) as remount:
        run(stage.command, stage.place, Ending(change=dice.randrange(stage.undisturbed.changes)))
        remount("ro")
        ended = run(stage.command, stage.place)
        remount("rw")
        outcome.add(stage, "a read-only folder", ended)


def deleted(stage: Stage, dice: random.Random, outcome: Outcome) -> None:
    """It is removed with all that lies there, in the middle of the run."""
    change = dice.randrange(stage.undisturbed.changes)
    ended = run(stage.command, stage.place, Ending(change=change, instead=lambda: shutil.rmtree(stage.place)))
    outcome.add(stage, f"all was deleted at change {change}", ended)


TROUBLES = {"full disk": full_disk, "read-only folder": read_only, "folder deleted": deleted}


@cache
def can_mount() -> bool:
    """Whether a small tmpfs may be mounted here: root may, but not in every container."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with disk(folder, PAGE):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


@contextmanager
def disk(place: str | Path, size: int) -> Iterator[Callable[[str], None]]:
    """A disk of so many bytes in the folder `place`; yields what changes how it is mounted."""

    def mount(*arguments: str) -> None:
        subprocess.run(["mount", *arguments, str(place)], check=True, capture_output=True)

    mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs")
    try:
        yield lambda options: mount("-o", f"remount,{options}")
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def mounted(stage: Stage, size: int) -> Iterator[Callable[[str], None]]:
    """The stage's folder as a disk of its own, see `disk`."""
    stage.empty()
    with disk(stage.place, size) as remount:
        stage.give()
        yield remount


@contextmanager
def forbidden(place: Path) -> Iterator[Callable[[str], None]]:
    """The same of a folder's permissions."""

    def change(options: str) -> None:
        for folder in (place, *(path for path in place.rglob("*") if path.is_dir())):
            folder.chmod(0o555 if options == "ro" else 0o755)

    try:
        yield change
    finally:
        change("rw")


def disturb(stage: Stage, trouble: str, count: int, seed: int, outcome: Outcome) -> list[str]:
    """So many cases of one trouble, counted in `outcome`; what was wrong in them."""
    dice, before = random.Random(f"{seed}/{stage.name}/{trouble}"), len(outcome.wrong)
    assert stage.undisturbed.status == 0
    for _ in range(count):
        stage.empty()
        stage.give()
        TROUBLES[trouble](stage, dice, outcome)
    return outcome.wrong[before:]
