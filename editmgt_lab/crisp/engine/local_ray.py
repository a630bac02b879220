"""A Ray cluster of this computer alone, for as long as the process lives, also on a slow or busy computer.

Ray's node gives up where its agents, which are Python processes, take more than 15 s to start, and no setting changes
that. Most of their start is one import: Ray wants jsonschema, which takes along rfc3987_syntax where it is installed,
as it is with JupyterLab, and that compiles a grammar for 2 s of a core, in six processes at once. Nobody here checks
IRIs, and jsonschema does without: so Ray's processes are told that it is not there. What still comes too late, such as
a first start from a cold disk, is tried again.
"""

from __future__ import annotations

import atexit
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import SettingError

SLOW = "rfc3987_syntax"
ATTEMPTS = 3
MOST_STORE = 1_000_000_000  # bytes of shared memory: of a shard's rows at a time, not of the data set


def start_local() -> None:
    """Start Ray, which ends with this process. Raises SettingError where it does not start."""
    import ray

    os.environ.setdefault("RAY_DISABLE_DASHBOARD", "1")  # Daft asks for its address otherwise, with a warning
    problem: Exception | None = None
    with _started_quickly():
        for _ in range(ATTEMPTS):
            try:
                ray.init(include_dashboard=False, object_store_memory=MOST_STORE, log_to_driver=False)
                return
            except Exception as error:  # Ray raises its own kinds, and Exception itself
                problem = error
                ray.shutdown()
    raise SettingError(
        f"Ray did not start on this computer in {ATTEMPTS} attempts: {str(problem).strip().partition(chr(10))[0]}",
        expected="a local Ray within its own time limits; its logs are in /tmp/ray/session_latest/logs",
        fix="try again when the computer is less busy, name a cluster by --address, or leave the runner out",
    ) from problem


@contextmanager
def _started_quickly() -> Iterator[None]:
    """Processes that are started within cannot import SLOW, nor can what they start."""
    folder = tempfile.TemporaryDirectory(prefix="editmgt-lab-ray-")
    atexit.register(folder.cleanup)  # it is looked into by all workers that Ray starts later
    Path(folder.name, f"{SLOW}.py").write_text(f"raise ImportError({SLOW!r})\n", encoding="utf-8")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (folder.name, before)))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
