"""A question with pictures → an answer in a JSON schema, checked here: whatever the server promised to keep to."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image

from ...basics.folders import make_folder, not_written, write_text
from ...errors import EndpointError
from .http import Patience, check_address, post

SPENT = "spent.jsonl"
COUNTED = ("prompt_tokens", "completion_tokens")
ONLY = "Answer with one JSON object in this schema and nothing else:\n"


@dataclass(frozen=True)
class Cost:
    """What a folder of answers has cost so far. calls: that were answered; tokens: as the server counted them."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True)
class Client:
    """One model on one server. A frozen dataclass: what changes answers is part of the key of what was made with them.

    url: such as "http://localhost:8000/v1"; key_variable: the environment variable with the server's key, which is
    read when it is sent and kept nowhere; cache: a folder for answers by content, which also counts their cost (None:
    neither); at_once: questions that may wait for answers at the same time; longest: tokens of an answer.
    """

    version: ClassVar[int] = 1
    url: str
    model: str
    temperature: float = 0.0
    longest: int = 1024
    seed: int = 0
    key_variable: str | None = field(default=None, compare=False)
    cache: Path | None = field(default=None, compare=False)
    patience: Patience = field(default_factory=Patience, compare=False)
    at_once: int = field(default=8, compare=False)

    def __post_init__(self) -> None:
        check_address(self.url)

    def ask(
        self, question: str, schema: Mapping[str, Any], pictures: Sequence[Image.Image] = (), name: str = "answer"
    ) -> Any:
        """The answer, a value that fits the schema. A wrong one is sent back once, with what is wrong in it.

        Raises EndpointError where there is none then.
        """
        images = [{"type": "image_url", "image_url": {"url": _data_url(picture)}} for picture in pictures]
        text = f"{question}\n\n{ONLY}{json.dumps(schema)}"
        messages: list[dict[str, Any]] = [{"role": "user", "content": [*images, {"type": "text", "text": text}]}]
        asked = {
            "model": self.model,
            "messages": messages,
            "temperature": self.temperature,
            "max_tokens": self.longest,
            "seed": self.seed,
            "response_format": {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": True}},
        }
        kept = self._kept(asked)
        if kept and kept.exists():
            try:
                return checked(kept.read_text(encoding="utf-8"), schema)
            except (OSError, ValueError):
                pass  # damaged: asked again
        said = self._say(asked)
        try:
            value = checked(said, schema)
        except ValueError as error:
            wrong = f"This answer does not fit: {error}. {ONLY}{json.dumps(schema)}"
            again = [*messages, {"role": "assistant", "content": said}, {"role": "user", "content": wrong}]
            value = self._repaired(asked | {"messages": again}, schema)
        if kept:
            write_text(kept, json.dumps(value, ensure_ascii=False))
        return value

    def cost(self) -> Cost:
        """Of all answers of this client's cache folder, whoever asked; nothing without one."""
        file = self.cache / SPENT if self.cache else None
        lines = file.read_text(encoding="utf-8").splitlines() if file and file.exists() else []
        spent = [found for line in lines if isinstance(found := _json_or_none(line), dict)]  # a kill may tear a line
        return Cost(len(spent), *(sum(_count_of(each, name) for each in spent) for name in COUNTED))

    def _repaired(self, asked: Mapping[str, Any], schema: Mapping[str, Any]) -> Any:
        said = self._say(asked)
        try:
            return checked(said, schema)
        except ValueError as error:
            raise EndpointError(
                f"{self.model} answered twice in another form: {error}; the last time {said[:200]!r}",
                expected="JSON in the schema that it was given",
                fix="take a model that keeps to schemas, or a server that makes it",
            ) from None

    def _say(self, asked: Mapping[str, Any]) -> str:
        """One exchange → the text of the first choice."""
        url = self.url.rstrip("/") + "/chat/completions"
        told = post(
            url,
            asked,
            patience=self.patience,
            key_variable=self.key_variable,
            expected="a server that speaks OpenAI's protocol, such as vLLM, llama.cpp or Ollama",
            fix="check that it runs, its address (ending in /v1) and the name of the model",
        )
        self._count(told.get("usage"))
        try:
            said = told["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            said = None
        if not isinstance(said, str):
            raise EndpointError(
                f"{url} answered without a message: {json.dumps(told)[:200]}",
                expected='{"choices": [{"message": {"content": …}}]}',
                fix="check that the address is a chat server's",
            )
        return said

    def _count(self, usage: Any) -> None:
        if not self.cache:
            return
        numbers = {name: _count_of(usage, name) for name in COUNTED}
        spent = make_folder(self.cache) / SPENT
        try:
            with spent.open("ab", buffering=0) as file:  # one write: lines of two processes never mix
                file.write(json.dumps(numbers).encode() + b"\n")
        except OSError as error:
            raise not_written(spent, error) from error

    def _kept(self, asked: Mapping[str, Any]) -> Path | None:
        if not self.cache:
            return None
        content = json.dumps([self.url, asked], sort_keys=True)
        name = hashlib.sha256(content.encode()).hexdigest()
        return self.cache / name[:2] / f"{name}.json"


def _count_of(usage: Any, name: str) -> int:
    """A number of tokens, 0 where none is told."""
    count = usage.get(name) if isinstance(usage, Mapping) else None
    return count if isinstance(count, int) and 0 <= count < 2**53 else 0


def _json_or_none(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def checked(said: str, schema: Mapping[str, Any]) -> Any:
    """The JSON in an answer, perhaps between ``` fences, if it fits the schema. Raises ValueError, saying where not."""
    import jsonschema

    fenced = re.search(r"```(?:json)?\s*(.*?)```", said, re.DOTALL)
    texts = [said, fenced[1]] if fenced else [said]  # as it stands first: a text in it may have fences of its own
    for text in texts:
        try:
            value = json.loads(text, parse_constant=_refused)
            break
        except (RecursionError, ValueError) as error:
            problem = error
    else:
        raise ValueError(f"it is no JSON ({problem})")
    error = next(iter(sorted(jsonschema.Draft202012Validator(schema).iter_errors(value), key=str)), None)
    if error:
        raise ValueError(f"{error.json_path}: {error.message[:200]}")
    return value


def _refused(constant: str) -> float:
    """Python takes NaN and Infinity for JSON, and NaN for a number within all bounds."""
    raise ValueError(f"{constant} is no number of JSON")


def _data_url(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.convert("RGB").save(stream, format="PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def client_from_environment(url: str, model: str, cache: Path | None = None, **options: Any) -> Client:
    """A client that sends OPENAI_API_KEY where that is set."""
    variable = "OPENAI_API_KEY" if os.environ.get("OPENAI_API_KEY") else None
    return Client(url, model, key_variable=variable, cache=cache, **options)
