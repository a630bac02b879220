"""Stage 3: how a pass is laid out, and what it leaves for the next, so that this one computes fewer positions."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .basics.checks import check_number


class FeatureCache:
    """Keys, values and last features of one decoding, for passes that compute text and *open* positions alone.

    A position is open while it holds a masked token, and once more after a token of it has changed. All others are
    settled: they need no logits, and what they were when they were last computed stands in for them, as it does for the
    whole source. That is not exact: text, timestep and open positions move on, and their features would a little, so
    every `refresh_every`-th pass computes all; 1 is exact.

    Ideas: Lumina-DiMOO's ML-Cache (arXiv 2510.06308) and MIGM-Shortcut (arXiv 2602.23996); here it is not a measure of
    confidence that says what is computed, but what is still to be decided.

    One cache serves the passes of one decoding, in order, with the same text and source in each. computed: bool
    [B, h, w], the tokens whose positions the newest pass computed.
    Raises SettingError for less than one pass.
    """

    def __init__(self, refresh_every: int):
        check_number(refresh_every, "refresh_every", 1, math.inf, "1 computes all, always", whole=True)
        self.refresh_every, self.passes = refresh_every, 0
        self.keys: dict[Hashable, Tensor] = {}
        self.values: dict[Hashable, Tensor] = {}
        self.tokens = self.computed = self.features = None

    def open_positions(self, tokens: Tensor, codebook: int, grid: tuple[int, int]) -> Tensor | None:
        """The image positions that the next pass computes, long [B, R], or None for all of them, and the source's.

        tokens: [B, h, w] of that pass, masked ones beyond the codebook; grid: rows and columns of the positions. R is
        the largest number that a picture needs; one that needs fewer names one of its positions several times, so that
        what is computed of a picture does not depend on the others.
        """
        full = self.passes % self.refresh_every == 0
        self.passes += 1
        before, self.tokens = self.tokens, tokens
        if full:
            self.computed = torch.ones_like(tokens, dtype=torch.bool)
            return None
        changing = (tokens >= codebook) | (tokens != before)
        factor = tokens.shape[1] // grid[0]
        is_open = F.max_pool2d(changing.unsqueeze(1).float(), factor).flatten(1) > 0  # [B, N]
        count = is_open.sum(dim=1, keepdim=True).clamp(min=1)
        rows = is_open.float().argsort(dim=1, descending=True, stable=True)[:, : int(count.max())]
        rows = torch.where(torch.arange(rows.shape[1], device=rows.device) < count, rows, rows[:, :1])
        cells = torch.zeros_like(is_open).scatter(1, rows, True).view(len(tokens), *grid)
        self.computed = cells.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)
        return rows

    def complete(self, block: Hashable, k: Tensor, v: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """The keys and values of all positions, [B, heads, T, d], from those that this pass computed.

        k, v: [B, heads, T, d], or of [text; open positions] alone; rows: long, where these are in T, [B, L + R].
        """
        if rows is None:
            if self.refresh_every > 1:
                self.keys[block], self.values[block] = k, v
            return k, v
        place = rows[:, None, :, None].expand_as(k)
        return self.keys[block].scatter_(2, place, k), self.values[block].scatter_(2, place, v)

    def complete_features(self, x: Tensor, rows: Tensor | None) -> Tensor:
        """The same of what leaves the last block: [B, R, D] → [B, N, D]; rows: long [B, R]."""
        self.features = x if rows is None else self.features.scatter(1, rows.unsqueeze(-1).expand_as(x), x)
        return self.features


@dataclass(frozen=True)
class Layout:
    """How one forward pass is laid out: T = L text, then N image and, in an edit, N source positions.

    rotary: complex [T, head_dim / 2], or [B, 1, T, head_dim / 2] where every picture has rotations of its own;
    bias: [T, T] or None; padding: bool [B, L] or None. With a cache that has the others, a pass may compute some of the
    positions alone: rows, long [B, L + R], says where these are in T, and rotary and bias have rows for them only.
    An `outline` has none of what a pass computes with.
    """

    text: int
    token_grid: tuple[int, int]
    position_grid: tuple[int, int]
    rotary: Tensor | None
    bias: Tensor | None
    padding: Tensor | None
    cache: FeatureCache | None = None
    rows: Tensor | None = None

    def only(self, positions: Tensor) -> Layout:
        """The same pass for the text and these image positions, long [B, R], alone."""
        text = torch.arange(self.text, device=positions.device).expand(len(positions), -1)
        rows = torch.cat([text, self.text + positions], dim=1)
        bias = None if self.bias is None else self.bias[rows].unsqueeze(1)  # [B, 1, L + R, T]
        if self.rotary.ndim == 2:
            rotary = self.rotary[rows].unsqueeze(1)  # [B, 1, L + R, head_dim / 2]
        else:
            rotary = self.rotary.take_along_dim(rows[:, None, :, None], dim=2)
        return replace(self, rotary=rotary, bias=bias, rows=rows)

    def outline(self) -> Layout:
        """Where everything stands, and no more: text, grids and padding, to be kept without what the pass held."""
        return replace(self, rotary=None, bias=None, cache=None, rows=None)

    @property
    def image(self) -> int:
        return self.position_grid[0] * self.position_grid[1]

    def __getitem__(self, pictures: slice) -> Layout:
        """The layout of some pictures of the batch."""
        parts = {"padding": self.padding, "rows": self.rows}
        if self.rows is not None:
            parts["bias"] = self.bias
        if self.rotary is not None and self.rotary.ndim == 4:
            parts["rotary"] = self.rotary
        return replace(self, **{name: part if part is None else part[pictures] for name, part in parts.items()})
