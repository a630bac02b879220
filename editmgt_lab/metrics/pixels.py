"""How far two pictures are apart, pixel by pixel: L1, L2, PSNR and SSIM, whole or in a part.

Everywhere output and reference are [3, H, W] in [0, 1] and `where` is bool [H, W] (None: the whole picture). A part of
less than MIN_SHARE of the picture is too small to be measured: NaN. Why not from a library: all of them are asked for
parts of pictures here, which torchmetrics' functions do not take; the tests hold these against torchmetrics. SSIM is
Wang et al.'s, of windows that lie in the picture; torchmetrics averages over windows beyond its border as well.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from .arithmetic import MIN_SHARE, check_shapes, difference, share

WINDOW, SIGMA = 11, 1.5  # px; Wang et al. 2004, "Image quality assessment"
STABILITY = (0.01**2, 0.03**2)  # (K1 L)², (K2 L)² for the range L = 1


def l1(output: Tensor, reference: Tensor, where: Tensor | None = None) -> float:
    """Mean absolute difference. Raises ShapeError."""
    where = _everywhere(output) if where is None else where
    check_shapes(where, output, reference)
    return difference(output, reference, where)


def l2(output: Tensor, reference: Tensor, where: Tensor | None = None) -> float:
    """Mean squared difference, as MagicBrush's authors call L2 (no root is taken). Raises ShapeError."""
    where = _everywhere(output) if where is None else where
    check_shapes(where, output, reference)
    return mean_where((output - reference).double().square().mean(dim=0), where)


def psnr(output: Tensor, reference: Tensor, where: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal pixels. Raises ShapeError."""
    error = l2(output, reference, where)
    return math.inf if error == 0 else -10 * math.log10(error)


def ssim(output: Tensor, reference: Tensor, where: Tensor | None = None) -> float:
    """Structural similarity, 1 for the same: the mean of its map over windows that lie in the picture.

    A part counts the windows whose centre is in it. NaN for pictures smaller than a window. Raises ShapeError.
    """
    where = _everywhere(output) if where is None else where
    check_shapes(where, output, reference)
    if min(where.shape) < WINDOW:
        return math.nan
    edge = WINDOW // 2
    return mean_where(ssim_map(output, reference), where[edge:-edge, edge:-edge])


def ssim_map(output: Tensor, reference: Tensor) -> Tensor:
    """SSIM of the Gaussian window around each pixel, mean of the channels: [H - 10, W - 10], float64."""
    offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * SIGMA**2))
    weights = (weights / weights.sum()).to(output.device)

    def blur(values: Tensor) -> Tensor:  # [3, H, W] → [3, H - 10, W - 10]
        rows = F.conv2d(values[:, None], weights.view(1, 1, -1, 1))
        return F.conv2d(rows, weights.view(1, 1, 1, -1))[:, 0]

    x, y = output.double(), reference.double()
    mean_x, mean_y = blur(x), blur(y)
    variance_x, variance_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    c1, c2 = STABILITY
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * structure).mean(dim=0)


def mean_where(values: Tensor, where: Tensor) -> float:
    """Mean of a map [H, W] over a part; NaN where the part is too small."""
    return math.nan if share(where) < MIN_SHARE else values[where].double().mean().item()


def _everywhere(picture: Tensor) -> Tensor:
    return torch.ones(picture.shape[-2:], dtype=torch.bool, device=picture.device)
