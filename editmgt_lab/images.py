"""Pictures in and out: any picture becomes RGB on the model's grid, and an edit finds its way back."""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from .errors import ImageError, ShapeError

Picture: TypeAlias = "Image.Image | str | os.PathLike[str] | bytes | bytearray | memoryview | np.ndarray"
Box: TypeAlias = "tuple[float, float, float, float]"

MAX_PIXELS = 64_000_000


@dataclass(frozen=True)
class Geometry:
    """How a picture was fitted to the model's grid. Sizes are (width, height) in px.

    original: of the picture as one sees it, orientation applied; crop: the (left, top, right, bottom) of it
    that was kept, whole px; size: what that crop was resized to.
    """

    original: tuple[int, int]
    crop: tuple[int, int, int, int]
    size: tuple[int, int]

    def paste_back(self, edited: Image.Image, original: Picture) -> Image.Image:
        """`original`, at its full size, with `edited` resized into the part that was kept."""
        whole = load_image(original)
        if whole.size != self.original:
            raise ImageError(
                f"this picture is {_px(whole.size)}, another one than was fitted",
                expected=f"the picture that was fitted, {_px(self.original)}",
                fix="pass the picture that fit() was given",
            )
        left, top, right, bottom = self.crop
        whole.paste(edited.convert("RGB").resize((right - left, bottom - top), Image.Resampling.LANCZOS), (left, top))
        return whole


@dataclass(frozen=True)
class Fitted:
    """Pictures of one size that line up pixel by pixel. source, target: RGB; mask: "L", white where the edit is."""

    source: Image.Image
    target: Image.Image | None
    mask: Image.Image | None
    geometry: Geometry


def load_image(picture: Picture) -> Image.Image:
    """A new RGB picture, upright as its EXIF orientation says, transparency over white.

    Takes a PIL image, a path, the bytes of a picture file, or an array [H, W] or [H, W, 1 | 3 | 4] (uint8 or uint16
    at full range, bool, or floats in [0, 1]). Grey, palette, CMYK and 16-bit pictures are converted; of an animation
    the first frame is taken. More than 64 million pixels are refused from the header, before anything is decoded.
    Raises ImageError.
    """
    if isinstance(picture, np.ndarray):
        return _upright_rgb(_from_array(picture))
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


def fit(picture: Picture, *, pixels: int, multiple: int) -> tuple[Image.Image, Geometry]:
    """Fits a picture to the model's grid: about pixels² of area, both sides a multiple of `multiple`.

    picture: whatever load_image takes; pixels: the side in px of the model's square (1024 for the released model);
    multiple: px per cell of the transformer's grid (twice the tokenizer's factor). The aspect ratio is kept: a centre
    crop takes away only what does not fill whole cells. Raises ImageError, also for a picture so narrow that one of
    its sides would not fill a cell.
    """
    image = load_image(picture)
    geometry = _plan(image.size, pixels, multiple)
    return image.resize(geometry.size, Image.Resampling.LANCZOS, box=geometry.crop), geometry


def fit_together(
    source: Picture,
    target: Picture | None = None,
    mask: Picture | None = None,
    *,
    pixels: int,
    multiple: int,
    square: bool = False,
    most_off: float = 0.0,
) -> Fitted:
    """Fits source, target and mask with one geometry, the source's, so that they still line up; see fit.

    Target and mask may be of another size than the source. Their aspect ratio may differ by what rounding to whole px
    explains and by the share `most_off`, then they are stretched: else ImageError. The mask is resized to the nearest
    pixel and keeps its values. square: keep only the middle square of the source, and of the others the same part.
    """
    whole = load_image(source)
    geometry = _plan_square(whole.size, pixels, multiple) if square else _plan(whole.size, pixels, multiple)

    def follow(picture: Picture, name: str, resampling: Image.Resampling) -> Image.Image:
        image = load_image(picture)
        if aspects_differ(image.size, geometry.original) > most_off:
            _check_same_aspect(image.size, geometry.original, name)
        return image.resize(geometry.size, resampling, box=_scaled(geometry.crop, geometry.original, image.size))

    return Fitted(
        source=whole.resize(geometry.size, Image.Resampling.LANCZOS, box=geometry.crop),
        target=None if target is None else follow(target, "target", Image.Resampling.LANCZOS),
        mask=None if mask is None else follow(mask, "mask", Image.Resampling.NEAREST).convert("L"),
        geometry=geometry,
    )


def aspects_differ(size: tuple[int, int], other: tuple[int, int]) -> float:
    """The share by which one aspect ratio is larger than the other: 0 for pictures of one shape."""
    ratio = size[0] * other[1] / (size[1] * other[0])
    return max(ratio, 1 / ratio) - 1


def to_tensor(images: Image.Image | Sequence[Image.Image]) -> Tensor:
    """RGB pictures of one size → float32 [B, 3, H, W] in [0, 1]. Raises ImageError where sizes differ."""
    images = [images] if isinstance(images, Image.Image) else list(images)
    sizes = list(dict.fromkeys(image.size for image in images))
    if len(sizes) != 1:
        raise ImageError(
            f"a batch of pictures of {len(sizes)} sizes: {', '.join(map(_px, sizes)) or 'it is empty'}",
            expected="one or more pictures of one size",
            fix="fit them to one size, or pass them one at a time",
        )
    stacked = np.stack([np.asarray(image.convert("RGB")) for image in images])  # [B, H, W, 3]
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float().div(255)


def to_images(tensor: Tensor) -> list[Image.Image]:
    """[B, 3, H, W] in [0, 1], any dtype and device → B RGB pictures; values outside are clamped. Raises ShapeError."""
    if tensor.ndim != 4 or tensor.shape[1] != 3:
        raise ShapeError(
            f"a tensor of shape {list(tensor.shape)} is not a batch of pictures",
            expected="[B, 3, H, W]",
            fix="add the batch dimension, or move the channels behind it",
        )
    values = tensor.detach().float().mul(255).round().clamp(0, 255).byte()
    return [Image.fromarray(array) for array in values.permute(0, 2, 3, 1).contiguous().cpu().numpy()]


def _open(file: Any, name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(file)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name, f"over {Image.MAX_IMAGE_PIXELS:,} pixels") from error
    except Exception as error:  # every format's parser has its own kinds of errors
        raise _unreadable(name, error) from error
    with image:
        return _decode(image, name)


def _decode(image: Image.Image, name: str) -> Image.Image:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_large(name, _px(image.size))
    if width * height == 0:
        raise ImageError(f"{name} is empty: {_px(image.size)}", expected="at least 1 px", fix="pass another picture")
    try:
        return _upright_rgb(image)
    except ImageError:
        raise
    except Exception as error:
        raise _unreadable(name, error) from error


def _upright_rgb(image: Image.Image) -> Image.Image:
    image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":  # 16 or 32 bits; PIL's own conversion would cut them off at 255
        image = _from_array(np.asarray(image))
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _from_array(array: np.ndarray) -> Image.Image:
    array = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (3, 4))) or array.size == 0:
        raise ImageError(
            f"an array of shape {list(array.shape)} is not a picture",
            expected="[H, W], [H, W, 1], [H, W, 3] or [H, W, 4]",
            fix="put the channels last and take one picture of a batch",
        )
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise _too_large("the array", _px((array.shape[1], array.shape[0])))
    if array.dtype != np.uint8:
        array = np.rint(array * (255 / _full_range(array))).astype(np.uint8)
    return Image.fromarray(array)


def _full_range(array: np.ndarray) -> int:
    """What white is in this array: its type's top, or of 1, 255 and 65535 the first that no value exceeds."""
    exact = {"bool": 1, "uint16": 65535}.get(array.dtype.name)
    if exact:
        return exact
    tops = {"f": (1, 255, 65535), "i": (255, 65535), "u": (255, 65535)}.get(array.dtype.kind, ())
    top = next((top for top in tops if array.min() >= 0 and array.max() <= top), None)
    if top is None:
        raise ImageError(
            f"an array of {array.dtype} whose values are no brightnesses",
            expected="uint8 or uint16, or floats in [0, 1]",
            fix="bring the values into [0, 1], and replace those that are not finite",
        )
    return top


def _plan(original: tuple[int, int], pixels: int, multiple: int) -> Geometry:
    width, height = original
    short, long = sorted(original)
    cells = pixels / multiple * math.sqrt(short / long)  # along the short side
    if cells < 1:
        raise ImageError(
            f"a picture of {_px(original)} is too narrow",
            expected=f"a long side at most {(pixels // multiple) ** 2} times the short one",
            fix="crop the picture to the part to edit",
        )
    across = round(cells)
    along = max(across, round(across * long / short))
    columns, rows = (across, along) if width <= height else (along, across)
    kept_width = max(1, min(width, round(height * columns / rows)))
    kept_height = max(1, min(height, round(width * rows / columns)))
    left, top = (width - kept_width) // 2, (height - kept_height) // 2
    return Geometry(original, (left, top, left + kept_width, top + kept_height), (columns * multiple, rows * multiple))


def _plan_square(original: tuple[int, int], pixels: int, multiple: int) -> Geometry:
    side = min(original)
    left, top = ((length - side) // 2 for length in original)
    whole_cells = pixels // multiple * multiple
    return Geometry(original, (left, top, left + side, top + side), (whole_cells, whole_cells))


def _scaled(box: Box, old: tuple[int, int], new: tuple[int, int]) -> Box:
    across, down = new[0] / old[0], new[1] / old[1]
    left, top, right, bottom = box
    return left * across, top * down, min(right * across, new[0]), min(bottom * down, new[1])


def _check_same_aspect(size: tuple[int, int], source: tuple[int, int], name: str) -> None:
    (width, height), large = sorted((size, source))
    # A picture scaled down is off by up to half a pixel on each side.
    if abs(height - width * large[1] / large[0]) > 0.5 + 0.5 * large[1] / large[0]:
        raise ImageError(
            f"the {name} is {_px(size)} and the source {_px(source)}: they cannot line up",
            expected="source, target and mask of one aspect ratio",
            fix=f"crop the {name} as the source was cropped",
        )


def _px(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]} px"


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
