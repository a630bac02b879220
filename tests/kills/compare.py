"""Whether two folders hold the same, and whether all that lies in one is whole."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors import safe_open

from editmgt_lab.basics.fingerprints import fingerprint

TIMES = ("seconds", "seconds_per_edit", "saved")  # names whose values are other ones in every run
KEY = re.compile(r"\b[0-9a-f]{16}\b")
TIMED = re.compile(r"(?<=: )\d+\.\d{3} s an edit$", re.MULTILINE)  # as the notes of score cards end


def files(folder: Path) -> dict[str, Path]:
    """Name → file, and of folders that are empty. The pipeline's keys in names are told by their number."""
    numbers = keys(folder)
    return {
        KEY.sub(lambda key: numbers.get(key[0], key[0]), path.relative_to(folder).as_posix()): path
        for path in sorted(folder.rglob("*"))
        if not path.is_dir() or not any(path.iterdir())
    }


def keys(folder: Path) -> dict[str, str]:
    """Of the pipeline's shards, which follow from the times of the pictures' files: key → its number."""
    found: dict[str, str] = {}
    for manifest in folder.rglob("manifest.json"):
        for stage in json.loads(manifest.read_text(encoding="utf-8")):
            for shard in stage["shards"]:
                found.setdefault(shard["key"], f"key {len(found)}")
    return found


def unfinished(folder: Path) -> list[str]:
    """What lies there under a name that is not final."""
    return [name for name in files(folder) if is_unfinished(name)]


def is_unfinished(name: str) -> bool:
    return any(part.endswith((".unfinished", ".part", ".tmp")) for part in Path(name).parts)


def differences(expected: Path, found: Path, timed: Sequence[str] = ()) -> list[str]:
    """What is missing or another in `found`. Times are not compared, nor files named in `timed`, which show them."""
    before, now = files(expected), files(found)
    numbers = keys(expected) | keys(found)
    told = [f"{name} is missing" for name in sorted(before.keys() - now.keys())]
    for name in sorted(before.keys() & now.keys()):
        one, other = before[name], now[name]
        if one.is_dir() or other.is_dir() or one.read_bytes() == other.read_bytes() or one.name in timed:
            continue
        if content(one, numbers) != content(other, numbers):
            told.append(f"{name} is another")
    return told


def content(file: Path, numbers: Mapping[str, str] | None = None) -> Any:
    """Bytes, but of what holds times the rest, and of the pipeline's keys their numbers."""
    if file.suffix in (".json", ".jsonl", ".txt", ".md"):
        text = KEY.sub(lambda key: (numbers or {}).get(key[0], key[0]), file.read_text(encoding="utf-8"))
        if file.suffix == ".json":
            return without_times(json.loads(text))
        if file.suffix == ".jsonl":
            return [without_times(json.loads(line)) for line in text.splitlines()]
        return TIMED.sub("", text)
    if file.suffix == ".pt":  # also of one content, a pickle is another where two of its texts are one object
        return fingerprint(without_times(torch.load(file, weights_only=True)))
    return file.read_bytes()


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_times(each) for name, each in value.items() if name not in TIMES}
    if isinstance(value, list | tuple):
        return [without_times(each) for each in value]
    return TIMED.sub("", value) if isinstance(value, str) else value


def torn(folder: Path) -> list[str]:
    """The files under final names that are not whole, each with what is wrong in it."""
    found = []
    for name, file in files(folder).items():
        if not is_unfinished(name) and not file.is_dir():
            try:
                read(file)
            except Exception as error:  # every format has its own kinds
                found.append(f"{name} is torn: {type(error).__name__}: {str(error)[:100]}")
    return found


def read(file: Path) -> None:
    """All of it; raises whatever its format's reader does for a file that is cut short."""
    if file.suffix in (".json", ".jsonl", ".pt"):
        content(file)
    elif file.suffix in (".png", ".jpg") and "pictures" not in file.parts:  # of which the drawn world spoils some
        Image.open(file).load()
    elif file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():
                opened.get_tensor(name)
    elif file.suffix == ".parquet":
        pq.ParquetFile(file, pre_buffer=False).read(use_threads=False)
    elif file.suffix == ".svg":
        ElementTree.parse(file)
    elif not file.stat().st_size:
        raise ValueError("it is empty")
