"""No network in this process: what it asks of another computer is refused, and noted in a file.

Python imports a module of this name as it starts. `tests.support.network` puts this folder on PYTHONPATH, so that every
Python that a test starts has it; the sitecustomize that it hides, if there is one, is run as well.
"""

import os
import sys

FILE, OWN = "LAB_TEST_NETWORK_ASKED", "LAB_TEST_OWN_ADDRESSES"  # environment variables
PLACE = {  # event → which of its arguments says who is asked
    "socket.getaddrinfo": 0, "socket.gethostbyname": 0, "socket.gethostbyaddr": 0, "socket.getnameinfo": 0,
    "socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1,
}  # fmt: skip


def refuse(event, arguments):
    """An audit hook, which hears of all that Python asks of the system."""
    if event not in PLACE:
        return
    asked = arguments[PLACE[event]]
    if isinstance(asked, tuple):
        asked = asked[0]
    elif PLACE[event]:  # the path of a Unix socket
        return
    host = asked.decode(errors="replace") if isinstance(asked, (bytes, bytearray)) else asked or ""
    if not isinstance(host, str) or is_own(host):
        return
    import errno

    # To connect a datagram's socket sends nothing: programs ask for their own address so. Refused, it can send nothing.
    if event != "socket.connect" or arguments[0].type != sys.modules["_socket"].SOCK_DGRAM:
        _note(host)
    raise OSError(errno.ENETUNREACH, f"the tests have no network, and asked for {host}")


def is_own(host):
    """Whether it is this computer."""
    import ipaddress

    host = host.partition("%")[0]
    try:
        return host in os.environ.get(OWN, "").split(",") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _note(host):
    if file := os.environ.get(FILE):
        with open(file, "a", encoding="utf-8") as asked:
            asked.write(f"{host} by {sys.orig_argv!r:.200}\n")


def _run_hidden():
    from importlib.machinery import PathFinder

    here = os.path.dirname(__file__)
    hidden = PathFinder.find_spec(__name__, [path for path in sys.path if path != here])
    if hidden and hidden.loader:
        exec(hidden.loader.get_code(__name__), {"__name__": __name__, "__file__": hidden.origin})


if __name__ == "sitecustomize":
    sys.addaudithook(refuse)
    _run_hidden()
