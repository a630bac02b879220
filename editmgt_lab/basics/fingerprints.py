"""What a number was made of, in few letters: weights, code and data, so that no run is gone on with by others."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SettingError

PACKAGE = Path(__file__).parents[1]
STAGES = ("basics", "decoding", "images", "text")  # rooms of the stages themselves, beside the files at the top
LIBRARIES = ("torch", "transformers", "numpy", "pillow")  # another version may round, resize or tokenize otherwise
LETTERS = 16
_PART = 2**24  # values at a time, so that the copy of a large tensor stays small


def fingerprint(*values: Any, dtype: torch.dtype | None = None) -> str:
    """Tells these values from all others, in 16 letters.

    values: modules (all parameters and buffers), tensors, pictures, arrays, bytes, paths (the file's content), texts,
    numbers, None, and mappings and sequences of all these; in mappings the order does not count. dtype: what
    floating-point tensors are first turned to, so that a model is the same in whatever precision it is loaded (None:
    as they are). Takes about 2 s for each GB of weights.
    """
    digest = hashlib.sha256()
    for value in values:
        _feed(digest, value, dtype)
    return digest.hexdigest()[:LETTERS]


def editor_fingerprint(editor: Any) -> dict[str, Any]:
    """What an editor's answers depend on beside the call: the weights of its three parts, tokenizers, defaults, the
    kind of its device. Ready for JSON."""
    text, adapter = editor.text_encoder, getattr(editor.transformer, "adapter", None)
    return {
        "transformer": fingerprint(editor.transformer),
        "text encoder": fingerprint(text),
        "VQ model": fingerprint(editor.vq),
        "tokenizer": tokenizer_fingerprint(text),
        "adapter": adapter,
        "mask token": editor.mask_token_id,
        "defaults": json.loads(json.dumps(editor.defaults.to_dict())),
        "device": editor.device.type,
    }


def weights_fingerprint(editor: Any, *, without: Sequence[str] = ()) -> str:
    """Of what an editor is: all its weights and its defaults. Whatever is made with it and kept carries this.

    without: names of defaults that what was made does not depend on, such as λ where a study sets its own.
    """
    defaults = json.loads(json.dumps(editor.defaults.to_dict()))
    defaults = {name: value for name, value in defaults.items() if name not in without}
    return fingerprint(editor.transformer, editor.text_encoder, editor.vq, editor.mask_token_id, defaults)


def tokenizer_fingerprint(text_encoder: Any) -> str:
    """Of a text encoder's way from texts to ids."""
    tokenizers = [getattr(text_encoder, f"{name}_tokenizer", None) for name in ("clip", "language")]
    lengths = text_encoder.clip_length, text_encoder.language_length
    return fingerprint([_rules(each) for each in tokenizers], lengths, text_encoder.mask_padding)


def code_fingerprint(*modules: str) -> dict[str, str]:
    """Which code runs: that of the stages and of the rooms in which these modules lie, and the libraries' versions.

    modules: names such as `Run.__module__`; `__name__` is none in a file that is run itself. Comments and empty lines
    do not count.
    """
    package = __name__.partition(".")[0]
    if strangers := [name for name in modules if name.partition(".")[0] != package]:
        raise ValueError(f"{strangers} lie in no room of {package}")
    rooms = sorted({*STAGES, *(parts[1] for parts in (name.split(".") for name in modules) if len(parts) > 2)})
    versions = {name: metadata.version(name) for name in LIBRARIES}
    return {"editmgt_lab": _sources(tuple(rooms)), "python": ".".join(platform.python_version_tuple()[:2])} | versions


def function_fingerprint(function: Callable[..., Any]) -> Any:
    """What a function says of itself in an attribute `made_of`, else a fingerprint of the file it stands in, or of
    its own source where that is no file (a notebook); its name alone where there is none."""
    if (told := getattr(function, "made_of", None)) is not None:
        return told
    name = f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', type(function).__name__)}"
    kind = function if inspect.isroutine(function) else type(function)
    try:
        file = inspect.getsourcefile(kind)
        source = Path(file) if file and Path(file).is_file() else inspect.getsource(kind)
    except (OSError, TypeError):
        return {"function": name}
    return {"function": name, "source": fingerprint(source)}


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Where two records differ, each as "name before, now after"; inside mappings with their names in front."""
    found = []
    for name in sorted({*before, *now}, key=str):
        old, new = before.get(name), now.get(name)
        if old == new:
            continue
        if isinstance(new if old is None else old, Mapping) and isinstance(old if new is None else new, Mapping):
            found += differences(old or {}, new or {}, f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name} {_short(old)}, now {_short(new)}")
    return found


def _rules(tokenizer: Any) -> Any:
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is None:
        return tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else None
    rules = json.loads(backend.to_str())
    return {name: rule for name, rule in rules.items() if name not in ("padding", "truncation")}  # the last call's


@lru_cache
def _sources(rooms: tuple[str, ...]) -> str:
    files = [*PACKAGE.glob("*.py"), *(file for room in rooms for file in (PACKAGE / room).rglob("*.py"))]
    lines: list[bytes] = []
    for file in sorted(files):
        lines.append(file.relative_to(PACKAGE).as_posix().encode())
        lines += [line for line in map(bytes.rstrip, file.read_bytes().splitlines()) if _counts(line)]
    return fingerprint(b"\n".join(lines))


def _counts(line: bytes) -> bool:
    return bool(line) and not line.lstrip().startswith(b"#")


def _feed(digest: Any, value: Any, dtype: torch.dtype | None) -> None:
    """Every value with its kind and length in front, so that no two sequences of values read alike."""
    if isinstance(value, nn.Module):
        value = value.state_dict()
    if isinstance(value, Tensor):
        if value.is_meta:
            raise SettingError(
                "a network's weights are in their files", expected="weights in memory", fix="load it without offload"
            )
        kept = value.detach().reshape(-1)
        kind = dtype if dtype is not None and kept.is_floating_point() else kept.dtype
        digest.update(f"tensor {kind} {list(value.shape)} ".encode())
        for part in kept.split(_PART):
            digest.update(part.to("cpu", kind).contiguous().view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        _feed(digest, [(name, value[name]) for name in sorted(value, key=str)], dtype)
    elif isinstance(value, os.PathLike):
        _feed_file(digest, Path(value))
    elif isinstance(value, (bytes, bytearray, memoryview)):
        digest.update(f"bytes {len(value)} ".encode())
        digest.update(value)
    elif callable(getattr(value, "tobytes", None)):  # pictures and arrays
        about = [str(getattr(value, name, "")) for name in ("mode", "dtype", "shape", "size")]
        about += [value.getpalette()] if about[0] in ("P", "PA") else []
        _feed(digest, [about, value.tobytes()], dtype)
    elif isinstance(value, Iterable) and not isinstance(value, str):
        values = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else list(value)
        digest.update(f"list {len(values)} ".encode())
        for each in values:
            _feed(digest, each, dtype)
    else:
        text = repr(value).encode("utf-8", "backslashreplace")
        digest.update(f"{type(value).__name__} {len(text)} ".encode() + text)


def _feed_file(digest: Any, file: Path) -> None:
    try:
        with file.open("rb") as stream:
            digest.update(f"file {file.stat().st_size} ".encode())
            while part := stream.read(_PART):
                digest.update(part)
    except OSError:
        digest.update(b"no file ")


def _short(value: Any) -> str:
    text = str(list(value) if isinstance(value, Mapping) else value)
    return text if len(text) < 80 else text[:77] + "…"
