"""No network: what this computer says to itself goes through, everything else is refused and remembered."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import Any

import psutil

OWN = {"", "localhost", "0.0.0.0", "::", socket.gethostname()}
ATTEMPTS: list[str] = []  # to reach something else, since the last test began
NOWHERE = "http://127.0.0.1:9"  # a proxy that is not there, for other processes and for libraries that are not Python


def block() -> None:
    """From now on, in this process and in those that it starts."""
    addresses = [address.address for each in psutil.net_if_addrs().values() for address in each]
    OWN.update(address.partition("%")[0] for address in addresses)
    for name in ("connect", "connect_ex"):
        setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        _check(host)
        return resolve(host, *args, **options)

    socket.getaddrinfo = getaddrinfo
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        os.environ[name] = NOWHERE
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(sorted({"localhost", "127.0.0.1", "::1", *OWN} - {""}))


def is_own(host: Any) -> bool:
    """Whether a host is this computer."""
    name = host.decode() if isinstance(host, bytes) else str(host or "")
    try:
        return name in OWN or ipaddress.ip_address(name.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _guarded(connect: Any) -> Any:
    def guarded(self: socket.socket, address: Any) -> Any:
        # A datagram's socket that is connected has sent nothing: programs ask for their own address so.
        if self.family in (socket.AF_INET, socket.AF_INET6) and self.type == socket.SOCK_STREAM:
            _check(address[0])
        return connect(self, address)

    return guarded


def _check(host: Any) -> None:
    if not is_own(host):
        ATTEMPTS.append(str(host))
        raise OSError(f"the tests have no network, and asked for {host}")
