"""The lab's own drawn world as a benchmark: targets, masks and captions are known, and nothing is downloaded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.rows import Opened
from ..errors import SettingError
from ..metrics.backbones import TINY
from ..metrics.measured import ALL
from ..metrics.measures import SOURCE, TARGET, TARGET_CAPTION, Measure
from ..world import sample_edit
from .edits import Row, by_group

LONGEST = 20  # digits; a longer number is none of edits


class SmallWorld:
    """split: "train", "validation" or "test"; the edits 0, 1, 2 … of it, as many as are asked for."""

    name, hub, masks, networks, headline = "small-world", None, True, {"clip": TINY}, ALL
    plan = (
        ("L1", TARGET), ("L2", TARGET), ("PSNR", TARGET), ("SSIM", TARGET), ("L1", SOURCE), ("LPIPS", TARGET),
        ("CLIP-I", TARGET), ("CLIP-T", TARGET_CAPTION), ("CLIP-dir", "captions"), ("DINO", TARGET), ("DINOv2", TARGET),
        ("VIEScore semantic", SOURCE), ("VIEScore quality", SOURCE), ("VIEScore overall", SOURCE),
    )  # fmt: skip

    def __init__(self, split: str | None = None):
        self.split = split or "test"

    def rows(self, data: str | os.PathLike[str]) -> Iterator[Row]:
        """data: how many edits, as a number."""
        text = os.fspath(data)
        count = int(text) if text.isdecimal() and len(text) < LONGEST else 0
        if count < 1:
            raise SettingError(f"data is {text!r}", expected="how many edits to draw, 1 or more", fix="pass --data 100")
        for number in range(count):
            sample = sample_edit(number, split=self.split)
            yield Row(
                key=f"{number:05d}",
                file=f"{number:05d}.png",
                group=sample.category,
                instruction=sample.instruction,
                source=sample.source,
                target=sample.target,
                mask=sample.mask,
                source_caption=sample.source_caption,
                target_caption=sample.target_caption,
                wants_target=True,
            )

    def groups(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
        return by_group(rows)

    def about(self, rows: Sequence[Mapping[str, Any]]) -> str:
        return "the target is the drawing itself, so the tokenizer's loss counts against every answer but the copy"

    def keep(self, row: Row, opened: Opened, folder: Path) -> None:
        """Nothing: it can be drawn again."""

    def finish(self, rows: Sequence[Mapping[str, Any]], measures: Sequence[Measure], folder: Path) -> None:
        """Nothing: there are no other scripts."""
