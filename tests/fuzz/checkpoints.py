"""Checkpoint folders and adapters: values, names, shapes, dtypes, shards, index files, links, headers."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import editmgt_lab as lab
from editmgt_lab.finetuning import adapters

from .bench import INSTRUCTION, Bench
from .case import Kind, Wrong
from .texts import check
from .values import damaged, damages, json_value, number, strange_letters

JSON_FILES = {
    "editmgt/config.json": (
        "num_layers", "num_single_layers", "attention_head_dim", "num_attention_heads", "joint_attention_dim",
        "vocab_size",
        "codebook_size", "axes_dims_rope", "in_channels", "text_encoder_architecture", "downsample",
        "pooled_projection_dim",
        "connector_type", "upsample",
    ),
    "vqvae/config.json": (
        "block_out_channels", "layers_per_block", "latent_channels", "num_vq_embeddings", "norm_num_groups",
        "in_channels",
        "vq_embed_dim", "act_fn", "norm_type", "mid_block_add_attention",
    ),
    "text_encoder/config.json": (
        "hidden_size", "num_hidden_layers", "vocab_size", "projection_dim", "max_position_embeddings", "model_type",
        "intermediate_size", "num_attention_heads", "architectures", "hidden_act", "torch_dtype", "dtype", "auto_map",
        "eos_token_id", "quantization_config", "layer_norm_eps",
    ),
    "tokenizer/tokenizer_config.json": (
        "tokenizer_class", "model_max_length", "auto_map", "bos_token", "eos_token", "pad_token", "unk_token",
        "added_tokens_decoder", "backend",
    ),
    "tokenizer/tokenizer.json": ("model", "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
    "decoder", "version"),
    "scheduler/scheduler_config.json": ("mask_token_id",),
    "lab.json": ("image_size", "hold_threshold", "guidance_scale", "token_temperature", "blocks", "hold",
    "bias_text", "smooth", "hold_by"),
}  # fmt: skip
WEIGHTS = (
    "editmgt/diffusion_pytorch_model.safetensors", "vqvae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
)  # fmt: skip
LINKS = ("itself", "gone", "/dev/zero", "/etc/passwd", "..", "the whole folder", "/dev/null")
DTYPES = ("float16", "bfloat16", "float64", "int64", "uint8", "bool", "complex64", "float8_e4m3fn")
TENSOR = ("rename", "drop", "shape", "transpose", "dtype", "nan", "inf", "huge", "zero", "more", "empty")
HEADERS = (
    "endless", "longer than the file", "no JSON", "list", "deep", "overlap", "negative", "beyond", "unknown dtype",
    "many names", "large", "product", "metadata",
)  # fmt: skip
INDEX = ("sharded", "gone", "above", "absolute", "no map", "numbers", "another file", "empty", "list")
CODE = {"AutoModel": "evil.Evil", "AutoTokenizer": ["evil.Evil", None], "AutoConfig": "evil.Evil"}


def make_checkpoint(dice: random.Random) -> Any:
    return [make_change(dice) for _ in range(dice.choice((1, 1, 1, 2, 3)))]


def make_change(dice: random.Random) -> list[Any]:
    way = dice.choice(("set", "set", "set", "set", "file", "damage", "tensor", "tensor", "header", "shards"))
    if way == "set":
        file = dice.choice(list(JSON_FILES))
        key = dice.choice((*JSON_FILES[file], strange_letters(dice, 2)))
        value = dice.choice(
            (number(dice), number(dice), json_value(dice), [number(dice) for _ in range(3)], CODE, "gone")
        )
        return [way, file, key, value]
    if way == "file":
        file = dice.choice((*JSON_FILES, *WEIGHTS))
        return [
            dice.choice(("delete", "folder", "pipe", "void", "deep", "nested", "link", "link")),
            file,
            dice.choice(LINKS),
        ]
    if way == "damage":
        return [way, dice.choice((*JSON_FILES, *WEIGHTS)), damages(dice)]
    if way == "tensor":
        return [dice.choice(TENSOR), dice.choice(WEIGHTS), dice.random(), dice.choice(DTYPES)]
    if way == "header":
        return [way, dice.choice(WEIGHTS), dice.choice(HEADERS)]
    return [way, dice.choice(WEIGHTS), dice.choice(INDEX)]


def apply(folder: Path, change: list[Any]) -> None:
    way, file, *rest = change
    path = folder / file
    if not path.is_file() or path.is_symlink():
        return  # an earlier change has taken it away
    if way == "set":
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (RecursionError, ValueError):
            return  # an earlier change has damaged it
        if isinstance(content, dict):
            content |= {rest[0]: {"@nan": float("nan"), "@inf": float("inf")}.get(str(rest[1]), rest[1])}
            if rest[1] == "gone":
                del content[rest[0]]
        path.write_text(json.dumps(content), encoding="utf-8")
    elif way == "damage":
        path.write_bytes(damaged(path.read_bytes(), rest[0]))
    elif way == "header":
        path.write_bytes(headed(path.read_bytes(), rest[0]))
    elif way == "shards":
        shard(path, rest[0])
    elif way in TENSOR:
        save_file(changed(load_file(path), way, *rest), path, metadata={"format": "pt"})
    else:
        path.unlink()
        replace(path, way, folder, *rest)


def replace(path: Path, way: str, folder: Path, link: str) -> None:
    if way == "folder":
        path.mkdir()
    elif way == "pipe":
        os.mkfifo(path)
    elif way == "void":
        path.touch()
    elif way == "deep":
        path.write_text("[" * 200_000)
    elif way == "nested":
        path.write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    elif way == "link":
        path.symlink_to({"itself": path.name, "gone": "nowhere", "the whole folder": folder}.get(link, link))


def changed(tensors: dict[str, torch.Tensor], way: str, place: float, dtype: str) -> dict[str, torch.Tensor]:
    name = sorted(tensors)[int(place * (len(tensors) - 1))]
    value = tensors.pop(name)
    if way == "rename":
        return tensors | {f"{name}.x": value}
    if way == "more":
        return tensors | {name: value, "surplus": torch.zeros(3)}
    if way in ("nan", "inf", "huge", "zero"):
        return tensors | {
            name: torch.full_like(value, {"nan": torch.nan, "inf": torch.inf, "huge": 1e30, "zero": 0.0}[way])
        }
    if way == "dtype":
        return tensors | {name: value.to(getattr(torch, dtype))}
    if way == "shape":
        return tensors | {name: torch.cat([value, value]) if value.ndim else value[None]}
    if way == "transpose":
        return tensors | {name: value.reshape(value.shape[::-1]).contiguous()}
    return tensors | ({name: torch.zeros(0, *value.shape[1:])} if way == "empty" else {})


def headed(content: bytes, way: str) -> bytes:
    """A safetensors file under another header."""
    length = struct.unpack("<Q", content[:8])[0]
    header, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    name = next(each for each in header if each != "__metadata__")
    if way == "endless":
        return struct.pack("<Q", 2**63) + content[8:]
    if way == "longer than the file":
        return struct.pack("<Q", len(content)) + content[8:]
    new: Any = header
    if way == "overlap":
        for entry in header.values():
            entry.get("data_offsets", [0])[0] = 0
    elif way in ("negative", "beyond", "product", "unknown dtype"):
        header[name] |= {
            "negative": {"data_offsets": [-8, 8]}, "beyond": {"data_offsets": [0, 2**40]},
            "product": {"shape": [2**32, 2**32]},
            "unknown dtype": {"dtype": "F31"},
        }[way]  # fmt: skip
    elif way == "many names":
        new |= {f"{i}": {"dtype": "F32", "shape": [0], "data_offsets": [len(body), len(body)]} for i in range(20_000)}
    elif way == "metadata":
        new["__metadata__"] = {"format": 3, "a": [1]}
    text = {"no JSON": "{" * 50, "list": "[]", "deep": "[" * 100_000, "large": json.dumps(new) + " " * 40_000_000}.get(
        way
    )
    text = json.dumps(new) if text is None else text
    return struct.pack("<Q", len(text.encode())) + text.encode() + body


def shard(path: Path, way: str) -> None:
    """Two shards and their index in place of one file."""
    tensors = load_file(path)
    path.unlink()
    names = sorted(tensors)
    stem = path.name.removesuffix(".safetensors")
    files = [f"{stem}-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for file, part in zip(files, (names[::2], names[1::2]), strict=True):
        save_file({name: tensors[name] for name in part}, path.with_name(file), metadata={"format": "pt"})
    where: Any = {name: files[place % 2] for place, name in enumerate(names)}
    if way in ("above", "absolute"):
        outside = path.parent.parent.parent / "outside.safetensors"
        shutil.copy(path.with_name(files[0]), outside)
        where[names[0]] = str(outside) if way == "absolute" else "../../outside.safetensors"
    elif way == "gone":
        path.with_name(files[1]).unlink()
    elif way == "another file":
        where[names[0]] = "config.json"
    where = {"numbers": dict.fromkeys(names, 3), "empty": {}, "list": list(files)}.get(way, where)
    index = {"metadata": {"total_size": 1}, "weight_map": where} if way != "no map" else {}
    path.with_name(f"{path.name}.index.json").write_text(json.dumps(index))


def run_checkpoint(recipe: Any, bench: Bench) -> None:
    with bench.folder() as root:
        folder = root / "model"
        shutil.copytree(bench.tiny, folder)
        for change in recipe:
            with suppress(SafetensorError, ValueError):  # an earlier change has left no whole file
                apply(folder, change)
            if change[0] == "set" and "auto_map" in change:
                (folder / "evil.py").write_text(f"open({str(root / 'ran')!r}, 'w').close()\nclass Evil: pass\n")
                shutil.copy(folder / "evil.py", (folder / change[1]).with_name("evil.py"))
        try:
            editor = lab.load(folder, device="cpu")
            if any(change[0] == "shards" and change[2] in ("above", "absolute") for change in recipe):
                raise Wrong("a shard outside the folder was loaded")
            check(editor.edit(bench.picture(), INSTRUCTION, steps=2, seed=0), editor)
        finally:
            if (root / "ran").exists():
                raise Wrong("code of the checkpoint ran")


# Adapters


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
    with bench.folder() as folder:
        shutil.copytree(bench.adapter, folder, dirs_exist_ok=True)
        for change in recipe:
            apply_to_adapter(folder, change)
        try:
            adapters.load_adapter(transformer, folder)
            check(bench.editor.edit(bench.picture(), INSTRUCTION, steps=1, seed=0), bench.editor)
        finally:
            adapters.remove_adapter(transformer)
            if {name: id(value) for name, value in transformer.named_parameters()} != before:
                raise Wrong("the transformer is not as it was")


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


KINDS = {"checkpoints": Kind(make_checkpoint, run_checkpoint, 6), "adapters": Kind(make_adapter, run_adapter, 5)}
