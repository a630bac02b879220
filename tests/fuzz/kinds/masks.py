"""Masks in every pattern, mode and size, files and arrays for them, and how they are said to be meant."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from PIL import Image

from editmgt_lab.images import Geometry
from editmgt_lab.images.masks import READINGS, read_mask

from ..bench import INSTRUCTION, Bench
from ..case import Kind, Wrong, owed
from ..values import anything, real
from .pictures import MODES, array_of, array_shown, content_of, handed, make_array, make_picture

PATTERNS = (
    "black", "white", "half", "spot", "noise", "gradient", "colours", "the picture", "painted", "erased", "faint",
    "strokes",
)  # fmt: skip
SOURCES = ((32, 32), (32, 32), (64, 64), (64, 32), (31, 33), (3, 400))
SIZES = ((32, 32), (64, 64), (1, 1), (33, 31), (32, 16), (2, 400), (200, 200))
SHARP = ("white", "half", "spot")  # black and white, which every mode has
PLAIN = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "F")
# What can be read in one way only, and in which modes.
CLEAR = dict.fromkeys(SHARP, PLAIN) | dict.fromkeys(("noise", "gradient"), ("1", "L", "RGB"))
CLEAR |= {"painted": ("RGB", "RGBA"), "erased": ("RGBA",), "strokes": ("RGBA",)}


def make_mask(dice: random.Random) -> Any:
    pattern = dice.choice(PATTERNS)
    mode = dice.choice((dice.choice(MODES), dice.choice(CLEAR.get(pattern, MODES))))
    recipe: dict[str, Any] = {"pattern": pattern, "mode": mode}
    recipe["source"] = dice.choice(SOURCES)
    times = dice.choice((1, 1, 2, 5))
    recipe["size"] = dice.choice(([times * side for side in recipe["source"]], dice.choice(SIZES)))
    way = dice.random()
    if way < 0.2:
        recipe["array"] = make_array(dice)
    elif way < 0.35:
        recipe["value"] = anything(dice, 1)
    elif way < 0.55:
        recipe["file"] = make_picture(dice)
        recipe["file"].pop("bomb", None)
    if dice.random() < 0.25:
        recipe["reading"] = dice.choice((*READINGS, anything(dice, 0)))
    return recipe


def mask_of(recipe: Any, source: Image.Image, bench: Bench) -> Any:
    if "array" in recipe:
        return array_of(recipe["array"])
    if "value" in recipe:
        return real(recipe["value"])
    if "file" in recipe:
        file = recipe["file"]
        return array_of(file["array"]) if "array" in file else handed(content_of(file), file.get("as", "bytes"), bench)
    mask = painted(recipe.get("pattern"), tuple(recipe.get("size", (32, 32))), source)
    try:
        return mask.convert(recipe.get("mode", mask.mode))
    except ValueError:  # Pillow does not convert every mode into every other
        return mask


def painted(pattern: str, size: tuple[int, int], source: Image.Image) -> Image.Image:
    mask, corner = Image.new("L", size, 255 if pattern == "white" else 0), corner_of(size)
    if pattern == "half":
        mask.paste(255, (0, 0, corner[2], size[1]))
    elif pattern == "spot":
        mask.putpixel((size[0] // 2, size[1] // 2), 255)
    elif pattern in ("noise", "gradient"):
        mask = Image.effect_noise(size, 120) if pattern == "noise" else Image.linear_gradient("L").resize(size)
    elif pattern == "colours":
        mask = Bench.picture(*size)
    elif pattern == "strokes":
        mask = Image.new("RGBA", size)
        mask.paste("red", corner)
    elif pattern in ("the picture", "painted", "erased", "faint"):
        mask = source.resize(size).convert("RGBA")
        colours = {"painted": "white", "erased": (0, 0, 0, 0), "faint": (9, 9, 9, 250)}
        mask.paste(colours.get(pattern, mask.getpixel((0, 0))), corner)
    return mask


def corner_of(size: tuple[int, int]) -> tuple[int, int, int, int]:
    return 0, 0, max(size[0] // 2, 1), max(size[1] // 2, 1)


def region_of(recipe: Any, mask: Any) -> np.ndarray | None:
    """bool [H, W]: where a mask says that the picture may change, if it can be read in one way only."""
    if recipe.keys() & {"value", "file"}:
        return None
    if "array" in recipe:
        shown = None if mask.shape[2:] == (4,) else array_shown(recipe["array"])
        return None if shown is None else np.asarray(shown.convert("L")) > 127
    pattern = recipe.get("pattern")
    if recipe.get("mode") not in CLEAR.get(pattern, ()) or (pattern not in SHARP and max(mask.size) < 8):
        return None  # of few pixels, any could be a copy of the picture
    if pattern in ("painted", "erased", "strokes"):
        region, corner = np.zeros(mask.size[::-1], bool), corner_of(mask.size)
        region[: corner[3], : corner[2]] = True
        return region
    return np.asarray(mask.convert("L")) > 127


def lines_up(size: tuple[int, int], source: tuple[int, int]) -> bool:
    """Whether a mask has the source's shape, which is none that the grid has no room for."""
    return size[0] * source[1] == size[1] * source[0] and max(source) <= 16 * min(source)


def run_mask(recipe: Any, bench: Bench) -> None:
    source = Bench.picture(*recipe.get("source", (32, 32)))
    mask = mask_of(recipe, source, bench)
    region = region_of(recipe, mask)
    if "reading" in recipe:
        run_reading(recipe, mask, region, source)
        return
    known = region is not None and lines_up(region.shape[::-1], source.size)
    with owed(known and region.any()):
        task = bench.editor.prepare(source, INSTRUCTION, mask=mask)
    asked, fixed = mask[0] if isinstance(mask, list) else mask, task.fixed[0].numpy()
    if fixed.all() or (asked is None) != (not task.fitted[0].reading):
        raise Wrong("nothing may change")
    if known:
        must, may = free_cells(region, task.fitted[0].geometry, fixed.shape)
        if (must & fixed).any() or (~may & ~fixed).any():
            raise Wrong(f"of the cells {(must & fixed).sum()} may not change that should, {(~may & ~fixed).sum()} may")
    edited = bench.editor.edit(source, INSTRUCTION, mask=mask, steps=1, seed=0)
    if (edited.tokens != edited.source_tokens)[0].numpy()[fixed].any():
        raise Wrong("the edit changes what is outside the mask")


def run_reading(recipe: Any, mask: Any, region: np.ndarray | None, source: Image.Image) -> None:
    """The mask alone, in the reading that it is said to have."""
    said = real(recipe["reading"])
    known = region is not None and "array" not in recipe and recipe.get("pattern") in SHARP
    with owed(known and said in ("white", "black")):
        read = read_mask(mask, source, reading=said)
    if read.image.mode != "L" or read.reading not in READINGS:
        raise Wrong(f"a mask of mode {read.image.mode}, read as {read.reading}")
    if known and said in ("white", "black") and ((np.asarray(read.image) > 127) != (region == (said == "white"))).any():
        raise Wrong(f"another region than what is {said}")


def free_cells(
    region: np.ndarray, geometry: Geometry, shape: tuple[int, int], off: float = 1e-3
) -> tuple[np.ndarray, np.ndarray]:
    """bool [h, w] twice: the cells that the region reaches into by more than `off` of a pixel, and those that it comes
    as near as that."""
    left, top, right, bottom = geometry.crop
    sides = []
    for (start, stop), whole, of, count in (
        ((top, bottom), geometry.original[1], region.shape[0], shape[0]),
        ((left, right), geometry.original[0], region.shape[1], shape[1]),
    ):
        edges = np.linspace(start, stop, count + 1) * of / whole  # px of the mask
        sides.append(
            [
                [
                    slice(max(int(np.floor(low + by)), 0), int(np.ceil(high - by)))
                    for low, high in zip(edges[:-1], edges[1:], strict=True)
                ]
                for by in (off, -off)
            ]
        )
    must, may = (np.array([[region[y, x].any() for x in xs] for y in ys]) for ys, xs in zip(*sides, strict=True))
    return must, may


KINDS = {"masks": Kind(make_mask, run_mask, 12)}
