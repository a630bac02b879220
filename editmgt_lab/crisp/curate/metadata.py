"""A picture file without what it tells besides its pixels: places, names, cameras, texts, and what stands behind it.

Pixels are not encoded anew: the parts of the file that show them are kept, and no others.
"""

from __future__ import annotations

import re
import struct
import zlib

# JPEG's application parts and comments are left out, but those by which its colours are read.
OTHERS = (*range(0xE0, 0xF0), 0xFE)
COLOURS = {0xE0: b"JFIF\0", 0xE2: b"ICC_PROFILE\0", 0xEE: b"Adobe"}
# What stands behind the 12 bytes of these that are kept: JFIF's thumbnail, of 0 × 0 px; behind Adobe's nothing.
CLOSED = {0xE0: b"\0\0", 0xEE: b""}
SCAN, END = 0xDA, 0xD9
_AFTER_SCAN = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")  # a marker, which is neither a stuffed byte nor a restart
# Of PNG's parts those without which nothing is shown, and those that tell how its values are.
SHOWN = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"sBIT", b"pHYs", b"tRNS")
PROFILE = b"ICC Profile"  # what Pillow calls one; anybody may call it otherwise
WEBP = (b"VP8 ", b"VP8L", b"VP8X", b"ICCP", b"ALPH")
EXIF_AND_XMP = 0b1100  # of VP8X's flags


def without_metadata(content: bytes, kind: str) -> bytes:
    """The same bytes where there is none. kind: PNG, JPEG or WEBP. Raises ValueError for a file of another build."""
    try:
        return {"JPEG": _jpeg, "PNG": _png, "WEBP": _webp}[kind](content)
    except (IndexError, struct.error) as error:
        raise ValueError(f"no whole {kind}") from error


def _jpeg(content: bytes) -> bytes:
    kept, place = [content[:2]], 2
    while True:
        if content[place] != 0xFF:
            raise ValueError("no marker where one should be")
        while content[place + 1] == 0xFF:  # any number of them may fill the space before a marker
            place += 1
        marker = content[place + 1]
        if marker == END:
            return b"".join([*kept, content[place : place + 2]])
        end = place + 2 + struct.unpack_from(">H", content, place + 2)[0]
        if marker == SCAN:
            found = _AFTER_SCAN.search(content, end)
            if not found:
                raise ValueError("a scan without an end")
            end = found.start()
        if marker not in OTHERS or content.startswith(COLOURS.get(marker, ()), place + 4):
            part = content[place:end]
            if marker in CLOSED:
                told = part[4:16] + CLOSED[marker]
                part = part[:2] + struct.pack(">H", 2 + len(told)) + told
            kept.append(part)
        place = end


def _png(content: bytes) -> bytes:
    kept, place, name = [content[:8]], 8, b""
    while name != b"IEND":
        length, name = struct.unpack_from(">I4s", content, place)
        part = content[place : place + length + 12]
        if name == b"iCCP":
            told = name + PROFILE + b"\0" + part[8:-4].partition(b"\0")[2]
            part = struct.pack(">I", len(told) - 4) + told + struct.pack(">I", zlib.crc32(told))
        if name in SHOWN:
            kept.append(part)
        place += length + 12
    return b"".join(kept)


def _webp(content: bytes) -> bytes:
    kept, place, stop = [], 12, 8 + struct.unpack_from("<I", content, 4)[0]
    while place < stop:
        name, length = struct.unpack_from("<4sI", content, place)
        part = bytearray(content[place : place + 8 + length + length % 2])
        if name == b"VP8X":
            part[8] &= ~EXIF_AND_XMP
        if name in WEBP:
            kept.append(bytes(part))
        place += len(part)
    body = b"".join(kept)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
