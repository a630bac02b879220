"""The drawn world's describer, writer and judge: what a language model is for photographs, without a network."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from PIL import Image

from ...basics.words import occurrences
from ...errors import SettingError, TextError
from ...images import to_tensor
from ...metrics.arithmetic import MIN_CHANGE
from ...world import BACKGROUNDS, CATEGORIES, COLOURS, KINDS, PROPORTIONS, render
from ...world.edits import difference
from ..edit.judge import HIGHEST, Scores
from ..instruct.captions import Caption, Request
from .grammar import ROUNDS, Asked, ask, ask_in_vain
from .reader import caption_of, read_drawn, scene_of

LEAK_ALL, NOISE_ALL = 0.1, 0.1  # of 1: what leaves no preservation, no quality


@dataclass(frozen=True)
class DrawnDescriber:
    """Describes a drawn scene from its pixels; see reader.read_drawn."""

    version: ClassVar[int] = 1

    def describe(self, picture: Image.Image) -> Caption:
        """Raises DataError for a picture that shows no drawn scene."""
        return read_drawn(picture).caption

    def absent(self, picture: Image.Image, said: str) -> Sequence[str]:
        """Backgrounds, objects, and objects in a colour of the drawn world that are named and not there; other words
        are not understood. Raises DataError as `describe` does."""
        scene = read_drawn(picture).scene
        there = {scene.background} | {item.kind for item in scene.items}
        coloured = {f"{item.colour} {item.kind}" for item in scene.items}
        named = [word for word in (*BACKGROUNDS, *KINDS) if occurrences(word, said)]
        pairs = [f"{colour} {kind}" for kind in named if kind in there for colour in COLOURS]
        wrong = [pair for pair in pairs if pair not in coloured and occurrences(pair, said)]
        return [*(word for word in named if word not in there), *wrong]


@dataclass(frozen=True)
class DrawnWriter:
    """Instructions by a grammar. categories: to choose from, in the published proportions, none twice for a picture.

    rounds: how often an instruction is written, the first time included; careless: share of the instructions that are
    of an object that is not there, or for what is so already. Raises SettingError.
    """

    version: ClassVar[int] = 1
    categories: tuple[str, ...] = CATEGORIES
    rounds: int = len(ROUNDS)
    careless: float = 0.1

    def __post_init__(self) -> None:
        if not self.categories or not set(self.categories) <= set(CATEGORIES):
            raise SettingError(
                f"categories {', '.join(self.categories) or 'none'}", expected=", ".join(CATEGORIES), fix="name some"
            )
        if not 1 <= self.rounds <= len(ROUNDS) or not 0 <= self.careless <= 1:
            raise SettingError(
                f"{self.rounds} rounds, careless {self.careless}",
                expected=f"1 to {len(ROUNDS)} rounds and a share",
                fix="leave them out",
            )

    def write(self, caption: Caption, count: int, seed: int) -> Sequence[Sequence[Request]]:
        """See Writer. Raises DataError for a caption of another world; fewer than count where the scene has no room."""
        scene, dice = scene_of(caption), random.Random(f"writer {seed}")
        left, written = list(self.categories), []
        while left and len(written) < count:
            category = dice.choices(left, [PROPORTIONS[each] for each in left])[0]
            left.remove(category)
            vain, own = dice.random() < self.careless, dice.randrange(2**31)
            try:
                asked = [
                    ask_in_vain(scene, category, random.Random(own))
                    if vain and scene.items
                    else ask(scene, category, random.Random(own), refined)
                    for refined in range(self.rounds)
                ]
            except TextError:  # no room for such an edit
                continue
            written.append([_request(*each) for each in asked])
        return written


def _request(instruction: str, asked: Asked) -> Request:
    return Request(asked.category, instruction, asked.thing, caption_of(asked.after))


@dataclass(frozen=True)
class DrawnJudge:
    """Judges an edit by drawing what was asked: from the captions it was shown, never from the truth.

    success: how much of the way from the source to that drawing was gone, where the two differ; preservation: how
    little changed elsewhere; quality: how well the output can be explained as a drawing at all.
    """

    version: ClassVar[int] = 1

    def judge(self, source: Image.Image, output: Image.Image, caption: Caption, request: Request) -> Scores:
        """Raises DataError for captions of another world."""
        region = drawn_region(caption, request.target, source.size)
        target = render(scene_of(request.target), source.width)
        made, came, wanted = to_tensor([output, source, target])
        where = to_tensor(region)[0, 0] > 0.5
        way, left = ((a - wanted).abs().mean(0)[where].mean().item() if where.any() else 0.0 for a in (came, made))
        leaked = (made - came).abs().mean(0)[~where]
        leak = leaked.mean().item() if len(leaked) else 0.0
        success = 1 - left / way if way >= MIN_CHANGE else 0.0
        reading = read_drawn(output)
        parts = (success, 1 - leak / LEAK_ALL, 1 - reading.unexplained / NOISE_ALL)
        success, preservation, quality = (HIGHEST * min(max(part, 0.0), 1.0) for part in parts)
        return Scores(success, preservation, quality, reading.caption, reading.unexplained)


def drawn_region(caption: Caption, target: Caption, size: tuple[int, int]) -> Image.Image:
    """Where two captioned scenes differ when they are drawn: "L", white there."""
    before, after = (render(scene_of(each), size[0]) for each in (caption, target))
    return difference(before, after)


@dataclass(frozen=True)
class DrawnGround:
    """Where an edit should be: `drawn_region`, as a segmenter gives it for photographs."""

    version: ClassVar[int] = 1

    def region(self, picture: Image.Image, caption: Caption, request: Request) -> torch.Tensor:
        """bool [H, W]."""
        return to_tensor(drawn_region(caption, request.target, picture.size))[0, 0] > 0.5
