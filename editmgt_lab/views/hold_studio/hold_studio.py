"""The hold studio: move λ, see at once what is below it, and on release what is held and what comes of it, beside a
random hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import Future
from decimal import ROUND_HALF_UP, Context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ...editor import Editor
from ...errors import SettingError
from ...images import Geometry, Mask, Picture, fit_together, load_image, to_tensor
from ...inputs import check_texts
from ...metrics.arithmetic import edit_score, leakage
from ...results import EditResult
from ...settings import Settings
from ...world import EditSample
from ..figures import panels_figure
from ..overlays import HELD, VEIL, held_overlay
from ..recording import Progress, asked_of
from ..widget import LabWidget, Number, asked, heat_colours, packed, png, seeded

WAYS = ("by heat", "at random")


def hold_studio(
    editor: Editor,
    image: Picture | EditSample,
    instruction: str = "",
    *,
    threshold: float | None = 0.2,
    **settings: Any,
) -> HoldStudio:
    """Open the studio on a picture and an instruction, or on an edit of the drawn world, whose truth gives scores.

    threshold: λ to begin with (None: the model's own), rounded to three significant digits as every other; settings: as
    in `Editor.edit`, the same for every λ; the control stays within a mask. Raises ImageError, TextError and
    SettingError, also for what the studio itself chooses; what is wrong with the other settings stands in its message.
    """
    return HoldStudio(editor, image, instruction, threshold, settings)


class HoldStudio(LabWidget):
    """threshold: λ on the slider; results: what was made so far, by λ: the share and the cells really held (see
    EditResult.kept), and for a hold by heat and one at random of the same size the picture and its numbers (L1; with a
    truth also score and leakage)."""

    script, title = Path(__file__).with_suffix(".js"), "Hold studio"

    threshold = Number(0.2, min=0, max=1).tag(sync=True, page=True)
    results = traitlets.List().tag(sync=True)

    def __init__(
        self,
        editor: Editor,
        image: Picture | EditSample,
        instruction: str,
        threshold: float | None,
        settings: dict[str, Any],
    ):
        if taken := {"hold_threshold", "on_step"} & settings.keys():
            raise SettingError(
                f"the studio chooses {' and '.join(sorted(taken))} itself",
                expected="other settings of Editor.edit",
                fix="pass threshold=… for the λ to begin with",
            )
        threshold = Settings.choose(editor.defaults, 1, hold_threshold=threshold, seed=0).hold_threshold
        self.truth = image if isinstance(image, EditSample) else None
        self.editor, self.image = editor, load_image(image.source if self.truth else image)
        self.instruction = instruction or (image.instruction if self.truth else "")
        check_texts([self.instruction])
        super().__init__(threshold=threshold)
        self.settings = seeded(settings)
        self.made: dict[float, dict[str, EditResult]] = {}
        self.hold(threshold)

    def hold(self, threshold: float) -> Future:
        """Make the edit at another λ and its control, beside the page, unless they are there already."""
        return self.begin(lambda progress: self._make(progress, threshold))

    def receive(self, content: Mapping[str, Any]) -> None:
        super().receive(content)
        if content.get("kind") == "hold":
            self.hold(asked(content, "threshold", float))

    def _open(self, progress: Progress) -> None:
        free = self._edit(progress, 0, "the edit without hold, for its heat map", hold_threshold=0)
        self.source, self.heat = free.source, free.heat[0].numpy()
        self.before = self.editor.detokenize(free.source_tokens)[0]  # L1 counts from what the tokenizer shows
        self.target = self.mask = None
        if self.truth:
            grid = {"pixels": self.editor.defaults.image_size, "multiple": self.editor.multiple}
            fitted = fit_together(self.image, self.truth.target, Mask(self.truth.mask, "white"), **grid)
            self.target = self.editor.detokenize(self.editor.tokenize(fitted.target))[0]
            self.mask = torch.from_numpy(np.asarray(fitted.mask) > 127)
        self.made = {0.0: dict.fromkeys(WAYS, free)}
        self._show()

    def _make(self, progress: Progress, threshold: float) -> None:
        if not self.data:  # nor is it there yet where the work before was cancelled
            self._open(progress)
        threshold = rounded(Settings.choose(self.editor.defaults, 1, hold_threshold=threshold).hold_threshold)
        if threshold not in self.made:
            by_heat = self._edit(progress, 1, f"λ = {threshold:g}, by heat", hold_threshold=threshold)
            free = random_cells(~by_heat.kept[0].numpy(), by_heat.geometry, by_heat.fixed)
            what = f"λ = {threshold:g}, as many cells at random"
            at_random = self._edit(progress, 2, what, hold_threshold=0, mask=free)
            self.made[threshold] = dict(zip(WAYS, (by_heat, at_random), strict=True))
        self._show()

    def _edit(self, progress: Progress, number: int, what: str, **hold: Any) -> EditResult:
        """The edit under this hold, of three the one with this number."""

        def tell(*_: Any) -> None:
            progress(number, 3, what)

        tell()
        return self.editor.edit(self.image, self.instruction, on_step=tell, **self.settings | hold)

    def _show(self) -> None:
        if not self.data:
            self.data = {
                "instruction": self.instruction,
                "source": png(self.source),
                "ratio": self.source.width / self.source.height,
                "heat": packed(self.heat.astype(np.float32)),
                "palette": heat_colours(),
                "veil": (*HELD, round(255 * VEIL)),
                "ways": WAYS,
            }
        self.results = [
            {
                "threshold": threshold,
                "held": float(edits["by heat"].kept.float().mean()),
                "cells": packed(edits["by heat"].kept[0].byte().numpy()),
                "pictures": [png(edits[way].image) for way in WAYS],
                "numbers": [self.numbers(edits[way]) for way in WAYS],
            }
            for threshold, edits in sorted(self.made.items())
        ]

    def numbers(self, edit: EditResult) -> dict[str, float]:
        """L1 to the source as the tokenizer shows it; with a truth, edit score and leakage."""
        now, before = to_tensor([edit.image, self.before])
        numbers = {"L1": float((now - before).abs().mean())}
        if self.truth:
            numbers["score"] = edit_score(now, before, to_tensor([self.target])[0], self.mask)
            numbers["leakage"] = leakage(now, before, self.mask)
        return {name: None if np.isnan(value) else value for name, value in numbers.items()}

    def figure(self) -> Figure:
        """One row for every λ that was made: what it holds, the edit, and the random hold's."""
        rows, titles = [], []
        for threshold, edits in sorted(self.made.items()):
            held = edits["by heat"].kept[0].numpy()
            row = [(held_overlay(self.source, held), f"λ = {threshold:g}: {held.mean():.0%} held")]
            for way in WAYS:
                known = {name: value for name, value in self.numbers(edits[way]).items() if value is not None}
                numbers = [f"{name} {value:.{1 if name == 'score' else 4}f}" for name, value in known.items()]
                row.append((edits[way].image, f"{way}: {numbers[0]}\n{', '.join(numbers[1:])}".rstrip()))
            rows.append(row)
            titles.append("" if rows[1:] else f"“{self.instruction}”")
        return panels_figure(rows, titles)

    def arrays(self) -> dict[str, np.ndarray]:
        """threshold; held, tokens and pictures of both ways for each; heat and source."""
        made = sorted(self.made.items())
        return {
            "threshold": np.array([threshold for threshold, _ in made]),
            "heat": self.heat,
            "source": np.asarray(self.source),
        } | {
            f"{name}_{way.replace(' ', '_')}": np.stack([value(edits[way]) for _, edits in made])
            for way in WAYS
            for name, value in (
                ("held", lambda edit: edit.kept[0].numpy()),
                ("tokens", lambda edit: edit.tokens[0].numpy()),
                ("pictures", lambda edit: np.asarray(edit.image)),
            )
        }

    def described(self) -> dict[str, Any]:
        """What was asked for at every λ, the seed included, and every λ's numbers."""
        numbers = {result["threshold"]: result["numbers"] for result in self.results}
        told = asked_of(self.made[0.0][WAYS[0]]) | {"numbers": numbers}
        del told["hold_threshold"]
        return told


def rounded(threshold: float) -> float:
    """To three significant digits, halves up: as the page's toPrecision does, which finds the row of a λ by it."""
    return float(Context(prec=3, rounding=ROUND_HALF_UP).create_decimal_from_float(threshold))


def random_cells(free: np.ndarray, geometry: Geometry, fixed: Tensor | None = None) -> Mask:
    """A mask that frees as many cells as bool [h, w] `free` does, anywhere but in `fixed` [1, h, w]; at least one.

    It has a white spot in the middle of each and the shape of the original picture, or is as many times larger as makes
    room for the spots.
    """
    left, top, right, bottom = geometry.crop
    down, across = (bottom - top) / free.shape[0], (right - left) / free.shape[1]  # px of a cell in the original
    finer = math.ceil(3 / min(down, across, 3))
    places = np.arange(free.size) if fixed is None else np.flatnonzero(~fixed.numpy())
    chosen = np.random.default_rng(0).permutation(places)[: max(int(free.sum()), 1)]
    rows, columns = np.unravel_index(chosen, free.shape)
    mask = np.zeros((geometry.original[1] * finer, geometry.original[0] * finer), np.uint8)
    y, x = (top + (rows + 0.5) * down) * finer, (left + (columns + 0.5) * across) * finer
    mask[y.astype(int), x.astype(int)] = 255
    return Mask(Image.fromarray(mask), "white")
