"""Pictures of every format that Pillow writes, damaged, swapped, absurdly large; and arrays."""

from __future__ import annotations

import io
import random
import struct
import zlib
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageStat

from editmgt_lab.images import fit, load_image

from ..bench import Bench
from ..case import Black, Kind, Wrong, owed
from ..values import damaged, damages

Image.init()
FORMATS = sorted({*Image.SAVE} - {"BUFR", "GRIB", "HDF5", "WMF"})  # which Pillow would have other programs write
UNREAD = ("EPS", "PALM", "PDF")  # of FORMATS, those that are refused however whole they are
OTHERWISE = ("ICNS", "ICO", "SPIDER")  # those that keep another size, or fewer colours
LOSES = dict.fromkeys(("AVIF", "GIF", "JPEG", "MPO", "WEBP"), 30)  # of 255, on the average
WIDE = ("I", "I;16")  # of more than eight bits, at full range
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F")
SIZES = ((32, 32), (48, 20), (1, 1), (7, 90), (16, 16), (256, 256))
ABSURD = (0, 1, 65535, 30000, 8000, 2**31 - 1, 2**32 - 1)
DTYPES = (
    "uint8", "uint16", "int16", "int32", "int64", "uint64", "float16", "float32", "float64", "bool", "complex64",
    "object", "U1",
)  # fmt: skip
SHAPES = (
    (8, 8),
    (8, 8, 3),
    (8, 8, 4),
    (8, 8, 1),
    (8, 8, 2),
    (3, 8, 8),
    (1, 8, 8, 3),
    (0, 8, 3),
    (8,),
    (),
    (1, 1),
    (8, 8, 0),
)
TOPS = {"uint8": 255, "uint16": 65535, "bool": 1, "float16": 1, "float32": 1, "float64": 1}  # what white is
FILLS = ("gradient", "zeros", "ones", "most", "nan", "inf", "negative", "dim")
BOMBS = ("grey", "colours", "palette", "deep", "one bit", "beyond", "icon", "text", "profile", "gif", "tiff")


# Files


def shown_in(mode: str, width: int, height: int) -> Image.Image:
    """The picture that all cases have, in a mode; raises what Pillow does where there is no such mode for it."""
    image = Bench.picture(width, height)
    if mode in WIDE:
        grey = np.asarray(image.convert("L"), np.uint16) * 257
        return Image.fromarray(grey if mode == "I;16" else grey.astype(np.int32))
    return image.convert(mode)


@lru_cache(maxsize=1024)
def written(form: str, mode: str, width: int, height: int) -> tuple[str, bytes]:
    """A picture file and its mode: this one, or one that the format has."""
    for chosen in (mode, "RGB", "L", "1", "P"):
        if chosen in WIDE and form in LOSES:  # which would write white
            continue
        stream = io.BytesIO()
        try:
            shown_in(chosen, width, height).save(stream, format=form)
        except Exception:  # every format's writer has its own kinds of errors
            continue
        return chosen, stream.getvalue()
    raise ValueError(f"Pillow writes no {form}")


def encoded(form: str, mode: str, width: int, height: int) -> bytes:
    return written(form, mode, width, height)[1]


@lru_cache(maxsize=len(BOMBS))
def bomb(name: str) -> bytes:
    """Small files of large pictures, most of them just within what is taken."""
    stream = io.BytesIO()
    side = 7990  # px: 64 million pixels are the most
    if name in ("grey", "colours", "palette", "one bit"):
        mode = {"grey": "L", "colours": "RGBA", "palette": "P", "one bit": "1"}[name]
        Image.new(mode, (side, side), 1).save(stream, "PNG")
    elif name == "deep":
        return png(side, side, depth=16, colour=6)
    elif name == "beyond":
        return png(60000, 60000, depth=8, colour=2, rows=10)
    elif name == "icon":  # the header says 256 px, the picture in it is larger
        inside = png(side, side, depth=8, colour=6)
        return struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(inside), 22) + inside
    elif name in ("text", "profile"):
        kind, head = (b"zTXt", b"a\0\0") if name == "text" else (b"iCCP", b"a\0\0")
        chunk = head + zlib.compress(bytes(300_000_000), 9)
        whole = encoded("PNG", "RGB", 32, 32)
        return (
            whole[:33]
            + struct.pack(">I", len(chunk))
            + kind
            + chunk
            + struct.pack(">I", zlib.crc32(kind + chunk))
            + whole[33:]
        )
    elif name == "gif":
        Image.new("P", (side, side)).save(stream, "GIF", save_all=True, append_images=[Image.new("P", (side, side), 1)])
    else:
        Image.new("F", (side // 2, side), 0.5).save(stream, "TIFF", compression="tiff_deflate")
    return stream.getvalue()


def png(width: int, height: int, *, depth: int, colour: int, rows: int | None = None) -> bytes:
    """A PNG of zeros, made without its pixels."""
    channels = {0: 1, 2: 3, 6: 4}[colour]
    packer, row = zlib.compressobj(1), bytes(1 + width * channels * depth // 8)
    pixels = b"".join([*(packer.compress(row) for _ in range(rows or height)), packer.flush()])
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)),
        (b"IDAT", pixels),
        (b"IEND", b""),
    )
    parts = (struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c)) for kind, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def resized(content: bytes, old: tuple[int, int], new: tuple[int, int]) -> bytes:
    """A file whose header says another size than its pixels have: wherever the old one stands, in any coding."""
    head, rest = content[:300], content[300:]
    for before, after in zip(old, new, strict=True):
        for code in (">I", "<I", ">H", "<H"):
            top = 2 ** (8 * struct.calcsize(code)) - 1
            for off in (0, 1):  # some formats count from 0
                was, will = struct.pack(code, before - off), struct.pack(code, max(min(after - off, top), 0))
                if any(was[:-1]) or before > 2:
                    head = head.replace(was, will, 1)
        head = head.replace(f"{before}".encode(), f"{after}".encode(), 1)
    if head.startswith(b"\x89PNG"):
        head = head[:29] + struct.pack(">I", zlib.crc32(head[12:29])) + head[33:]
    return head + rest


def make_picture(dice: random.Random) -> Any:
    way = dice.random()
    if way < 0.006:
        return {"bomb": dice.choice(BOMBS)}
    if way < 0.12:
        return {"array": make_array(dice)}
    recipe: dict[str, Any] = {
        "format": dice.choice(FORMATS), "mode": dice.choice(MODES), "size": dice.choice(SIZES),
        "as": dice.choice(("bytes", "path", "image", "buffer")),
    }  # fmt: skip
    if way < 0.2:
        return recipe
    if way < 0.35:
        recipe["resized"] = [dice.choice(ABSURD), dice.choice(ABSURD)]
    elif way < 0.45:
        recipe["head"] = [dice.choice(FORMATS), dice.choice((2, 4, 8, 12, 26, 64))]
    if way > 0.4:
        recipe["damages"] = damages(dice)
    return recipe


def make_array(dice: random.Random) -> Any:
    return {"dtype": dice.choice(DTYPES), "shape": dice.choice(SHAPES), "fill": dice.choice(FILLS)}


def array_of(recipe: Any) -> np.ndarray:
    shape, count = recipe.get("shape", [8, 8]), int(np.prod(recipe.get("shape", [8, 8])))
    top = {"uint8": 255, "uint16": 65535, "int32": 255}.get(recipe.get("dtype"), 1)
    values = {
        "zeros": np.zeros(count), "ones": np.ones(count), "most": np.full(count, top), "nan": np.full(count, np.nan),
        "inf": np.full(count, np.inf), "negative": -np.arange(count), "dim": np.arange(count) % 3 / 300,
    }.get(recipe.get("fill"), np.linspace(0, top, count))  # fmt: skip
    with np.errstate(all="ignore"):
        return values.reshape(shape).astype(recipe.get("dtype", "uint8"))


def content_of(recipe: Any) -> bytes:
    if "bomb" in recipe:
        return bomb(recipe["bomb"])
    form, size = recipe.get("format", "PNG"), tuple(recipe.get("size", (32, 32)))
    content = encoded(form, recipe.get("mode", "RGB"), *size)
    if "head" in recipe:
        other, length = recipe["head"]
        content = encoded(other, "RGB", 32, 32)[:length] + content[length:]
    if "resized" in recipe:
        content = resized(content, size, tuple(recipe["resized"]))
    return damaged(content, recipe.get("damages", []))


def run_picture(recipe: Any, bench: Bench) -> None:
    whole = not recipe.keys() & {"bomb", "resized", "head", "damages"}
    if "array" in recipe:
        content = given = array_of(recipe["array"])
        known, most = array_shown(recipe["array"]), 1.0
    else:
        content = content_of(recipe)
        given = handed(content, recipe.get("as", "bytes"), bench)
        known, most = known_picture(recipe) if whole else (pillow_reads(content), 1.0)
    with owed(known is not None and whole):
        shown = load_image(given)
    if recipe.get("format") in UNREAD and whole:
        raise Wrong(f"{recipe['format']} was opened")
    if shown.mode != "RGB" or min(shown.size) < 1 or shown.info.get("icc_profile"):
        raise Wrong(f"mode {shown.mode}, {shown.size}")
    if max(high for _, high in shown.getextrema()) <= 2 and not is_black(content):
        raise Black("load_image shows black, Pillow does not")
    if known is not None and (off := difference(shown, known)) > most:
        raise Wrong(f"{shown.size} for {known.size}, {off:.1f} of 255 off")
    fitted, geometry = fit(shown, pixels=32, multiple=bench.editor.multiple)
    if fitted.size != geometry.size or any(side % bench.editor.multiple for side in fitted.size):
        raise Wrong(f"fitted to {fitted.size}")


def known_picture(recipe: Any) -> tuple[Image.Image | None, float]:
    """What an undamaged file shows (None: it has to be refused), and how far off its format may be."""
    form, size = recipe.get("format", "PNG"), tuple(recipe.get("size", (32, 32)))
    mode, content = written(form, recipe.get("mode", "RGB"), *size)
    if form in UNREAD:
        return None, 0.0
    if form in OTHERWISE:
        return pillow_reads(content), 1.0
    return shown_in("L" if mode in WIDE else mode, *size).convert("RGB"), LOSES.get(form, 1.0)


def pillow_reads(content: bytes) -> Image.Image | None:
    """A file's picture on white as Pillow alone shows it; None where it does not, or not without a choice."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            turned, plain = image.getexif().get(274, 1) != 1, image.mode[0] not in "IF" and image.mode != "LAB"
            if turned or not plain or image.info.get("icc_profile") or image.width * image.height > 2**22:
                return None
            if not image.has_transparency_data:
                return image.convert("RGB")
            clear = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    except Exception:  # every format's reader has its own kinds of errors
        return None


def array_shown(recipe: Any) -> Image.Image | None:
    """What an array shows that is a picture in one way only."""
    array = array_of(recipe)
    top = TOPS.get(array.dtype.name)
    if top is None or recipe.get("fill", "gradient") not in ("gradient", "zeros", "most") or not is_picture(array):
        return None
    eight = np.rint(array.reshape(*array.shape[:2], -1).astype(float) / top * 255)
    if eight.shape[2] == 4:
        eight = eight[..., :3] * (eight[..., 3:] / 255) + 255 - eight[..., 3:]
    return Image.fromarray(np.broadcast_to(eight, (*eight.shape[:2], 3)).astype(np.uint8))


def is_picture(array: np.ndarray) -> bool:
    return array.size > 0 and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4)))


def difference(picture: Image.Image, other: Image.Image) -> float:
    """Of two RGB pictures, of 255, on the average; infinite for two sizes, or for what is not RGB."""
    if (picture.size, picture.mode) != (other.size, other.mode):
        return float("inf")
    return max(ImageStat.Stat(ImageChops.difference(picture, other)).mean)


def handed(content: bytes, how: str, bench: Bench) -> Any:
    """The content in one of the ways that a picture may be passed."""
    if how == "path":
        file = bench.root / "picture.bin"
        file.write_bytes(content)
        return str(file)
    if how == "image":
        try:
            return Image.open(io.BytesIO(content))
        except Exception:  # then there is no image to pass
            return content
    return memoryview(content) if how == "buffer" else content


def is_black(content: bytes | np.ndarray) -> bool:
    """Whether a picture is black in its own numbers."""
    if isinstance(content, np.ndarray):
        return np.nanmax(np.abs(content.astype(float)), initial=0) <= (2 if content.dtype.kind in "iu" else 1 / 255)
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode[0] in "IF":
                values = np.asarray(image, float)
                return values.min() == values.max() or values.max() < 0.03 * 255
            return max(high for _, high in image.convert("RGBA").convert("RGB").getextrema()) <= 2
    except Exception:  # it has no numbers to compare with
        return True


KINDS = {"pictures": Kind(make_picture, run_picture, 34)}
