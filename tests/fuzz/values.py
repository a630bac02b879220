"""What no program expects: numbers, texts and objects, named in plain JSON; and what can happen to a file."""

from __future__ import annotations

import math
import random
import sys
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import torch

ENDLESS: list = []
ENDLESS.append(ENDLESS)
# What JSON cannot say; in a recipe it stands by its name.
NAMED = {
    "@nan": math.nan, "@inf": math.inf, "@-inf": -math.inf, "@huge": 10**400, "@tiny": sys.float_info.min / 2,
    "@bytes": b"\x00\xff", "@array": np.zeros((2, 2)), "@empty array": np.zeros(0), "@tensor": torch.zeros(2),
    "@scalar tensor": torch.tensor(1), "@object": object(), "@complex": 1j, "@set": {1, 2}, "@function": len,
    "@class": int, "@float32": np.float32(0.5), "@int64": np.int64(3), "@uint8": np.uint8(255), "@range": range(3),
    "@numpy bool": np.True_, "@numpy nan": np.float64("nan"), "@fraction": Fraction(1, 3), "@decimal": Decimal("0.5"),
    "@endless": ENDLESS, "@ellipsis": ..., "@tuple": (1, 2, 3), "@generator": range, "@numpy text": np.str_("ball"),
}  # fmt: skip
NUMBERS = (0, 1, -1, 2, 3, 7, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, -(2**63), 10**18)
FLOATS = (0.0, -0.0, 0.5, 0.1, 0.999999, 1.0, 1.000001, 1e-30, 1e30, 1e308, -0.5, 12.5)
WORDS = ("make", "the", "ball", "blue", "remove", "purple", "hat", "add", "a", "star")
BLOCKS = (
    (0x20, 0x7E), (0x00, 0x1F), (0x7F, 0x9F), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x3FF), (0x590, 0x6FF),
    (0x900, 0x97F), (0xE00, 0xE7F), (0x1100, 0x11FF), (0x200B, 0x200F), (0x2028, 0x202E), (0x2066, 0x2069),
    (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xD800, 0xDFFF), (0xE000, 0xF8FF), (0xFB00, 0xFDFF),
    (0xFE00, 0xFE0F), (0xFF00, 0xFFEF), (0x1F300, 0x1FAFF), (0xE0000, 0xE007F), (0x10FFF0, 0x10FFFF), (0, 0x10FFFF),
)  # fmt: skip
PHRASES = (
    "", " ", "\n", "\0", "make the ball blue", "ball", "BALL", "bа11",
    "e\u0301", "\u00e9", "👩‍👩‍👧‍👦", "\u202eeulb", "ß",
    "İ", "ﬁ", "<|endoftext|>", "<|startoftext|>", "<pad>", "[MASK]",
    "{}", "{0.__class__}", "%s%n", "$x^2$", "../../etc",
    "<script>alert(1)</script>", "\\", "'", '"', "`", "nan", "null",
    "true", "１２", "①", "\ufeff", "\ufffe", "\ufdfa" * 40,
    "a" * 78, "the ball " * 40, "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘",
)  # fmt: skip


def real(value: Any) -> Any:
    """A recipe's value with every name replaced by what it names; {"text": …, "times": n} is a text so often."""
    if isinstance(value, str):
        return NAMED.get(value, value)
    if isinstance(value, dict):
        if value.keys() == {"text", "times"}:
            return str(value["text"]) * int(value["times"])
        return {name: real(each) for name, each in value.items()}
    return [real(each) for each in value] if isinstance(value, list) else value


def text(dice: random.Random) -> Any:
    """A text from anywhere in Unicode, or words with such a text among them."""
    way = dice.random()
    if way < 0.25:
        return dice.choice(PHRASES)
    if way < 0.35:
        return {"text": dice.choice((*PHRASES, strange_letters(dice, 3))), "times": dice.choice((2, 50, 3000, 200_000))}
    if way < 0.6:
        return strange_letters(dice, dice.choice((1, 2, 5, 12, 60)))
    words = [dice.choice(WORDS) for _ in range(dice.randint(1, 8))]
    words.insert(dice.randint(0, len(words)), strange_letters(dice, dice.choice((0, 1, 2, 5))))
    return dice.choice((" ", "", "\u3000", "\t", "-", "\u200b")).join(words)


def strange_letters(dice: random.Random, count: int) -> str:
    found = []
    for _ in range(count):
        low, high = dice.choice(BLOCKS)
        found.append(chr(dice.randint(low, high)))
    return "".join(found)


def number(dice: random.Random) -> Any:
    return dice.choice((*NUMBERS, *FLOATS, "@nan", "@inf", "@-inf", dice.randint(-99, 999), dice.uniform(-2, 12)))


def anything(dice: random.Random, depth: int = 2) -> Any:
    """A value of any type."""
    ways = ["number", "number", "named", "text", "plain", *(["list", "object"] if depth else [])]
    way = dice.choice(ways)
    if way == "number":
        return number(dice)
    if way == "named":
        return dice.choice(list(NAMED))
    if way == "text":
        return text(dice)
    if way == "plain":
        return dice.choice((None, True, False, [], {}, ""))
    several = [anything(dice, depth - 1) for _ in range(dice.randint(0, 4))]
    return several if way == "list" else {strange_letters(dice, 2): each for each in several}


def json_value(dice: random.Random, depth: int = 2) -> Any:
    """A value that JSON has."""
    value = anything(dice, depth)
    while holds_name(value):
        value = anything(dice, depth)
    return value


def holds_name(value: Any) -> bool:
    if isinstance(value, (list, dict)):
        values = value.values() if isinstance(value, dict) else value
        return any(map(holds_name, values)) or (isinstance(value, dict) and value.keys() == {"text", "times"})
    return isinstance(value, str) and value in NAMED


# What can happen to a file. Places are shares of its length, so that a recipe fits any file.


def damages(dice: random.Random, most: int = 4) -> list[list[Any]]:
    """Some of the operations of `damaged`."""
    found: list[list[Any]] = []
    for _ in range(dice.randint(1, most)):
        place = dice.choice((0.0, dice.random() * 0.02, dice.random() * 0.02, dice.random(), dice.random(), 1.0))
        way = dice.choice(("flip", "flip", "flip", "set", "cut", "drop", "insert", "copy", "number"))
        amount = dice.choice((1, 2, 4, 8, 100, 5000))
        if way == "flip":
            found.append([way, place, dice.randrange(8)])
        elif way in ("set", "insert"):
            found.append([way, place, dice.randbytes(dice.choice((1, 2, 4, 8))).hex()])
        elif way == "number":
            found.append(
                [way, place, dice.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 20000)), dice.random() < 0.5]
            )
        else:
            found.append([way, place, amount])
    return found


def damaged(content: bytes, operations: list[list[Any]]) -> bytes:
    """flip: one bit; set, insert: bytes; number: 32 bits; cut: all from here on; drop: so many bytes; copy: again."""
    data = bytearray(content)
    for way, share, what, *rest in operations:
        place = min(int(share * len(data)), max(len(data) - 1, 0))
        if way == "flip" and data:
            data[place] ^= 1 << what
        elif way == "set":
            new = bytes.fromhex(what)
            data[place : place + len(new)] = new
        elif way == "insert":
            data[place:place] = bytes.fromhex(what)
        elif way == "number":
            data[place : place + 4] = what.to_bytes(4, "big" if rest[0] else "little")
        elif way == "cut":
            del data[place:]
        elif way == "drop":
            del data[place : place + what]
        elif way == "copy":
            data[place:place] = data[place : place + what]
    return bytes(data)
