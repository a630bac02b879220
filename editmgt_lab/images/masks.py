"""Masks in: however a region is shown, it becomes "L", white where the picture may change, and says how it was read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageChops

from ..errors import ImageError, SettingError
from .opening import Picture, load_image, open_picture

MaskPicture: TypeAlias = "Mask | Picture"
NEAREST = Image.Resampling.NEAREST
Box: TypeAlias = "tuple[float, float, float, float]"

READINGS = {
    "white": "white is the region, black is not",
    "black": "black is the region, white is not",
    "strokes": "painted on a transparent layer: the opaque part is the region",
    "erased": "erased out of the picture: the transparent part is the region",
    "painted over": "a copy of the picture, the region painted white",
}
FAINT = 32  # of 255: alpha that varies less than this shows nothing
NEAR = 32  # of 255: colours that differ less are one, with what JPEG and soft brushes do to them
NEARLY_ALL = 0.95  # of the pixels, for "all of them are alike"
WHITE = 250  # and brighter: painted over; JPEG leaves no pure white
MOST = 2048  # px along the longer side, at which a mask is looked at
COMPARED = 128  # px along the longer side, at which a mask and its picture are compared
AMBIGUOUS = (
    'paint the region white on black; or say how it is meant, as mask=read_mask(mask, reading="strokes"), with '
    "read_mask of editmgt_lab.images.masks and one of its READINGS"
)


@dataclass(frozen=True)
class Mask:
    """image: "L", from black to white, white where the picture may change; reading: how it was read, of READINGS."""

    image: Image.Image
    reading: str

    @property
    def size(self) -> tuple[int, int]:
        return self.image.size


def read_mask(mask: MaskPicture, source: Picture | None = None, *, reading: str | None = None) -> Mask:
    """A mask as "L" of its own size, white where the picture may change, and how that was found out.

    mask: whatever opening.load_image takes, upright as its EXIF says; of whole numbers 0 and 1, 1 is white. A Mask
    stays as it is. source: the picture it belongs to, of its aspect, by which a copy of it is recognised.
    reading: one of READINGS (None: found out). Without alpha, white is the region; where only a copy of the source
    painted white is one, what is painted. With alpha, strokes of one colour on a transparent layer are the region, as
    is what was erased out of a copy of the source. Nothing in a mask tells that black is meant: say so.

    Raises ImageError for what can be read in two ways or in none, with what to do; SettingError for another reading.
    """
    if reading is not None and not (isinstance(reading, str) and reading in READINGS):
        raise SettingError(f"reading is {reading!r}", expected=f"one of {', '.join(READINGS)}", fix="name one, or none")
    if isinstance(mask, Mask):
        if reading not in (None, mask.reading):
            raise SettingError(
                f"the mask was read as {mask.reading!r}, and reading is {reading!r}",
                expected="a mask that was not read yet",
                fix="pass the picture of it, or leave the reading out",
            )
        return mask
    shown = open_picture(mask)
    shown = shown if shown.mode in ("L", "LA", "RGB", "RGBA") else shown.convert("RGB")
    below = None if source is None else load_image(source)
    alpha = _alpha(shown)
    if alpha is None:  # of a layer that is faint all over
        shown = shown.convert({"LA": "L", "RGBA": "RGB"}.get(shown.mode, shown.mode))
    if reading is None:
        few = _fewer(shown)
        reading = _by_colours(few, below) if alpha is None else _by_alpha(few, _fewer(alpha), below)
    if reading in ("strokes", "erased"):
        if alpha is None:
            raise ImageError(
                f"the mask is equally opaque all over, and is to be read as {reading!r}",
                expected="a layer that is transparent in some places",
                fix="leave the reading out, or name another one",
            )
        region = _stretched(alpha, inverted=reading == "erased")
    elif reading == "painted over":
        region = _painted_over(shown, below)
    else:
        region = _brightness(shown, black=reading == "black")
    return Mask(region, reading)


def mask_of_cells(free: np.ndarray, size: tuple[int, int]) -> Mask:
    """A mask for a picture of this size (width, height), of which the cells of bool [h, w] `free` may change."""
    return Mask(Image.fromarray(free.astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST), "white")


def fit_mask(mask: Image.Image, size: tuple[int, int], box: Box | None = None) -> Image.Image:
    """A mask "L" in another size (width, height) in px, of its part `box` (left, top, right, bottom; None: all).

    Every pixel is as bright as the brightest that it covers, and be it by a corner, so that no small spot is lost.
    """
    pixels = np.asarray(mask)
    left, top, right, bottom = box or (0, 0, *mask.size)
    for axis, (start, stop, count) in enumerate(((top, bottom, size[1]), (left, right, size[0]))):
        edges = np.linspace(start, stop, count + 1)
        first = np.floor(edges[:-1] + 1e-6).astype(int)
        beyond = np.maximum(np.ceil(edges[1:] - 1e-6).astype(int), first + 1)
        ends = np.stack([first, beyond], axis=1).ravel()
        one_more = np.zeros_like(pixels.take([0], axis))  # so that `beyond` may be the end
        pixels = np.concatenate([pixels, one_more], axis)
        pixels = np.maximum.reduceat(pixels, ends, axis).take(np.arange(count) * 2, axis)
    return Image.fromarray(pixels)


def shows_by_alpha(mask: Image.Image) -> bool:
    """Whether transparency shows the region of a mask as `opening.open_picture` opens it: it varies."""
    low, high = mask.getchannel("A").getextrema() if mask.mode in ("LA", "RGBA") else (255, 255)
    return high - low > FAINT


def _alpha(shown: Image.Image) -> Image.Image | None:
    """The alpha channel if it shows anything."""
    if shows_by_alpha(shown) or shown.mode not in ("LA", "RGBA"):
        return shown.getchannel("A") if shows_by_alpha(shown) else None
    if shown.getchannel("A").getextrema()[1] <= FAINT:
        raise ImageError(
            "the mask is transparent everywhere, so nothing is marked in it",
            expected="a region painted on it, or erased out of it",
            fix="paint the place of the edit white, or leave the mask out",
        )
    return None


def _fewer(shown: Image.Image) -> Image.Image:
    """Every so many pixels of a large mask, enough to tell how it is meant."""
    scale = MOST / max(*shown.size, MOST)
    return shown if scale == 1 else shown.resize([max(1, round(side * scale)) for side in shown.size], NEAREST)


def _by_colours(shown: Image.Image, source: Image.Image | None) -> str:
    """The reading of a mask that is opaque."""
    channels = [np.asarray(channel) for channel in shown.split()[:3]]  # of [H, W]
    bright, dark = np.maximum.reduce(channels), np.minimum.reduce(channels)
    white, black = dark > 255 - NEAR, bright < NEAR
    if (white | black).mean() > NEARLY_ALL:
        if source is not None and _agree(shown, source, white) and _agree(shown, source, black):
            raise _ambiguous("the mask is black and white, but so is the picture, and it looks like that")
        return "white"
    if source is not None and _agree(shown, source, ~white) and _agree(shown, source, ~(white | black)):
        return "painted over"
    if (bright - dark > NEAR).mean() < 1 - NEARLY_ALL:  # greys: blurred, or scaled
        return "white"
    raise _ambiguous("the mask has colours, and is no copy of the picture with white painted over it")


def _by_alpha(shown: Image.Image, alpha: Image.Image, source: Image.Image | None) -> str:
    """The reading of a mask that is transparent in parts."""
    opacity = np.asarray(alpha)
    opaque, clear = opacity > opacity.max() // 2, opacity < FAINT
    colours = np.asarray(shown.convert("RGB"), np.int16)
    colour = _one_colour(colours[opaque])
    copy = source is not None and _agree(shown, source, opaque)
    if colour is None:
        if copy:
            return "erased"
        if _black_and_white(colours[opaque]):
            raise _ambiguous("the mask is black, white and transparent, so that two of them mean the same")
        if source is None:  # no brush paints like that
            return "erased"
        raise _ambiguous("the mask is transparent in parts, and the rest is neither one colour nor the picture")
    if copy:  # what is left of the picture has one colour, or was painted in the colour of the picture
        hidden = np.asarray(source.resize(shown.size, NEAREST), np.int16)[clear]
        if len(hidden) and _one_colour(hidden) is None and _agree(shown, source, clear):
            return "erased"
        raise _ambiguous("what is opaque in the mask has one colour, and the picture has the same there")
    if colour.max() < 2 * NEAR:
        raise _ambiguous("the mask is black and transparent, and either of them could be the region")
    return "strokes"


def _one_colour(colours: np.ndarray) -> np.ndarray | None:
    """[n, 3] → the colour [3] that nearly all of them have, if they do."""
    middle = np.median(colours, axis=0)
    return middle if (np.abs(colours - middle).max(axis=1) < NEAR).mean() > NEARLY_ALL else None


def _black_and_white(colours: np.ndarray) -> bool:
    return ((colours.min(axis=1) > 255 - NEAR) | (colours.max(axis=1) < NEAR)).mean() > NEARLY_ALL


def _agree(shown: Image.Image, source: Image.Image, where: np.ndarray) -> bool:
    """Whether the mask shows its picture in these of its pixels, bool [H, W]: a worn or rescaled copy does too."""
    scale = min(1, COMPARED / max(shown.size))
    size = tuple(max(1, round(side * scale)) for side in shown.size)
    whole = np.asarray(Image.fromarray(where.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)) == 255
    if not whole.any():
        return False
    seen, due = (np.asarray(p.convert("RGB").resize(size, Image.Resampling.BOX), np.int16) for p in (shown, source))
    return bool(np.abs(seen - due)[whole].mean() < NEAR)


def _stretched(alpha: Image.Image, *, inverted: bool) -> Image.Image:
    """Alpha from black to white, for brushes and erasers that are half transparent; inverted: clear is white."""
    region = ImageChops.invert(alpha) if inverted else alpha
    most = region.getextrema()[1]
    return region.point([min(255, round(255 * value / max(most, 1))) for value in range(256)])


def _brightness(shown: Image.Image, *, black: bool) -> Image.Image:
    """White (or black) is the region; what is transparent is not."""
    if shown.mode in ("LA", "RGBA"):
        shown = shown.convert("RGBA")
        shown = Image.alpha_composite(Image.new("RGBA", shown.size, "white" if black else "black"), shown)
    grey = shown.convert("L")
    if grey.getextrema()[1] == 1:  # numbers of classes, 0 and 1
        grey = grey.point([0] + [255] * 255)
    return ImageChops.invert(grey) if black else grey


def _painted_over(shown: Image.Image, source: Image.Image | None) -> Image.Image:
    """Where white was painted; where the source is white itself that cannot be told, and counts as outside."""
    shown = shown.convert("RGB")
    region = reduce(ImageChops.darker, shown.split()).point(lambda value: 255 * (value >= WHITE))
    if source is not None:
        changed = ImageChops.difference(shown, source.resize(shown.size, Image.Resampling.BICUBIC))
        changed = reduce(ImageChops.lighter, changed.split()).point(lambda value: 255 * (value > 255 - WHITE))
        region = ImageChops.darker(region, changed)
    return region


def _ambiguous(problem: str) -> ImageError:
    return ImageError(problem, expected="a mask that can be read in one way only", fix=AMBIGUOUS)
