"""What a call may pass, one or a list of it, becomes checked lists of one length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .errors import ImageError, SettingError, TextError
from .images import Fitted, MaskPicture, Picture, fit_together, to_tensor
from .settings import Settings
from .text import Focus, TextCondition

WANTED = {
    "instruction": 'say what to change, such as "make the ball blue"',
    "caption": 'say what to show, such as "a red ball on grass"',
}
MOST_LETTERS = 100_000  # of a text; the tokenizers have room for a few hundred tokens, and take memory for every letter


@dataclass(frozen=True)
class Task:
    """What one decoding of B pictures works on, checked and encoded.

    start, source, fixed: [B, h, w], the tokens to begin with, those of the source, and which never change (bool);
    text: with guidance 2B rows, the negative texts first; words: bool [B, L], the text rows to localise by, those of
    `focus`.
    """

    settings: Settings
    start: Tensor
    source: Tensor | None
    fixed: Tensor
    text: TextCondition
    words: Tensor
    instructions: list[str]
    negatives: list[str]
    focus: Focus | None
    fitted: list[Fitted]
    single: bool


def asked_like(other: Callable) -> Callable[[Callable], Callable]:
    """Say that a method passes its *arguments and **keywords on to another: its signature then names them.

    So every argument of an edit stands once, and is shown and completed wherever it can be given.
    """

    def dress(method: Callable) -> Callable:
        mine, theirs = (signature(each).parameters.values() for each in (method, other))
        kinds = {each.kind for each in mine}
        passed = [each for each in theirs if Parameter.VAR_POSITIONAL in kinds and each.kind < Parameter.VAR_POSITIONAL]
        named = {each.name for each in passed}
        own = [each for each in mine if each.kind < Parameter.VAR_POSITIONAL and each.name not in named]
        keywords = [each for part in (theirs, mine) for each in part if each.kind is Parameter.KEYWORD_ONLY]
        method.__signature__ = signature(method).replace(parameters=[*own, *passed, *keywords])
        return method

    return dress


def is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def listed(value: Any) -> list:
    return list(value) if is_list(value) else [value]


def paired(pictures: Any, instructions: Any) -> tuple[list, list]:
    """Pictures and instructions as lists of one length; a single one serves all. Raises SettingError."""
    count = len(pictures) if is_list(pictures) else len(instructions) if is_list(instructions) else 1
    return spread(pictures, count, "pictures", "instructions"), spread(instructions, count, "instructions", "pictures")


def spread(value: Any, count: int, name: str, others: str = "pictures") -> list:
    """A list of `count`: the value again and again, or the list that it is. Raises SettingError for another length."""
    if count == 0:
        raise SettingError(f"no {name if is_list(value) else others}", expected="at least one", fix="pass one")
    if not is_list(value):
        return [value] * count
    if len(value) != count:
        raise SettingError(
            f"{len(value)} {name} for {count} {others}",
            expected=f"one of the {name} for each of the {others}, or a single one for all",
            fix="make the lists of one length",
        )
    return list(value)


def check_texts(texts: Sequence[Any], name: str = "instruction", *, may_be_blank: bool = False) -> None:
    """Raises TextError for what is no text, or has no words, and for none at all."""
    if not texts:
        raise TextError("no text", expected="one text or a list of them", fix="pass one")
    for text in texts:
        if not isinstance(text, str):
            problem = f"the {name} is of the type {type(text).__name__}"
        elif not text.strip() and not may_be_blank:
            problem = f"the {name} is {'blank' if text else 'empty'}"
        elif len(text) > MOST_LETTERS:
            problem = f"the {name} has {len(text):,} characters"
        elif any("\ud800" <= letter <= "\udfff" for letter in text):
            problem = f"the {name} has half a letter in it: {text[:60]!r}"
        else:
            continue
        raise TextError(
            problem,
            expected=f"a text of at most {MOST_LETTERS:,} characters" + ("" if may_be_blank else ", with a word in it"),
            fix=WANTED.get(name, "leave it out, or pass words"),
        )


def check_on_step(on_step: Any) -> None:
    """Raises SettingError for what cannot be called after a step."""
    if on_step is not None and not callable(on_step):
        raise SettingError(
            f"on_step is a {type(on_step).__name__}",
            expected="a function that takes a DecodeStep, or None",
            fix="pass the function itself, not what it returns",
        )


def fit_batch(
    pictures: Sequence[Picture], masks: Sequence[MaskPicture | None], *, pixels: int, multiple: int
) -> list[Fitted]:
    """Every picture with its mask, fitted to the model's grid; see images.fit_together. Raises ImageError."""
    if not pictures:
        raise ImageError("no picture", expected="one picture or a list of them", fix="pass one")
    fitted = [
        fit_together(picture, None, mask, pixels=pixels, multiple=multiple)
        for picture, mask in zip(pictures, masks, strict=True)
    ]
    sizes = list(dict.fromkeys(each.geometry.size for each in fitted))
    if len(sizes) > 1:
        raise ImageError(
            f"the pictures fit different grids: {', '.join(f'{w}×{h} px' for w, h in sizes)}",
            expected="pictures of one aspect ratio in a batch",
            fix="crop them alike, or edit them one at a time",
        )
    return fitted


def cells_with_any(pixels: Tensor, factor: int) -> Tensor:
    """bool [B, h, w]: the cells, `factor` px along a side, with any True pixel of bool [B, H, W]."""
    return F.max_pool2d(pixels.unsqueeze(1).float(), factor).squeeze(1) > 0


def free_cells(fitted: Sequence[Fitted], factor: int) -> Tensor:
    """bool [B, h, w]: the tokens with a white (at least half bright) pixel of the mask. Raises ImageError for none."""
    masks = [each.mask or Image.new("L", each.source.size, "white") for each in fitted]  # a list may name none for one
    brightness = to_tensor(masks)[:, 0]  # [B, H, W]
    white = brightness >= 0.5
    for each, brightest in zip(fitted, brightness.amax(dim=(1, 2)).tolist(), strict=True):
        if brightest < 0.5:
            seen = "is black everywhere" if brightest == 0 else f"is nowhere brighter than {brightest:.0%}"
            cut = "" if each.geometry.whole else ", but for the margin that the grid cuts off"
            raise ImageError(
                f"the mask {seen}{cut}, so nothing may change",
                expected="white where the picture may change",
                fix="paint the place of the edit white, or leave the mask out",
            )
    return cells_with_any(white, factor)
