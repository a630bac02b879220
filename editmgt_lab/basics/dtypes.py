"""The number formats that weights can be loaded in, by whatever name people know them."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch

from ..errors import SettingError

Dtype: TypeAlias = "torch.dtype | str | np.dtype"

DTYPES = {
    torch.float32: ("float32", "fp32", "f32", "float", "single"),
    torch.bfloat16: ("bfloat16", "bf16"),
    torch.float16: ("float16", "fp16", "f16", "half"),
    torch.float64: ("float64", "fp64", "f64", "double"),
}


def choose_dtype(dtype: Dtype | None) -> torch.dtype | None:
    """The dtype that is meant: torch's, numpy's, or a name such as "bfloat16", "bf16" or "half"; None stays None.

    Raises SettingError for what no network here can be computed in: whole numbers, 8-bit floats, misspelt names.
    """
    if dtype is None:
        return None
    name = _name(dtype)
    for known, names in DTYPES.items():
        if name in names:
            return known
    raise SettingError(
        f"dtype is {dtype!r}",
        expected="a floating-point type: " + ", ".join(names[0] for names in DTYPES.values()),
        fix='pass "bfloat16" or torch.bfloat16, say, or leave it out to take the weights as they are stored',
    )


def _name(dtype: Any) -> str | None:
    if isinstance(dtype, (str, torch.dtype)):
        return str(dtype).strip().lower().removeprefix("torch.")
    if isinstance(dtype, np.dtype) or (isinstance(dtype, type) and issubclass(dtype, np.generic)):
        return np.dtype(dtype).name
    return None


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies in bfloat16 faster than in float32: GPUs, and CPUs with AVX512_BF16 or AMX."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)  # an old torch does not know
    return device.type == "cuda" or (device.type == "cpu" and supported())
