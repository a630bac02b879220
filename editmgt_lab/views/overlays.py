"""Pictures drawn over pictures, as arrays: the heat map and the held region. Fast enough to follow a slider."""

from __future__ import annotations

import matplotlib
import numpy as np
from PIL import Image

HEAT_MAP = "magma"
HELD = (0, 114, 178)  # a blue that colour-blind readers tell from every heat colour and from grey
MASKED = (128, 128, 128)
VEIL = 0.6  # how much of the blue lies over a held cell
HEAT_SHARE = 0.65  # how much of the heat colour lies over the greyed picture


def enlarge(image: Image.Image, side: int = 256) -> Image.Image:
    """A picture for the screen, its longer side about `side` px: small ones by whole squares, large ones smoothly."""
    longer = max(image.size)
    if longer < side:
        factor = max(side // longer, 1)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    return image.resize(
        (max(image.width * side // longer, 1), max(image.height * side // longer, 1)), Image.Resampling.LANCZOS
    )


def spread(cells: np.ndarray, image: Image.Image) -> np.ndarray:
    """One value for each cell [h, w] → one for each pixel of `image` [H, W]; cells stay sharp squares."""
    rows = np.arange(image.height) * cells.shape[0] // image.height
    columns = np.arange(image.width) * cells.shape[1] // image.width
    return cells[rows[:, None], columns]


def heat_overlay(image: Image.Image, heat: np.ndarray) -> np.ndarray:
    """The heat map, [h, w] in [0, 1], in colour over the picture in grey → uint8 [H, W, 3]."""
    levels = np.rint(np.clip(heat, 0, 1) * 255).astype(np.uint8)
    colours = matplotlib.colormaps[HEAT_MAP](np.arange(256))[:, :3] * 255
    grey = np.asarray(image.convert("L"), np.float32)[..., None]
    return np.rint(colours[spread(levels, image)] * HEAT_SHARE + grey * (1 - HEAT_SHARE)).astype(np.uint8)


def held_overlay(image: Image.Image, held: np.ndarray) -> np.ndarray:
    """The picture with a blue veil over its held cells, bool [h, w]; the others are as they were → uint8 [H, W, 3]."""
    pixels = np.asarray(image.convert("RGB"))
    veiled = np.rint(pixels * (1 - VEIL) + np.float32(HELD) * VEIL).astype(np.uint8)
    return np.where(spread(held, image)[..., None], veiled, pixels)
