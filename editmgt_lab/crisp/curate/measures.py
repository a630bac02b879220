"""What is measured of one picture for curation: plain functions of its pixels.

Pictures come as grey values, float32 [h, w] in 0 … 255, the long side at most WORKING px, so that the numbers mean the
same for large and small ones; sizes in px are those of the original.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

WORKING = 256  # px
HASH = 16  # the perceptual hash has HASH² bits
LEVELS = 64  # of grey, that the entropy counts
EDGE = 12.0  # grey levels a pixel: a step that one sees as an edge

Array = np.ndarray


def working(picture: Image.Image) -> Array:
    """RGB → grey values at the working size; no picture is made larger."""
    grey = picture.convert("L")
    scale = WORKING / max(grey.size)
    if scale < 1:
        grey = grey.resize(tuple(max(1, round(side * scale)) for side in grey.size), Image.Resampling.BOX)
    return np.asarray(grey, np.float32)


def entropy(grey: Array) -> float:
    """Of the histogram of grey levels, bits: 0 for one flat colour, at most log2(64) = 6."""
    counts = np.bincount((grey.ravel() * (LEVELS / 256)).astype(int), minlength=LEVELS)
    shares = counts[counts > 0] / grey.size
    return float(max(0.0, -(shares * np.log2(shares)).sum()))


def gradients(grey: Array) -> Array:
    """How steep the grey values are, in levels a pixel: [h, w]; 0 for a picture of one pixel in a direction."""
    down, across = (np.gradient(grey, axis=axis) if grey.shape[axis] > 1 else np.zeros_like(grey) for axis in (0, 1))
    return np.hypot(down, across)


def edges(grey: Array) -> float:
    """The share of pixels at an edge."""
    return float((gradients(grey) > EDGE).mean())


def repetition(grey: Array) -> float:
    """How well the picture's edges lie on themselves when it is shifted by more than an eighth of it: 0 … 1.

    The largest autocorrelation of the gradients, apart from small shifts, each divided by what the overlap explains. 1
    for stripes, chequers and tiles; 0 where nothing repeats, and for pictures without edges.
    """
    steep = gradients(grey)
    if min(steep.shape) < 16 or steep.std() < 1e-3:
        return 0.0
    steep = steep - steep.mean()
    size = [2 * side for side in steep.shape]

    def correlated(a: Array, b: Array) -> Array:
        return np.fft.irfft2(np.fft.rfft2(a, size) * np.conj(np.fft.rfft2(b, size)), size)

    ones = np.ones_like(steep)
    energy = correlated(steep**2, ones), correlated(ones, steep**2)
    scale = np.sqrt(np.clip(energy[0], 0, None) * np.clip(energy[1], 0, None))
    overlap = correlated(ones, ones)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.where(overlap > steep.size / 2, correlated(steep, steep) / np.maximum(scale, 1e-6), 0.0)
    near = [max(1, side // 8) for side in steep.shape]
    down, across = (np.minimum(np.arange(n), n - np.arange(n)) for n in size)
    far = (down[:, None] > near[0]) | (across[None, :] > near[1])
    return float(np.clip(found[far].max(), 0.0, 1.0))


def perceptual_hash(picture: Image.Image) -> bytes:
    """HASH² bits: which of the low frequencies of the grey picture are above their median (Zauner's pHash, larger).

    Light, contrast, scaling and JPEG change few of them. The picture's mean is not among them.
    """
    side = 4 * HASH
    grey = np.asarray(picture.convert("L").resize((side, side), Image.Resampling.BOX), np.float64)
    waves = np.cos(np.pi / (2 * side) * np.outer(np.arange(HASH + 1), 2 * np.arange(side) + 1))
    frequencies = (waves @ grey @ waves.T).ravel()[1 : HASH**2 + 1]
    return np.packbits(frequencies > np.median(frequencies)).tobytes()


def aspect(width: int, height: int) -> float:
    """Long side over short side."""
    return max(width, height) / max(1, min(width, height))


def megapixels(width: int, height: int) -> float:
    return width * height / 1e6
