"""Emu Edit's test set (Sheynin et al. 2023), on the hub as facebook/emu_edit_test_set.

Schema (its dataset card; parquet files data/validation-* and data/test-*): instruction, image (the source), task (one
of background, global, style, remove, add, local, texture), split, idx (int64), hash, input_caption, output_caption.
There is no target. Two things the card does not settle. The splits of the same name have 2,022 and 3,589 rows here but
3,589 and 2,022 in facebook/emu_edit_test_set_generations, so papers mean either by "test"; a row's own `split` says
which it is. And idx is taken as unique in a split; a second row of one idx is told apart by its hash.
The generations set is read as well; its edited_image is Emu Edit's output and no target.

Scored as its authors do (the paper's section on metrics): CLIP and DINO similarity and L1 to the source, CLIP
similarity to the output caption, and CLIP's direction. They published no script and name no backbone: ours is
MagicBrush's. Outputs lie as {idx}.png, where the evaluation in weichow23/AnySD (anybench/eval/emu_gen_eval.py) looks
for them; note that that one compares with Emu Edit's outputs instead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.rows import Opened
from ..data.tables import picture_bytes, read_rows, text_or_none
from ..metrics.backbones import PUBLISHED
from ..metrics.measured import ALL
from ..metrics.measures import SOURCE, TARGET_CAPTION, Measure
from .edits import Row, by_group


class EmuEdit:
    """split: "test" or "validation", as the files are named."""

    name, hub, masks, networks, headline = "emu-edit", "facebook/emu_edit_test_set", False, PUBLISHED, ALL
    plan = (
        ("CLIP-dir", "captions"), ("CLIP-I", SOURCE), ("CLIP-T", TARGET_CAPTION), ("L1", SOURCE), ("DINO", SOURCE),
        ("DINOv2", SOURCE), ("LPIPS", SOURCE),
    )  # fmt: skip

    def __init__(self, split: str | None = None):
        self.split = split or "test"

    def rows(self, data: str | os.PathLike[str]) -> Iterator[Row]:
        seen: set[str] = set()
        for number, row in enumerate(read_rows(data, self.split)):
            index = row.get("idx")
            key = f"row{number}" if index is None else str(index)
            key = f"{key}_{row.get('hash')}" if key in seen else key
            seen.add(key)
            yield Row(
                key=key,
                file=f"{key}.png",
                group=str(row.get("task")),
                instruction=row.get("instruction"),
                source=picture_bytes(row.get("image")),
                source_caption=text_or_none(row.get("input_caption")),
                target_caption=text_or_none(row.get("output_caption")),
                problem="it has no idx" if index is None else None,
            )

    def groups(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
        return by_group(rows)

    def about(self, rows: Sequence[Mapping[str, Any]]) -> str:
        return "there is no target: all but CLIP-T and CLIP-dir compare with the source, so copying it scores best"

    def keep(self, row: Row, opened: Opened, folder: Path) -> None:
        """Nothing: sources are in the data set."""

    def finish(self, rows: Sequence[Mapping[str, Any]], measures: Sequence[Measure], folder: Path) -> None:
        """Nothing: no script of the authors is known."""
