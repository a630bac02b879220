"""The card of measured edits: every measure of every answer with its interval, as a table, JSON and pictures."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from ..basics.folders import write_text
from ..plain_text import legible, literal, one_line
from .arithmetic import summary
from .measures import WHOLE, Measure
from .report import align, cell, save_figure, save_json

ALL = "all"
DIGITS = {"PSNR": 2}  # of those whose range is not 0 to 1
UNITS = {"PSNR": "dB"}
Scored = Mapping[str, Mapping[str, float]]  # answer → key of a measure → value


@dataclass(frozen=True)
class Shown:
    """One edit of the page of pictures, chosen by rule: name → picture, in order."""

    caption: str
    pictures: Mapping[str, Image.Image]


@dataclass
class MeasuredCard:
    """Edits, each with the values of every answer.

    title: of what; measures: in the order of the table; groups: which edits are averaged together; scored: one for each
    edit; absent: measure → why it is left out; notes: what else is to be said (rows that were skipped, captions that
    were cut); shown: edits for the page of pictures; headline: the group that stands first and is drawn, `ALL`, or one
    of `groups` where an edit may count more than once: then no number is of all.
    """

    title: str
    measures: Sequence[Measure]
    answers: Sequence[str]
    scored: Sequence[Scored]
    groups: Mapping[str, Sequence[int]] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    shown: Sequence[Shown] = ()
    seed: int = 0
    headline: str = ALL

    def values(self, answer: str, key: str, group: str = ALL) -> list[float]:
        """One measure of one answer, edit by edit, without those that have none."""
        places = range(len(self.scored)) if group == ALL else self.groups[group]
        values = [self.scored[i].get(answer, {}).get(key, math.nan) for i in places]
        return [value for value in values if not math.isnan(value)]

    def summary(self) -> dict[str, dict[str, dict[str, dict[str, float | None]]]]:
        """group → answer → key of a measure → mean, low, high (95% bootstrap interval of the mean) and count.

        Where a value is infinite (the PSNR of equal pictures) the mean is None and `infinite` counts them.
        """
        return {
            group: {
                answer: {each.key: _summary(self.values(answer, each.key, group), self.seed) for each in self.measures}
                for answer in self.answers
            }
            for group in dict.fromkeys((self.headline, *self.groups))
        }

    def table(self) -> str:
        """Plain text: a line for each measure, with all that it depends on, and a column for each answer."""
        pages, found = [], self.summary()
        for group, answers in found.items():
            count = len(self.scored) if group == ALL else len(self.groups[group])
            head = ["measure", "better", "compared with", "part", "backbone", "preprocessing", *self.answers]
            lines = [head]
            for each in self.measures:
                digits = DIGITS.get(each.name, 4)
                cells = [_cell(answers[answer][each.key], digits, count) for answer in self.answers]
                described = [
                    each.name,
                    each.better or "–",
                    each.reference,
                    each.part,
                    each.backbone,
                    each.preprocessing or "–",
                ]
                lines.append([*described, *cells])
            pages.append(f"{one_line(group)}: {count} edits\n\n{align(lines, left=6)}")
        notes = [f"left out: {key}: {why}" for key, why in self.absent.items()] + list(self.notes)
        notes.append("in brackets 95% bootstrap intervals of the mean; n: of how many edits, where not of all")
        return legible(f"{self.title}\n\n" + "\n\n\n".join(pages) + "\n\n" + "\n".join(notes))

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, ready for JSON."""
        return {
            "title": self.title,
            "measures": {each.key: each.describe() for each in self.measures},
            "absent": dict(self.absent),
            "notes": list(self.notes),
            "summary": self.summary(),
        }

    @literal
    def figure(self) -> Figure:
        """A panel for each measure: mean and interval of every answer over the edits of the headline's group."""
        found = self.summary()[self.headline]
        panels = [each for each in self.measures if any(found[answer][each.key]["count"] for answer in self.answers)]
        columns = min(3, max(1, len(panels)))
        rows = math.ceil(len(panels) / columns) or 1
        height = rows * (0.8 + 0.28 * len(self.answers)) + 0.8
        figure = Figure(figsize=(4.4 * columns, height), layout="constrained")
        figure.suptitle(self.title if self.headline == ALL else f"{self.title}, {self.headline}")
        grid = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
        places = range(len(self.answers))
        for axes, each in zip(grid, panels, strict=False):
            for place, answer in enumerate(self.answers):
                _draw(axes, place, found[answer][each.key])
            axes.set_yticks(places, [one_line(each) for each in self.answers], fontsize="small")
            axes.set_ylim(len(self.answers) - 0.5, -0.5)
            part = "" if each.part == WHOLE else f", {each.part} the edit"
            better = f" ({each.better} is better)" if each.better else ""
            axes.set_title(f"{each.name}: {each.reference}{part}{better}", fontsize="small")
            unit = f"{UNITS[each.name]}, " if each.name in UNITS else ""
            axes.set_xlabel(f"{unit}by {each.backbone}", fontsize="x-small")
            axes.tick_params(labelsize="x-small")
            axes.grid(axis="x", alpha=0.3)
        for axes in grid[len(panels) :]:
            axes.axis("off")
        return figure

    @literal
    def gallery(self) -> Figure:
        """The edits of `shown`: one line each, its pictures under their names."""
        columns = max((len(each.pictures) for each in self.shown), default=1)
        rows = max(len(self.shown), 1)
        figure = Figure(figsize=(2.1 * columns, 2.6 * rows + 0.5), layout="constrained")
        figure.suptitle(self.title)
        for part, each in zip(figure.subfigures(rows, 1, squeeze=False).flat, self.shown, strict=False):
            part.suptitle(textwrap.shorten(each.caption, 28 * columns), fontsize="small")
            panels = list(part.subplots(1, columns, squeeze=False).flat)
            for axes in panels:
                axes.axis("off")
            for axes, (name, picture) in zip(panels, each.pictures.items(), strict=False):
                axes.imshow(picture)
                axes.set_title(name, fontsize="small")
        return figure

    def save(self, folder: Path) -> list[Path]:
        """Write results.json, results.txt, results.png and, where edits are shown, gallery.png; returns their paths."""
        paths = [folder / f"results.{kind}" for kind in ("json", "txt", "png")]
        save_json(self.to_dict(), paths[0])
        write_text(paths[1], self.table() + "\n")
        save_figure(self.figure(), paths[2], dpi=110)
        if self.shown:
            paths.append(folder / "gallery.png")
            save_figure(self.gallery(), paths[3], dpi=110)
        return paths


def _summary(values: Sequence[float], seed: int) -> dict[str, float | None]:
    infinite = sum(map(math.isinf, values))
    if infinite:
        return {"mean": None, "low": None, "high": None, "count": len(values), "infinite": infinite}
    return summary(values, seed)


def _cell(found: Mapping[str, float | None], digits: int, edits: int) -> str:
    if found.get("infinite"):
        return f"∞ ({found['infinite']} of {found['count']})"
    return cell(found, 1, digits) + (f" n={found['count']}" if 0 < found["count"] < edits else "")


def _draw(axes: Any, place: int, found: Mapping[str, float | None]) -> None:
    if found["mean"] is None:
        text, at = ("∞", 0.97) if found.get("infinite") else ("–", 0.5)
        axes.text(at, place, text, transform=axes.get_yaxis_transform(), ha="center", va="center")
        return
    axes.plot([found["low"], found["high"]], [place, place], color="tab:blue", linewidth=2)
    axes.plot([found["mean"]], [place], "o", color="tab:blue")
