"""MagicBrush (Zhang et al. 2023): edits of one or more turns, with ground truth and masks.

Two published forms are read. On the hub, osunlp/MagicBrush (its dataset card; parquet files data/dev-* and
data/train-*): img_id (string), turn_index (int32, from 1), source_img, mask_img, instruction, target_img; a later
turn's source is the target of the turn before; mask_img is the source, transparent or white where the edit is. And
the test split, a zip from the authors' page: edit_sessions.json, {img_id: [{input, mask, output, instruction}, …]} with
file names, the pictures in images/{img_id}/, and local_descriptions.json and global_descriptions.json, {img_id: {file
name: caption}}. The zip was not seen: its form is what public code that reads it opens (anybench/eval/utils.py of
weichow23/AnySD, for one).
The hub's rows have no captions, so CLIP-T is only for the zip; as the authors' readme does, with the local ones.

Scored as evaluation/image_eval.py of OSU-NLP-Group/MagicBrush does: L1, L2, CLIP-I (ViT-B/32) and DINO (ViT-S/16)
to the ground truth, the output resized to it, and CLIP-T to its caption; over "all turns" (each turn from the true
picture before it) and "final turn" (the last turn, from the editor's own outputs). Outputs lie where that script looks
for them: {img_id}/{img_id}_1.png, {img_id}_inde_{k}.png (from the truth) and {img_id}_iter_{k}.png (from the own
output); of the hub's rows the truth is written beside them as ground_truth/{img_id}/{img_id}-output{k}.png, as its
--gt_path wants it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from PIL import Image

from ..data.rows import Opened
from ..data.tables import files_of, picture_bytes, read_json_file, read_rows, text_or_none
from ..errors import DataError
from ..images import read_mask, shows_by_alpha
from ..metrics.backbones import PUBLISHED
from ..metrics.measures import TARGET, TARGET_CAPTION, Measure
from .edits import Row, check_whole, save_picture

ALL_TURNS, FINAL_TURN = "all turns", "final turn"
HUB_SPLIT = "dev"


class MagicBrush:
    """split: of the hub's files, "dev" (the default) or "train"; the zip is one split, and takes no other."""

    name, hub, masks, networks, headline = "magicbrush", "osunlp/MagicBrush", True, PUBLISHED, ALL_TURNS
    plan = (
        ("L1", TARGET), ("L2", TARGET), ("CLIP-I", TARGET), ("DINO", TARGET), ("CLIP-T", TARGET_CAPTION),
        ("DINOv2", TARGET), ("LPIPS", TARGET), ("SSIM", TARGET), ("PSNR", TARGET), ("L1", "source"),
    )  # fmt: skip

    def __init__(self, split: str | None = None):
        self.split = split or HUB_SPLIT

    def rows(self, data: str | os.PathLike[str]) -> Iterator[Row]:
        folder = Path(data).expanduser()
        sessions = files_of(folder, "edit_sessions.json")
        if sessions:
            check_whole(self.split, HUB_SPLIT, sessions[0])
        turns = _zipped(sessions[0]) if sessions else _on_the_hub(read_rows(data, self.split))
        for image, session in groupby(turns, key=itemgetter(0)):  # the turns of a picture follow each other
            yield from _session(image, [(turn, fields) for _, turn, fields in session])

    def groups(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
        each = [index for index, row in enumerate(rows) if "_iter_" not in row["key"]]
        return {ALL_TURNS: each, FINAL_TURN: [index for index, row in enumerate(rows) if _is_final(row)]}

    def about(self, rows: Sequence[Mapping[str, Any]]) -> str:
        final = {row["extra"]["image"] for row in rows if "scores" in row and _is_final(row)}
        without = len({row["extra"]["image"] for row in rows} - final)
        return (
            "all turns: from the true picture; final turn: the last one, from the editor's own outputs; "
            f"{without} sessions have none, since a turn of theirs was skipped or lies beyond this run's rows"
        )

    def keep(self, row: Row, opened: Opened, folder: Path) -> None:
        image, turn = row.extra["image"], row.extra["turn"]
        if isinstance(row.target, Path) or row.after:  # the zip has the truth in place already
            return
        truth = folder / "ground_truth" / image
        save_picture(opened.target, truth / f"{image}-output{turn}.png")
        if turn == 1:
            save_picture(opened.source, truth / f"{image}-input.png")
        if opened.mask is not None:
            save_picture(opened.mask, truth / f"{image}-mask{turn}.png")

    def finish(self, rows: Sequence[Mapping[str, Any]], measures: Sequence[Measure], folder: Path) -> None:
        """Nothing: the script reads pictures only."""


def _session(image: str, turns: Sequence[tuple[int, dict[str, Any]]]) -> Iterator[Row]:
    """The rows of one picture's turns: each from the truth, and each later one from the editor's own output."""
    last, before = max(turn for turn, _ in turns), None
    for turn, fields in turns:
        name = f"{image}_1" if turn == 1 else f"{image}_inde_{turn}"
        extra = {"image": image, "turn": turn, "turns": last}
        whole = {"group": ALL_TURNS, "wants_target": True, "read_mask": edit_region, "extra": extra}
        own = Row(key=name, file=f"{image}/{name}.png", **whole, **fields)
        yield own
        if turn > 1:
            lost = None if before and before.extra["turn"] == turn - 1 else f"turn {turn - 1} does not come before it"
            name = f"{image}_iter_{turn}"
            fields = fields | {"problem": fields.get("problem") or lost}
            own = Row(key=name, file=f"{image}/{name}.png", after=before and before.key, **whole, **fields)
            yield own
        before = own


def _is_final(row: Mapping[str, Any]) -> bool:
    """Whether a row is the last turn of its session, from the editor's own outputs."""
    turn = row["extra"]["turn"]
    return turn == row["extra"]["turns"] and (turn == 1 or "_iter_" in row["key"])


def _on_the_hub(table: Iterator[dict[str, Any]]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    for number, row in enumerate(table):
        turn = row.get("turn_index")
        known = isinstance(turn, int) and turn >= 1 and row.get("img_id")
        yield (
            str(row["img_id"]) if known else f"row{number}",
            turn if known else 1,
            {
                "instruction": row.get("instruction"),
                "source": picture_bytes(row.get("source_img")),
                "target": picture_bytes(row.get("target_img")),
                "mask": picture_bytes(row.get("mask_img")),
                "problem": None if known else "it has no img_id and turn_index",
            },
        )


def _zipped(sessions: Path) -> Iterator[tuple[str, int, dict[str, Any]]]:
    captions = {}
    for kind in ("local", "global"):
        file = sessions.with_name(f"{kind}_descriptions.json")
        captions[kind] = read_json_file(file) if file.exists() else {}
    content = read_json_file(sessions)
    if not isinstance(content, dict):
        raise DataError(f"{sessions} is no object", expected="{img_id: [turn, …]}", fix="download it again")
    for image, turns in content.items():
        for turn, fields in enumerate(turns if isinstance(turns, list) else [turns], start=1):
            fields = fields if isinstance(fields, dict) else {}
            named = {name: fields[name] for name in ("input", "output", "mask") if isinstance(fields.get(name), str)}
            folder = sessions.with_name("images")
            files = {name: picture_bytes(f"{image}/{file}", folder) for name, file in named.items()}
            yield (
                image,
                turn,
                {
                    "instruction": fields.get("instruction"),
                    "source": files.get("input"),
                    "target": files.get("output"),
                    "mask": files.get("mask"),
                    "source_caption": _caption(captions["global"], image, named.get("input")),
                    "target_caption": _caption(captions["local"], image, named.get("output")),
                },
            )


def _caption(captions: Any, image: str, file: str | None) -> str | None:
    """What {img_id: {file name: caption}} says of a picture."""
    of_image = captions.get(image) if isinstance(captions, dict) else None
    return text_or_none(of_image.get(file)) if isinstance(of_image, dict) else None


def edit_region(mask: Image.Image, source: Image.Image) -> Image.Image:
    """A mask as opened and its source → "L" of the mask's size, white where the edit is. Raises ImageError.

    The authors publish RGBA masks, transparent where the edit is. Without alpha they show the source with the region in
    white (where the source is white itself that cannot be told, and counts as outside), or are black and white.
    """
    return read_mask(mask, source, reading="erased" if shows_by_alpha(mask) else None).image
