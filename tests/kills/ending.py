"""A command in a child of this process, which has everything imported already; and the ways in which it is ended."""

from __future__ import annotations

import os
import resource
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from tests.support import PATIENCE

from .commands import Command

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
HUNG = 2 * PATIENCE  # seconds
CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")


@dataclass(frozen=True)
class Ending:
    """seconds: from the start to a SIGKILL from outside; else change: the number of the change to a folder or a file at
    which the process sends itself one; with `size`, from there on the kernel ends it in the middle of a write, as soon
    as a file would grow beyond so many bytes (SIGXFSZ). instead: what is done at that change, and ends nothing."""

    seconds: float | None = None
    change: int | None = None
    size: int | None = None
    instead: Callable[[], Any] | None = None


@dataclass(frozen=True)
class Ended:
    """status: as `main` returns it, or minus the signal that ended it (SIGTERM: it hung); changes: see Ending, if it
    came to its end."""

    status: int
    changes: int
    seconds: float
    said: str

    def __str__(self) -> str:
        """How it ended, and the last of what it said."""
        hung = f"hung for {self.seconds:.0f} s" if self.status == -signal.SIGTERM else f"ended with {self.status}"
        return f"{hung}: {self.said[-1500:]}"


def run(command: Command, place: Path, ending: Ending | None = None) -> Ended:
    """The command in the folder `place`, to its end or to this ending."""
    ending, log, counted = ending or Ending(), place.with_suffix(".log"), place.with_suffix(".changes")
    counted.unlink(missing_ok=True)
    log.write_bytes(b"")  # here, since the child may be killed before its first line
    began = time.monotonic()
    child = os.fork()
    if not child:
        status = 1
        try:
            _settle(place, log, ending)
            changes = _watch(place, ending)
            command.settle()
            status = command.main(shlex.split(command.arguments))
            counted.write_text(str(len(changes)))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    limit, sent = (HUNG, signal.SIGTERM) if ending.seconds is None else (ending.seconds, signal.SIGKILL)
    while not (found := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() - began > limit:
            os.kill(child, sent)
            found = os.waitpid(child, 0)
            break
        time.sleep(0.002)
    status = os.waitstatus_to_exitcode(found[1])
    changes = int(counted.read_text()) if counted.exists() else 0
    return Ended(status, changes, time.monotonic() - began, log.read_text(encoding="utf-8", errors="replace"))


def _settle(place: Path, log: Path, ending: Ending) -> None:
    os.chdir(place)
    output = os.devnull if ending.size is not None else log  # what it says may be longer than `size`
    said = os.open(output, os.O_WRONLY)
    os.dup2(said, 1)
    os.dup2(said, 2)
    torch.set_num_threads(1)
    # The bars' own lock is shared between forks: who is killed while one is drawn would hold it for ever.
    tqdm.set_lock(threading.RLock())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _watch(place: Path, ending: Ending) -> list[str]:
    """From here on counts every change to what lies in `place`, and ends the process at the one that is named."""
    changes: list[str] = []

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            if not isinstance(arguments[0], str | os.PathLike) or not (arguments[2] or 0) & WRITES:
                return
        elif event not in CHANGES:
            return
        if not isinstance(arguments[0], str | os.PathLike) or not (place / arguments[0]).is_relative_to(place):
            return
        changes.append(event)
        if len(changes) - 1 == ending.change:
            if ending.instead is not None:
                ending.instead()
                return
            if ending.size is None:
                os.kill(os.getpid(), signal.SIGKILL)
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (ending.size, resource.RLIM_INFINITY))

    sys.addaudithook(look)
    return changes
