"""Adapters: what their file says of itself, its tensors, its header, its bytes, and what else lies in its place."""

from __future__ import annotations

import json
import random
import shutil
import struct
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from editmgt_lab.finetuning import adapters

from ..bench import INSTRUCTION, Bench
from ..case import Kind, Wrong, owed
from ..values import damages, strange_letters
from .checkpoints import DTYPES, HEADERS, LINKS, TENSOR, apply, changed
from .texts import check


def make_adapter(dice: random.Random) -> Any:
    file = adapters.WEIGHTS
    way = dice.choice(("nothing", "damage", "tensor", "tensor", "header", "file", "metadata", "metadata"))
    if way == "nothing":
        return []
    if way == "metadata":
        name = dice.choice(("rank", "branch", *adapters.PRECISIONS, "x"))
        value = dice.choice(
            ("0", "-1", "3", "2", "99999999999", "1e3", "nan", "source", "both", "", strange_letters(dice, 4), None)
        )
        return [[way, file, name, value]]
    if way == "damage":
        return [[way, file, damages(dice)]]
    if way == "header":
        return [[way, file, dice.choice(HEADERS)]]
    if way == "file":
        return [[dice.choice(("delete", "folder", "pipe", "void", "deep", "link")), file, dice.choice(LINKS)]]
    return [[dice.choice(TENSOR), file, dice.random(), dice.choice(DTYPES)]]


def run_adapter(recipe: Any, bench: Bench) -> None:
    transformer = bench.editor.transformer
    before = {name: id(value) for name, value in transformer.named_parameters()}
    source, adapted = bench.adapter, bench.adapted
    with bench.folder() as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        for change in recipe:
            apply_to_adapter(folder, change)
        try:
            with owed(all(map(is_harmless, recipe))):
                adapters.load_adapter(transformer, folder)
            check_adapter(transformer, load_file(folder / adapters.WEIGHTS))
            edited = bench.editor.edit(bench.picture(), INSTRUCTION, steps=1, seed=0)
        finally:
            adapters.remove_adapter(transformer)
            if {name: id(value) for name, value in transformer.named_parameters()} != before:
                raise Wrong("the transformer is not as it was")
    check(edited, bench.editor)
    if all(change[0] == "metadata" for change in recipe) and not torch.equal(edited.heat, adapted.heat):
        raise Wrong("a whole adapter makes another edit")


def is_harmless(change: list[Any]) -> bool:
    """Whether a change leaves an adapter whole: what its file said before, or in another precision."""
    way, _, *rest = change
    said = (["rank", "2"], ["branch", "both"])
    return (way == "metadata" and (rest in said or rest[0] == "x")) or (way == "dtype" and rest[1] in DTYPES[:3])


def check_adapter(transformer: torch.nn.Module, due: dict[str, torch.Tensor]) -> None:
    """Raises unless the transformer has every tensor of the file, and no other."""
    held = get_peft_model_state_dict(transformer) if adapters.lora_layers(transformer) else {}
    if held.keys() != due.keys():
        raise Wrong(f"of the adapter were made up or left out: {sorted(held.keys() ^ due.keys())}")
    if wrong := [name for name, value in due.items() if not torch.equal(held[name].float(), value.float())]:
        raise Wrong(f"{wrong} are not as they are stored")


def apply_to_adapter(folder: Path, change: list[Any]) -> None:
    """Like `apply`, but what the file says of itself stays, or is what changes."""
    way, file, *rest = change
    path = folder / file
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    if way == "metadata":
        name, value = rest
        metadata = {key: each for key, each in metadata.items() if key != name} | (
            {} if value is None else {name: value.encode("utf-8", "backslashreplace").decode()}
        )
        save_file(load_file(path), path, metadata=metadata)
    elif way in TENSOR:
        save_file(changed(load_file(path), way, *rest), path, metadata=metadata)
    else:
        apply(folder, change)


KINDS = {"adapters": Kind(make_adapter, run_adapter, 5)}
