"""A checkpoint of random weights in the released layout, written shard by shard, so that a killed run goes on."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from ...basics.folders import remove, write_text, written_into, written_whole
from ...basics.sizes import in_bytes
from ...checkpoints import read_json
from ...errors import CheckpointError
from .parts import Part, Sizes, clip_tokenizer, gemma_tokenizer, parts_of

DTYPE = torch.bfloat16
SHARD = 5 * 10**8  # bytes; so much is in memory at a time, or the largest tensor
PLAN, FINISHED = "full_size.json", "model_index.json"  # the first file, and the last
ROOM = 10**8  # bytes that the disk keeps free
SEED = 0


def build(folder: Path, sizes: Sizes, *, own: bool = False, progress: bool = True) -> Path:
    """Write the checkpoint unless it is there; shards that a killed run left are kept. Returns the folder.

    Weights are random with the spread of a fresh network, in bfloat16. own: whether the folder is this command's alone,
    so that a checkpoint of other sizes in it may be removed. Raises CheckpointError for a folder that holds something
    else, and for a disk with too little room.
    """
    plan = json.loads(json.dumps({"sizes": asdict(sizes), "shard": SHARD, "seed": SEED}))
    begun = (folder / PLAN).exists()
    if not begun and folder.is_dir() and any(folder.iterdir()):
        raise CheckpointError(
            f"{folder} holds something else", expected="a new folder, or one of this command", fix="name another one"
        )
    if begun and read_json(folder / PLAN) != plan:
        if not own:
            raise CheckpointError(
                f"{folder} holds a checkpoint of other sizes", expected="these sizes", fix="name another, or remove it"
            )
        remove(folder)
    if (folder / FINISHED).exists():
        return folder
    parts = parts_of(sizes)
    files = {
        folder / name / file: (part, shapes) for name, part in parts.items() for file, shapes in shards(part).items()
    }
    missing = {file: about for file, about in files.items() if not file.exists()}
    check_room(folder, sum(in_all(shapes) for _, shapes in missing.values()))

    write_json(folder / PLAN, plan)
    with tqdm(
        total=sum(in_all(shapes) for _, shapes in missing.values()), unit="B", unit_scale=True, disable=not progress
    ) as bar:
        for file, (_, shapes) in missing.items():
            bar.set_description(f"writing {file.parent.name}/{file.name}")
            with written_whole(file) as unfinished:
                save_file({name: draw(name, shape) for name, shape in shapes.items()}, unfinished, {"format": "pt"})
            bar.update(in_all(shapes))
    for name, part in parts.items():
        write_index(folder / name, part)
        write_json(folder / name / "config.json", part.config)
    for name, tokenizer in (("tokenizer", clip_tokenizer()), ("llm_encoder", gemma_tokenizer())):
        with written_into(folder / name) as unfinished:
            tokenizer.save_pretrained(unfinished)
    scheduler = {
        "_class_name": "Scheduler", "mask_token_id": sizes.transformer.vocab_size - 1, "masking_schedule": "cosine"
    }  # fmt: skip
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    write_json(folder / FINISHED, {"_class_name": "Pipeline"} | {name: ["", ""] for name in parts})
    return folder


def shards(part: Part) -> dict[str, dict[str, tuple[int, ...]]]:
    """The files of a part: each one's name → names and shapes of its tensors, at most SHARD bytes or one tensor."""
    groups: list[dict[str, tuple[int, ...]]] = [{}]
    for name, shape in part.shapes.items():
        if groups[-1] and in_all(groups[-1]) + in_all({name: shape}) > SHARD:
            groups.append({})
        groups[-1][name] = shape
    if len(groups) == 1:
        return {f"{part.stem}.safetensors": groups[0]}
    return {f"{part.stem}-{i:05}-of-{len(groups):05}.safetensors": group for i, group in enumerate(groups, 1)}


def in_all(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Bytes of tensors of these shapes."""
    return DTYPE.itemsize * sum(map(prod, shapes.values()))


def draw(name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor by its name: normal with the spread 1 / √fan-in; the vectors are ones, a bias is zeros."""
    tensor = torch.empty(shape, dtype=DTYPE)
    if len(shape) < 2:
        return tensor.fill_(0 if name.endswith("bias") else 1)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) + SEED)
    for rows in tensor.split(max(1, 2**24 // prod(shape[1:]))):
        rows.copy_(torch.randn(rows.shape, generator=generator) * prod(shape[1:]) ** -0.5)
    return tensor


def write_index(folder: Path, part: Part) -> None:
    """The list of a part's shards, if there are several."""
    files = shards(part)
    if len(files) > 1:
        weight_map = {name: file for file, shapes in files.items() for name in shapes}
        index = {"metadata": {"total_size": in_all(part.shapes)}, "weight_map": weight_map}
        write_json(folder / f"{part.stem}.safetensors.index.json", index)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n")


def check_room(folder: Path, needed: int) -> None:
    """Raises CheckpointError where the disk of a folder, which need not be there yet, has too little room."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    free = shutil.disk_usage(there).free
    if free < needed + ROOM:
        raise CheckpointError(
            f"the checkpoint takes {in_bytes(needed)} more, and {in_bytes(free)} are free in {there}",
            expected=f"{in_bytes(needed + ROOM)} of room",
            fix="make room, name a --folder on another disk, or build a small one with --layers 4",
        )
