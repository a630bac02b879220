"""GEdit-Bench (Liu et al. 2025), its English half whole: GEdit-EN-full.

Schema (the hub's stepfun-ai/GEdit-Bench, arrow files, one split "train"; the columns are listed in
GEdit-Bench/generate_image_example.py of stepfun-ai/Step1X-Edit): task_type (one of GROUPS), key, instruction,
instruction_language ("en" or "cn"), input_image, input_image_raw, Intersection_exist (whether every compared model
answered it). Rows in Chinese belong to the other half: they are passed over, not counted as bad.

Scored by VIEScore with a judge (run_gedit_score.py there, kept in weichow23/EditMGT as eval/geditbench/rate.py):
pictures of 512² px of area, SC and PQ as the smaller of their parts, overall √(SC·PQ) for each row; the mean of a task,
then the mean of the tasks. Outputs lie as fullset/{task_type}/en/{key}.png, at the size of the source, beside
{key}_SRCIMG.png; scores as csv/{answer}/{judge}/{answer}_{task_type}_en_vie_score.csv, with the columns (and the
spelling) that calculate_statistics.py reads (kept as eval/geditbench/stat.py; csv/ is its --save_path). There is no
target; L1 to the source is ours, for the λ figure.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..basics.folders import is_stray, write_text, written_whole
from ..data.rows import Opened
from ..data.tables import picture_bytes, read_rows
from ..metrics.measured import ALL
from ..metrics.measures import SOURCE, Measure
from .edits import Row, by_group, folder_name, save_picture

GROUPS = (
    "background_change", "color_alter", "material_alter", "motion_change", "ps_human", "style_change", "subject-add",
    "subject-remove", "subject-replace", "text_change", "tone_transfer",
)  # fmt: skip
COLUMNS = (
    "key", "edited_image", "instruction", "sementics_score", "quality_score", "intersection_exist",
    "instruction_language",
)  # fmt: skip
SEMANTIC, QUALITY = "VIEScore semantic, source", "VIEScore quality, source"


class GEdit:
    """split: of the files; the hub has "train" alone, and its arrow files do not name it."""

    name, hub, masks, networks, headline = "gedit", "stepfun-ai/GEdit-Bench", False, {}, ALL
    plan = (
        ("VIEScore semantic", SOURCE), ("VIEScore quality", SOURCE), ("VIEScore overall", SOURCE), ("L1", SOURCE),
        ("LPIPS", SOURCE),
    )  # fmt: skip

    def __init__(self, split: str | None = None):
        self.split = split

    def rows(self, data: str | os.PathLike[str]) -> Iterator[Row]:
        for number, row in enumerate(read_rows(data, self.split)):
            if row.get("instruction_language") == "cn":
                continue
            task, key = row.get("task_type"), row.get("key")
            raw = row.get("input_image_raw") or row.get("input_image")
            yield Row(
                key=str(key or f"row{number}"),
                file=f"fullset/{task}/en/{key or f'row{number}'}.png",
                group=str(task),
                instruction=row.get("instruction"),
                source=picture_bytes(raw),
                problem=None if key and task in GROUPS else f"it has no key, or the unknown task {task!r}",
                extra={"intersection": bool(row.get("Intersection_exist"))},
            )

    def groups(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[int]]:
        shared = [index for index, row in enumerate(rows) if row["extra"]["intersection"]]
        return by_group(rows) | ({"intersection": shared} if shared else {})

    def about(self, rows: Sequence[Mapping[str, Any]]) -> str:
        about = "the published average is the mean of the tasks' means: results.txt has each"
        judged = any(SEMANTIC in scores for row in rows for scores in row.get("scores", {}).values())
        return about + (", gedit.txt their mean" if judged else ", of the judge's scores, which this run does not have")

    def keep(self, row: Row, opened: Opened, folder: Path) -> None:
        for answer in (path for path in folder.iterdir() if not is_stray(path.name) and (path / row.file).exists()):
            output = answer / row.file
            save_picture(opened.source, output.with_name(f"{output.stem}_SRCIMG.png"))

    def finish(self, rows: Sequence[Mapping[str, Any]], measures: Sequence[Measure], folder: Path) -> None:
        judges = [each.backbone for each in measures if each.key == SEMANTIC]
        if not judges or not rows:
            return
        lines = []
        for answer in rows[0]["scores"]:
            means = {}
            for task, places in by_group(rows).items():
                judged = [rows[i] for i in places if QUALITY in rows[i]["scores"][answer]]
                name, judge = folder_name(answer), folder_name(judges[0])
                file = folder / "csv" / name / judge / f"{name}_{task}_en_vie_score.csv"
                with written_whole(file) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as stream:
                    writer = csv.writer(stream)
                    writer.writerow(COLUMNS)
                    writer.writerows(_line(row, answer) for row in judged)
                scores = [_overall(row["scores"][answer]) for row in judged]
                if scores:
                    means[task] = sum(scores) / len(scores)
            known = [f"{task} {mean:.3f}" for task, mean in means.items()]
            average = f"{sum(means.values()) / len(means):.3f}" if means else "none"
            lines.append(f"{answer}: average of {len(means)} tasks {average}; {', '.join(known)}")
        write_text(folder / "gedit.txt", "\n".join(lines) + "\n")


def _line(row: Mapping[str, Any], answer: str) -> list[Any]:
    scores = row["scores"][answer]
    picture = f"{folder_name(answer)}/{row['file']}"
    judged = [scores[SEMANTIC], scores[QUALITY]]
    return [row["key"], picture, row["instruction"], *judged, row["extra"]["intersection"], "en"]


def _overall(scores: Mapping[str, float]) -> float:
    return math.sqrt(scores[SEMANTIC] * scores[QUALITY])
