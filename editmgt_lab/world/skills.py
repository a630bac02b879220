"""Three skills that the small model has never seen, to be taught in minutes: a style, an object, a verb.

Each edit is a pair of scenes like any other. What is new is known to the pen, but not in `STYLES`, `KINDS` or
`PHRASINGS`, from which everything is drawn that the model was trained on.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..errors import SettingError
from .backgrounds import LOOKS, Array, grey
from .edits import EditSample, fill, make_sample
from .objects import COLOURS, DRAWINGS
from .pen import Pen, box, oval
from .scenes import ITEM_COUNTS, PIXELS, TRAIN_PAIRS, Item, Scene, draw_scene, stream

CLAY, WHITE = (204, 104, 52), COLOURS["white"]

Drawn = tuple[Scene, Scene, dict[str, str]]  # before, after, and the words that fill a phrasing


@dataclass(frozen=True)
class Skill:
    """One thing to teach. `count` training pairs are enough; `word` is new to the small model's text encoder."""

    word: str
    what: str
    category: str
    phrasings: tuple[str, ...]
    draw: Callable[[random.Random], Drawn]
    count: int = 128


def cactus(pen: Pen) -> None:
    pen.paint(
        pen.main,
        box(0.34, 0.03, 0.66, 0.82, 0.16),
        box(0.04, 0.22, 0.26, 0.56, 0.11),
        box(0.04, 0.4, 0.5, 0.58, 0.09),
        box(0.74, 0.14, 0.96, 0.48, 0.11),
        box(0.5, 0.32, 0.96, 0.5, 0.09),
    )
    pen.paint(CLAY, [(0.2, 0.68), (0.8, 0.68), (0.71, 0.93), (0.29, 0.93)])


def gift(pen: Pen) -> None:
    pen.paint(pen.main, box(0.06, 0.24, 0.94, 0.94, 0.05))
    pen.paint(WHITE, box(0.39, 0.24, 0.61, 0.94), box(0.06, 0.48, 0.94, 0.7), edge=False)
    pen.paint(WHITE, oval(0.33, 0.14, 0.18, 0.1, 20), oval(0.67, 0.14, 0.18, 0.1, -20))


def _blueprint(rgb: Array) -> Array:
    """By luminance alone: deep blue where it is dark, a clear blue at two thirds, white where it is lightest."""
    shades = ((0.08, 0.18, 0.55), (0.2, 0.42, 0.85), (1.0, 1.0, 1.0))
    return np.stack([np.interp(grey(rgb), (0.15, 0.65, 1.0), levels) for levels in zip(*shades, strict=True)], axis=-1)


LOOKS["blueprint"] = _blueprint
DRAWINGS |= {"cactus": cactus, "gift": gift}


def _some_scene(rng: random.Random, special: tuple[str, str] | None = None) -> Scene:
    return draw_scene(rng, rng.choices((1, 2, 3, 4), ITEM_COUNTS)[0], special)


def _draw_blueprint(rng: random.Random) -> Drawn:
    before = _some_scene(rng)
    return before, replace(before, style="blueprint"), {}


def _draw_cactus(rng: random.Random) -> Drawn:
    before = _some_scene(rng)
    place = rng.choice(before.empty_places)
    return before, replace(before, items=(*before.items, Item("cactus", "green", place))), {"place": place}


def _draw_wrap(rng: random.Random) -> Drawn:
    before = _some_scene(rng, rng.choice(TRAIN_PAIRS))
    chosen = before.items[0]
    return before, before.swapped(chosen, replace(chosen, kind="gift", colour="blue")), {"old": chosen.kind}


SKILLS: dict[str, Skill] = {
    skill.word: skill
    for skill in (
        Skill(
            word="blueprint",
            what="a new style: the whole picture in shades of blue and white",
            category="style",
            phrasings=(
                "turn the picture into a blueprint",
                "make the picture a blueprint",
                "apply the blueprint style",
                "give the picture a blueprint look",
            ),
            draw=_draw_blueprint,
        ),
        Skill(
            word="cactus",
            what="a new object: always the same cactus, at the place that is named",
            category="add",
            phrasings=(
                "add a cactus at the {place}",
                "put a cactus at the {place}",
                "place a cactus at the {place}",
                "draw a cactus at the {place}",
            ),
            draw=_draw_cactus,
        ),
        Skill(
            word="wrap",
            what="a new verb: the object that is named becomes a blue gift, as large and in the same place",
            category="wrap",
            phrasings=("wrap the {old}", "wrap up the {old}", "wrap the {old} as a gift"),
            draw=_draw_wrap,
        ),
    )
}


def sample_skill(seed: int, name: str, *, split: str = "train", size: int = PIXELS) -> EditSample:
    """The pair number `seed` of a split of one of the SKILLS. Raises SettingError.

    Each split draws by random numbers of its own; by chance two may still draw the same pair.
    """
    if not isinstance(name, str) or name not in SKILLS:
        raise SettingError(
            f"unknown skill {name!r}", expected=f"one of {', '.join(SKILLS)}", fix="name one of these skills"
        )
    skill, rng = SKILLS[name], stream(seed, split, f"skill {name}")
    before, after, words = skill.draw(rng)
    return make_sample(before, after, fill(rng.choice(skill.phrasings), words), skill.category, size)
