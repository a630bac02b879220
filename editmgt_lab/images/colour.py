"""Colour profiles: a picture is shown to the model in sRGB, as a viewer would show it."""

from __future__ import annotations

import io
import warnings
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}  # a profile's colour space → PIL's mode
ALIKE = 3  # of 255: a profile that changes less is sRGB's own, rounded
STEPS = (0, 51, 102, 153, 204, 255)
UNUSABLE = (ImageCms.PyCMSError, ImportError, KeyError, OSError, TypeError, ValueError)  # what a broken profile raises


def to_srgb(image: Image.Image) -> Image.Image:
    """A picture in mode L, LA, RGB, RGBA, CMYK or LAB → a new one in sRGB: RGB, or RGBA where it has alpha.

    A profile that does not fit the picture, is broken or would make it all dark or all light is left out with a
    warning, as viewers leave it out. The result has no profile any more, so that nothing converts it twice.
    """
    plain = image.convert({"LA": "L", "RGBA": "RGB"}.get(image.mode, image.mode))
    profile = image.info.get("icc_profile")
    if image.mode == "LAB":
        colours = ImageCms.applyTransform(plain, _transform(None, "LAB"))
    elif profile:
        colours = _converted(plain, profile)
    else:
        colours = plain if plain.mode == "RGB" else plain.convert("RGB")
    del plain  # a large picture's copies are hundreds of megabytes
    if image.mode in ("LA", "RGBA"):
        colours.putalpha(image.getchannel("A"))
    colours.info = {}
    return colours


def has_other_colours(image: Image.Image) -> bool:
    """Whether a profile of its own makes a picture look otherwise than its values do in sRGB."""
    try:
        profile = image.info.get("icc_profile")
        fits = bool(profile) and MODES[_colour_space(profile)] == image.mode
        return fits and _transform(profile, image.mode) is not None
    except UNUSABLE:
        return False


def _converted(plain: Image.Image, profile: bytes) -> Image.Image:
    try:
        mode = MODES[_colour_space(profile)]
        if plain.mode not in (mode, "L") or (plain.mode == "L" and mode == "CMYK"):
            raise ValueError(f"it is for {mode}, the picture is {plain.mode}")
        plain = plain if plain.mode == mode else plain.convert(mode)  # a grey picture with a profile of colours
        transform = _transform(profile, mode)
        return plain.convert("RGB") if transform is None else ImageCms.applyTransform(plain, transform)
    except UNUSABLE as error:
        warnings.warn(f"a picture's colour profile cannot be used, and is left out: {error}", stacklevel=2)
        return plain.convert("RGB")


def _colour_space(profile: bytes) -> str:
    return ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip()


@lru_cache(maxsize=16)
def _transform(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile (None: from CIE L*a*b* itself) to sRGB; None where it is sRGB's own.

    Raises ValueError for a profile that makes white dark, black light or nearly all one of them, and PyCMSError for a
    broken one.
    """
    wide = ImageCms.createProfile("LAB") if profile is None else ImageCms.ImageCmsProfile(io.BytesIO(profile))
    transform = ImageCms.buildTransform(wide, ImageCms.createProfile("sRGB"), mode, "RGB")
    if profile is None:
        return transform
    probe = _probe(mode)
    shown = np.asarray(ImageCms.applyTransform(probe, transform), int)[0]  # [n, 3]
    ends = (shown[0], shown[-1])  # no ink or no light first, all of it last
    black, white = ends[::-1] if mode == "CMYK" else ends
    if white.min() < 128 or black.max() > 128 or (mode != "CMYK" and not 48 < shown.mean() < 240):
        raise ValueError(f"it makes white {white.tolist()} and black {black.tolist()}")
    alike = mode != "CMYK" and np.abs(shown - np.asarray(probe.convert("RGB"), int)[0]).max() <= ALIKE
    return None if alike else transform


def _probe(mode: str) -> Image.Image:
    """One row of colours from 0 to full in every channel."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    steps = np.array(STEPS, np.uint8) if channels > 1 else np.arange(256, dtype=np.uint8)
    grid = np.stack(np.meshgrid(*[steps] * channels, indexing="ij"), axis=-1).reshape(1, -1, channels)
    bands = [Image.fromarray(np.ascontiguousarray(grid[..., channel])) for channel in range(channels)]
    return Image.merge(mode, bands)
