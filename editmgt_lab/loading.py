"""An editor from its folder; what its weights take is chosen and said before they are read."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import torch

from .basics.checks import check_switch
from .basics.devices import choose_device
from .basics.dtypes import Dtype, choose_dtype, has_bfloat16
from .basics.offload import main_dtype
from .basics.sizes import LARGE, in_bytes
from .checkpoints import read_json, resolve, stored
from .editor import Editor
from .errors import SettingError
from .plain_text import say
from .settings import Defaults
from .text import load_text_encoder
from .transformer import MaskedGenerativeTransformer
from .vq import VQModel

PARTS = ("editmgt", "vqvae", "text_encoder", "tokenizer", "llm_encoder", "scheduler")
TEXT_PARTS = ("text_encoder", "llm_encoder")


def load(
    source: str | os.PathLike[str] = "tiny",
    *,
    device: torch.device | str | None = None,
    dtype: Dtype | None = None,
    offload: bool = False,
    compiled: bool = False,
) -> Editor:
    """An editor from "tiny" (the small model that comes along), a local folder, or a hub name ("WeiChow/EditMGT").

    The folder has the released layout: editmgt/, vqvae/, text_encoder/, tokenizer/, llm_encoder/ (if its transformer
    wants a language model) and scheduler/. device: None takes CUDA, else MPS, else the CPU. dtype: of all weights, such
    as "bfloat16"; None is as stored, on the CPU float32 but for large weights in bfloat16. offload: the text encoder's
    weights stay in their files, a layer of them is read whenever it runs. compiled: torch compiles the transformer's
    blocks when they first run, once for each kind of block and shape of batch, picture and text; on a CPU that wants a
    C++ compiler. Elementwise work then runs together, which is worth little on a CPU and should be worth most on a GPU
    (not measured here). Capture, hold and cache work as ever. What a large checkpoint will take is said before it is
    read. Raises CheckpointError, and SettingError for a device, dtype or configuration that cannot be, or where a
    compiler is missing.
    """
    device, dtype = choose_device(device), choose_dtype(dtype)
    check_switch(offload, "offload")
    check_switch(compiled, "compiled")
    if compiled and device.type == "cpu":
        _check_compiler()
    folder = resolve(source, parts=PARTS)
    dtype = plan_weights(folder, device=device, dtype=dtype, offload=offload)
    place = {"device": device, "dtype": dtype}
    transformer = MaskedGenerativeTransformer.from_pretrained(folder / "editmgt", **place)
    if compiled:
        transformer.compile_blocks()
    return Editor(
        VQModel.from_pretrained(folder / "vqvae", **place),
        load_text_encoder(folder, architecture=transformer.config.text_encoder_architecture, offload=offload, **place),
        transformer,
        mask_token_id=read_json(folder / "scheduler" / "scheduler_config.json").get("mask_token_id"),
        defaults=Defaults.read(folder),
    )


def _check_compiler() -> None:
    wanted = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++", "cl"]
    if not any(map(shutil.which, wanted)):
        raise SettingError(
            f"compiled=True, and there is no C++ compiler here ({', '.join(wanted)})",
            expected="a compiler, with which torch compiles on a CPU",
            fix="install g++, or leave compiled out",
        )


def plan_weights(folder: Path, *, device: torch.device, dtype: torch.dtype | None, offload: bool) -> torch.dtype | None:
    """The dtype to load a checkpoint's weights in (None: each as stored); for large ones it says what they will take.

    On the CPU None becomes float32, unless the weights are large and stored in bfloat16. offload: whether the text
    encoder's stay in their files. Raises CheckpointError for files that cannot be read.
    """
    parts = {part: folder / part for part in ("editmgt", "vqvae", *TEXT_PARTS)}
    held = {part: [*stored(path).values()] for part, path in parts.items() if path.is_dir()}
    every = [tensor for tensors in held.values() for tensor in tensors]
    large, kind = sum(tensor.nbytes() for tensor in every) >= LARGE, main_dtype(every)
    if dtype is None and device.type == "cpu" and not (large and kind == torch.bfloat16):
        dtype = torch.float32
    if not large:
        return dtype

    sizes = {part: sum(tensor.nbytes(dtype) for tensor in tensors) for part, tensors in held.items()}
    left = sum(sizes.get(part, 0) for part in TEXT_PARTS) if offload else 0
    name = f"{dtype or kind}".removeprefix("torch.")
    said = f"{in_bytes(sum(sizes.values()) - left)} of weights in {name} on {device.type}"
    said += ", as they are stored" if dtype in (None, kind) else f", stored in {kind}".replace("torch.", "")
    if dtype is None and device.type == "cpu":
        full = sum(t.nbytes(torch.float32) for part in held if not (left and part in TEXT_PARTS) for t in held[part])
        said += f' (dtype="float32" takes {in_bytes(full)}'
        said += ")" if has_bfloat16(device) else ", and is faster here: this processor multiplies bfloat16 slowly)"
    if left:
        said += f"; the text encoder's {in_bytes(left)} are read from its files whenever it runs"
    elif sizes.get("llm_encoder"):
        text = in_bytes(sum(sizes.get(part, 0) for part in TEXT_PARTS))
        said += f"; {text} of them are the text encoder's, which offload=True leaves in its files"
    say(said, file=sys.stderr)
    return dtype
