"""What a checkpoint's weights take, chosen and said before they are read."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from .basics.dtypes import has_bfloat16
from .basics.offload import main_dtype
from .checkpoints import stored
from .plain_text import say

LARGE = 10**9  # bytes of weights: from here on memory is worth a word, and twice of it may be too much
LONG = 10**8  # bytes of weights: from here on an edit takes long enough to watch
TEXT_PARTS = ("text_encoder", "llm_encoder")


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
        said += f' (dtype="float32" takes {in_bytes(sum(tensor.nbytes(torch.float32) for tensor in every))}'
        said += ")" if has_bfloat16(device) else ", and is faster here: this processor multiplies bfloat16 slowly)"
    if left:
        said += f"; the text encoder's {in_bytes(left)} are read from its files whenever it runs"
    elif sizes.get("llm_encoder"):
        text = in_bytes(sum(sizes.get(part, 0) for part in TEXT_PARTS))
        said += f"; {text} of them are the text encoder's, which offload=True leaves in its files"
    say(said, file=sys.stderr)
    return dtype


def bytes_of(*modules: nn.Module) -> int:
    """Bytes that the parameters take."""
    return sum(parameter.nbytes for module in modules for parameter in module.parameters())


def in_bytes(count: float) -> str:
    """12345678 → "12 MB"."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
