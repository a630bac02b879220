"""Sizes in bytes: of weights, and as text."""

from __future__ import annotations

from torch import nn

LARGE = 10**9  # of weights: from here on memory is worth a word, and twice of it may be too much
LONG = 10**8  # of weights: from here on an edit takes long enough to watch


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
