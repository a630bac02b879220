"""The aesthetic score: CLIP's vector of a picture and a linear head on it, both from a folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ...basics.folders import plain
from ...errors import CheckpointError, SettingError
from ...metrics.backbones import TextBackbone, load_clip
from ..engine.operators import Operator, Row
from .decode import opened

HEAD = "head.safetensors"


@dataclass(frozen=True)
class Aesthetic(Operator):
    """A score of about 1 … 10. folder: CLIP in transformers' layout, with head.safetensors: weight [1, D], bias [1].

    As LAION's predictors: the head is applied to CLIP's projected vector, made of length 1. Raises SettingError.
    """

    name: ClassVar[str] = "aesthetic"
    takes: ClassVar[tuple[str, ...]] = ("picture",)
    gives: ClassVar[Mapping[str, pa.DataType]] = {"aesthetic": pa.float64()}
    folder: Path

    def __post_init__(self) -> None:
        if not os.path.isfile(self.folder / HEAD):
            raise SettingError(
                f"{self.folder} holds no {HEAD}",
                expected=f"a folder with CLIP and {HEAD}",
                fix="check the path; convert LAION's linear predictor for this CLIP to safetensors",
            )

    def run(self, row: Row) -> dict[str, Any]:
        network, weight, bias = _loaded(str(self.folder))
        vector = torch.nn.functional.normalize(network.embed([opened(row["picture"])]), dim=-1)
        return {"aesthetic": (vector @ weight.T + bias).item()}


@lru_cache(maxsize=1)
def _loaded(folder: str) -> tuple[TextBackbone, torch.Tensor, torch.Tensor]:
    network = load_clip(folder)
    try:
        head = load_file(plain(Path(folder) / HEAD))
        return network, head["weight"].float().reshape(1, -1), head["bias"].float().reshape(1)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder} has no linear head: {error}",
            expected=f"{HEAD} with weight [1, D] and bias [1]",
            fix="convert LAION's linear predictor for this CLIP to safetensors",
        ) from error
