"""A picture's bytes as the pipeline keeps them: upright, RGB, of no place and nobody, with a note of what was done."""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from ...basics.folders import plain
from ...images import load_image
from ...images.colour import has_other_colours
from ...images.opening import ORIENTATION
from .metadata import without_metadata

PLAIN = ("PNG", "JPEG", "WEBP")  # kinds whose bytes are kept, but for their metadata, where nothing had to be done
TURNED = range(2, 9)  # of EXIF's orientations; others mean nothing


def decoded(content: bytes) -> tuple[Image.Image, bytes, str | None]:
    """The picture, its bytes from now on, and what was changed ("CMYK → RGB"; None: nothing). Raises ImageError."""
    picture = load_image(content)
    with Image.open(io.BytesIO(content)) as header:  # a header only: the pixels are decoded above
        notes = []
        if header.mode != "RGB":
            notes.append(f"{header.mode} → RGB")
        elif header.has_transparency_data:
            notes.append("transparency → white")
        if has_other_colours(header):
            notes.append("profile → sRGB")
        if header.getexif().get(ORIENTATION) in TURNED:
            notes.append("turned upright")
        if (frames := _frames(header)) > 1:
            notes.append(f"first of {frames} frames")
        kind = header.format
    if kind not in PLAIN or notes:
        return picture, encoded(picture), ", ".join(notes) or None
    bare = _bare(content, kind, picture)
    return picture, bare, None if bare == content else "metadata removed"


def _bare(content: bytes, kind: str, picture: Image.Image) -> bytes:
    """Without metadata, where these are published: as PNG if the file's own parts do not show the same picture."""
    with suppress(ValueError):  # an ImageError is one
        bare = without_metadata(content, kind)
        if bare == content or load_image(bare).tobytes() == picture.tobytes():
            return bare
    return encoded(picture)


def _frames(header: Image.Image) -> int:
    """How many frames a picture has; 1 where what follows its first one is damaged."""
    try:
        return getattr(header, "n_frames", 1)
    except Exception:  # every format's parser has its own kinds of errors
        return 1


def header_size(picture: bytes | Path | None) -> tuple[int, int] | None:
    """Width and height as the header says, of a file or its content; None where none can be read."""
    try:
        with io.BytesIO(picture) if isinstance(picture, bytes) else plain(picture).open("rb") as file:
            size = _header(file).size
    except Exception:  # every format's parser has its own kinds of errors
        return None
    most = Image.MAX_IMAGE_PIXELS
    return size if most is None or size[0] * size[1] <= 2 * most else None  # what Pillow opens, if with a warning


def _header(file: BinaryIO) -> Image.Image:
    """What Image.open finds, without its warning of large pictures, which is silenced for all threads or for none."""
    Image.preinit()
    Image.init()
    begin = file.read(16)
    for factory, accepts in map(Image.OPEN.__getitem__, Image.ID):
        answer = accepts(begin) if accepts else True
        if not answer or isinstance(answer, str):  # why it could not
            continue
        file.seek(0)
        with suppress(SyntaxError, IndexError, TypeError, struct.error):  # another format's
            return factory(file, "")
    raise ValueError("no picture")


def encoded(picture: Image.Image) -> bytes:
    """As PNG, without loss."""
    stream = io.BytesIO()
    picture.save(stream, format="PNG")
    return stream.getvalue()


def opened(content: bytes) -> Image.Image:
    """What `encoded` or `decoded` gave, as a picture."""
    return load_image(content)
