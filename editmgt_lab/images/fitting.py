"""Pictures in and out: any picture becomes RGB on the model's grid, and an edit finds its way back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..basics.checks import check_number
from ..errors import ImageError, SettingError, ShapeError
from .masks import Box, Mask, MaskPicture, fit_mask, read_mask
from .opening import Picture, load_image, open_picture, px


@dataclass(frozen=True)
class Geometry:
    """How a picture was fitted to the model's grid. Sizes are (width, height) in px.

    original: of the picture as one sees it, orientation applied; crop: the (left, top, right, bottom) of it
    that was kept, whole px; size: what that crop was resized to.
    """

    original: tuple[int, int]
    crop: tuple[int, int, int, int]
    size: tuple[int, int]

    @property
    def whole(self) -> bool:
        """Whether nothing was cropped."""
        return self.crop == (0, 0, *self.original)

    def paste_back(self, edited: Picture, original: Picture) -> Image.Image:
        """`original`, at its full size, with `edited` resized into the part that was kept. Raises ImageError."""
        whole, edit = load_image(original), load_image(edited)
        _check_same_aspect(edit.size, self.size, "edit")
        if whole.size != self.original:
            raise ImageError(
                f"this picture is {px(whole.size)}, another one than was fitted",
                expected=f"the picture that was fitted, {px(self.original)}",
                fix="pass the picture that fit() was given",
            )
        left, top, right, bottom = self.crop
        whole.paste(edit.resize((right - left, bottom - top), Image.Resampling.LANCZOS), (left, top))
        return whole


@dataclass(frozen=True)
class Fitted:
    """Pictures of one size that line up pixel by pixel. source, target: RGB; mask: "L", white where the edit is;
    reading: how the mask was understood, one of masks.READINGS."""

    source: Image.Image
    target: Image.Image | None
    mask: Image.Image | None
    geometry: Geometry
    reading: str | None = None


def fit(picture: Picture, *, pixels: int, multiple: int) -> tuple[Image.Image, Geometry]:
    """Fits a picture to the model's grid: about pixels² of area, both sides a multiple of `multiple`. A very narrow one
    has more or less, from a quarter to four times that, as its short side is few cells, and whole ones.

    picture: whatever load_image takes; pixels: the side in px of the model's square (1024 for the released model);
    multiple: px per cell of the transformer's grid (twice the tokenizer's factor). The aspect ratio is kept: a centre
    crop takes away only what does not fill whole cells. A picture that was fitted before stays as it is. Raises
    ImageError, also for a picture so narrow that one of its sides would not fill a cell; SettingError, see square_side.
    """
    image = load_image(picture)
    geometry = _plan(image.size, pixels, multiple)
    return image.resize(geometry.size, Image.Resampling.LANCZOS, box=geometry.crop), geometry


def fit_together(
    source: Picture,
    target: Picture | None = None,
    mask: MaskPicture | None = None,
    *,
    pixels: int,
    multiple: int,
    square: bool = False,
    most_off: float = 0.0,
) -> Fitted:
    """Fits source, target and mask with one geometry, the source's, so that they still line up; see fit.

    Target and mask may be of another size than the source. Their aspect ratio may differ by what rounding to whole px
    explains and by the share `most_off`, then they are stretched: else ImageError. The mask is read by masks.read_mask,
    which refuses an ambiguous one, and resized by masks.fit_mask, which loses no spot of it. square: keep only the
    middle square of the source, and of the others the same part.
    """
    whole = load_image(source)
    geometry = _plan_square(whole.size, pixels, multiple) if square else _plan(whole.size, pixels, multiple)

    def part(size: tuple[int, int], name: str) -> Box:
        if aspects_differ(size, geometry.original) > most_off:
            _check_same_aspect(size, geometry.original, name)
        return _scaled(geometry.crop, geometry.original, size)

    fitted_target = read = None
    if target is not None:
        other = load_image(target)
        fitted_target = other.resize(geometry.size, Image.Resampling.LANCZOS, box=part(other.size, "target"))
    if mask is not None:
        shown = mask if isinstance(mask, Mask) else open_picture(mask)
        box = part(shown.size, "mask")
        read = read_mask(shown, whole)
    return Fitted(
        source=whole.resize(geometry.size, Image.Resampling.LANCZOS, box=geometry.crop),
        target=fitted_target,
        mask=fit_mask(read.image, geometry.size, box) if read else None,
        geometry=geometry,
        reading=read.reading if read else None,
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
            f"a batch of pictures of {len(sizes)} sizes: {', '.join(map(px, sizes)) or 'it is empty'}",
            expected="one or more pictures of one size",
            fix="fit them to one size, or pass them one at a time",
        )
    stacked = np.stack([np.asarray(image.convert("RGB")) for image in images])  # [B, H, W, 3]
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float().div(255)


def to_images(tensor: Tensor) -> list[Image.Image]:
    """[B, 3, H, W] in [0, 1], any dtype and device → B RGB pictures; values outside are clamped.

    Raises ShapeError, and ImageError for what is not finite, which would come out black.
    """
    if tensor.ndim != 4 or tensor.shape[1] != 3:
        raise ShapeError(
            f"a tensor of shape {list(tensor.shape)} is not a batch of pictures",
            expected="[B, 3, H, W]",
            fix="add the batch dimension, or move the channels behind it",
        )
    values = tensor.detach().float()
    if not values.isfinite().all():
        raise ImageError(
            f"{int((~values.isfinite()).sum())} of {values.numel()} values of these pictures are not finite",
            expected="numbers, of which those in [0, 1] are shown as they are",
            fix='compute them in float32, such as with lab.load(dtype="float32"), and check the weights',
        )
    values = values.mul(255).round().clamp(0, 255).byte()
    return [Image.fromarray(array) for array in values.permute(0, 2, 3, 1).contiguous().cpu().numpy()]


def square_side(pixels: int, multiple: int) -> int:
    """Px along the side of a square picture on the grid, whole cells. Raises SettingError where that is not one."""
    check_number(pixels, "image_size", 1, math.inf, "the side of the model's square in px")
    cells = round(pixels / multiple)
    if cells < 1:
        raise SettingError(
            f"image_size is {pixels} px, and a cell of the grid {multiple} px",
            expected="a side of at least one cell",
            fix=f"make it a multiple of {multiple}",
        )
    return cells * multiple


def _plan(original: tuple[int, int], pixels: int, multiple: int) -> Geometry:
    width, height = original
    short, long = sorted(original)
    cells = square_side(pixels, multiple) / multiple * math.sqrt(short / long)  # along the short side
    if cells < 1:
        raise ImageError(
            f"a picture of {px(original)} is too narrow",
            expected=f"a long side at most {(square_side(pixels, multiple) // multiple) ** 2} times the short one",
            fix="crop the picture to the part to edit",
        )
    if width % multiple == height % multiple == 0 and abs(short / multiple - cells) < 1:  # as rounding leaves it
        return Geometry(original, (0, 0, width, height), original)
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
    return Geometry(original, (left, top, left + side, top + side), (square_side(pixels, multiple),) * 2)


def _scaled(box: Box, old: tuple[int, int], new: tuple[int, int]) -> Box:
    across, down = new[0] / old[0], new[1] / old[1]
    left, top, right, bottom = box
    return left * across, top * down, min(right * across, new[0]), min(bottom * down, new[1])


def _check_same_aspect(size: tuple[int, int], source: tuple[int, int], name: str) -> None:
    (width, height), large = sorted((size, source))
    # A picture scaled down is off by up to half a pixel on each side.
    if abs(height - width * large[1] / large[0]) > 0.5 + 0.5 * large[1] / large[0]:
        raise ImageError(
            f"the {name} is {px(size)} and the source {px(source)}: they cannot line up",
            expected="source, target and mask of one aspect ratio",
            fix=f"crop the {name} as the source was cropped",
        )
