"""Windows: a square part of every picture, at the picture's own scale, for the long first part of training.

Attention and memory cost a quarter, and an edit fills what is seen. A window keeps its place: its rotary positions are
those of the whole picture, so "at the top left" stays true, and nothing has to be learned again for whole pictures. The
nine windows are as far apart as the nine places of the drawn world, so each object lies whole in one of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import world
from ..world.edits import is_related
from ..world.scenes import GRID, PARTS

ANYWHERE, NOWHERE = -1, -2  # windows of an edit of the whole picture, and of one that no window shows
AT_LEAST = 4  # how often a window without objects is taken for a caption: as one with so many units of objects


def corners(side: int, window: int) -> Tensor:
    """[9, 2]: row and column where the nine windows of `window` cells begin, in pictures of `side` cells."""
    starts = torch.tensor([0, (side - window) // 2, side - window])
    return torch.cartesian_prod(starts, starts)


def window_of(sample: world.EditSample, window: int = GRID // 2) -> int:
    """Which of the nine windows, of so many units, shows the whole edit; or ANYWHERE; or NOWHERE.

    An object that moves is seen leaving: where it comes to, nothing would say what it looks like. An addition beside
    another object needs that object, which stands in another window.
    """
    if sample.category in ("background", "style"):
        return ANYWHERE
    before, after = sample.source_scene.items, sample.target_scene.items
    if sample.category == "add" and is_related(sample.instruction):
        return NOWHERE
    changed = [item.box for item in before if item not in after]
    changed += [item.box for item in after if item not in before and not (changed and sample.category == "motion")]
    for index, (top, left) in enumerate(corners(GRID, window).tolist()):
        if all(
            left <= box[0] and top <= box[1] and box[2] <= left + window and box[3] <= top + window for box in changed
        ):
            return index
    return NOWHERE


def caption_windows(labels: Tensor, window: int) -> Tensor:
    """A window of each picture, those with more of its objects more often: [B]. labels: [B, 3, h, w], see label_map."""
    inside = (labels[:, 2] < PARTS).float()  # [B, h, w]
    areas = [
        inside[:, top : top + window, left : left + window].sum(dim=(1, 2))
        for top, left in corners(labels.shape[-1], window).tolist()
    ]
    return torch.multinomial(torch.stack(areas, dim=1) + AT_LEAST, 1)[:, 0]


def cut(grid: Tensor, index: Tensor, window: int) -> Tensor:
    """The window of each of these grids: [B, …, h, w] → [B, …, window, window]. index: [B], 0 … 8."""
    begin = corners(grid.shape[-1], window)[index.cpu()]
    return torch.stack(
        [
            each[..., top : top + window, left : left + window]
            for each, (top, left) in zip(grid, begin.tolist(), strict=True)
        ]
    )
