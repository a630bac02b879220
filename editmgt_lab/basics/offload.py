"""Weights that stay in their files: what a checkpoint holds, by its headers, and networks that read it as they run."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

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


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Inside the context, modules that this thread builds get parameters without numbers; buffers get theirs.

    accelerate's `init_empty_weights` does so to whatever any thread builds meanwhile. For one thread at a time: see
    lazy.LOADING.
    """
    thread, register = threading.get_ident(), nn.Module.register_parameter

    def without_numbers(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and threading.get_ident() == thread:
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = without_numbers
    try:
        yield
    finally:
        nn.Module.register_parameter = register


def read_on_use(module: nn.Module, folder: Path, stored: Mapping[str, Stored], device: torch.device) -> nn.Module:
    """A model of transformers on the meta device whose layers read their weights from the files whenever they run.

    Each layer's weights are brought to `device`, in the dtype of the module's own parameters, and dropped once it is
    done, so that never more than one layer's are held; of an embedding only the rows that are asked for. Raises
    CheckpointError where a weight is missing or of another shape.
    """
    prefix = f"{module.base_model_prefix}."  # files of a larger model have it, those of this one do not
    found, problems = {}, []
    for name, parameter in module.named_parameters():
        known = next((each for each in (name, prefix + name, name.removeprefix(prefix)) if each in stored), None)
        if known is None:
            problems.append(f"{name} is missing")
        elif stored[known].shape != list(parameter.shape):
            problems.append(f"{name} is {stored[known].shape} instead of {list(parameter.shape)}")
        else:
            found[name] = (stored[known].file, known)
    if problems:
        raise CheckpointError(
            f"{folder} does not fit its config.json: {len(problems)} weights, of them first: {problems[0]}",
            expected="the weights that belong to it",
            fix="download or copy both again",
        )
    for path, layer in module.named_modules():
        own = {name: found[f"{path}.{name}".removeprefix(".")] for name, _ in layer.named_parameters(recurse=False)}
        if isinstance(layer, nn.Embedding):
            layer.padding_idx = None  # for gradients alone, and no longer a row's number
        if own:
            layer.forward = Reader(layer, own, device)
        for name, buffer in layer.named_buffers(recurse=False):
            setattr(layer, name, buffer.to(device))
    return module


class Reader:
    """In place of a layer's `forward`: runs a copy of it that has its weights, so that the layer itself never holds
    any, whoever else runs it meanwhile or ends a pass half-way.

    places: of each parameter, by its name: the file, and the name there.
    """

    def __init__(self, layer: nn.Module, places: Mapping[str, tuple[Path, str]], device: torch.device):
        self.layer, self.places, self.device = layer, places, device

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        rows = None
        if isinstance(self.layer, nn.Embedding):
            rows, where = inputs[0].unique(return_inverse=True)
            inputs = (where, *inputs[1:])
        whole = copy.copy(self.layer)
        whole._parameters = self.layer._parameters | {
            name: nn.Parameter(self._stored(*place, rows).to(self.device, getattr(self.layer, name).dtype), False)
            for name, place in self.places.items()
        }
        return type(whole).forward(whole, *inputs, **options)

    def _stored(self, file: Path, name: str, rows: Tensor | None) -> Tensor:
        try:
            with safe_open(file, framework="pt") as opened:
                if rows is None:
                    return opened.get_tensor(name)
                part = opened.get_slice(name)
                return torch.cat([part[row : row + 1] for row in rows.tolist()])
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{file} cannot be read any more: {error}",
                expected="the file that the model was loaded from, whose weights are read whenever they are needed",
                fix="put it back, or load the model without offload",
            ) from error
