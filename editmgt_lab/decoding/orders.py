"""Stage 5: the orders in which masked tokens are decided; each says which of them go first."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

Order = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""(log_probability, noise, known, temperature) → priority, all [B, h, w]: the highest are decided, the others masked
again. log_probability: of the token drawn at each place; noise: Gumbel; known: bool, places decided before."""


def confidence(log_probability: Tensor, noise: Tensor, known: Tensor, temperature: float) -> Tensor:
    """The most probable first, with noise that falls from step to step (MaskGIT, arXiv 2202.04200)."""
    return log_probability + temperature * noise


def halton(log_probability: Tensor, noise: Tensor, known: Tensor, temperature: float) -> Tensor:
    """Spread evenly over the picture, whatever the network says: tokens that are decided together lie far apart, so
    that they depend on each other as little as can be, and there is no noise to set (Halton scheduler, arXiv
    2503.17076).
    """
    return -halton_ranks(*known.shape[1:]).to(log_probability, non_blocking=True).expand(known.shape)


def random(log_probability: Tensor, noise: Tensor, known: Tensor, temperature: float) -> Tensor:
    """Any first: the control that the other orders have to beat."""
    return noise


def frontier(log_probability: Tensor, noise: Tensor, known: Tensor, temperature: float) -> Tensor:
    """Next to what is known first, and there the most confident: neighbours tell most about a token (LADR, arXiv
    2603.13450, without its rule for how many).

    The first step knows nothing, so it goes by confidence alone.
    """
    sure = confidence(log_probability, noise, known, temperature)
    rank = sure.flatten(1).argsort(dim=1).argsort(dim=1).view_as(sure)  # 0 is the least sure
    return (rank + rank[0].numel() * neighbours(known)).to(sure)


ORDERS: dict[str, Order] = {"confidence": confidence, "halton": halton, "random": random, "frontier": frontier}


def neighbours(known: Tensor, reach: int = 1) -> Tensor:
    """bool [B, h, w]: the places at most `reach` from a known one, corner to corner too, and the known ones."""
    return F.max_pool2d(known.unsqueeze(1).float(), 2 * reach + 1, stride=1, padding=reach).squeeze(1) > 0


@lru_cache(maxsize=16)
def halton_ranks(h: int, w: int) -> Tensor:
    """[h, w]: 0 for the cell that the Halton sequence of bases 2 and 3 visits first, h · w - 1 for the last one."""
    points = 8 * h * w
    while True:
        index = torch.arange(points)
        cells = (h * radical_inverse(index, 2)).long() * w + (w * radical_inverse(index, 3)).long()
        visited = torch.full((h * w,), points).scatter_reduce(0, cells, index, "amin")  # the first visit counts
        if visited.max() < points:
            return visited.argsort().argsort().view(h, w)
        points *= 2


def radical_inverse(index: Tensor, base: int) -> Tensor:
    """The digits of every index, mirrored at the point: 6 is 110 in base 2 and becomes 0.011, 0.375; float64 [n]."""
    mirrored, weight = torch.zeros(len(index), dtype=torch.float64), 1.0
    while index.any():
        weight /= base
        mirrored, index = mirrored + weight * (index % base), index // base
    return mirrored
