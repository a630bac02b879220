"""Any picture, opened: upright, eight bits a channel; and as the model sees it, RGB on white."""

from __future__ import annotations

import io
import os
from typing import Any, TypeAlias

import numpy as np
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from ..errors import ImageError
from .colour import to_srgb

Picture: TypeAlias = "Image.Image | str | os.PathLike[str] | bytes | bytearray | memoryview | np.ndarray"

MAX_PIXELS = 64_000_000
RANGES = {1: 0.25, 255: 64, 65535: 4096}  # what white may be, and by how much rounding and cubic resizing go beyond
DARK = 0.03  # of the range: an array that stays below it is in another range, unless it is black itself
WHITE_IS_ZERO, PHOTOMETRIC = 0, 262  # of TIFF
ORIENTATION = 274  # of EXIF
ROWS = 256  # of an array that are converted at a time
BY_PROGRAMS = ("EPS", "WMF")  # Pillow opens them by Ghostscript and by Windows
WITH_ALPHA = {"1": "LA", "L": "LA", "LA": "LA", "La": "LA"}


def load_image(picture: Picture) -> Image.Image:
    """A new RGB picture, upright as its EXIF orientation says, in sRGB, transparency over white.

    Takes a PIL image, a path, the bytes of a picture file, or an array [H, W] or [H, W, 1 | 3 | 4] (uint8 or uint16
    at full range, bool, or floats in [0, 1], of which up to 0.25 beyond is clipped). Grey, palette, CMYK and 16-bit
    pictures are converted, and colours by the picture's profile; of an animation the first frame is taken, of an opened
    one the frame that it stands at. More than 64 million pixels are refused from the header, before anything is
    decoded. Raises ImageError.
    """
    image = to_srgb(open_picture(picture))
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image


def open_picture(picture: Picture) -> Image.Image:
    """A new picture, upright, in mode L, LA, RGB, RGBA, CMYK or LAB, its colour profile with it (`info`).

    Takes what load_image takes. Raises ImageError.
    """
    if isinstance(picture, np.ndarray):
        return from_array(picture)
    if isinstance(picture, Image.Image):
        return _decode(picture, "the picture")
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return _open(io.BytesIO(picture), "the picture's bytes")
    if not isinstance(picture, (str, os.PathLike)):
        raise ImageError(
            f"a {type(picture).__name__} is not a picture",
            expected="a PIL image, a path, the bytes of a picture file, or an array [H, W, 3]",
            fix="open the picture with PIL.Image.open, or pass its path",
        )
    path = os.path.expanduser(os.fspath(picture))
    if not os.path.isfile(path):
        raise ImageError(
            f"there is no picture file {path!r}",
            expected="the path of a picture on this computer",
            fix="check the path; download a picture that is on the web first",
        )
    return _open(path, path)


def from_array(array: np.ndarray) -> Image.Image:
    """[H, W] or [H, W, 1 | 3 | 4] → L, RGB or RGBA, eight bits a channel. Raises ImageError; see load_image."""
    array = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))) or array.size == 0:
        raise ImageError(
            f"an array of shape {list(array.shape)} is not a picture",
            expected="[H, W], [H, W, 1], [H, W, 3] or [H, W, 4]",
            fix="put the channels last and take one picture of a batch",
        )
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise _too_large("the array", px((array.shape[1], array.shape[0])))
    if array.dtype == np.uint8:
        return Image.fromarray(array)
    if array.dtype == bool:
        return Image.fromarray(array.astype(np.uint8) * 255)
    top = _full_range(array)
    pixels = np.empty(array.shape, np.uint8)
    for start in range(0, len(array), ROWS):  # all at once, a large picture takes gigabytes on the way
        values = array[start : start + ROWS].astype(np.float32).clip(0, top)
        pixels[start : start + ROWS] = np.rint(values * np.float32(255 / top))
    return Image.fromarray(pixels)


def px(size: tuple[int, int]) -> str:
    """A size in words."""
    return f"{size[0]}×{size[1]} px"


def _full_range(array: np.ndarray) -> int:
    """What white is in this array: of 1, 255 and 65535 the one whose range the values fill without leaving it.

    What would come out all but black is refused, like what is far outside every range: it is in another range.
    """
    numbers = array.dtype.kind in "fiu"
    low, high = (float(array.min()), float(array.max())) if numbers else (0.0, 0.0)
    if (array.dtype.kind, array.dtype.itemsize) == ("u", 2):  # a picture's own range, and a dark one may be meant
        if high == 0 or high > 255:
            return 65535
    elif numbers:
        for top, beyond in RANGES.items():
            dark = high < DARK * top and (top > 1 or high > 0)
            if -beyond <= low and high <= top + beyond and not dark:
                return top
    values = f" from {low:g} to {high:g}" if numbers else ""
    raise ImageError(
        f"an array of {array.dtype}{values}, whose values are no brightnesses",
        expected="uint8 or uint16 at full range, or floats in [0, 1]",
        fix="bring the values into [0, 1], and replace those that are not finite",
    )


def _open(file: Any, name: str) -> Image.Image:
    try:
        image = Image.open(file)  # Pillow warns of what is too large, and _decode refuses it
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name, f"over {Image.MAX_IMAGE_PIXELS:,} pixels") from error
    except Exception as error:  # every format's parser has its own kinds of errors
        raise _unreadable(name, error) from error
    with image:
        return _decode(image, name)


def _decode(image: Image.Image, name: str) -> Image.Image:
    width, height = image.size
    if image.format in BY_PROGRAMS:
        raise ImageError(
            f"{name} is {image.format}, which other programs would be run for",
            expected="a PNG, JPEG, WebP, GIF, BMP or TIFF picture",
            fix="convert it with a program that you trust it with",
        )
    if width * height > MAX_PIXELS:
        raise _too_large(name, px(image.size))
    if width * height == 0:
        raise ImageError(f"{name} is empty: {px(image.size)}", expected="at least 1 px", fix="pass another picture")
    try:
        turned = image.getexif().get(ORIENTATION, 1) != 1
        upright = ImageOps.exif_transpose(image) if turned else image  # it copies even what stands upright
        if upright.mode[0] in "IF":  # 16 or 32 bits; PIL's own conversion would cut them off at 255
            return _eight_bits(upright, image)
        if upright.has_transparency_data:
            return upright.convert(WITH_ALPHA.get(upright.mode, "RGBA"))
        return upright.convert({"1": "L", "L": "L", "CMYK": "CMYK", "LAB": "LAB"}.get(upright.mode, "RGB"))
    except ImageError as error:  # of the values that it holds
        raise ImageError(f"{name}: {error.problem}", expected=error.expected, fix=error.fix) from error
    except Exception as error:
        raise _unreadable(name, error) from error


def _eight_bits(image: Image.Image, opened: Image.Image) -> Image.Image:
    """A grey picture of more than 8 bits as L, or LA where one value is transparent. opened: with its file's tags."""
    values = np.asarray(image)
    if opened.format == "PNG":  # which has 16 bits at most; older versions of PIL hold them in 32
        values = values.astype(np.uint16)
    grey = from_array(values)
    if getattr(opened, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO:  # PIL inverts up to 8 bits alone
        grey = ImageChops.invert(grey)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    grey.info = {name: value for name, value in image.info.items() if name == "icc_profile"}
    return grey


def _too_large(name: str, size: str) -> ImageError:
    return ImageError(
        f"{name} is too large: {size}",
        expected=f"at most {MAX_PIXELS // 1_000_000} million pixels",
        fix="scale the picture down first; the model itself sees about a million pixels at most",
    )


def _unreadable(name: str, error: Exception) -> ImageError:
    unknown = isinstance(error, UnidentifiedImageError)  # whose text has addresses in memory
    return ImageError(
        f"{name} cannot be read as a picture: {'of no known kind' if unknown else error or type(error).__name__}",
        expected="a whole PNG, JPEG, WebP, GIF, BMP or TIFF file",
        fix="open it in a picture viewer: if it is cut short or of another kind, save or download it again",
    )
