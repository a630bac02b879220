"""How well an edit went, where the truth is known: the scores of the small world.

Everywhere |a − b| is the mean absolute difference over pixels and channels, of pictures in [0, 1]. M is the edit mask.
Source S and target T are compared as the tokenizer shows them, so that its loss counts for nobody. A part of a picture
(M, or what is outside it) that covers less than MIN_SHARE of it is too small to be measured: the value is then NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ShapeError

MIN_SHARE = 0.01
MIN_CHANGE = 1 / 255  # one level of an 8-bit picture
SUCCESS_SCORE, SUCCESS_LEAKAGE = 5.0, 0.02
RESAMPLES = 2000


def edit_score(output: Tensor, source: Tensor, target: Tensor, mask: Tensor) -> float:
    """How much of the way from source to target was gone inside the mask: 10 · clip(1 − |O−T|_M / |S−T|_M, 0, 1).

    output, source, target: [3, H, W] in [0, 1]; mask: bool [H, W]. The source scores 0, the target 10. NaN where source
    and target differ by less than one 8-bit level in the mean, so that there is no way to go. Raises ShapeError.
    """
    check_shapes(mask, output, source, target)
    way = difference(source, target, mask)
    if math.isnan(way) or way < MIN_CHANGE:
        return math.nan
    return 10 * min(max(1 - difference(output, target, mask) / way, 0.0), 1.0)


def leakage(output: Tensor, source: Tensor, mask: Tensor) -> float:
    """What changed that should not have: |O−S| outside the mask.

    output, source: [3, H, W] in [0, 1]; mask: bool [H, W]. NaN where the edit is the whole picture. Raises ShapeError.
    """
    check_shapes(mask, output, source)
    return difference(output, source, ~mask)


def success(score: float, leaked: float) -> float:
    """1.0 where the edit is done (score ≥ 5) and nothing else broken (leakage ≤ 0.02), else 0.0.

    Where nothing can leak (NaN) the score decides alone; without a score it is NaN.
    """
    if math.isnan(score):
        return math.nan
    return float(score >= SUCCESS_SCORE and not leaked > SUCCESS_LEAKAGE)


def roc_auc(heat: Tensor, mask: Tensor) -> float:
    """Localisation: the chance that a pixel of the mask is hotter than one outside it, ties counting half.

    heat: [h, w], any scale; mask: bool [H, W], H and W multiples of h and w. Every pixel has the heat of its cell, so
    that no share of a cell has to be declared white; a cell with the mask's edge in it keeps the best map a little
    below 1. NaN where the mask leaves too little inside or outside. Raises ShapeError.
    """
    fits = heat.ndim == mask.ndim == 2 and heat.numel() and mask.numel() and mask.dtype == torch.bool
    if not fits or any(size % cells for size, cells in zip(mask.shape, heat.shape, strict=True)):
        raise ShapeError(
            f"heat {list(heat.shape)} for a {mask.dtype} mask {list(mask.shape)}",
            expected="a bool mask [H, W] whose sides are multiples of those of the heat map [h, w]",
            fix="take one picture's heat map, fit the mask to the model's grid and compare it with 0.5",
        )
    rows, columns = (size // cells for size, cells in zip(mask.shape, heat.shape, strict=True))
    if min(share(mask), share(~mask)) < MIN_SHARE:
        return math.nan
    values, place = heat.flatten().unique(return_inverse=True)  # sorted; ties share a place
    pixels = mask.reshape(heat.shape[0], rows, heat.shape[1], columns).sum((1, 3)).flatten().double()  # of the mask
    inside, outside = (torch.bincount(place, part, len(values)) for part in (pixels, rows * columns - pixels))
    won = (inside * (outside.cumsum(0) - outside / 2)).sum()
    return (won / (inside.sum() * outside.sum())).item()


def bootstrap_interval(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95% interval of the mean: the middle of the means of 2000 resamples. NaN values are left out.

    Two NaN where no value is left.
    """
    known = [value for value in values if not math.isnan(value)]
    return ratio_interval(known, [1.0] * len(known), seed)


def ratio_interval(above: Sequence[float], below: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """95% interval of mean(above) / mean(below), edit by edit of the same edits and without NaN: both resampled alike.

    Two NaN where there is nothing to divide, or nothing to divide by.
    """
    a, b = (torch.tensor(values, dtype=torch.float64) for values in (above, below))
    if len(a) == 0 or not b.any():
        return math.nan, math.nan
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(len(a), (RESAMPLES, len(a)), generator=generator)
    above_mean, below_mean = (values[draws].mean(dim=1) for values in (a, b))
    ratios = torch.where(below_mean == 0, math.nan, above_mean / below_mean)  # a resample of zeros has no ratio
    low, high = ratios.nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def summary(values: Sequence[float], seed: int = 0) -> dict[str, float | None]:
    """mean, low and high (95% bootstrap interval of the mean) and count of the values that are not NaN; None for none.

    Ready for JSON.
    """
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return {"mean": None, "low": None, "high": None, "count": 0}
    low, high = bootstrap_interval(known, seed)
    return {"mean": sum(known) / len(known), "low": low, "high": high, "count": len(known)}


def difference(a: Tensor, b: Tensor, where: Tensor) -> float:
    """|a − b| of pictures [3, H, W] over the pixels of `where`, bool [H, W]; NaN where those are too few."""
    if share(where) < MIN_SHARE:
        return math.nan
    return (a - b).abs()[:, where].double().mean().item()


def share(mask: Tensor) -> float:
    """Share of the picture that is in the mask."""
    return mask.double().mean().item()


def check_shapes(mask: Tensor, *pictures: Tensor) -> None:
    shapes = [tuple(picture.shape) for picture in pictures]
    if mask.ndim != 2 or mask.dtype != torch.bool or any(shape != (3, *mask.shape) for shape in shapes):
        raise ShapeError(
            f"pictures {[list(shape) for shape in shapes]} with a {mask.dtype} mask {list(mask.shape)}",
            expected="pictures [3, H, W] and a bool mask [H, W]",
            fix="fit pictures and mask to one size, and compare the mask with 0.5",
        )
