"""What edits are held against: the small world's edits, batch by batch, and the scores of an answer."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor

from .. import world
from ..attention import CapturedAttention, capture_steps
from ..basics.checks import check_counts
from ..consolidation import consolidate, over_steps
from ..editor import Editor
from ..images import to_tensor
from ..inputs import Task, cells_with_any
from ..results import EditResult
from ..world import EditSample
from .arithmetic import edit_score, leakage, roc_auc, success
from .pixels import psnr

# A new background or style changes (nearly) all of the picture: there is no place to find, and little that could leak.
LOCAL_CATEGORIES = tuple(category for category in world.CATEGORIES if category not in ("background", "style"))


@dataclass(frozen=True)
class Scores:
    """Of one edit; NaN where there is nothing to measure. See `metrics` for what they mean.

    localisation: of the heat map over all steps; blocks: of every block's map over all steps, in order, where they were
    measured; last_localisation: of the last step's heat map.
    clip_…, −1 … 1, where a CLIP was asked: output with target, with its caption, and `backbones.direction`.
    """

    score: float
    leakage: float
    success: float
    localisation: float = math.nan
    blocks: tuple[float, ...] = ()
    last_localisation: float = math.nan
    clip_image: float = math.nan
    clip_text: float = math.nan
    clip_direction: float = math.nan

    @property
    def mean_block(self) -> float:
        """Mean of the single blocks' localisation, NaN where they were not measured."""
        return sum(self.blocks) / len(self.blocks) if self.blocks else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: None for NaN, blocks only where they were measured."""
        known = {name: _known(getattr(self, name)) for name in ("score", "leakage", "success")}
        known |= {name: _known(getattr(self, name)) for name in ("localisation", "last_localisation")}
        if not math.isnan(self.clip_image):
            known |= {f"clip_{name}": _known(getattr(self, f"clip_{name}")) for name in ("image", "text", "direction")}
        return known | ({"blocks": [_known(value) for value in self.blocks]} if self.blocks else {})

    @property
    def rank(self) -> tuple[float, float]:
        """By which edits are compared: the higher score, then the smaller leakage."""
        return self.score, 0.0 if math.isnan(self.leakage) else -self.leakage


@dataclass(frozen=True)
class Truth:
    """The truth of one batch of edits, by their numbers, as the tokenizer shows it.

    sources, targets: [B, 3, H, W]; masks: bool [B, H, W]; fidelity: PSNR in dB of each source to its drawing.
    """

    numbers: Sequence[int]
    samples: list[EditSample]
    sources: Tensor
    targets: Tensor
    masks: Tensor
    fidelity: list[float]

    @classmethod
    def of(cls, editor: Editor, numbers: Sequence[int], samples: list[EditSample]) -> Truth:
        """Sources and targets pass through the editor's tokenizer."""
        shown = to_tensor(editor.detokenize(editor.tokenize([s.source for s in samples] + [s.target for s in samples])))
        sources, targets = shown.chunk(2)
        masks = to_tensor([s.mask for s in samples])[:, 0] > 0.5
        drawn = to_tensor([s.source for s in samples])
        return cls(numbers, samples, sources, targets, masks, list(map(psnr, sources, drawn)))

    def edit(
        self, editor: Editor, seed: int, *, instructions: Sequence[str] | None = None, **options: Any
    ) -> EditResult:
        """The editor's answer; edit i decodes with seed + i. instructions: None asks as the samples do."""
        return editor.edit(*self._question(instructions), seed=self._seeds(seed), **options)

    def task(self, editor: Editor, seed: int, **options: Any) -> Task:
        """What `edit` decodes, checked and encoded, for a decoding loop other than the editor's."""
        return editor.prepare(*self._question(), seed=self._seeds(seed), **options)

    def _question(self, instructions: Sequence[str] | None = None) -> tuple[list[Image.Image], Sequence[str]]:
        asked = instructions or [sample.instruction for sample in self.samples]
        return [sample.source for sample in self.samples], asked

    def _seeds(self, seed: int) -> list[int]:
        return [seed + number for number in self.numbers]

    def edit_with_maps(self, editor: Editor, seed: int, **options: Any) -> tuple[EditResult, list[CapturedAttention]]:
        """The answer, and what every decoding step captured of all blocks, in the picture that the editor maps;
        `heat_of` makes heat maps of it."""
        blocks, mapped = range(len(editor.transformer.blocks)), options.get("heat_from") or editor.defaults.heat_from
        with capture_steps(editor.transformer, blocks, editor.defaults.heat_keys, mapped) as steps:
            result = self.edit(editor, seed, **options)
        return result, [step[-len(self.samples) :] for step in steps]  # with guidance the second half has the text

    def scores(
        self, outputs: Tensor, result: EditResult | None = None, block_heats: Sequence[Tensor] = ()
    ) -> list[Scores]:
        """outputs: [B, 3, H, W]; result: whose heat maps are measured; block_heats: [B, h, w] of each block."""
        scores = []
        for i, (output, source, mask) in enumerate(zip(outputs, self.sources, self.masks, strict=True)):
            score, leaked = edit_score(output, source, self.targets[i], mask), leakage(output, source, mask)
            heats = [result.mean_heat, result.last_heat] if result else []
            found, last = [self.localisation(each, i) for each in heats] or [math.nan] * 2
            blocks = tuple(self.localisation(each, i) for each in block_heats)
            scores.append(Scores(score, leaked, success(score, leaked), found, blocks, last))
        return scores

    def localisation(self, heat: Tensor, i: int) -> float:
        """Of the i-th edit; heat: [B, h, w]. NaN for an edit of the whole picture."""
        return roc_auc(heat[i], self.masks[i]) if self.samples[i].category in LOCAL_CATEGORIES else math.nan

    def edit_cells(self, factor: int) -> Tensor:
        """bool [B, h, w]: the cells, `factor` px along one side, that the true edit touches."""
        return cells_with_any(self.masks, factor)


def draw_truths(
    editor: Editor, *, split: str, count: int, category: str | None = None, batch: int = 20
) -> Iterator[Truth]:
    """The edits 0 … count - 1 of a split at the editor's size, a batch at a time. Raises SettingError."""
    check_counts(count=count, batch=batch)
    size = picture_size(editor)
    for start in range(0, count, batch):
        numbers = range(start, min(start + batch, count))
        samples = [world.sample_edit(i, split=split, category=category, size=size) for i in numbers]
        yield Truth.of(editor, numbers, samples)


def heat_of(editor: Editor, steps: Sequence[CapturedAttention], blocks: Sequence[int]) -> Tensor:
    """The heat map [B, h, w] over these steps that the editor would have made of these of the captured blocks."""
    part = over_steps(steps)
    part.blocks = tuple(blocks)
    return consolidate(part, smooth=editor.defaults.smooth, heat_padding=editor.defaults.heat_padding).cpu()


def picture_size(editor: Editor) -> int:
    """Side in px at which the small world is drawn for an editor: whole cells of its grid."""
    return round(editor.defaults.image_size / editor.multiple) * editor.multiple


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
