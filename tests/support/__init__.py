import os
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]  # of the repository
# Seconds for what takes its time; 120 is what is promised of a usual computer, on which no other test runs beside it.
PATIENCE = float(os.environ.get("LAB_TEST_PATIENCE", 120)) * (2 if "PYTEST_XDIST_WORKER" in os.environ else 1)
SLACK = PATIENCE / 24  # of what is measured on two quiet cores: a computer that is busy, or slow, takes its time


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for what nothing else can wait for: the one place where a test looks again and again."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE:g} s for {what}"
        time.sleep(0.02)


class WatchedLock:
    """A re-entrant lock that tells when a thread meets it taken by another: that one then waits there."""

    def __init__(self) -> None:
        self.lock, self.contended = threading.RLock(), threading.Event()

    def __enter__(self) -> None:
        if not self.lock.acquire(blocking=False):
            self.contended.set()
            self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        self.lock.release()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def answers(server: subprocess.Popen, address: str, log: Path) -> bool:
    """Whether a server that was started answers at this address yet; fails with what it said where it has ended."""
    assert server.poll() is None, log.read_text()[-3000:]
    try:
        with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
            return answer.status == 200
    except OSError:
        return False
