"""The λ figure, measured on the small world and held against the published one.

Every edit is decoded without hold, held by its heat map at every λ, held by the true mask, and (some of the edits) held
at random in as many cells (by the rule "agree": offered as many, see `Hold`). Pasting decodes nothing: it is the edit
of λ = 0 with the source's pixels wherever that edit's own heat map is below λ.

What is shared: all holds of an edit have its tokens, its text, its truth and the first pass through the network in
common; λ = 0 is the first point of every curve; the true mask is the same at every λ > 0, so that one decoding stands
for all; and wherever two holds come to the same tokens they share every further pass (see `sweep`). What that saves is
printed and kept in the JSON: the passes that were run, and those of the same curves made one edit at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ...basics.fingerprints import weights_fingerprint
from ...editor import Editor
from ...errors import SettingError
from ...images import to_images, to_tensor
from ...metrics.report import save_figure, save_json
from ...metrics.truth import Truth, draw_truths
from ..options import OF_NO_MATTER
from ..sweep import HEAT, MASK, RANDOM, Hold, Swept, sweep
from .curves import METRICS, PASTE, PUBLISHED, LambdaCurves
from .plot import categories_figure, controls_figure, lambda_figure

SHOWN = ("remove", "add")  # the rows of pictures, as published


@dataclass(frozen=True)
class Example:
    """One edit to show. pictures: at every λ; source: as the tokenizer shows it; fall: of the score to the last λ."""

    number: int
    instruction: str
    source: Image.Image
    pictures: list[Image.Image]
    fall: float


def measure(
    editor: Editor,
    *,
    split: str = "test",
    category: str | None = None,
    count: int = 200,
    random_count: int = 60,
    thresholds: Sequence[float] = PUBLISHED["lambda"],
    batch: int = 2,
    seed: int = 0,
    hold: str | None = None,
    progress: bool = True,
    **options: Any,
) -> tuple[LambdaCurves, dict[str, Example]]:
    """The curves over the edits 0 … count - 1 of a split, and the edit of each category in SHOWN that falls most.

    category: one, or None for all in the published proportions. random_count: the random hold is measured on so many of
    the first edits, in whole batches. thresholds: λ, rising from 0. batch: edits at a time, of no influence on their
    results but rounding. hold: a rule in decoding.HOLDS, None is the model's own. options: as in `Editor.edit`; without
    any, the model's own. Raises SettingError.
    """
    check_thresholds(thresholds)
    weights = weights_fingerprint(editor, without=OF_NO_MATTER)
    editor = editor.with_defaults(hold=hold or editor.defaults.hold)
    above = thresholds[1:]
    known: dict[str, dict[str, list[np.ndarray]]] = {}
    categories, examples, passes, alone = [], {}, 0, 0
    with tqdm(total=count, desc="sweeping λ", unit="edit", disable=not progress) as bar:
        for truth in draw_truths(editor, split=split, count=count, category=category, batch=batch):
            holds = [Hold(HEAT, each) for each in thresholds] + [Hold(MASK, thresholds[-1])]
            if truth.numbers[0] < random_count:
                holds += [Hold(RANDOM, each) for each in above]
            swept = sweep(editor, truth, holds, seed=seed, **options)
            rows = pictures_of(editor, truth, swept, thresholds)
            for held_by, outputs in rows.items():
                for metric, values in scored(truth, outputs).items():
                    known.setdefault(held_by, {}).setdefault(metric, []).append(values)
            for name, values in missed_and_loose(truth, swept, len(thresholds), editor.vq.config.factor).items():
                known[HEAT].setdefault(name, []).append(values)
            keep_falls(examples, truth, rows[HEAT], known[HEAT]["score"][-1])
            categories += [sample.category for sample in truth.samples]
            passes += swept.passes
            alone += swept.alone + swept.alone // len(holds) * (len(above) - 1)  # the true mask, once for each λ
            bar.update(len(truth.samples))
    values = {hold: {name: padded(parts, count) for name, parts in lists.items()} for hold, lists in known.items()}
    values.setdefault(RANDOM, {metric: np.full((len(thresholds), count), np.nan) for metric in METRICS})
    task = truth.task(editor, seed, **options)
    used = {name: value for name, value in asdict(task.settings).items() if name not in ("hold_threshold", "seeds")}
    settings = {"split": split, "category": category or "all", "count": count, "random_count": random_count}
    settings |= {"seed": seed, "weights": weights, "hold": editor.defaults.hold}
    settings |= used | {"passes": passes, "passes_alone": alone}
    return LambdaCurves(settings, tuple(categories), tuple(thresholds), values), examples


def pictures_of(editor: Editor, truth: Truth, swept: Swept, thresholds: Sequence[float]) -> dict[str, list[Tensor]]:
    """For every hold a batch of pictures [B, 3, H, W] at every λ, decoded once for each that differs."""
    decoded = to_tensor(editor.detokenize(swept.tokens.flatten(0, 1))).unflatten(0, swept.tokens.shape[:2])
    made = dict(zip(swept.holds, decoded, strict=True))
    free, above = made[Hold(HEAT, thresholds[0])], thresholds[1:]
    rows = {HEAT: [made[Hold(HEAT, each)] for each in thresholds]}
    rows[MASK] = [free] + [made[Hold(MASK, thresholds[-1])]] * len(above)
    if Hold(RANDOM, thresholds[-1]) in made:
        rows[RANDOM] = [free] + [made[Hold(RANDOM, each)] for each in above]
    rows[PASTE] = [pasted(free, truth.sources, swept.heat[0] < each) for each in thresholds]
    return rows


def pasted(pictures: Tensor, sources: Tensor, cells: Tensor) -> Tensor:
    """The source's pixels in these cells, bool [B, h, w], the picture's elsewhere; pictures, sources: [B, 3, H, W]."""
    height, width = (size // count for size, count in zip(pictures.shape[2:], cells.shape[1:], strict=True))
    where = cells.repeat_interleave(height, dim=1).repeat_interleave(width, dim=2)
    return torch.where(where[:, None], sources, pictures)


def scored(truth: Truth, rows: Sequence[Tensor]) -> dict[str, np.ndarray]:
    """metric → [λ, B] of pictures [B, 3, H, W] at every λ."""
    scores = [truth.scores(outputs) for outputs in rows]
    return {
        "l1": np.array([(outputs - truth.sources).abs().double().mean(dim=(1, 2, 3)).numpy() for outputs in rows]),
        "l1_outside": np.array([[each.leakage for each in row] for row in scores]),
        "score": np.array([[each.score for each in row] for row in scores]),
    }


def missed_and_loose(truth: Truth, swept: Swept, thresholds: int, factor: int) -> dict[str, np.ndarray]:
    """[λ, B] of the hold by heat: the share of the edit's cells that are held, and of all others that are not."""
    held, edited = swept.held[:thresholds].flatten(2).double(), truth.edit_cells(factor).flatten(1).double()

    def share(cells: Tensor, of: Tensor) -> np.ndarray:
        return ((cells * of).sum(-1) / of.sum(-1)).numpy()  # NaN for an edit of the whole picture, which has no others

    return {"missed": share(held, edited), "loose": share(1 - held, 1 - edited)}


def keep_falls(examples: dict[str, Example], truth: Truth, rows: Sequence[Tensor], scores: np.ndarray) -> None:
    """Take the batch's edits into `examples` whose score falls most from λ = 0 to the last; the first one stays."""
    for i, sample in enumerate(truth.samples):
        fall = float(scores[0, i] - scores[-1, i])
        if sample.category not in SHOWN or not fall > getattr(examples.get(sample.category), "fall", -np.inf):
            continue
        pictures = to_images(torch.stack([outputs[i] for outputs in rows]))
        source = to_images(truth.sources[i : i + 1])[0]
        examples[sample.category] = Example(truth.numbers[i], sample.instruction, source, pictures, fall)


def padded(parts: Sequence[np.ndarray], count: int) -> np.ndarray:
    """Batches [λ, B] one behind the other, [λ, count]; NaN for the edits that were not measured."""
    known = np.concatenate(parts, axis=1)
    return np.pad(known, ((0, 0), (0, count - known.shape[1])), constant_values=np.nan)


def check_thresholds(thresholds: Sequence[float]) -> None:
    rising = all(a < b for a, b in zip(thresholds, thresholds[1:], strict=False))
    if len(thresholds) < 2 or thresholds[0] != 0 or not rising or thresholds[-1] > 1:
        raise SettingError(
            f"thresholds are {list(thresholds)}", expected="0, then rising, up to 1", fix="leave them out for the usual"
        )


def save(curves: LambdaCurves, examples: dict[str, Example], folder: Path, name: str = "lambda_figure") -> list[Path]:
    """Write the figure as .png, .svg and .json, and as .png its controls and its categories; returns the paths."""
    main = lambda_figure(curves, examples)
    figures = {"": main, "_controls": controls_figure(curves), "_categories": categories_figure(curves)}
    paths = [folder / f"{name}{ending}" for ending in (".json", ".svg")]
    save_json(curves.to_dict(), paths[0])
    with matplotlib.rc_context({"svg.hashsalt": "lambda"}):  # else its ids are random
        save_figure(main, paths[1], metadata={"Date": None})
    for ending, figure in figures.items():
        paths.append(folder / f"{name}{ending}.png")
        save_figure(figure, paths[-1], dpi=150, metadata={"weights": curves.settings["weights"]})
    return paths
