"""Edits with known truth: a scene, an instruction, the scene that it asks for, and where the two pictures differ."""

import random
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from ..errors import SettingError
from .backgrounds import BACKGROUNDS, STYLES
from .objects import COLOURS, KINDS
from .scenes import (
    HELD_OUT_PAIRS,
    ITEM_COUNTS,
    PIXELS,
    PLACES,
    SIZES,
    TRAIN_PAIRS,
    Item,
    Scene,
    caption,
    draw_scene,
    held_out,
    render,
    stream,
)

# The published numbers of edits per category, in thousands.
PROPORTIONS = {"add": 300, "replace": 300, "remove": 300, "color": 500, "background": 200, "style": 400, "motion": 34}
CATEGORIES: tuple[str, ...] = tuple(PROPORTIONS)
RELATIONS = {(-1, 0): "above", (1, 0): "below", (0, -1): "to the left of", (0, 1): "to the right of"}  # (row, column)
RELATED_SHARE = 0.5  # of the places next to another object that are named by it, where the phrasing allows
HELD_OUT_SHARE = 0.3  # of the test samples: a held-out phrasing, and, independently, a held-out pair

# "a" becomes "an" where the next word asks for it. {where} is "at the top left" or "above the car", {goal} is "to the
# top left" or "above the car": one of the nine places, or the place right beside another object.
PHRASINGS: dict[str, tuple[str, ...]] = {
    "add": (
        "add a {colour} {kind} {where}",
        "put a {colour} {kind} {where}",
        "place a {colour} {kind} {where}",
        "draw a {colour} {kind} {where}",
        "{where} add a {colour} {kind}",
        "there should be a {colour} {kind} {where}",
    ),
    "replace": (
        "replace the {old} with a {colour} {kind}",
        "turn the {old} into a {colour} {kind}",
        "change the {old} into a {colour} {kind}",
        "put a {colour} {kind} in place of the {old}",
        "make the {old} a {colour} {kind}",
        "the {old} should be a {colour} {kind}",
    ),
    "remove": (
        "remove the {old}",
        "delete the {old}",
        "erase the {old}",
        "take away the {old}",
        "take the {old} out of the picture",
        "remove the {old} from the picture",
        "make the {old} disappear",
    ),
    "color": (
        "make the {old} {colour}",
        "color the {old} {colour}",
        "paint the {old} {colour}",
        "turn the {old} {colour}",
        "change the color of the {old} to {colour}",
        "the {old} should be {colour}",
        "give the {old} a {colour} color",
    ),
    "background": (
        "change the background to {background}",
        "replace the background with {background}",
        "set the background to {background}",
        "make the background {background}",
        "use {background} as the background",
        "put the picture on a {background} background",
    ),
    "style": (
        "turn the picture into {style}",
        "make the picture {style}",
        "apply the {style} style",
        "change the style to {style}",
        "give the picture a {style} look",
        "draw the picture in {style}",
    ),
    "motion": (
        "move the {old} {goal}",
        "put the {old} {where}",
        "place the {old} {where}",
        "take the {old} {goal}",
        "the {old} should be {where}",
        "change the place of the {old} to the {place}",
    ),
}
# Only the test split uses these; their words all occur in the phrasings above.
HELD_OUT_PHRASINGS: dict[str, tuple[str, ...]] = {
    "add": ("give the picture a {colour} {kind} {where}", "{where} draw a {colour} {kind}"),
    "replace": ("use a {colour} {kind} in place of the {old}", "make the {old} into a {colour} {kind}"),
    "remove": ("take the {old} away", "delete the {old} from the picture"),
    "color": ("set the color of the {old} to {colour}", "draw the {old} in {colour}"),
    "background": ("turn the background into {background}", "the background should be {background}"),
    "style": ("set the style to {style}", "use the {style} style"),
    "motion": ("set the {old} {where}", "change the {old} to be {where}"),
}


@dataclass(frozen=True)
class EditSample:
    """One edit: pictures (RGB, size × size), the edit mask ("L", white where they differ), and the scenes they show."""

    source: Image.Image
    target: Image.Image
    instruction: str
    category: str
    mask: Image.Image
    source_caption: str
    target_caption: str
    source_scene: Scene
    target_scene: Scene


def sample_edit(seed: int, *, split: str = "train", category: str | None = None, size: int = PIXELS) -> EditSample:
    """The edit number `seed` of a split, "train", "validation" or "test"; without a category they come in the published
    proportions. size: of its pictures in px. Raises SettingError for an unknown category or split, or a size that
    `render` refuses."""
    if category is not None:
        check_category(category, "name one of these, or leave it out")
    rng = stream(seed, split, f"edit {category}")
    category = category or rng.choices(CATEGORIES, tuple(PROPORTIONS.values()))[0]
    unseen = split == "test" and category not in ("background", "style") and rng.random() < HELD_OUT_SHARE
    pair = rng.choice(HELD_OUT_PAIRS if unseen else TRAIN_PAIRS)
    before, after, words = _draw_edit(rng, category, *pair)
    rare = split == "test" and rng.random() < HELD_OUT_SHARE
    phrasing = rng.choice((HELD_OUT_PHRASINGS if rare else PHRASINGS)[category])
    if "place" in words:
        beside = relations(before, words["place"], words.get("old"))
        related = rng.choice(beside) if beside and rng.random() < RELATED_SHARE else None
        words |= {"where": related or f"at the {words['place']}", "goal": related or f"to the {words['place']}"}
    return make_sample(before, after, fill(phrasing, words), category, size)


def check_category(category: str, fix: str) -> None:
    if not isinstance(category, str) or category not in CATEGORIES:
        raise SettingError(f"unknown category {category!r}", expected=f"one of {', '.join(CATEGORIES)}", fix=fix)


def make_sample(before: Scene, after: Scene, instruction: str, category: str, size: int) -> EditSample:
    """Draw both scenes at `size` pixels and find where they differ."""
    source, target = render(before, size), render(after, size)
    return EditSample(
        source=source,
        target=target,
        instruction=instruction,
        category=category,
        mask=difference(source, target),
        source_caption=caption(before),
        target_caption=caption(after),
        source_scene=before,
        target_scene=after,
    )


def _draw_edit(rng: random.Random, category: str, kind: str, colour: str) -> tuple[Scene, Scene, dict[str, str]]:
    """The scenes before and after, and the words of the instruction; a `colour` `kind` is what is edited or made."""
    count = rng.choices((1, 2, 3, 4), ITEM_COUNTS)[0]
    if category == "add":
        drawn = draw_scene(rng, max(count, 2), (kind, colour))
        place = drawn.items[0].place
        before, after = drawn.swapped(drawn.items[0]), drawn.swapped(drawn.items[0], Item(kind, colour, place))
        return before, after, {"kind": kind, "colour": colour, "place": place}
    if category == "replace":
        drawn = draw_scene(rng, count + 1, (kind, colour))
        old, before = drawn.items[1], drawn.swapped(drawn.items[0])
        after = before.swapped(old, replace(old, kind=kind, colour=colour))
        return before, after, {"old": old.kind, "kind": kind, "colour": colour}
    if category == "color":
        faded = rng.choice([other for other in COLOURS if other != colour and not held_out(kind, other)])
        before = draw_scene(rng, count, (kind, faded))
        after = before.swapped(before.items[0], replace(before.items[0], colour=colour))
        return before, after, {"old": kind, "colour": colour}
    before = draw_scene(rng, count, (kind, colour))
    if category == "remove":
        return before, before.swapped(before.items[0]), {"old": kind}
    if category == "motion":
        place = rng.choice(before.empty_places)
        moved = replace(before.items[0], place=place, start=(0, 0))
        return before, before.swapped(before.items[0], moved), {"old": kind, "place": place}
    if category == "background":
        background = rng.choice([other for other in BACKGROUNDS if other != before.background])
        return before, replace(before, background=background), {"background": background}
    style = rng.choice(STYLES)
    return before, replace(before, style=style), {"style": style}


def relations(scene: Scene, place: str, moved: str | None = None) -> list[str]:
    """How a place can be named by the objects right beside it, other than the `moved` kind: "above the car", …"""
    row, column = divmod(PLACES.index(place), 3)
    return [
        f"{RELATIONS[offset]} the {item.kind}"
        for item in scene.items
        for there in [divmod(PLACES.index(item.place), 3)]
        if (offset := (row - there[0], column - there[1])) in RELATIONS and item.kind != moved
    ]


def is_related(instruction: str) -> bool:
    """Whether it names a place by an object beside it: "above the car"."""
    return any(f"{relation} the" in instruction for relation in RELATIONS.values())


def fill(phrasing: str, words: dict[str, str]) -> str:
    """Put the words into a phrasing, with "an" before a vowel."""
    text = phrasing.format(**words).split()
    return " ".join(
        "an" if word == "a" and after.startswith(tuple("aeiou")) else word
        for word, after in zip(text, [*text[1:], ""], strict=True)
    )


def paraphrases(sample: EditSample, *, unseen: bool = False) -> list[str]:
    """The other instructions for the sample's edit; `unseen`: also in the phrasings that only the test split uses.

    Raises SettingError for an edit of no category of the world, such as a skill's that is new to it.
    """
    check_category(sample.category, "take a skill's own phrasings, SKILLS[…].phrasings")
    before, after = sample.source_scene, sample.target_scene
    words = {"background": after.background, "style": after.style}
    for item in before.items:
        if item not in after.items:
            words["old"] = item.kind
    beside = []
    for item in after.items:
        if item not in before.items:
            words |= {"kind": item.kind, "colour": item.colour, "place": item.place}
            beside = relations(before, item.place, words.get("old"))
    phrasings = PHRASINGS[sample.category] + (HELD_OUT_PHRASINGS[sample.category] if unseen else ())
    named = [{"where": f"at the {words.get('place')}", "goal": f"to the {words.get('place')}"}]
    named += [{"where": relation, "goal": relation} for relation in beside]
    asked = dict.fromkeys(fill(phrasing, words | names) for phrasing in phrasings for names in named)
    return [text for text in asked if text != sample.instruction]


def difference(source: Image.Image, target: Image.Image) -> Image.Image:
    """Where two pictures differ by more than 4 of 255 in any channel, closed and grown by one pixel → "L", 0 or 255."""
    red, green, blue = np.moveaxis(np.abs(np.asarray(source, np.int16) - np.asarray(target, np.int16)) > 4, 2, 0)
    closed = ~_grown(~_grown(red | green | blue))
    return Image.fromarray(_grown(closed).astype(np.uint8) * 255)


def _grown(mask: np.ndarray) -> np.ndarray:
    """The pixels of a mask and their eight neighbours: bool [h, w] → the same."""
    across = mask.copy()
    across[:, 1:] |= mask[:, :-1]
    across[:, :-1] |= mask[:, 1:]
    grown = across.copy()
    grown[1:] |= across[:-1]
    grown[:-1] |= across[1:]
    return grown


def phrases() -> list[str]:
    """Sentences that hold every word of every instruction and caption of every split, for building a tokenizer."""
    every = {"kind": KINDS[1:] + KINDS[:1], "colour": tuple(COLOURS), "place": PLACES, "size": tuple(SIZES)}
    every |= {"old": KINDS, "background": BACKGROUNDS, "style": STYLES}
    sentences = []
    for i in range(len(KINDS)):  # the longest of the lists: the others go round
        words = {name: values[i % len(values)] for name, values in every.items()}
        beside = f"{tuple(RELATIONS.values())[i % len(RELATIONS)]} the {words['old']}"
        words |= {"where": f"at the {words['place']}", "goal": beside}
        for table in (PHRASINGS, HELD_OUT_PHRASINGS):
            sentences += [fill(phrasing, words) for phrasings in table.values() for phrasing in phrasings]
        item = Item(words["old"], words["colour"], words["place"], words["size"])
        sentences.append(caption(Scene(words["background"], (item,), words["style"])))
    return list(dict.fromkeys(sentences))
