"""Stage 4: captured maps become one heat map that says where the instruction looks."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt, prod

import torch
import torch.nn.functional as F
from einops import reduce
from torch import Tensor

from .attention import CapturedAttention
from .basics.checks import whole_numbers
from .errors import SettingError, ShapeError, TextError

SIGMA = 1.5  # of the Gaussian, in positions
REACH = 6  # of the Gaussian: four σ
WINDOW = 5  # of the local variance
PEAK_QUANTILE, PEAK_KEPT = 0.9, 0.7
SHARPNESS = 0.7  # how much of the raw map stays where it varies most

Maps = CapturedAttention | Tensor | Sequence[Tensor]
Words = Sequence[int] | Tensor


def consolidate(
    maps: Maps,
    *,
    words: Words | None = None,
    smooth: bool = True,
    grid: tuple[int, int] | None = None,
    heat_padding: bool = False,
) -> Tensor:
    """Many text → image maps become one heat map: the paper's multi-layer attention consolidation.

    maps: what `capture_attention` gave, or a sequence of [B, heads, L, N], or one [B, blocks, heads, L, N].
    words: the text rows to localise by: row numbers for every picture alike, or bool [B, L]; None takes all rows,
    without the padding if `maps` knows it, or with it (`heat_padding`, as in the released code). grid: rows and columns
    of N for plain tensors, a square if left out.

    Mean over blocks, heads and words → 0…1 per picture → `smooth` → bicubic to the token grid. Returns [B, h, w] in
    [0, 1], on the token grid for captured maps and on the position grid for plain tensors. Every picture spans 0…1
    before it is smoothed, however little its attention varies: a global edit, too, has places near 0.

    Raises TextError if a picture has no rows to go by, ShapeError for maps that do not fit each other or the grid,
    SettingError for a grid of no whole numbers or beside captured maps.
    """
    padding = token_grid = None
    if isinstance(maps, CapturedAttention):
        if grid is not None:
            raise SettingError(
                f"grid is {grid!r} beside captured maps",
                expected=f"no grid: theirs is {maps.grid}",
                fix="leave it out, or pass plain tensors",
            )
        grid, token_grid = maps.grid, maps.token_grid
        padding = None if heat_padding else maps.padding
        maps = [maps.text_to_image(block) for block in maps.blocks]
    elif isinstance(maps, Tensor):
        maps = list(maps.unbind(1)) if maps.ndim == 5 else [maps]
    check_maps(maps)
    batch, _, length, positions = maps[0].shape
    grid = square(positions) if grid is None else whole_numbers(grid, "grid")
    if len(grid) != 2 or min(grid) < 1 or prod(grid) != positions:
        raise ShapeError(
            f"grid {grid} for maps over {positions} positions",
            expected=f"(rows, columns), rows · columns = {positions}",
            fix="pass the position grid",
        )
    chosen = choose_rows(words, padding, batch, length)
    return to_heat(mean_attention(maps, chosen).unflatten(1, grid), smooth=smooth, token_grid=token_grid)


def mean_attention(maps: Sequence[Tensor], words: Tensor) -> Tensor:
    """The mean over blocks, heads and words: [B, N]. maps: [B, heads, L, N] of each block; words: bool [B, L].

    It can be averaged once more, over the steps of a decoding; `to_heat` makes a heat map of it.
    """
    words = words.to(maps[0].device).float()
    by_row = sum(reduce(m.float(), "b heads l n -> b l n", "mean") for m in maps) / len(maps)
    return torch.einsum("bl,bln->bn", words / words.sum(dim=1, keepdim=True), by_row)


def to_heat(attention: Tensor, *, smooth: bool = True, token_grid: tuple[int, int] | None = None) -> Tensor:
    """Attention [B, rows, columns] on the position grid → heat map in [0, 1], on the token grid where that is named."""
    heat = stretch(attention)
    if smooth:
        heat = smooth_heat(heat)
    if token_grid not in (None, tuple(heat.shape[1:])):
        heat = F.interpolate(heat.unsqueeze(1), size=token_grid, mode="bicubic", align_corners=False).squeeze(1)
    return heat.clamp(0, 1)  # bicubic overshoots


def over_steps(steps: Sequence[CapturedAttention]) -> CapturedAttention:
    """The mean attention of several decoding steps, captured alike; `consolidate` then gives the heat over them all.

    Raises SettingError for none.
    """
    if not steps:
        raise SettingError("no steps", expected="the captured maps of one step or more", fix="capture a step")
    mean = steps[0][:]
    mean.maps = {block: sum(step.text_to_image(block) for step in steps) / len(steps) for block in mean.blocks}
    return mean


def smooth_heat(heat: Tensor) -> Tensor:
    """The released code's adaptive filter (`lab.smooth`): calm where a map is flat, faithful where it varies or peaks.

    heat: [..., h, w] of any grid and floating dtype, every picture by itself; returns the same shape and dtype.
    A Gaussian is mixed with the raw map by the local variance; above its 90th percentile the raw map keeps 70%; the
    result has the raw map's range. Raises ShapeError.
    """
    if not isinstance(heat, Tensor) or heat.ndim < 2 or not heat.is_floating_point() or not heat.numel():
        found = f"{heat.dtype} {list(heat.shape)}" if isinstance(heat, Tensor) else f"a {type(heat).__name__}"
        raise ShapeError(
            f"heat is {found}",
            expected="a floating tensor [..., h, w], not empty",
            fix="reshape it to its grid; torch.from_numpy takes an array",
        )
    raw = heat if heat.dtype == torch.float64 else heat.float()

    blurred = gaussian_matrix(raw.shape[-2], raw) @ raw @ gaussian_matrix(raw.shape[-1], raw).mT
    kept = SHARPNESS * stretch(local_variance(raw))
    smoothed = kept * raw + (1 - kept) * blurred

    peak = raw > raw.flatten(-2).quantile(PEAK_QUANTILE, dim=-1)[..., None, None]
    smoothed = torch.where(peak, PEAK_KEPT * raw + (1 - PEAK_KEPT) * smoothed, smoothed)

    low, high = raw.amin((-2, -1), keepdim=True), raw.amax((-2, -1), keepdim=True)
    return (stretch(smoothed) * (high - low) + low).to(heat.dtype)


def stretch(heat: Tensor) -> Tensor:
    """Every picture [..., h, w] to 0…1; one that varies no more than by rounding becomes zeros, one with NaN NaN."""
    low, high = heat.amin((-2, -1), keepdim=True), heat.amax((-2, -1), keepdim=True)
    rounding = 8 * torch.finfo(heat.dtype).eps * torch.maximum(low.abs(), high.abs())
    flat = high - low <= rounding
    return torch.where(flat, 0, (heat - low) / torch.where(flat, 1, high - low))


def mirrored(size: int, reach: int, device: torch.device) -> Tensor:
    """[size, 2 · reach + 1]: the neighbours of every place; beyond an edge they repeat mirrored, edge included."""
    place = torch.arange(size, device=device)[:, None] + torch.arange(-reach, reach + 1, device=device)
    place = place % (2 * size)
    return torch.where(place < size, place, 2 * size - 1 - place)


def gaussian_matrix(size: int, like: Tensor) -> Tensor:
    """[size, size]: one row for each place, the Gaussian around it."""
    offsets = torch.arange(-REACH, REACH + 1, device=like.device, dtype=like.dtype)
    weights = torch.exp(-0.5 * (offsets / SIGMA) ** 2)
    weights = (weights / weights.sum()).expand(size, -1)
    return like.new_zeros(size, size).scatter_add(1, mirrored(size, REACH, like.device), weights)


def local_variance(heat: Tensor) -> Tensor:
    """Variance in the 5×5 window around every place."""
    rows, columns = (mirrored(size, WINDOW // 2, heat.device) for size in heat.shape[-2:])
    windows = heat[..., rows[:, :, None, None], columns]  # [..., h, 5, w, 5]
    return windows.var(dim=(-3, -1), correction=0)


def choose_rows(words: Words | None, padding: Tensor | None, batch: int, length: int) -> Tensor:
    """bool [B, L]: the text rows that count."""
    if words is None:
        words = torch.ones(batch, length, dtype=torch.bool) if padding is None else ~padding
    words = row_numbers(words)
    if words.dtype == torch.bool:
        chosen = words
        if chosen.shape != (batch, length):
            both = "with guidance the maps hold both passes: take captured[batch:], the conditional half"
            raise ShapeError(
                f"words is {list(words.shape)}",
                expected=f"[{batch}, {length}], one row for each picture of the maps",
                fix="pass words[None], for the one picture" if chosen.ndim == 1 else both,
            )
    else:
        rows = words.long().tolist()
        if words.ndim != 1 or not all(0 <= row < length for row in rows):
            raise TextError(
                f"text rows {rows}",
                expected=f"one list of row numbers from 0 to {length - 1}",
                fix="take the rows of a word; for other rows in every picture pass a bool tensor [B, L]",
            )
        chosen = torch.zeros(batch, length, dtype=torch.bool)
        chosen[:, rows] = True
    empty = (~chosen.any(dim=1)).nonzero().flatten().tolist()
    if empty:
        raise TextError(
            f"no text row is chosen for picture {empty}",
            expected="at least one row for every picture",
            fix="choose a word that is in the instruction, or leave words out",
        )
    return chosen


def row_numbers(words: Words) -> Tensor:
    """Whole numbers or bool. Raises TextError for anything else, such as words that are still letters."""
    try:
        rows = torch.as_tensor(words)
    except (TypeError, ValueError, RuntimeError):
        rows = None
    if rows is None or (rows.numel() and (rows.is_floating_point() or rows.is_complex())):
        raise TextError(
            f"words is {words!r}",
            expected="whole numbers of text rows, or bool [B, L]",
            fix='text.rows("ball") of what encode_text gave has the rows of a word',
        )
    return rows


def check_maps(maps: Sequence[Tensor]) -> None:
    if not isinstance(maps, Sequence) or not all(isinstance(each, Tensor) for each in maps):
        raise ShapeError(
            f"maps are a {type(maps).__name__}" + (" of other things" if isinstance(maps, Sequence) else ""),
            expected="what capture_attention gave, or tensors [B, heads, L, N]",
            fix="torch.as_tensor takes lists and arrays",
        )
    if not maps:
        raise SettingError("no maps", expected="at least one block's map", fix="capture a block")
    shapes = [(m.shape[0], *m.shape[2:]) for m in maps if m.ndim == 4]
    if len(shapes) < len(maps) or len(set(shapes)) > 1:
        raise ShapeError(
            f"maps are {[list(m.shape) for m in maps]}",
            expected="[B, heads, L, N] for every block, alike in B, L and N",
            fix="capture them in one forward pass",
        )


def square(positions: int) -> tuple[int, int]:
    side = isqrt(positions)
    if side * side != positions:
        raise ShapeError(
            f"{positions} positions are no square", expected="the grid of the maps", fix="pass grid=(rows, columns)"
        )
    return side, side
