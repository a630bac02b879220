"""AnyBench, the test set of AnyEdit (Yu et al. 2025): 25 types of edits with ground truth.

Two published forms are read. AnyEdit-Test.zip, which the readme of weichow23/AnySD links: a folder for each type with
edit_result.json, a list of {edit (the instruction), "edited object", input, output (captions), edit_type, visual_input,
image_file, edited_file}; file names are relative to the folder that holds the types' folder (the readme of
DCDmllm/AnyEdit has such an item). And the hub's Bin1117/AnyEdit, split "validation" (its dataset card): image_id,
edit_instruction, edit_type, image_file, edited_file, visual_input (pictures), input, output. The zip's folders were not
seen; what is written here of them is what the authors' scripts open.

The seven visual_* types want a reference picture beside the instruction, which no editor here takes: they are reported
as skipped. Targets of "outpaint" and others have another aspect than their source: they are kept, as by the authors.

Scored as anybench/eval/anybench_gen_eval.py does: L1, CLIP-I (ViT-B/32) and DINO (ViT-S/16) to the target, CLIP-T to
the output caption, by type. That script resizes the target to the output and leaves out black outputs; here the output
is resized to the target, as MagicBrush does, and black ones count. Outputs lie as {type}/{name of the source's file},
where that script looks for them: as PNG, even where the name ends otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..basics.folders import within
from ..data.rows import Opened
from ..data.tables import files_of, picture_bytes, read_json_file, read_rows, text_or_none
from ..errors import DataError
from ..metrics.backbones import PUBLISHED
from ..metrics.measured import ALL
from ..metrics.measures import TARGET, TARGET_CAPTION, Measure
from .edits import Row, by_group, check_whole

RESULTS = "edit_result.json"
HUB_SPLIT = "validation"


class AnyBench:
    """split: of the hub's files, "validation" if left out; the zip is one split, and takes no other."""

    name, hub, masks, networks, headline = "anybench", "Bin1117/AnyEdit", False, PUBLISHED, ALL
    plan = (
        ("CLIP-I", TARGET), ("CLIP-T", TARGET_CAPTION), ("L1", TARGET), ("L2", TARGET), ("DINO", TARGET),
        ("DINOv2", TARGET), ("LPIPS", TARGET), ("L1", "source"),
    )  # fmt: skip

    def __init__(self, split: str | None = None):
        self.split = split or HUB_SPLIT

    def rows(self, data: str | os.PathLike[str]) -> Iterator[Row]:
        folder = Path(data).expanduser()
        tables = files_of(folder, RESULTS)
        if tables:
            check_whole(self.split, HUB_SPLIT, tables[0])
        seen: set[str] = set()
        for number, row in enumerate(_zipped(folder, tables) if tables else read_rows(data, self.split)):
            kind = str(row.get("edit_type"))
            file = row.get("image_file")
            source = Path(file) if tables and isinstance(file, str) else Path()
            name = row.get("image_id") or source.stem
            key = f"{kind}/{name or f'row{number}'}"
            key = f"{key}_{number}" if key in seen else key
            seen.add(key)
            visual = kind.startswith("visual_")
            yield Row(
                key=key,
                file=f"{key}{source.suffix or '.png'}",
                group=kind,
                instruction=row.get("edit", row.get("edit_instruction")),
                source=picture_bytes(file, folder if tables else None),
                target=picture_bytes(row.get("edited_file"), folder if tables else None),
                wants_target=True,
                lines_up=False,
                source_caption=text_or_none(row.get("input")),
                target_caption=text_or_none(row.get("output")),
                problem=f"{kind} wants a reference picture" if visual else None if name else "it has no picture's name",
            )

    def groups(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
        return by_group(rows)

    def about(self, rows: Sequence[Mapping[str, Any]]) -> str:
        return "types that want a reference picture (visual_*) are skipped"

    def keep(self, row: Row, opened: Opened, folder: Path) -> None:
        """Nothing: sources and targets are in the data set."""

    def finish(self, rows: Sequence[Mapping[str, Any]], measures: Sequence[Measure], folder: Path) -> None:
        """Nothing: the script reads pictures only."""


def _zipped(folder: Path, tables: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """The rows of all tables, their pictures named from the data set's folder."""
    for table in tables:
        rows = read_json_file(table)
        for row in rows if isinstance(rows, list) else []:
            row = row if isinstance(row, dict) else {}
            named = {name: row[name] for name in ("image_file", "edited_file") if isinstance(row.get(name), str)}
            yield row | {name: _placed(folder, table, file) for name, file in named.items()}


def _placed(folder: Path, table: Path, name: str) -> str:
    """anybench/{type}/edit_result.json names anybench/{type}/…, relative to what holds "anybench": the nearest of the
    folders above it in which the picture is, if that is in the data set."""
    places = [os.path.relpath(root / name, folder) for root in list(table.parents)[:4]]
    for place in places:
        with suppress(DataError, OSError):
            if within(folder, place).is_file():
                return place
    return places[0]
