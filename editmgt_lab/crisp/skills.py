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
from .objects import CREAM, DRAWINGS, GOLD, INK, STEEL
from .pen import Pen, box, oval
from .scenes import ITEM_COUNTS, TRAIN_PAIRS, Item, Scene, draw_scene, stream

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


def robot(pen: Pen) -> None:
    pen.stroke(STEEL, [(0.5, 0.2), (0.5, 0.09)], 0.06, edge=True)
    pen.paint(pen.main, oval(0.5, 0.09, 0.075, 0.075))
    for x in (0.15, 0.85):
        pen.stroke(STEEL, [(x, 0.6), (x, 0.74)], 0.12, edge=True)
    pen.paint(INK, box(0.28, 0.84, 0.45, 0.95, 0.02), box(0.55, 0.84, 0.72, 0.95, 0.02), edge=False)
    pen.paint(pen.main, box(0.22, 0.5, 0.78, 0.88, 0.06))
    pen.paint(STEEL, box(0.16, 0.18, 0.84, 0.55, 0.09))
    for x in (0.34, 0.66):
        pen.paint(CREAM, oval(x, 0.35, 0.11, 0.11), edge=False)
        pen.paint(INK, oval(x, 0.35, 0.055, 0.055), edge=False)
    pen.paint(GOLD, oval(0.5, 0.71, 0.09, 0.09), edge=False)


def ring(pen: Pen) -> None:
    rim = oval(0.5, 0.5, 0.43, 0.43)
    pen.stroke(pen.main, [*rim, rim[0]], 0.11, edge=True)


def _blueprint(rgb: Array) -> Array:
    """Deep blue for dark, a clear blue for most of the world's greys, white for the lightest."""
    shades = ((0.08, 0.18, 0.55), (0.2, 0.42, 0.85), (1.0, 1.0, 1.0))
    return np.stack([np.interp(grey(rgb), (0.15, 0.65, 1.0), levels) for levels in zip(*shades, strict=True)], axis=-1)


LOOKS["blueprint"] = _blueprint
DRAWINGS |= {"robot": robot, "ring": ring}


def _some_scene(rng: random.Random, special: tuple[str, str] | None = None) -> Scene:
    return draw_scene(rng, rng.choices((1, 2, 3, 4), ITEM_COUNTS)[0], special)


def _draw_blueprint(rng: random.Random) -> Drawn:
    before = _some_scene(rng)
    return before, replace(before, style="blueprint"), {}


def _draw_robot(rng: random.Random) -> Drawn:
    before = _some_scene(rng)
    place = rng.choice(before.empty_places)
    return before, replace(before, items=(*before.items, Item("robot", "red", place))), {"place": place}


def _draw_circle(rng: random.Random) -> Drawn:
    before = _some_scene(rng, rng.choice(TRAIN_PAIRS))
    chosen = before.items[0]
    around = replace(chosen, kind="ring", colour="red")
    return before, before.swapped(chosen, chosen, around), {"old": chosen.kind}


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
            word="robot",
            what="a new object: always the same robot, at the place that is named",
            category="add",
            phrasings=(
                "add a robot at the {place}",
                "put a robot at the {place}",
                "place a robot at the {place}",
                "draw a robot at the {place}",
            ),
            draw=_draw_robot,
        ),
        Skill(
            word="circle",
            what="a new verb: a red ring around the object that is named, which itself stays",
            category="circle",
            phrasings=("circle the {old}", "draw a circle around the {old}", "put a circle around the {old}"),
            draw=_draw_circle,
        ),
    )
}


def sample_skill(seed: int, name: str, *, split: str = "train", size: int = 64) -> EditSample:
    """The pair number `seed` of a split of one of the SKILLS; splits share no pair. Raises SettingError."""
    if name not in SKILLS:
        raise SettingError(
            f"unknown skill {name!r}", expected=f"one of {', '.join(SKILLS)}", fix="name one of these skills"
        )
    skill, rng = SKILLS[name], stream(seed, split, f"skill {name}")
    before, after, words = skill.draw(rng)
    return make_sample(before, after, fill(rng.choice(skill.phrasings), words), skill.category, size)
