"""Checkpoint folders: values, names, shapes, dtypes, shards, index files, links, headers, and code to be run."""

from __future__ import annotations

import json
import operator
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

from ..bench import INSTRUCTION, Bench
from ..case import Kind, Wrong, owed
from ..values import damaged, damages, json_value, number, strange_letters
from .texts import check

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
        "intermediate_size", "num_attention_heads", "architectures", "hidden_act", "torch_dtype", "dtype",
        "eos_token_id", "quantization_config", "layer_norm_eps",
    ),
    "tokenizer/tokenizer_config.json": (
        "tokenizer_class", "model_max_length", "bos_token", "eos_token", "pad_token", "unk_token",
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
CODE = ("text_encoder/config.json", "tokenizer/tokenizer_config.json", "llm_encoder/config.json")
EVIL = {"AutoModel": "evil.Evil", "AutoTokenizer": ["evil.Evil", None], "AutoConfig": "evil.Evil"}
PARTS = {"editmgt": "transformer", "vqvae": "vq", "text_encoder": "text_encoder.clip"}  # folder → of the editor


def make_checkpoint(dice: random.Random) -> Any:
    return [make_change(dice) for _ in range(dice.choice((0, *[1] * 9, 2, 2, 2, 3, 3)))]


def make_change(dice: random.Random) -> list[Any]:
    way = dice.choice(("set", "set", "set", "set", "file", "damage", "tensor", "tensor", "header", "shards", "code"))
    if way == "code":
        return [way, dice.choice(CODE)]
    if way == "set":
        file = dice.choice(list(JSON_FILES))
        key = dice.choice((*JSON_FILES[file], strange_letters(dice, 2)))
        value = dice.choice((number(dice), number(dice), json_value(dice), [number(dice) for _ in range(3)], "gone"))
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
    if way == "code":
        put_code(folder, path)
        return
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
    name = next((each for each in header if each != "__metadata__"), None)
    if name is None:
        return content  # an earlier change has taken its only tensor
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


def put_code(folder: Path, path: Path) -> None:
    """A configuration of a kind that transformers does not know, with the code that does."""
    if path.parent.name == "llm_encoder":  # which a transformer has to ask for
        apply(folder, ["set", "editmgt/config.json", "text_encoder_architecture", "CLIP_Gemma2"])
        for part in ("tokenizer", "text_encoder"):
            shutil.copytree(folder / part, path.parent, dirs_exist_ok=True)
    for name, value in (("model_type", "evil"), ("tokenizer_class", "Evil"), ("auto_map", EVIL)):
        apply(folder, ["set", str(path.relative_to(folder)), name, value])
    ran = folder.parent / "ran"
    path.with_name("evil.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass Evil: pass\n")


def run_checkpoint(recipe: Any, bench: Bench) -> None:
    with bench.folder() as root:
        folder = root / "model"
        shutil.copytree(bench.tiny, folder)
        for change in recipe:
            with suppress(SafetensorError, ValueError):  # an earlier change has left no whole file
                apply(folder, change)
        try:
            with owed(all(map(is_harmless, recipe))):
                editor = lab.load(folder, device="cpu")
        finally:
            if (root / "ran").exists():
                raise Wrong("code of the checkpoint ran")
        if any(change[0] == "shards" and change[2] in ("above", "absolute") for change in recipe):
            raise Wrong("a shard outside the folder was loaded")
        check_weights(editor, folder)
        if 256 < editor.defaults.image_size <= 8192:
            return  # what is taken, and takes its time
        with owed(all(map(is_harmless, recipe))):
            edited = editor.edit(bench.picture(), INSTRUCTION, steps=2, seed=0)
        check(edited, editor)
        if all(change[0] == "shards" for change in recipe) and not torch.equal(edited.tokens, bench.result.tokens):
            raise Wrong("a whole checkpoint makes another edit")


def is_harmless(change: list[Any]) -> bool:
    """Whether a change leaves a checkpoint whole: cut into shards, or in another precision."""
    return change[2:3] == ["sharded"] or (change[0] == "dtype" and change[3] in ("float16", "bfloat16", "float64"))


def check_weights(editor: lab.Editor, folder: Path) -> None:
    """Raises unless the editor has every tensor of the folder, as it is there, and no other."""
    for part, name in PARTS.items():
        held = operator.attrgetter(name)(editor).state_dict()
        due = {}
        for file in (folder / part).glob("*.safetensors"):
            due |= load_file(file)
        if held.keys() != due.keys():
            raise Wrong(f"of {part} were made up or left out: {sorted(held.keys() ^ due.keys())}")
        for key, value in due.items():
            if held[key].shape != value.shape or not torch.equal(
                held[key].float().nan_to_num(7.0), value.float().nan_to_num(7.0)
            ):
                raise Wrong(f"{key} of {part} is not as it is stored")


KINDS = {"checkpoints": Kind(make_checkpoint, run_checkpoint, 6)}
