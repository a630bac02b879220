"""A scene is a plain value: a background and up to four items. Drawing it and naming it are pure functions of it."""

import random
from dataclasses import dataclass, replace
from itertools import product
from numbers import Integral

import numpy as np
from PIL import Image

from ..basics.checks import check_name
from ..errors import SettingError
from .backgrounds import BACKGROUNDS, LOOKS, background, stylise
from .objects import COLOURS, DRAWINGS, KINDS, sprite

GRID = 16  # a picture is 16 × 16 units; every box starts on an even unit
PIXELS = 256  # along a side of a picture, unless another size is asked for: what the small model sees
DRAWABLE = range(32, 1024 + GRID, GRID)  # px along a side, that a scene can be drawn at
PLACES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")
SIZES = {"small": 4, "medium": 5, "big": 6}  # units
PARTS = sum(side**2 for side in SIZES.values())
ITEM_COUNTS = (25, 40, 25, 10)  # of 100 scenes, how many hold 1, 2, 3, 4 items
SPLITS = ("train", "validation", "test")

# Where an object may start in the first, second and third row or column, the canonical place first. All are even: a
# model with a token for each unit joins 2 × 2 of them to one position, and so sees an object alike wherever it stands.
STARTS = {
    "small": ((0, 2), (6,), (12, 10)),
    "medium": ((0,), (6,), (10,)),
    "big": ((0,), (6, 4), (10,)),
}


@dataclass(frozen=True)
class Item:
    """One object: what it is, and where. `start` picks among the STARTS of its place (x, y); 0 is the canonical one.

    Raises SettingError for a name that is not known (those of the skills are), and for a start that its place has not.
    """

    kind: str
    colour: str
    place: str
    size: str = "medium"
    start: tuple[int, int] = (0, 0)

    def __post_init__(self):
        check_name(self.kind, "kind", DRAWINGS)
        check_name(self.colour, "colour", COLOURS)
        check_name(self.place, "place", PLACES)
        check_name(self.size, "size", SIZES)
        if self.start not in product(*(range(len(starts)) for starts in self._starts)):
            raise SettingError(
                f"a {self.size} object {self.place} has no start {self.start!r}",
                expected="(x, y), each a number among the STARTS of its size",
                fix="leave it out for (0, 0), which every place has",
            )

    @property
    def _starts(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Across and down, in units."""
        row, column = divmod(PLACES.index(self.place), 3)
        return STARTS[self.size][column], STARTS[self.size][row]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom in units."""
        left, top = (starts[number] for starts, number in zip(self._starts, self.start, strict=True))
        return left, top, left + SIZES[self.size], top + SIZES[self.size]


@dataclass(frozen=True)
class Scene:
    """A background, its items, and the style of the whole picture (None: plain).

    Raises SettingError for a name that is not known.
    """

    background: str
    items: tuple[Item, ...]
    style: str | None = None

    def __post_init__(self):
        check_name(self.background, "background", BACKGROUNDS)
        if self.style is not None:
            check_name(self.style, "style", LOOKS)

    @property
    def empty_places(self) -> tuple[str, ...]:
        taken = {item.place for item in self.items}
        return tuple(place for place in PLACES if place not in taken)

    def swapped(self, old: Item, *new: Item) -> "Scene":
        """The scene with `old` replaced by `new` (by nothing: taken out)."""
        items = [kept for item in self.items for kept in (new if item == old else (item,))]
        return replace(self, items=tuple(items))


def held_out(kind: str, colour: str) -> bool:
    """True for the pairs that only the test split shows: one colour of four kinds out of five."""
    index = KINDS.index(kind)
    return index % 5 != 4 and tuple(COLOURS)[3 * index % len(COLOURS)] == colour


TRAIN_PAIRS = tuple((kind, colour) for kind in KINDS for colour in COLOURS if not held_out(kind, colour))
HELD_OUT_PAIRS = tuple((kind, colour) for kind in KINDS for colour in COLOURS if held_out(kind, colour))


def render(scene: Scene, size: int = PIXELS) -> Image.Image:
    """Draw a scene → RGB picture of size × size pixels. Raises SettingError for a size not in DRAWABLE."""
    if not isinstance(size, Integral) or size not in DRAWABLE:
        raise SettingError(
            f"size={size!r} is not a size a scene can be drawn at",
            expected=f"a multiple of {GRID} from {DRAWABLE[0]} to {DRAWABLE[-1]}",
            fix=f"use {PIXELS} for the small model, 512 for a slide",
        )
    size = int(size)  # numpy's too
    unit = size // GRID
    canvas = background(scene.background, size).copy()
    for item in back_to_front(scene):
        left, top, right, bottom = (unit * edge for edge in item.box)
        colour, behind = sprite(item.kind, item.colour, right - left)
        canvas[top:bottom, left:right] = (canvas[top:bottom, left:right] * behind + colour + 127) // 255
    return Image.fromarray(stylise(canvas, scene.style) if scene.style else canvas)


def label_map(scene: Scene) -> np.ndarray:
    """What stands at every unit of a scene, int16 [3, 16, 16]: its kind, its colour, and which part of an object it is.

    Kinds count through KINDS, then BACKGROUNDS where no object covers most of the unit; colours through COLOURS, then
    one number for none; parts through the units of a small box row by row, of a medium one, of a big one (see PARTS),
    then one number for none. A box is wider than its object, so there are parts where the kind is a background.
    Raises SettingError for a skill's kind, which has no number.
    """
    for item in scene.items:
        check_name(item.kind, "kind", KINDS)
    labels = np.empty((3, GRID, GRID), np.int16)
    labels[:] = np.array([len(KINDS) + BACKGROUNDS.index(scene.background), len(COLOURS), PARTS])[:, None, None]
    for item in back_to_front(scene):
        left, top, right, bottom = item.box
        kinds, colours, parts = labels[:, top:bottom, left:right]
        covered = sprite(item.kind, item.colour, right - left)[1][..., 0] < 128
        kinds[covered], colours[covered] = KINDS.index(item.kind), tuple(COLOURS).index(item.colour)
        smaller = [side for side in SIZES.values() if side < right - left]
        parts[:] = sum(side**2 for side in smaller) + np.arange(covered.size).reshape(covered.shape)
    return labels


def back_to_front(scene: Scene) -> list[Item]:
    """The items in the order that they are drawn in: lower ones stand in front."""
    return sorted(scene.items, key=lambda item: (item.box[3], item.box[0]))


def caption(scene: Scene) -> str:
    """The whole scene in at most 28 words and commas, such as "snow, big red ball top left, blue house center"."""
    items = sorted(scene.items, key=lambda item: PLACES.index(item.place))
    sizes = ("" if item.size == "medium" else f"{item.size} " for item in items)
    named = (f"{size}{item.colour} {item.kind} {item.place}" for size, item in zip(sizes, items, strict=True))
    return ", ".join([*([scene.style] if scene.style else []), scene.background, *named])


def stream(seed: int, split: str, purpose: str) -> random.Random:
    """The random numbers of one sample; those of different splits and purposes never meet."""
    if not isinstance(split, str) or split not in SPLITS:
        raise SettingError(
            f"unknown split {split!r}", expected=f"one of {', '.join(SPLITS)}", fix="name one of these splits"
        )
    if isinstance(seed, bool) or not isinstance(seed, Integral) or seed < 0:
        raise SettingError(
            f"seed={seed!r} is not a seed",
            expected="a whole number, 0 or more",
            fix="pass the number of the sample, such as 0",
        )
    # The first word is the world's first name: with another, every seed would draw another scene.
    return random.Random(f"crisp/{purpose}/{split}/{int(seed)}")


def draw_item(rng: random.Random, pair: tuple[str, str], place: str) -> Item:
    """An item somewhere in its cell, of any size."""
    size = rng.choices(tuple(SIZES), (3, 4, 3))[0]
    row, column = divmod(PLACES.index(place), 3)
    return Item(*pair, place, size, tuple(rng.randrange(len(STARTS[size][line])) for line in (column, row)))


def draw_scene(rng: random.Random, count: int, special: tuple[str, str] | None = None) -> Scene:
    """A plain scene of `count` items of different kinds; `special`, a (kind, colour) pair, is the first of them."""
    pairs = [special] if special else []
    while len(pairs) < count:
        pair = rng.choice(TRAIN_PAIRS)
        if all(pair[0] != kind for kind, _ in pairs):
            pairs.append(pair)
    items = [draw_item(rng, pair, place) for pair, place in zip(pairs, rng.sample(PLACES, count), strict=True)]
    return Scene(rng.choice(BACKGROUNDS), tuple(items))


def sample_scene(seed: int, *, split: str = "train") -> Scene:
    """A scene of 1 to 4 items; three test scenes in ten hold a pair that the other splits never show."""
    rng = stream(seed, split, "scene")
    special = rng.choice(HELD_OUT_PAIRS) if split == "test" and rng.random() < 0.3 else None
    return draw_scene(rng, rng.choices((1, 2, 3, 4), ITEM_COUNTS)[0], special)
