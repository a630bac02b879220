"""What is measured of a finished edit: does the picture now say what was asked, and did the rest stay?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Protocol

import pyarrow as pa
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ...images import to_tensor
from ...metrics.arithmetic import MIN_SHARE, share
from ...metrics.backbones import TextBackbone, clip_folder, cosine, load_clip
from ...metrics.backbones import direction as way
from ..curate.decode import opened
from ..engine.keys import stamp_of
from ..engine.operators import Operator, Row
from ..instruct.captions import Caption, Request, statements

CELLS = 8  # the worst of 8 × 8 cells finds what harms one place only


class Ground(Protocol):
    """Says where an edit should be. A frozen dataclass, part of the key of what was measured by it."""

    def region(self, picture: Image.Image, caption: Caption, request: Request) -> Tensor:
        """bool [H, W]; all True for an edit of the whole picture. Raises LabError."""


@dataclass(frozen=True)
class Boxes:
    """The boxes of the things that the caption and the target do not share; the whole picture where one has no box."""

    version: ClassVar[int] = 1

    def region(self, picture: Image.Image, caption: Caption, request: Request) -> Tensor:
        """See Ground."""
        before, after = set(caption.things), set(request.target.things)
        boxes = [thing.box for thing in before ^ after]
        whole = (caption.background, caption.style) != (request.target.background, request.target.style)
        layer = Image.new("L", picture.size, "white" if whole or not boxes or None in boxes else "black")
        for left, top, right, bottom in filter(None, boxes):
            edges = (left * picture.width, top * picture.height, right * picture.width, bottom * picture.height)
            layer.paste(255, tuple(map(round, edges)))
        return to_tensor(layer)[0, 0] > 0.5


def alignment(reading: Caption, target: Caption) -> float:
    """How far what is read agrees with the target text: statements of both by statements of either, 0 … 1."""
    read, wanted = statements(reading), statements(target)
    return len(read & wanted) / len(read | wanted)


def direction(reading: Caption, source: Caption, target: Caption) -> float:
    """Of the statements that were to change, the share that did: new ones that are read, old ones that are not; 0 … 1.

    NaN where nothing was to change.
    """
    read, before, after = statements(reading), statements(source), statements(target)
    new, old = after - before, before - after
    return (len(new & read) + len(old - read)) / len(new | old) if new | old else math.nan


def pixel_changes(source: Image.Image, output: Image.Image, region: Tensor) -> dict[str, float | None]:
    """inside, outside, whole: mean |output − source| in 0 … 1; worst: of the 8 × 8 cells outside the region.

    None for a part that is too small to be measured.
    """
    came, made = to_tensor([source, output])
    apart = (made - came).abs().mean(0)  # [H, W]
    rest = F.adaptive_avg_pool2d((apart * ~region)[None], CELLS).max().item()
    parts = {"inside": region, "outside": ~region}
    found = {name: apart[part].mean().item() if share(part) >= MIN_SHARE else None for name, part in parts.items()}
    return found | {"whole": apart.mean().item(), "worst": rest if found["outside"] is not None else None}


@dataclass(frozen=True)
class Compare(Operator):
    """picture, output → all numbers that stage 4 has rules for. Alignment and direction are of the describer's reading.

    They need a reading of the output, in the column that the judge gives; without one they are not measured.
    """

    name: ClassVar[str] = "compare"
    takes: ClassVar[tuple[str, ...]] = ("picture", "output", "caption", "request", "reading")
    gives: ClassVar[Mapping[str, pa.DataType]] = {
        name: pa.float64() for name in ("alignment", "direction", "inside", "outside", "worst", "whole")
    }
    ground: Ground

    def run(self, row: Row) -> dict[str, Any]:
        source, output = opened(row["picture"]), opened(row["output"])
        output = output if output.size == source.size else output.resize(source.size)
        caption, request = Caption.of(row["caption"]), Request.of(row["request"])
        reading = Caption.of(row["reading"]) if row["reading"] else None
        told = {
            "alignment": alignment(reading, request.target) if reading else None,
            "direction": direction(reading, caption, request.target) if reading else None,
        }
        return told | pixel_changes(source, output, self.ground.region(source, caption, request))


@dataclass(frozen=True)
class ClipCompare(Operator):
    """The paper's alignment: cosine of CLIP's vectors of the output and the target text, and of the two directions.

    source: as load_clip takes it; stamp: of its files, found out by itself.
    """

    version: ClassVar[int] = 2
    name: ClassVar[str] = "clip"
    takes: ClassVar[tuple[str, ...]] = ("picture", "output", "caption", "request")
    gives: ClassVar[Mapping[str, pa.DataType]] = {"clip_alignment": pa.float64(), "clip_direction": pa.float64()}
    source: str
    stamp: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.stamp is None:
            object.__setattr__(self, "stamp", stamp_of(clip_folder(self.source)))

    def run(self, row: Row) -> dict[str, Any]:
        network = _clip(self.source)
        pictures = network.embed([opened(row["picture"]), opened(row["output"])])
        texts = network.embed_texts([str(Caption.of(row["caption"])), str(Request.of(row["request"]).target)])
        return {"clip_alignment": cosine(pictures[1], texts[1]), "clip_direction": way(*pictures, *texts)}


@lru_cache(maxsize=2)
def _clip(source: str) -> TextBackbone:
    return load_clip(source)
