"""An editor of the drawn world that reads the picture and draws what is asked, with the faults of real ones if wanted.

It sees pixels and an instruction, as any editor. Without a fault it changes what it should and nothing else; each fault
is a sin that real editors are known for. `ManyFaults` commits them at random, and says which it did.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from PIL import Image

from ...errors import ImageError, SettingError, TextError
from ...world import BACKGROUNDS, COLOURS, STYLES, Scene, render
from ...world.backgrounds import stylise
from ...world.edits import difference
from ...world.scenes import GRID
from ..edit.protocol import PictureEditor
from .grammar import Asked, understand
from .reader import read_drawn

DONE = "none"
# What each amount means is said in `DrawnEditor`.
FAULTS = {
    "drift": 0.08,
    "oversaturated": 1.0,
    "bleed": 1.0,
    "neighbour": 1.0,
    "shift": 0.04,
    "wrong object": 1.0,
    "nothing": 1.0,
    "half done": 0.6,
}
SHARES = {
    DONE: 0.5,
    "drift": 0.08,
    "oversaturated": 0.06,
    "bleed": 0.06,
    "neighbour": 0.06,
    "shift": 0.08,
    "wrong object": 0.06,
    "nothing": 0.05,
    "half done": 0.05,
}
# Of an editor that hardly ever leaves alone what it should, and mostly errs in one way: that can be learned.
SLOPPY = {DONE: 0.2, "oversaturated": 0.6, "bleed": 0.1, "wrong object": 0.05, "half done": 0.05}
GARISH = "popart"  # of the STYLES


@dataclass(frozen=True)
class DrawnEditor:
    """Reads the scene, draws it anew as the instruction asks, and puts the difference into the picture.

    fault: "none", or one of FAULTS; amount: how much of it. drift: how far the colours of the whole picture go, of 1;
    oversaturated: how much of a garish look the whole picture takes on, as by too much guidance, of 1;
    shift: by how much the picture is moved, of its side; half done: how much of the edit is missing, of 1; neighbour:
    another object is drawn in another colour; bleed: the other objects take on the colour of the edited one; wrong
    object: it, or the wrong background or style, is edited instead; nothing: the picture as it came. For these four the
    amount is 1. Raises SettingError for another fault.
    """

    version: ClassVar[int] = 1
    fault: str = DONE
    amount: float | None = None

    def __post_init__(self) -> None:
        if self.fault not in (DONE, *FAULTS):
            raise SettingError(
                f"unknown fault {self.fault!r}", expected=", ".join((DONE, *FAULTS)), fix="name one of these"
            )

    @property
    def name(self) -> str:
        return "drawn" if self.fault == DONE else f"drawn: {self.fault}"

    def edit(self, image: Image.Image, instruction: str, seed: int) -> Image.Image:
        """See PictureEditor. Raises ImageError for a picture that is no square, DataError for one that is not drawn,
        TextError for what makes no sense."""
        if image.width != image.height or image.width % GRID:
            raise ImageError(
                f"a picture of {image.width}×{image.height} px",
                expected=f"a square, its side a multiple of {GRID} px",
                fix="this editor draws the drawn world alone",
            )
        scene = read_drawn(image).scene
        asked = understand(instruction, scene)
        dice = random.Random(f"{seed} {self.fault}")
        amount = FAULTS.get(self.fault, 0.0) if self.amount is None else self.amount
        if self.fault == "wrong object":
            asked = _mistaken(asked, scene, instruction, dice)
        edited = redrawn(image, scene, asked.after)
        if self.fault == "nothing":
            return image.convert("RGB")
        if self.fault == "half done":
            return Image.blend(image.convert("RGB"), edited, 1 - amount)
        if self.fault == "neighbour":
            return redrawn(edited, asked.after, _with_another_neighbour(asked.after, scene, dice))
        if self.fault == "drift":
            return _drifted(edited, amount, dice)
        if self.fault == "oversaturated":
            return Image.blend(edited, Image.fromarray(stylise(np.asarray(edited), GARISH)), amount)
        if self.fault == "bleed":
            return redrawn(edited, asked.after, _with_one_colour(asked, scene))
        if self.fault == "shift":
            return _shifted(edited, max(1, round(amount * image.width)), dice)
        return edited


@dataclass(frozen=True)
class ManyFaults:
    """A DrawnEditor whose fault changes from edit to edit. shares: of the edits, fault → share; they add up to 1.

    Raises SettingError for others, and for an unknown fault.
    """

    version: ClassVar[int] = 1
    shares: Mapping[str, float] = field(default_factory=lambda: dict(SHARES))
    name: str = "drawn, with faults"

    def __post_init__(self) -> None:
        if unknown := self.shares.keys() - {DONE, *FAULTS}:
            raise SettingError(
                f"unknown faults {', '.join(sorted(unknown))}", expected=", ".join((DONE, *FAULTS)), fix="name these"
            )
        if abs(sum(self.shares.values()) - 1) > 1e-6:
            raise SettingError(
                f"shares that add up to {sum(self.shares.values()):g}",
                expected="1",
                fix="say what share is without fault",
            )

    def fault(self, instruction: str, seed: int) -> str:
        """What goes wrong in this edit."""
        return random.Random(f"{seed} {instruction}").choices(tuple(self.shares), tuple(self.shares.values()))[0]

    def edit(self, image: Image.Image, instruction: str, seed: int) -> Image.Image:
        """See DrawnEditor.edit."""
        return DrawnEditor(self.fault(instruction, seed)).edit(image, instruction, seed)


def fault_of(editor: PictureEditor, instruction: str, seed: int) -> str:
    """What went wrong in an edit, where the editor says so; else the editor's name."""
    return editor.fault(instruction, seed) if isinstance(editor, ManyFaults) else editor.name


def redrawn(image: Image.Image, before: Scene, after: Scene) -> Image.Image:
    """The picture with what differs between two scenes drawn as in the second; a new style recolours its pixels."""
    image = image.convert("RGB")
    if after.style != before.style and before.style is None and after == replace(before, style=after.style):
        return Image.fromarray(stylise(np.asarray(image), after.style))
    old, new = render(before, image.width), render(after, image.width)
    return Image.composite(new, image, difference(old, new))


def _mistaken(asked: Asked, scene: Scene, instruction: str, dice: random.Random) -> Asked:
    """What the editor does who takes one thing for another."""
    if asked.category == "background":
        wrong = dice.choice([name for name in BACKGROUNDS if name not in (scene.background, asked.after.background)])
        return replace(asked, after=replace(asked.after, background=wrong))
    if asked.category == "style":
        wrong = dice.choice([name for name in STYLES if name not in (scene.style, asked.after.style)])
        return replace(asked, after=replace(asked.after, style=wrong))
    others = [item for item in scene.items if item.kind != asked.thing]
    if not asked.after.items or (not others and asked.category != "add"):
        return replace(asked, after=scene)  # there is nothing to be mistaken about
    if asked.category == "add":
        return replace(asked, after=_recoloured(asked.after, len(asked.after.items) - 1, dice))
    other = dice.choice(others)
    own = next(item for item in scene.items if item.kind == asked.thing)
    swapped = Scene(scene.background, tuple(_exchanged(item, own, other) for item in scene.items), scene.style)
    try:
        after = understand(instruction, swapped).after
    except TextError:  # such as a place that only the right object could be moved to
        return replace(asked, after=scene.swapped(other))
    return replace(asked, after=replace(after, items=tuple(_exchanged(item, own, other) for item in after.items)))


def _exchanged(item: object, own: object, other: object) -> object:
    """The two objects with each other's kinds and colours, whatever else the edit did to them."""
    names = {own.kind: other, other.kind: own}
    if item.kind not in names:
        return item
    new = names[item.kind]
    old = own if item.kind == own.kind else other
    return replace(item, kind=new.kind, colour=new.colour if item.colour == old.colour else item.colour)


def _with_another_neighbour(after: Scene, before: Scene, dice: random.Random) -> Scene:
    """Another object than the edited one in another colour; where there is none, the edited one is."""
    untouched = [i for i, item in enumerate(after.items) if item in before.items]
    if not after.items:
        return after
    return _recoloured(after, dice.choice(untouched or range(len(after.items))), dice)


def _with_one_colour(asked: Asked, before: Scene) -> Scene:
    """All objects in the colour of the new or changed one, of the one that is gone, or else of the first."""
    changed = [item for item in asked.after.items if item not in before.items]
    gone = [item for item in before.items if item not in asked.after.items]
    colour = next((item.colour for item in (*changed, *gone, *before.items)), None)
    return replace(asked.after, items=tuple(replace(item, colour=colour) for item in asked.after.items))


def _recoloured(scene: Scene, number: int, dice: random.Random) -> Scene:
    if not scene.items:
        return scene
    item = scene.items[number]
    colour = dice.choice([name for name in COLOURS if name != item.colour])
    return scene.swapped(item, replace(item, colour=colour))


def _drifted(picture: Image.Image, amount: float, dice: random.Random) -> Image.Image:
    """Every channel brighter or darker by `amount` of 1, one of them the other way."""
    signs = [1, 1, -1] if dice.random() < 0.5 else [-1, -1, 1]
    dice.shuffle(signs)
    moved = np.asarray(picture, np.float32) + 255 * amount * np.array(signs, np.float32)
    return Image.fromarray(np.rint(np.clip(moved, 0, 255)).astype(np.uint8))


def _shifted(picture: Image.Image, distance: int, dice: random.Random) -> Image.Image:
    """Moved by `distance` px in one of four directions; the edge is repeated."""
    across, down = dice.choice([(distance, 0), (-distance, 0), (0, distance), (0, -distance)])
    values = np.asarray(picture)
    rows = np.clip(np.arange(picture.height) - down, 0, picture.height - 1)
    columns = np.clip(np.arange(picture.width) - across, 0, picture.width - 1)
    return Image.fromarray(values[rows][:, columns])
