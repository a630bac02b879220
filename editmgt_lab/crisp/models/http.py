"""One POST of JSON, sent again where that can help: a busy server, a slow one, one that restarts."""

from __future__ import annotations

import json
import os
import random
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any

from ...errors import EndpointError, SettingError

AGAIN = (408, 409, 425, 429, 500, 502, 503, 504)  # what a server says that may be another time
LONGEST_WAIT = 60.0  # s, between two attempts
MOST_BYTES = 100_000_000  # of an answer
SHORTEST_SECRET = 8  # characters: shorter keys are those of servers that want none, but some text in its place


@dataclass(frozen=True)
class Patience:
    """attempts: in all; timeout: s for each; wait: s before the second, twice as long before each further one.

    A server that says how long to wait (Retry-After) is waited for so long, up to a minute.
    """

    attempts: int = 5
    timeout: float = 120.0
    wait: float = 1.0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Whoever is sent elsewhere would take the key along."""

    def redirect_request(self, *args: Any) -> None:
        return None


class _Refused(Exception):
    """An answer that is an error: its code, what it says, and what it asks to be waited for."""

    def __init__(self, code: int, said: str, wait: str | None):
        self.code, self.said, self.wait = code, said, wait


def post(
    url: str,
    content: Mapping[str, Any],
    *,
    patience: Patience,
    key_variable: str | None = None,
    expected: str = "a server that takes a JSON object by POST and answers with one",
    fix: str = "check that it runs, and its address",
) -> dict[str, Any]:
    """The JSON object that a server answers with. key_variable: the environment variable that holds its key; expected,
    fix: of the error where there is none.

    Raises EndpointError, in whose text the key never is. A key of less than SHORTEST_SECRET characters is no secret.
    """
    key = _key(key_variable)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    body = json.dumps(content).encode()
    problem, pause, attempt = "", 0.0, 0
    for attempt in range(patience.attempts):
        time.sleep(min(pause, LONGEST_WAIT))
        pause = patience.wait * 2**attempt * random.uniform(0.8, 1.2)
        try:
            request = urllib.request.Request(url, body, headers, method="POST")
            answer = _in_time(lambda request=request: _answered(request, patience.timeout), patience.timeout)
            told = _without(key, json.loads(answer))  # a server may repeat it
            if not isinstance(told, dict):
                raise ValueError(f"a {type(told).__name__}")
            return told
        except _Refused as error:
            problem = f"HTTP {error.code}: {_without(key, error.said)[:300]}"
            if error.code not in AGAIN:
                break
            pause = _asked_to_wait(error.wait) or pause
        except ValueError as error:
            problem = f"its answer is no JSON object: {error}"
        except OSError as error:  # refused, reset, timed out, cut short, no such host
            problem = str(getattr(error, "reason", error)) or type(error).__name__
        except Exception as error:  # http.client has its own kinds, such as IncompleteRead
            problem = f"{type(error).__name__}: {error}"
    often = f" in {attempt + 1} attempts" if attempt else ""
    raise EndpointError(f"{url} gave no answer{often}: {_without(key, problem)}", expected=expected, fix=fix)


def _answered(request: urllib.request.Request, timeout: float) -> bytes:
    """Also of an answer that is an error all that it says is read here, in the time that it has."""
    try:
        return _exchange(request, timeout)
    except urllib.error.HTTPError as error:
        raise _Refused(error.code, _said(error) or str(error.reason), error.headers.get("Retry-After")) from None


def _exchange(request: urllib.request.Request, timeout: float) -> bytes:
    with urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout) as answer:
        return answer.read(MOST_BYTES)


def _in_time(exchange: Callable[[], bytes], seconds: float) -> bytes:
    """What an exchange gives, or TimeoutError: a socket's own timeout is for each byte, and a server may drip."""
    outcome: Future[bytes] = Future()

    def run() -> None:
        try:
            outcome.set_result(exchange())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return outcome.result(seconds)
    except FutureTimeout as error:
        raise TimeoutError(str(error) or "timed out") from error


def _said(error: urllib.error.HTTPError) -> str:
    """The beginning of what an error's body says."""
    try:
        with error:
            return error.read(2000).decode(errors="replace").strip()
    except Exception as broken:  # cut short, or in pieces that are none
        return type(broken).__name__


def check_address(url: str) -> None:
    """Raises SettingError for what is no address of a server, and for one with a secret in it: addresses are shown, and
    kept in manifests."""
    try:
        parts = urllib.parse.urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # such as half an IPv6 address, or a port that is no number
        known = False
    if not known:
        shown = "what holds a name, a password or a query" if {*url} & {*"@?#"} else repr(url)
        raise SettingError(
            f"{shown} is no address of a server",
            expected="one such as http://localhost:8000/v1",
            fix="begin it with http:// or https://, then the host",
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise SettingError(
            f"the address of {parts.hostname} holds more than a place: a name, a password or a query",
            expected="an address alone, such as http://localhost:8000/v1",
            fix="put the key into an environment variable, and name that",
        )


def _without(key: str | None, told: Any) -> Any:
    """What a server says, without the key, as it is or as JSON may write it. A short one, such as "none", stays: it is
    no secret, and may be a word of the answer."""
    if not key or len(key) < SHORTEST_SECRET:
        return told
    if isinstance(told, str):
        written = json.dumps(key)[1:-1]
        for form in (key, written, written.replace("/", "\\/")):
            told = told.replace(form, "…")
        return told
    if isinstance(told, list):
        return [_without(key, each) for each in told]
    if isinstance(told, dict):
        return {_without(key, name): _without(key, each) for name, each in told.items()}
    return told


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key or not key.isascii() or not key.isprintable():  # no header takes another, and its error would show it
        raise EndpointError(
            f"the environment variable {variable} holds no key",
            expected="the key of the server in it",
            fix=f"export {variable}=…, or name no variable for a server that wants no key",
        )
    return key


def _asked_to_wait(said: str | None) -> float | None:
    try:
        return min(max(0.0, float(said)), LONGEST_WAIT) if said else None
    except ValueError:  # a date
        return None
