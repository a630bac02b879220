"""Servers that answer nonsense: in HTTP, in JSON, in the schema; slowly, endlessly, or not at all."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from typing import Any

import jsonschema

from editmgt_lab.crisp.instruct.captions import CAPTION_SCHEMA, REQUEST_SCHEMA
from editmgt_lab.crisp.models.client import Client
from editmgt_lab.crisp.models.http import Patience
from editmgt_lab.crisp.models.roles import SCORES_SCHEMA
from editmgt_lab.metrics import viescore

from ..bench import Bench
from ..case import Kind, Wrong, owed
from ..values import damaged, damages, json_value, strange_letters

SCHEMAS = {"scores": SCORES_SCHEMA, "caption": CAPTION_SCHEMA, "request": REQUEST_SCHEMA}
CAPTION = {"background": "grass", "style": None, "things": [
    {"name": "ball", "attributes": ["red"], "place": "left", "box": [0, 0, 0.5, 1]},
]}  # fmt: skip
GOOD = {
    "scores": {"success": 7, "preservation": 8.5, "quality": 3}, "caption": CAPTION,
    "request": {"category": "remove", "instruction": "remove the ball", "thing": "ball", "target": CAPTION},
}  # fmt: skip
STATUS = (200, 200, 200, 200, 204, 100, 301, 302, 400, 401, 404, 408, 429, 500, 503, 999, -1)
HEADERS = (
    {}, {"Retry-After": "0.1"}, {"Retry-After": "-5"}, {"Retry-After": "nan"}, {"Retry-After": "Wed, 21 Oct 2099"},
    {"Location": "file:///etc/passwd"}, {"Location": "http://127.0.0.1:1/"}, {"Content-Length": "-1"},
    {"Content-Length": "99999999999999999999"}, {"Content-Length": "3"}, {"Content-Length": "x"},
    {"Transfer-Encoding": "chunked"}, {"Content-Encoding": "gzip"}, {"X": "y" * 70_000}, {"Content-Type": "text/html"},
)  # fmt: skip
SPECIAL = ("drip", "endless", "hang up", "silence", "deep", "digits", "headers", "zeros")
WRAPS = (
    "{}",
    "{}",
    "{}",
    "```json\n{}\n```",
    "Here: {}",
    "```{}```",
    "```json\n```\n{}",
    "\ufeff{}",
    "{} {}",
    "<think>{{}}</think>{}",
)
JUDGED = '{"score": [7, 8.5]}'
TIMEOUT = 2.0  # s


class Server:
    """Answers every connection with the bytes that it was last told, or in a special way."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"
        self.answer: bytes | str = b""
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            line, _ = self.socket.accept()
            threading.Thread(target=self._answer, args=(line,), daemon=True).start()

    def _answer(self, line: socket.socket) -> None:
        try:
            with line:
                line.settimeout(3)
                read(line)
                if isinstance(self.answer, bytes):
                    line.sendall(self.answer)
                else:
                    special(line, self.answer)
        except OSError:
            pass  # the client has gone


def read(line: socket.socket) -> None:
    """All that was asked, so that closing the line does not reset it."""
    asked = b""
    while b"\r\n\r\n" not in asked:
        asked += line.recv(65536)
    head, _, body = asked.partition(b"\r\n\r\n")
    length = int(
        next(part for part in head.lower().split(b"\r\n") if part.startswith(b"content-length")).split(b":")[1]
    )
    while len(body) < length:
        body += line.recv(65536)


def special(line: socket.socket, way: str) -> None:
    begin = b"HTTP/1.1 200 OK\r\n\r\n"
    if way == "drip":
        for _ in range(1000):
            line.sendall(begin[:1])
            begin = begin[1:] or b" "
            time.sleep(0.1)
    elif way == "silence":
        time.sleep(2 * TIMEOUT)
    elif way in ("endless", "zeros"):
        line.sendall(begin)
        part = b" " * 2**20 if way == "endless" else b"0" * 2**20
        for _ in range(300):
            line.sendall(part)
    elif way == "headers":
        line.sendall(begin[:-2] + b"".join(b"X-%d: y\r\n" % number for number in range(5000)) + b"\r\n")
    elif way in ("deep", "digits"):
        line.sendall(begin + {"deep": b"[" * 3_000_000, "digits": b"1" * 1_000_000}[way])


def make_answer(dice: random.Random) -> Any:
    way = dice.random()
    schema = dice.choice(list(SCHEMAS))
    if way < 0.05:
        return {"schema": schema, "special": dice.choice(SPECIAL)}
    if way < 0.25:
        return {
            "judged": dice.choice((strange_answer(dice, "scores"), json.dumps({"score": json_value(dice)}), JUDGED))
        }
    recipe: dict[str, Any] = {"schema": schema, "said": strange_answer(dice, schema)}
    if way < 0.45:
        recipe["status"], recipe["headers"] = dice.choice(STATUS), dice.choice(HEADERS)
    elif way < 0.6:
        recipe["told"] = json_value(dice)
    elif way < 0.7:
        recipe["usage"] = dice.choice((json_value(dice), {"prompt_tokens": json_value(dice)}))
    elif way < 0.8:
        recipe["damages"] = damages(dice)
    elif way < 0.85:
        recipe["kept"] = strange_answer(dice, schema)
    return recipe


def strange_answer(dice: random.Random, schema: str) -> str:
    """A good answer with a value changed, wrapped in some way; or nonsense."""
    value = json.loads(json.dumps(GOOD[schema]))
    way = dice.random()
    if way < 0.5:
        name = dice.choice(list(value))
        value[name] = dice.choice((json_value(dice), float("nan"), float("inf"), 1e400, -1, 10**30))
    elif way < 0.6:
        value[strange_letters(dice, 2)] = json_value(dice)
    elif way < 0.7:
        value = json_value(dice)
    elif way < 0.75:
        return dice.choice(
            ("[" * 100_000, '{"a":' * 100_000, "9" * 10_000, strange_letters(dice, 30), "", "```json", '"\\ud800"')
        )
    wrap = dice.choice(WRAPS)
    return wrap.replace("{}", json.dumps(value)).replace("{{}}", "{}")


def run_answer(recipe: Any, bench: Bench) -> None:
    if "judged" in recipe:
        run_judged(recipe["judged"], bench)
        return
    if not hasattr(bench, "server"):
        bench.server = Server()
    told = recipe.get(
        "told", {"choices": [{"message": {"content": recipe.get("said", "")}}], "usage": recipe.get("usage", {})}
    )
    body = damaged(json.dumps(told).encode(), recipe.get("damages", []))
    head = f"HTTP/1.1 {recipe.get('status', 200)} X\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in recipe.get("headers", {}).items())
    bench.server.answer = recipe.get("special") or head.encode() + b"\r\n" + body
    schema = SCHEMAS[recipe.get("schema", "scores")]
    due = None if recipe.keys() & {"special", "told", "damages", "status"} else value_in(recipe.get("said", ""), schema)
    with bench.folder() as folder:
        client = Client(bench.server.url, "m", cache=folder, patience=Patience(attempts=2, timeout=TIMEOUT, wait=0.01))
        with owed(due is not None):
            value = client.ask("what?", schema, [bench.picture()])
        if "kept" in recipe:
            for file in folder.rglob("*.json"):
                file.write_bytes(recipe["kept"].encode("utf-8", "surrogatepass"))
            with owed(due is not None):
                value = client.ask("what?", schema, [bench.picture()])
            kept = value_in(recipe["kept"], schema)
            due = due if kept is None else kept
        cost = client.cost()
    fits = jsonschema.Draft202012Validator(schema).is_valid(value)
    if not fits or not all(count >= 0 for count in (cost.calls, cost.prompt_tokens, cost.completion_tokens)):
        raise Wrong(f"an answer that does not fit: {str(value)[:200]}")
    json.dumps(value, allow_nan=False)
    if due is not None and value != due:
        raise Wrong(f"another answer than was given: {str(value)[:200]}")


def value_in(said: str, schema: Any) -> Any:
    """The value that a text is the JSON of, bare or in one fence; None where it is none that fits."""
    try:
        value = json.loads(said.removeprefix("```json\n").removesuffix("\n```"))
        json.dumps(value, allow_nan=False)
        return value if jsonschema.Draft202012Validator(schema).is_valid(value) else None
    except (RecursionError, ValueError):
        return None


def run_judged(said: str, bench: Bench) -> None:
    with owed(said == JUDGED):
        scores = viescore.ask(lambda pictures, question: said, bench.picture(), bench.picture(), "x")
    numbers = (scores.semantic, scores.quality, scores.overall)
    if not all(0 <= score <= 10 for score in numbers) or (said == JUDGED and numbers != (7, 7, 7)):
        raise Wrong(f"scores {scores}")


KINDS = {"endpoints": Kind(make_answer, run_answer, 5)}
