"""Weights that stay in their files: what a checkpoint holds, by its headers, and networks that read it as they run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from torch import nn

from ..errors import CheckpointError

STORED_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class Stored:
    """One tensor of a safetensors file. dtype: of it, None for one that no network here has."""

    file: Path
    shape: list[int]
    dtype: torch.dtype | None

    def nbytes(self, dtype: torch.dtype | None = None) -> int:
        """Bytes that it takes in this dtype; None, or numbers that are whole: as stored."""
        stored = self.dtype or torch.float32
        return prod(self.shape) * (dtype if dtype is not None and stored.is_floating_point else stored).itemsize


def main_dtype(tensors: Iterable[Stored]) -> torch.dtype:
    """The floating-point dtype that most of the bytes have; float32 where there are none."""
    sizes: dict[torch.dtype, int] = {torch.float32: 0}
    for each in tensors:
        if each.dtype is not None and each.dtype.is_floating_point:
            sizes[each.dtype] = sizes.get(each.dtype, 0) + each.nbytes()
    return max(sizes, key=sizes.get)


def read_on_use(module: nn.Module, folder: Path, stored: Mapping[str, Stored], device: torch.device) -> nn.Module:
    """A module of transformers on the meta device whose layers read their weights from the files whenever they run.

    Each layer's weights are brought to `device`, in the dtype of the module's own parameters, and dropped once it is
    done, so that never more than one layer's are held. Raises CheckpointError where a weight is missing or of another
    shape.
    """
    from accelerate.hooks import attach_align_device_hook  # slow to import
    from accelerate.utils import OffloadedWeightsLoader

    prefix = f"{module.base_model_prefix}."  # files of a larger model have it, those of this one do not
    index, problems = {}, []
    for name, parameter in module.named_parameters():
        found = next((each for each in (name, prefix + name, name.removeprefix(prefix)) if each in stored), None)
        if found is None:
            problems.append(f"{name} is missing")
        elif stored[found].shape != list(parameter.shape):
            problems.append(f"{name} is {stored[found].shape} instead of {list(parameter.shape)}")
        else:
            index[name] = {"safetensors_file": str(stored[found].file), "weight_name": found}
    if problems:
        raise CheckpointError(
            f"{folder} does not fit its config.json: {len(problems)} weights, of them first: {problems[0]}",
            expected="the weights that belong to it",
            fix="download or copy both again",
        )
    weights = OffloadedWeightsLoader(index=index)
    attach_align_device_hook(module, execution_device=device, offload=True, weights_map=weights)
    return module
