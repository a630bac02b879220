"""Pictures of every format that Pillow writes, damaged, swapped, absurdly large; arrays; and masks."""

from __future__ import annotations

import io
import random
import struct
import zlib
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from editmgt_lab.images import fit, load_image
from editmgt_lab.images.masks import READINGS, read_mask

from .bench import INSTRUCTION, Bench
from .case import Black, Kind, Wrong
from .values import anything, damaged, damages, real

Image.init()
FORMATS = sorted(Image.SAVE)
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
FILLS = ("gradient", "zeros", "ones", "most", "nan", "inf", "negative", "dim")
BOMBS = ("grey", "colours", "palette", "deep", "one bit", "beyond", "icon", "text", "profile", "gif", "tiff")


# Files


@lru_cache(maxsize=1024)
def encoded(form: str, mode: str, width: int, height: int) -> bytes:
    """A picture file; of a mode that the format does not have, one that it has."""
    image = Bench.picture(width, height)
    for chosen in (mode, "RGB", "L", "1"):
        try:
            shown = image.convert("I").convert(chosen) if chosen in ("I;16",) else image.convert(chosen)
            stream = io.BytesIO()
            shown.save(stream, format=form)
            return stream.getvalue()
        except Exception:  # every format's writer has its own kinds of errors
            continue
    return b""


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
    if "array" in recipe:
        content = array = array_of(recipe["array"])
        shown = load_image(array)
    else:
        content = content_of(recipe)
        shown = load_image(handed(content, recipe.get("as", "bytes"), bench))
    if shown.mode != "RGB" or min(shown.size) < 1 or shown.info.get("icc_profile"):
        raise Wrong(f"mode {shown.mode}, {shown.size}")
    if max(high for _, high in shown.getextrema()) <= 2 and not is_black(content):
        raise Black("load_image shows black, Pillow does not")
    fitted, geometry = fit(shown, pixels=32, multiple=bench.editor.multiple)
    if fitted.size != geometry.size or any(side % bench.editor.multiple for side in fitted.size):
        raise Wrong(f"fitted to {fitted.size}")


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


# Masks

PATTERNS = (
    "black",
    "white",
    "half",
    "spot",
    "noise",
    "gradient",
    "colours",
    "the picture",
    "painted",
    "erased",
    "faint",
)


def make_mask(dice: random.Random) -> Any:
    recipe: dict[str, Any] = {"pattern": dice.choice(PATTERNS), "mode": dice.choice(MODES)}
    recipe["size"] = dice.choice(((32, 32), (32, 32), (64, 64), (1, 1), (33, 31), (32, 16), (2, 400), (200, 200)))
    recipe["source"] = dice.choice(((32, 32), (32, 32), (64, 64), (64, 32), (31, 33), (3, 400)))
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
    size, pattern = tuple(recipe.get("size", (32, 32))), recipe.get("pattern")
    mask = Image.new("L", size, 255 if pattern == "white" else 0)
    if pattern == "half":
        mask.paste(255, (0, 0, max(size[0] // 2, 1), size[1]))
    elif pattern == "spot":
        mask.putpixel((size[0] // 2, size[1] // 2), 255)
    elif pattern in ("noise", "gradient"):
        mask = Image.effect_noise(size, 120) if pattern == "noise" else Image.linear_gradient("L").resize(size)
    elif pattern == "colours":
        mask = Bench.picture(*size)
    elif pattern in ("the picture", "painted", "erased", "faint"):
        mask = source.resize(size).convert("RGBA")
        corner = (0, 0, max(size[0] // 2, 1), max(size[1] // 2, 1))
        mask.paste(
            {"painted": "white", "erased": (0, 0, 0, 0), "faint": (9, 9, 9, 250)}.get(pattern, mask.getpixel((0, 0))),
            corner,
        )
    try:
        return mask.convert(recipe.get("mode", mask.mode))
    except ValueError:  # Pillow does not convert every mode into every other
        return mask


def run_mask(recipe: Any, bench: Bench) -> None:
    source = Bench.picture(*recipe.get("source", (32, 32)))
    mask = mask_of(recipe, source, bench)
    if "reading" in recipe:
        read = read_mask(mask, source, reading=real(recipe["reading"]))
        if read.image.mode != "L" or read.reading not in READINGS:
            raise Wrong(f"a mask of mode {read.image.mode}, read as {read.reading}")
        return
    task = bench.editor.prepare(source, INSTRUCTION, mask=mask)
    asked = mask[0] if isinstance(mask, list) else mask
    if task.fixed.all() or (asked is None) != (not task.fitted[0].reading):
        raise Wrong("nothing may change")


KINDS = {"pictures": Kind(make_picture, run_picture, 34), "masks": Kind(make_mask, run_mask, 12)}
