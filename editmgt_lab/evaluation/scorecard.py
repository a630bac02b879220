"""The score card: how often the edit is done, how much else changes, and whether the heat map finds the place."""

from __future__ import annotations

import json
import math
import operator
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from .. import crisp
from ..crisp import EditSample
from ..editor import Editor
from ..errors import SettingError
from ..images import to_images, to_tensor
from ..results import EditResult
from .metrics import bootstrap_interval, edit_score, leakage, roc_auc, success

OVERALL = "overall"
COPY, TARGET, NO_HOLD = "copy the source", "the target itself", "no hold"
METRICS = {  # name → head of the column, factor, digits
    "score": ("edit score", 1, 2),
    "success": ("success %", 100, 0),
    "leakage": ("leakage", 1, 4),
    "localisation": ("localisation", 1, 3),
}


@dataclass(frozen=True)
class Scores:
    """Of one edit; NaN where there is nothing to measure. See `metrics` for what they mean."""

    score: float
    leakage: float
    success: float
    localisation: float = math.nan

    @property
    def rank(self) -> tuple[float, float]:
        """By which edits are compared: the higher score, then the smaller leakage."""
        return self.score, -self.leakage if self.leakage == self.leakage else 0.0


@dataclass(frozen=True)
class Example:
    """One edit to show: source and target as the tokenizer shows them, and what came out."""

    instruction: str
    scores: Scores
    pictures: tuple[Image.Image, Image.Image, Image.Image]  # source, output, target


@dataclass
class ScoreCard:
    """The scores of `count` edits. Rows are the ways to answer, from doing nothing to the hold.

    settings: what was measured and how; edits: number, category and instruction of each; rows: name → one Scores for
    each edit; seconds: name → seconds an edit; examples: (category, "best" or "worst") → that edit of the last row.
    """

    settings: dict[str, Any]
    edits: list[dict[str, Any]] = field(default_factory=list)
    rows: dict[str, list[Scores]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    examples: dict[tuple[str, str], Example] = field(default_factory=dict)

    def values(self, row: str, metric: str, category: str = OVERALL) -> list[float]:
        """One metric of one row, edit by edit, without those that have none."""
        chosen = zip(self.edits, self.rows[row], strict=True)
        values = [getattr(scores, metric) for edit, scores in chosen if category in (OVERALL, edit["category"])]
        return [value for value in values if not math.isnan(value)]

    def summary(self) -> dict[str, dict[str, dict[str, dict[str, float | None]]]]:
        """category → row → metric → mean, low and high (95% bootstrap interval), count (of edits that have it)."""
        return {
            category: {row: {metric: self._summary(row, metric, category) for metric in METRICS} for row in self.rows}
            for category in self.categories
        }

    def _summary(self, row: str, metric: str, category: str) -> dict[str, float | None]:
        values = self.values(row, metric, category)
        if not values:
            return {"mean": None, "low": None, "high": None, "count": 0}
        low, high = bootstrap_interval(values, self.settings["seed"])
        return {"mean": sum(values) / len(values), "low": low, "high": high, "count": len(values)}

    @property
    def categories(self) -> list[str]:
        """First "overall", then those that occur."""
        found = {edit["category"] for edit in self.edits}
        return [OVERALL, *(category for category in crisp.CATEGORIES if category in found)]

    def table(self) -> str:
        """Plain text: every category by every row, means with their 95% intervals."""
        lines = [["category", "answer", "edits", *(head for head, _, _ in METRICS.values())]]
        for category, rows in self.summary().items():
            edits = sum(category in (OVERALL, edit["category"]) for edit in self.edits)
            for index, (row, metrics) in enumerate(rows.items()):
                cells = [cell(metrics[name], factor, digits) for name, (_, factor, digits) in METRICS.items()]
                lines.append([category if index == 0 else "", row, str(edits) if index == 0 else "", *cells])
        return align(lines) + "\n\n" + "\n".join(self._notes())

    def _notes(self) -> list[str]:
        settings = dict(self.settings)
        split, count, seed = (settings.pop(name) for name in ("split", "count", "seed"))
        notes = [f"{count} edits of the {split} split, seed {seed}; in brackets 95% bootstrap intervals of the mean"]
        notes.append(", ".join(f"{name} {value}" for name, value in settings.items()))
        for metric, why in (("score", "the tokenizer shows no difference"), ("leakage", "the edit is all the picture")):
            missing = count - len(self.values(COPY, metric))
            if missing:
                notes.append(f"{missing} edits have no {metric}: {why}")
        return [*notes, *(f"{row}: {seconds:.3f} s an edit" for row, seconds in self.seconds.items())]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, ready for JSON; null where there is nothing to measure."""

        def known(scores: Scores) -> dict[str, float | None]:
            return {name: None if math.isnan(value) else value for name, value in asdict(scores).items()}

        edits = [
            edit | {"rows": {row: known(scores[index]) for row, scores in self.rows.items()}}
            for index, edit in enumerate(self.edits)
        ]
        return {
            "settings": self.settings,
            "summary": self.summary(),
            "seconds_per_edit": self.seconds,
            "edits": edits,
        }

    def gallery(self) -> Figure:
        """Of the last row, per category: the worst edit (lowest score, then most leakage) and the best one."""
        categories = [category for category in self.categories if (category, "best") in self.examples]
        figure = Figure(figsize=(11, 2.1 * len(categories) + 0.4), layout="constrained")
        figure.suptitle(f"{list(self.rows)[-1]}: source, output, target")
        grid = figure.subfigures(max(len(categories), 1), 2, squeeze=False)
        for row, category in zip(grid, categories, strict=False):
            for part, which in zip(row, ("worst", "best"), strict=True):
                example = self.examples[category, which]
                part.suptitle(
                    f"{category}, {which} ({example.scores.score:.1f}): {example.instruction}", fontsize="small"
                )
                for axes, picture in zip(part.subplots(1, 3), example.pictures, strict=True):
                    axes.imshow(picture)
                    axes.axis("off")
        return figure

    def save(self, folder: Path) -> list[Path]:
        """Write scorecard.json, scorecard.txt (the table) and gallery.png; returns their paths."""
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / name for name in ("scorecard.json", "scorecard.txt", "gallery.png")]
        paths[0].write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        paths[1].write_text(self.table() + "\n", encoding="utf-8")
        self.gallery().savefig(paths[2], dpi=110)
        return paths


def evaluate(
    editor: Editor,
    *,
    split: str = "test",
    count: int = 500,
    category: str | None = None,
    hold_thresholds: Sequence[float] | None = None,
    steps: int = 12,
    guidance_scale: float | None = None,
    strength: float = 1.0,
    batch: int = 20,
    seed: int = 0,
    progress: bool = True,
) -> ScoreCard:
    """Score the editor on the small world's edits 0 … count - 1 of a split (design: edit scores on the small world).

    category: one, or None for all in the published proportions. Rows: copy the source; the target itself, which shows
    how much the tokenizer's bleeding alone leaks; no hold (λ = 0); and the hold for every λ of hold_thresholds (None:
    the model's own). guidance_scale: None is the model's own. batch: edits at a time, of no influence on their results
    but rounding. seed: edit i decodes with seed + i; also of the intervals.

    Raises SettingError for a setting out of range.
    """
    if count < 1 or batch < 1:
        raise SettingError(f"count is {count}, batch {batch}", expected="1 or more", fix="500 edits by 20 are usual")
    chosen = [editor.defaults.hold_threshold] if hold_thresholds is None else hold_thresholds
    ways = {NO_HOLD: 0.0} | {f"hold {threshold:g}": threshold for threshold in chosen if threshold != 0}
    card = ScoreCard(
        {"split": split, "count": count, "seed": seed, "category": category or "all"},
        rows={row: [] for row in (COPY, TARGET, *ways)},
        seconds=dict.fromkeys(ways, 0.0),
    )
    size = round(editor.defaults.image_size / editor.multiple) * editor.multiple
    with tqdm(total=count * len(ways), desc="evaluating", unit="edit", disable=not progress) as bar:
        for start in range(0, count, batch):
            numbers = range(start, min(start + batch, count))
            samples = [crisp.sample_edit(i, split=split, category=category, size=size) for i in numbers]
            truth = Truth.of(editor, samples)
            for number, sample in zip(numbers, samples, strict=True):
                card.edits.append({"edit": number, "category": sample.category, "instruction": sample.instruction})
            card.rows[COPY] += truth.scores(truth.sources)
            card.rows[TARGET] += truth.scores(truth.targets)
            for row, threshold in ways.items():
                began = time.perf_counter()
                result = editor.edit(
                    [sample.source for sample in samples],
                    [sample.instruction for sample in samples],
                    hold_threshold=threshold,
                    steps=steps,
                    guidance_scale=guidance_scale,
                    strength=strength,
                    seed=[seed + i for i in numbers],
                )
                card.seconds[row] += (time.perf_counter() - began) / count
                card.rows[row] += truth.scores(to_tensor(result.images), result.heat)
                bar.update(len(samples))
            keep_extremes(card.examples, truth, result, card.rows[row][start:])
    card.settings |= shared_settings(result)
    return card


@dataclass(frozen=True)
class Truth:
    """What the edits of one batch are held against. sources, targets: [B, 3, H, W]; masks: bool [B, H, W]."""

    samples: list[EditSample]
    sources: Tensor
    targets: Tensor
    masks: Tensor

    @classmethod
    def of(cls, editor: Editor, samples: list[EditSample]) -> Truth:
        """Sources and targets pass through the editor's tokenizer."""
        shown = to_tensor(editor.detokenize(editor.tokenize([s.source for s in samples] + [s.target for s in samples])))
        sources, targets = shown.chunk(2)
        return cls(samples, sources, targets, to_tensor([s.mask for s in samples])[:, 0] > 0.5)

    def scores(self, outputs: Tensor, heat: Tensor | None = None) -> list[Scores]:
        """outputs: [B, 3, H, W]; heat: [B, h, w], or None for rows that have no heat map."""
        scores = []
        for i, (output, source, mask) in enumerate(zip(outputs, self.sources, self.masks, strict=True)):
            score, leaked = edit_score(output, source, self.targets[i], mask), leakage(output, source, mask)
            found = math.nan if heat is None else roc_auc(heat[i], mask)
            scores.append(Scores(score, leaked, success(score, leaked), found))
        return scores


def keep_extremes(
    examples: dict[tuple[str, str], Example], truth: Truth, result: EditResult, scores: Sequence[Scores]
) -> None:
    """Take the batch's worst and best edits into `examples` where they go beyond what is there; the first one stays."""
    shown = zip(to_images(truth.sources), result.images, to_images(truth.targets), strict=True)
    for sample, pictures, each in zip(truth.samples, shown, scores, strict=True):
        if math.isnan(each.score):
            continue
        for which, beyond in (("worst", operator.lt), ("best", operator.gt)):
            place = (sample.category, which)
            if place not in examples or beyond(each.rank, examples[place].scores.rank):
                examples[place] = Example(sample.instruction, each, pictures)


def shared_settings(result: EditResult) -> dict[str, Any]:
    """What all edits were decoded with, whatever the row."""
    settings = asdict(result.settings)
    return {name: value for name, value in settings.items() if name not in ("hold_threshold", "seeds")}


def cell(metric: dict[str, float | None], factor: int, digits: int) -> str:
    if not metric["count"]:
        return "–"
    mean, low, high = (f"{factor * metric[name]:.{digits}f}" for name in ("mean", "low", "high"))
    return f"{mean} ({low}–{high})"


def align(lines: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, the first two to the left, with a rule under the head."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = []
    for line in lines:
        cells = zip(line, widths, strict=True)
        rows.append("  ".join(f"{text:{'<' if i < 2 else '>'}{width}}" for i, (text, width) in enumerate(cells)))
    return "\n".join([rows[0], "─" * len(rows[0]), *rows[1:]])
