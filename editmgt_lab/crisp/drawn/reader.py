"""What a drawn picture shows, read from its pixels alone: background, style, and every object with its box.

Analysis by synthesis, as in metrics/judge.py, with three things more: the background and the style are found as well,
by the drawing that is nearest in most of the picture; an object's size and offset are told; and pictures in a style are
read, whose colours are no linear mixture of what is drawn: there every object is drawn in the style and compared, but
only in boxes where the picture differs from what is explained so far.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from ...errors import DataError
from ...metrics.judge import PAIRS, SIDE, UNIT, Objects, Window, objects_seen
from ...world import BACKGROUNDS, PLACES, SIZES, STYLES, Item, Scene, render
from ...world.backgrounds import LOOKS
from ...world.objects import sprite
from ...world.scenes import GRID, STARTS
from ..instruct.captions import Caption, Thing

LOOKS_KNOWN = (None, *STYLES)
MOSTLY = 45  # per cent of the pixels are background even where four big objects stand
STRANGE = 0.12  # of 1: a picture that is further than that from every background shows no drawn scene
STRIDE = 2  # of the rows and columns of pixels every second is looked at, where all are not needed
LEAST = 0.02  # of 1, mean over a box: less has nothing in it

Array = np.ndarray


@dataclass(frozen=True)
class Reading:
    """scene: what was read; unexplained: mean |picture − drawing of the scene|, in 0 … 1."""

    scene: Scene
    unexplained: float

    @property
    def caption(self) -> Caption:
        return caption_of(self.scene)


def read_drawn(picture: Image.Image) -> Reading:
    """Read a picture, RGB, of any size, seen as a square of 64 px. Raises DataError where it shows no drawn scene."""
    return _read(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX).tobytes())


@lru_cache(maxsize=64)  # the same source is read for every candidate
def _read(pixels: bytes) -> Reading:
    small = Image.frombytes("RGB", (SIDE, SIDE), pixels)
    seen = np.asarray(small, np.float32) / 255
    background, style = nearest_background(seen)
    items = _styled_items(seen, background, style) if style else _plain_items(small, background)
    scene = Scene(background, tuple(items), style)
    return Reading(scene, unexplained(seen, scene))


def nearest_background(seen: Array) -> tuple[str, str | None]:
    """The background and the style whose drawing differs least from most pixels of [64, 64, 3] in 0 … 1."""
    names, drawn = _backgrounds()
    some = seen[::STRIDE, ::STRIDE]
    apart = np.percentile(np.abs(drawn - some).mean(-1).reshape(len(names), -1), MOSTLY, axis=1)
    if apart.min() > STRANGE:
        raise DataError(
            f"no background of the drawn world comes nearer to it than {apart.min():.2f}",
            expected=f"a picture of the drawn world, within {STRANGE}",
            fix="describe other pictures with a language model: --endpoint",
        )
    return names[int(apart.argmin())]


def unexplained(seen: Array, scene: Scene) -> float:
    """Mean |seen − drawing|, seen: [64, 64, 3] in 0 … 1."""
    return float(np.abs(np.asarray(render(scene, SIDE), np.float32) / 255 - seen).mean())


def caption_of(scene: Scene) -> Caption:
    """A scene in words, objects in the order of their places; their sizes are in their boxes alone."""
    items = sorted(scene.items, key=lambda item: PLACES.index(item.place))
    things = (Thing(item.kind, (item.colour,), item.place, tuple(edge / GRID for edge in item.box)) for item in items)
    return Caption(scene.background, tuple(things), scene.style)


def scene_of(caption: Caption) -> Scene:
    """The scene that a caption of `caption_of` tells of. Raises DataError for words that the drawn world has not."""
    items = []
    for thing in caption.things:
        try:
            (colour,) = thing.attributes
            left, top, right = (round(GRID * edge) for edge in thing.box[:3])
            size = next(name for name, units in SIZES.items() if units == right - left)
            row, column = divmod(PLACES.index(thing.place), 3)
            start = STARTS[size][column].index(left), STARTS[size][row].index(top)
            items.append(Item(thing.name, colour, thing.place, size, start))
        except (ValueError, TypeError, StopIteration) as error:
            raise _not_drawn(str(thing)) from error
    known = {(item.kind, item.colour) for item in items} <= set(PAIRS)
    if not known or caption.background not in BACKGROUNDS or caption.style not in LOOKS_KNOWN:
        raise _not_drawn(str(caption))
    return Scene(caption.background, tuple(items), caption.style)


def _not_drawn(said: str) -> DataError:
    return DataError(
        f"{said!r} is not of the drawn world",
        expected="its objects, colours, sizes, places, backgrounds and styles",
        fix="use a language model's judge and editors for other pictures",
    )


@lru_cache(maxsize=1)
def _backgrounds() -> tuple[list[tuple[str, str | None]], Array]:
    names = [(background, style) for style in LOOKS_KNOWN for background in BACKGROUNDS]
    drawn = [np.asarray(render(Scene(background, (), style), SIDE), np.float32) / 255 for background, style in names]
    return names, np.stack(drawn)[:, ::STRIDE, ::STRIDE]


def _item(size: str, pair: int, window: Window) -> Item:
    row, column = divmod(PLACES.index(window.place), 3)
    left, top = window.columns.start // UNIT, window.rows.start // UNIT
    return Item(*PAIRS[pair], window.place, size, (STARTS[size][column].index(left), STARTS[size][row].index(top)))


def _plain_items(picture: Image.Image, background: str) -> list[Item]:
    return [_item(size, pair, window) for size, pair, window in objects_seen(picture, background)]


def _styled_items(seen: Array, background: str, style: str) -> list[Item]:
    canvas = np.asarray(render(Scene(background, ()), SIDE), np.float32) / 255
    items: dict[str, Item] = {}
    while len(items) < len(PLACES):
        apart = ((_looked(canvas, style) - seen) ** 2).sum(-1)
        found = max(
            (
                (*_best_in_style(seen, canvas, apart, size, window, style), size, window)
                for size in SIZES
                for window in Objects.of_size(size).windows
                if window.place not in items and apart[window.rows, window.columns].mean() > LEAST**2
            ),
            key=lambda each: each[0],
            default=(0.0, 0, None, None),
        )
        gain, pair, size, window = found
        if gain <= 0:
            break
        colour, behind = _sprites(size)
        canvas[window.rows, window.columns] = canvas[window.rows, window.columns] * behind[pair] + colour[pair]
        items[window.place] = _item(size, pair, window)
    return list(items.values())


def _looked(rgb: Array, style: str) -> Array:
    return np.clip(LOOKS[style](rgb), 0, 1)


def _best_in_style(
    seen: Array, canvas: Array, apart: Array, size: str, window: Window, style: str
) -> tuple[float, int]:
    """By how much the best object in a box brings the styled canvas nearer to what is seen, and which it is."""
    colour, behind = (each[:, ::STRIDE, ::STRIDE] for each in _sprites(size))
    rows, columns = (slice(part.start, part.stop, STRIDE) for part in (window.rows, window.columns))
    drawn = _looked(canvas[rows, columns] * behind + colour, style)
    after = ((drawn - seen[rows, columns]) ** 2).sum((1, 2, 3))
    pair = int(after.argmin())
    return float(apart[rows, columns].sum() - after[pair]), pair


@lru_cache
def _sprites(size: str) -> tuple[Array, Array]:
    """Every object of a size as it is drawn, not blurred: colour times alpha and 1 − alpha, [pairs, px, px, 3 or 1]."""
    drawn = [sprite(kind, colour, SIZES[size] * UNIT) for kind, colour in PAIRS]
    colour = np.stack([rgb for rgb, _ in drawn]).astype(np.float32) / 255**2
    return colour, np.stack([rest for _, rest in drawn]).astype(np.float32) / 255
