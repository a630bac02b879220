"""No network: what this computer says to itself goes through, everything else is refused and remembered."""

from __future__ import annotations

import atexit
import os
import socket
import sys
import tempfile
from pathlib import Path

import psutil

from tests.support.children import sitecustomize as guard

NOWHERE = "http://127.0.0.1:9"  # a proxy that is not there, for what is not Python, or asks by libraries that are not
_asked: Path
_told = 0  # characters of it


def block() -> None:
    """From now on, in this process and in those that it starts."""
    global _asked
    own = {"", "localhost", "0.0.0.0", "::", socket.gethostname()}
    own |= {a.address.partition("%")[0] for each in psutil.net_if_addrs().values() for a in each}
    handle, name = tempfile.mkstemp(prefix="lab_network_")
    os.close(handle)
    _asked = Path(name)
    atexit.register(_remove, os.getpid())
    os.environ |= {guard.FILE: name, guard.OWN: ",".join(sorted(own))}
    sys.addaudithook(guard.refuse)
    folder = os.path.dirname(guard.__file__)
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, *(path for path in paths if path and path != folder)])
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        os.environ[variable] = NOWHERE
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(sorted({"localhost", "127.0.0.1", "::1", *own} - {""}))


def asked() -> list[str]:
    """Whom this process and those that it has started have asked since the last call, and which of them did."""
    global _told
    lines = _asked.read_text(encoding="utf-8")
    _told, before = len(lines), _told
    return lines[before:].splitlines()


def _remove(process: int) -> None:
    if os.getpid() == process:  # not a copy of it
        _asked.unlink(missing_ok=True)
