"""Daft itself: found, told where to run, and given rows of pyarrow."""

from __future__ import annotations

import os
from typing import Any

from ...errors import SettingError
from .local_ray import start_local

RUNNERS = ("native", "ray")
_started: tuple[str, str | None] | None = None  # Daft takes no second runner in a process


def load_daft() -> Any:
    """The module `daft`, which reports nothing to anybody. Raises SettingError where it is not installed."""
    os.environ.setdefault("DAFT_ANALYTICS_ENABLED", "0")
    os.environ.setdefault("DAFT_PROGRESS_BAR", "0")  # there is one of ours, by shards
    try:
        import daft
    except ImportError as error:
        raise SettingError(
            f"the pipeline runs on Daft, which cannot be imported: {error}",
            expected="the extra [crisp] of editmgt-lab",
            fix='pip install "editmgt-lab[crisp]", or run it by make',
        ) from error
    return daft


def start(runner: str = "native", address: str | None = None) -> None:
    """Choose where queries run, once for a process: in it ("native"), or on a Ray cluster.

    address: of the cluster, such as "ray://head:10001"; None takes the one that RAY_ADDRESS names, or starts a local
    one. Raises SettingError for another runner, an address without Ray, and a Ray that is not installed or does not
    start.
    """
    if runner not in RUNNERS or (address and runner != "ray"):
        raise SettingError(
            f"the runner {runner!r}" + (f" at {address!r}" if address else ""),
            expected="native without an address, or ray with or without one",
            fix="name one of these",
        )
    global _started
    if _started:
        if _started != (runner, address):
            raise SettingError(
                f"this process runs on {_started[0]} already",
                expected="one runner a process",
                fix="start another process",
            )
        return
    daft = load_daft()
    if runner == "native":
        daft.set_runner_native()
        _started = runner, address
        return
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise SettingError(
            f"Ray cannot be imported: {error}",
            expected="the extra [cluster] of editmgt-lab",
            fix='pip install "editmgt-lab[cluster]", or leave the runner out to stay in this process',
        ) from error
    if not address and not os.environ.get("RAY_ADDRESS"):
        start_local()
    daft.set_runner_ray(address=address)
    _started = runner, address
