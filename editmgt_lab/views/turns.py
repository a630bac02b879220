"""Whose turn it is: every widget works beside the page, but they share one network and one computer."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

THREADS = 64  # a work that waits for its turn keeps one


class Cancelled(Exception):
    """Raised inside a piece of work that is no longer wanted."""


class Turns:
    """One work goes on at a time: the one that was asked for last. Older work stops for it where it gives way, and
    goes on afterwards."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="lab")
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._waiting: set[int] = set()
        self._taken = False

    def submit(self, work: Callable[[Callable[[], None]], None], ticket: threading.Event, pause: float = 0) -> Future:
        """Do work(give_way) beside the page after `pause` seconds, unless its ticket is set before its turn comes.

        give_way: to be called every now and then; it returns once no newer work waits or goes on.
        """
        return self._pool.submit(self._run, next(self._numbers), work, ticket, pause)

    def _run(
        self, number: int, work: Callable[[Callable[[], None]], None], ticket: threading.Event, pause: float
    ) -> None:
        if ticket.wait(pause):
            return
        self._take(number)
        try:
            if not ticket.is_set():
                work(lambda: self._give_way(number))
        finally:
            self._give()

    def _take(self, number: int) -> None:
        with self._changed:
            self._waiting.add(number)
            self._changed.wait_for(lambda: not self._taken and number == max(self._waiting))
            self._waiting.remove(number)
            self._taken = True

    def _give(self) -> None:
        with self._changed:
            self._taken = False
            self._changed.notify_all()

    def _give_way(self, number: int) -> None:
        with self._changed:
            newest = max(self._waiting, default=number)
        if newest > number:
            self._give()
            self._take(number)


TURNS = Turns()
