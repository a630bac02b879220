"""Cases in a process of their own, which a watchdog ends when one takes too long, or too much memory.

What is limited, for one case: SECONDS of processor time, of all threads of the worker and of the processes that it
began; IDLE seconds by the clock in which these work next to nothing, as a case does that waits for ever, while one
that sleeps for less, or works slowly, may take longer by the clock than SECONDS; and MEMORY, resident, of the worker
alone, more than before the case: while it runs, and at its end the most that the kernel has counted.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from .case import Outcome

SECONDS = 10.0  # of processor time, so that a busy computer fails nobody
IDLE = 30.0  # s by the clock in which it works next to nothing
NOTHING = 0.05  # of the clock: what threads of libraries do in a process that waits
MEMORY = 2**30  # bytes more than before the case
LOOK = 0.1  # s, between two looks
SOON = 1.0  # s, for a worker that is not busy to end by itself, so that nothing of it is left behind
START = 600.0  # s, for the worker to be ready


class Watched:
    """A worker that answers one question after the other; a new one comes in its place when it had to be ended.

    work: called in the worker without arguments, gives the function that answers a question; both can be pickled.
    """

    def __init__(self, work: Callable[[], Callable[[Any], Outcome]], log: Path):
        self.work, self.log, self.process = work, log, None

    def ask(self, question: Any) -> Outcome:
        if self.process is None:
            self._begin()
        self.line.send(question)
        before, busy = self.seen.memory_info().rss, self._busy()
        latest, since = busy, time.monotonic()
        while not self.line.poll(LOOK):
            if not self.process.is_alive() and not self.line.poll():
                return self._lost()
            try:
                if self.seen.memory_info().rss - before > MEMORY:
                    return self._ended("memory", f"{(self.seen.memory_info().rss - before) / 2**20:.0f} MiB more")
                worked, idle = self._busy(*self.seen.children(recursive=True)) - latest, time.monotonic() - since
                if worked > NOTHING * idle:
                    latest, since = latest + worked, time.monotonic()
                if latest - busy > SECONDS or idle > IDLE:
                    return self._ended("hang", f"{latest - busy:.1f} s of work, then idle for {idle:.0f} s")
            except psutil.Error:
                continue  # it has just died
        try:
            outcome, most = self.line.recv()
        except EOFError:
            return self._lost()
        return Outcome("memory", "at its end", f"{most / 2**20:.0f} MiB more") if most > MEMORY else outcome

    def close(self) -> None:
        if self.process is not None:
            with suppress(psutil.Error):
                for child in self.seen.children(recursive=True):
                    child.kill()
            self.line.close()
            self.process.join(SOON)
            self.process.kill()
            self.process.join()
            self.process = None

    def _busy(self, *children: psutil.Process) -> float:
        """s of processor time so far: of the worker, the processes that it has waited for, and those that run."""
        used = sum(sum(process.cpu_times()[:2]) for process in (self.seen, *children))
        return used + sum(self.seen.cpu_times()[2:4])

    def _begin(self) -> None:
        context = multiprocessing.get_context("forkserver")  # a new worker has the libraries from the start
        context.set_forkserver_preload(["tests.fuzz.bench"])
        self.line, other = context.Pipe()
        self.process = context.Process(target=_worker, args=(self.work, other, self.log), daemon=True)
        self.process.start()
        self.seen = psutil.Process(self.process.pid)
        other.close()
        if not self.line.poll(START) or self.line.recv() != "ready":
            raise RuntimeError(f"the worker does not begin: see {self.log}")

    def _ended(self, end: str, told: str) -> Outcome:
        self.close()
        return Outcome(end, end, told)

    def _lost(self) -> Outcome:
        self.process.join()
        code, self.process = self.process.exitcode, None
        return Outcome("died", f"exit status {code}", f"the process ended with {code}: see {self.log}")


def _worker(work: Callable[[], Callable[[Any], Outcome]], line: Any, log: Path) -> None:
    """In the new process: answer until the line is closed. What libraries print goes to the log."""
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    answer = work()
    line.send("ready")
    while True:
        try:
            question = line.recv()
        except EOFError:
            return
        before = _forget_peak()
        outcome = answer(question)
        line.send((outcome, _peak() - before))


def _forget_peak() -> int:
    """Resident memory in bytes now, from which the kernel counts the peak anew, where it does."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass
    return psutil.Process().memory_info().rss


def _peak() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    except (OSError, StopIteration):
        return psutil.Process().memory_info().rss
