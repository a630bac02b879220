"""A judge of drawn scenes that knows no network: it explains a picture by drawing it again.

Analysis by synthesis. The drawn world has 24 kinds × 8 colours of objects, each in a box of one of three sizes
in one of nine places: every picture of a scene is one of finitely many drawings over its background. The judge starts
from the bare background, takes the one object whose drawing brings it nearest to the picture (least squared error),
and goes on from there until no further object brings it nearer. Picture and drawings are seen through one small blur,
so that fine detail, which a tokenizer loses, does not count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from ..world import COLOURS, KINDS, PLACES, SIZES, Scene, render
from ..world.objects import sprite
from ..world.scenes import GRID, STARTS

SIDE = 64  # px at which pictures are compared
UNIT = SIDE // GRID
BLUR = 1.0  # px, σ: of 0, 0.5, 0.8, 1.2 and 1.8 those about 1 read tokenized scenes best
PAIRS = tuple((kind, colour) for kind in KINDS for colour in COLOURS)

Array = np.ndarray


def read_scene(picture: Image.Image, background: str) -> dict[str, tuple[str, str]]:
    """Which object stands where: place → (kind, colour); places with nothing are left out.

    picture: RGB, square, of any size; background: the name of what it should be painted on. Raises SettingError for one
    that is not known.
    """
    pixels = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    return {window.place: PAIRS[pair] for _, pair, window in objects_seen(pixels, background)}


def objects_seen(pixels: Image.Image, background: str) -> Iterator[tuple[str, int, Window]]:
    """Size, number in PAIRS and box of one object after the other, whichever explains most of what is left.

    pixels: RGB, SIDE × SIDE px.
    """
    seen, canvas = blurred(pixels), blurred(render(Scene(background, ()), SIDE))
    taken: dict[str, int] = {}
    while len(taken) < len(PLACES):
        additions = {size: best_addition(seen, canvas, Objects.of_size(size), taken) for size in SIZES}
        size = max(additions, key=lambda size: additions[size][0])
        gain, pair, window = additions[size]
        if gain <= 0:
            break
        objects = Objects.of_size(size)
        part = canvas[window.rows, window.columns]
        canvas[window.rows, window.columns] = part * objects.behind[pair] + objects.colour[pair]
        taken[window.place] = pair
        yield size, pair, window


@dataclass(frozen=True)
class Window:
    """One box of the picture, as slices of px, and the place that it belongs to."""

    place: str
    rows: slice
    columns: slice


@dataclass(frozen=True)
class Objects:
    """Every kind in every colour at one size, ready to be compared with the boxes where it may stand.

    colour: [pairs, px, px, 3], premultiplied by alpha; behind: [pairs, px, px, 1], 1 − alpha;
    features: [pairs, 8 · px²] and squares: [pairs], the objects' side of the sums in `gains`.
    """

    colour: Array
    behind: Array
    features: Array
    squares: Array
    windows: tuple[Window, ...]

    @classmethod
    @lru_cache
    def of_size(cls, size: str) -> Objects:
        units = SIZES[size]
        drawn = [sprite(kind, colour, units * UNIT) for kind, colour in PAIRS]
        colour = blurred(np.stack([rgb for rgb, _ in drawn]) / 255)  # sprites hold rgb · alpha in 0 … 255²
        behind = 1 - blurred(255 - np.stack([rest for _, rest in drawn]))
        features = flat(behind**2, behind * colour, behind, colour)
        starts = [(line, start) for line, choices in enumerate(STARTS[size]) for start in choices]
        windows = tuple(
            Window(PLACES[3 * row + column], span(top, units), span(left, units))
            for row, top in starts
            for column, left in starts
        )
        return cls(colour, behind, features, (colour**2).sum((1, 2, 3)), windows)


def best_addition(seen: Array, canvas: Array, objects: Objects, taken: dict) -> tuple[float, int, Window]:
    """The object and the box, of one size, that bring the canvas nearest to what is seen, and by how much."""
    windows = [window for window in objects.windows if window.place not in taken]
    k, p = (np.stack([whole[window.rows, window.columns] for window in windows]) for whole in (canvas, seen))
    gain = gains(objects, k, p)
    pair, window = np.unravel_index(gain.argmax(), gain.shape)
    return float(gain[pair, window]), int(pair), windows[window]


def gains(objects: Objects, canvas: Array, seen: Array) -> Array:
    """‖canvas − seen‖² − ‖canvas · behind + colour − seen‖² for all objects in all windows → [pairs, windows].

    canvas, seen: [windows, px, px, 3]. Multiplied out, the second term is one matrix product.
    """
    both = canvas * seen
    across = flat((canvas**2).sum(-1), 2 * canvas, -2 * both.sum(-1), -2 * seen)  # [windows, 8 · px²]
    before = (canvas**2 - 2 * both).sum((1, 2, 3))  # ‖seen‖² is in both terms and falls out
    return before - (objects.features @ across.T + objects.squares[:, None])


def flat(*parts: Array) -> Array:
    """[n, …] each, side by side as [n, values]."""
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


def blurred(pixels: Array | Image.Image) -> Array:
    """A Gaussian over pixels in 0 … 255, [..., n, n, channels], nothing beyond the edge → float32 in 0 … 1."""
    values = np.asarray(pixels, np.float32) / 255
    place = np.arange(values.shape[-2], dtype=np.float32)
    kernel = np.exp(-0.5 * (np.subtract.outer(place, place) / BLUR) ** 2) / (BLUR * np.sqrt(2 * np.pi))
    return np.einsum("ij,...jkc,lk->...ilc", kernel, values, kernel, optimize=True).astype(np.float32)


def span(start: int, units: int) -> slice:
    return slice(start * UNIT, (start + units) * UNIT)
