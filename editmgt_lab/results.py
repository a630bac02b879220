"""What decoding gives back: one object for each step, and the finished edit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor

from .decoding import map_to_hold_by
from .errors import SettingError
from .images import Geometry, mask_of_cells
from .settings import Settings
from .text import Focus

T = TypeVar("T")
GREY = (128, 128, 128)


@dataclass(frozen=True)
class DecodeStep:
    """One decoding step. index: 0 … steps - 1; all tensors are [B, h, w] on the CPU.

    tokens: after the step; masked: bool, those that are still to be filled (they hold the mask token); confidence: by
    which the tokens competed, infinite where one did not have to; heat: the consolidated attention in [0, 1], from this
    step's forward pass; heat_so_far: over all steps up to this one; held: bool, those that the hold names, or the mask
    (with hold="released" one that was decided before keeps its token, see RegionHoldSampler); kept: bool, those of
    `held` whose tokens are the source's; sampled: the tokens before the least confident were masked again; computed:
    bool, those that this step's pass computed; the others came from the cache.
    """

    index: int
    tokens: Tensor
    masked: Tensor
    confidence: Tensor
    heat: Tensor
    heat_so_far: Tensor
    held: Tensor
    kept: Tensor
    sampled: Tensor
    computed: Tensor
    single: bool = field(repr=False)
    detokenize: Callable[[Tensor], list[Image.Image]] = field(repr=False)

    def preview(self) -> Image.Image | list[Image.Image]:
        """The picture as it stands, grey where it is still masked; a list for a batch."""
        images = self.detokenize(self.sampled)
        plain = [Image.new("RGB", image.size, GREY) for image in images]
        return _one_or_all(composites(plain, images, self.masked), self.single)


@dataclass(frozen=True)
class EditResult:
    """A finished edit; the plural names hold lists, the singular ones what the call was about: one picture or a list.

    tokens, held: [B, h, w] on the CPU, as in the last DecodeStep; last_heat: the last step's heat map, which sees the
    edit done, so that of something removed little is left to see; mean_heat: that of the attention over all steps.
    sources: the pictures as they were fitted to the grid, geometries: how; source_tokens: [B, h, w]. These three are
    None or empty for text to image. fixed: bool [B, h, w], the cells that masks held; readings: how each was read, of
    masks.READINGS, None for a picture without one; None and empty without. settings: all that was chosen, the seeds
    included; focus, as the call had it, and negatives: the words that were localised by, None for all of them, and the
    texts of the unguided half.
    """

    images: list[Image.Image]
    tokens: Tensor
    last_heat: Tensor
    mean_heat: Tensor
    held: Tensor
    instructions: list[str]
    settings: Settings
    sources: list[Image.Image] = field(default_factory=list)
    geometries: list[Geometry] = field(default_factory=list)
    readings: list[str | None] = field(default_factory=list)
    source_tokens: Tensor | None = None
    fixed: Tensor | None = None
    focus: Focus | None = None
    negatives: list[str] = field(default_factory=list)
    single: bool = True

    @property
    def heat(self) -> Tensor:
        """The map that the last step held by (see Defaults.hold_by): below λ, as the hold's rule says, and by the mask
        stands what was held."""
        return map_to_hold_by(self.settings.hold_by, self.last_heat, self.mean_heat)

    @property
    def kept(self) -> Tensor:
        """Bool [B, h, w]: those of `held` whose tokens are the source's; of text to image none."""
        if self.source_tokens is None:
            return torch.zeros_like(self.held)
        return self.held & (self.tokens == self.source_tokens)

    @property
    def image(self) -> Image.Image | list[Image.Image]:
        return _one_or_all(self.images, self.single)

    @property
    def source(self) -> Image.Image | list[Image.Image] | None:
        return _one_or_all(self.sources, self.single) if self.sources else None

    @property
    def geometry(self) -> Geometry | list[Geometry] | None:
        return _one_or_all(self.geometries, self.single) if self.geometries else None

    @property
    def instruction(self) -> str | list[str]:
        return _one_or_all(self.instructions, self.single)

    def call(self) -> dict[str, Any]:
        """The keyword arguments of `Editor.edit` that make the first edit again from `sources[0]`, with an editor of
        the same defaults: its settings, and its mask, focus words and negative text where it had them."""
        asked = self.settings.call() | {"seed": self.settings.seeds[0]}
        if self.fixed is not None:
            asked["mask"] = mask_of_cells(~self.fixed[0].numpy(), self.sources[0].size)
        if self.focus is not None:
            asked["focus"] = self.focus if isinstance(self.focus[0], str) else self.focus[0]
        if any(self.negatives[:1]):
            asked["negative"] = self.negatives[0]
        return asked

    def pasted(self) -> Image.Image | list[Image.Image]:
        """The edit with the source's own pixels wherever a held token is the source's (see `kept`).

        A held token alone does not keep its pixels: the VQ decoder has context, and the tokenizer loses detail.
        Raises SettingError for text to image, which has no source.
        """
        if self.source_tokens is None:
            raise SettingError(
                "text to image has no source to paste from", expected="an edit", fix="use result.image instead"
            )
        return _one_or_all(composites(self.sources, self.images, self.kept), self.single)


def composites(above: Sequence[Image.Image], below: Sequence[Image.Image], where: Tensor) -> list[Image.Image]:
    """`below` with `above` over it in the cells of `where`, bool [B, h, w]. Pictures of one size."""
    pictures = []
    for top, bottom, cells in zip(above, below, where, strict=True):
        pictures.append(Image.composite(top, bottom, mask_of_cells(cells.cpu().numpy(), bottom.size).image))
    return pictures


def _one_or_all(values: list[T], single: bool) -> T | list[T]:
    return values[0] if single else values
