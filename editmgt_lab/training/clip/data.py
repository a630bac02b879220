"""Batches for the small CLIP, drawn as they are needed: both sides of every edit, and captions that nearly fit.

The caption of an edit's source is the hardest wrong one for its target, and the other way round: both are in the batch.
Beside them stand captions that are wrong in one thing only, which cost no drawing.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import CLIPTokenizer

from ... import world
from ...metrics.backbones import CLIP_STATISTICS, Preprocessing
from ...world import BACKGROUNDS, CATEGORIES, COLOURS, KINDS, PLACES, STYLES, Item, Scene
from ...world.scenes import draw_item
from .recipe import ClipRecipe

NOTHING = -1  # of a place where no object stands
BLUR, NOISE = 1.0, 0.03  # at most: of the way to a 3 × 3 mean, of 1


@dataclass(frozen=True)
class Batch:
    """pictures: [2n, 3, h, w], sources and targets in turn, prepared as for CLIP; ids, attention: [m, L], the 2n
    captions in the same order, then those that nearly fit; scenes: of all m captions; labels: [2n, 3, 16, 16], see
    `world.label_map`."""

    pictures: Tensor
    ids: Tensor
    attention: Tensor
    scenes: Sequence[Scene]
    labels: Tensor


def draw_batch(recipe: ClipRecipe, tokenizer: CLIPTokenizer, first: int) -> Batch:
    """The training edits from number `first` on, all categories in turn."""
    pictures: list[Image.Image] = []
    scenes: list[Scene] = []
    captions: list[str] = []
    near: list[tuple[str, Scene]] = []
    for number in range(first, first + recipe.batch):
        dice = random.Random(f"clip/{number}")
        size = recipe.drawn_at[number % len(recipe.drawn_at)]
        sample = world.sample_edit(number, category=CATEGORIES[number % len(CATEGORIES)], size=size)
        both = (sample.source_scene, sample.target_scene)
        pictures += [sample.source, sample.target]
        scenes += both
        say = _without_sizes if dice.random() < recipe.without_sizes else world.caption
        captions += map(say, both)
        for scene in both:
            missed = [near_miss(scene, dice) for _ in range(recipe.near_misses)]
            near += [(say(each), each) for each in missed]
    texts = tokenizer([*captions, *(text for text, _ in near)], padding=True, return_tensors="pt")
    return Batch(
        Preprocessing(recipe.image_size, recipe.image_size, CLIP_STATISTICS)(pictures),
        texts["input_ids"],
        texts["attention_mask"],
        [*scenes, *(scene for _, scene in near)],
        torch.stack([torch.from_numpy(world.label_map(scene)).long() for scene in scenes]),
    )


def _without_sizes(scene: Scene) -> str:
    return world.caption(
        replace(scene, items=tuple(replace(item, size="medium", start=(0, 0)) for item in scene.items))
    )


def near_miss(scene: Scene, dice: random.Random) -> Scene:
    """The scene with one thing in it wrong: a colour, a kind, a place, one object more or less, two that have exchanged
    colours or places, the background or the style."""
    choices = ["background", "style", *(["add"] if len(scene.items) < 4 else [])]
    choices += 2 * ["colour", "kind", "place", "remove"] if scene.items else []
    choices += 3 * ["exchange colours", "exchange places"] if len({item.colour for item in scene.items}) > 1 else []
    what = dice.choice(choices)
    if what == "background":
        return replace(scene, background=_other(dice, BACKGROUNDS, scene.background))
    if what == "style":
        return replace(scene, style=_other(dice, (None, *STYLES), scene.style))
    if what == "add":
        pair = _other(dice, KINDS, *(item.kind for item in scene.items)), dice.choice(tuple(COLOURS))
        return replace(scene, items=(*scene.items, draw_item(dice, pair, dice.choice(scene.empty_places))))
    item = dice.choice(scene.items)
    if what.startswith("exchange"):
        other = dice.choice([each for each in scene.items if each.colour != item.colour] or [item])
        return _exchanged(scene, item, other, "colour" if what.endswith("colours") else "place")
    changed = {
        "colour": lambda: {"colour": _other(dice, tuple(COLOURS), item.colour)},
        "kind": lambda: {"kind": _other(dice, KINDS, *(each.kind for each in scene.items))},
        "place": lambda: {"place": dice.choice(scene.empty_places), "start": (0, 0)},
    }
    return scene.swapped(item) if what == "remove" else scene.swapped(item, replace(item, **changed[what]()))


def _other(dice: random.Random, names: Sequence, *taken: str | None):
    return dice.choice([name for name in names if name not in taken])


def _exchanged(scene: Scene, one: Item, other: Item, name: str) -> Scene:
    """Both at the canonical start of their places: another size has other starts."""
    new = {
        one: replace(one, start=(0, 0), **{name: getattr(other, name)}),
        other: replace(other, start=(0, 0), **{name: getattr(one, name)}),
    }
    return replace(scene, items=tuple(new.get(item, item) for item in scene.items))


@lru_cache(maxsize=4096)
def what_stands(scene: Scene) -> tuple[tuple[int, ...], tuple[int, ...], int, int]:
    """Number of the kind and of the colour at each of the nine places, or NOTHING; of the background; of the style."""
    kinds, colours = [NOTHING] * len(PLACES), [NOTHING] * len(PLACES)
    for item in scene.items:
        place = PLACES.index(item.place)
        kinds[place], colours[place] = KINDS.index(item.kind), tuple(COLOURS).index(item.colour)
    style = len(STYLES) if scene.style is None else STYLES.index(scene.style)
    return tuple(kinds), tuple(colours), BACKGROUNDS.index(scene.background), style


def spoiled(pictures: Tensor) -> Tensor:
    """The pictures a little blurred and noisy, each by another amount, as a tokenizer shows them. [B, 3, h, w]."""
    blur, noise = torch.rand(2, len(pictures), 1, 1, 1)
    soft = F.avg_pool2d(F.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    deviation = torch.tensor(CLIP_STATISTICS[1]).view(3, 1, 1)
    return pictures.lerp(soft, BLUR * blur) + NOISE * noise * torch.randn_like(pictures) / deviation
