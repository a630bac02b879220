"""Where the playground's picture comes from: a file, the next scene of the drawn world, or one put together by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets as widgets

from ...images import Picture
from ...world import BACKGROUNDS, COLOURS, KINDS, PLACES, EditSample, Item, Scene, render, sample_edit
from ...world.scenes import GRID

SPLIT = "test"  # its scenes are none that the small model was trained on
HINT = "A click on a + puts the object there, a click on an object takes it out. The small model knows 1 to 4 objects."
BRIGHT = 150  # of 255: a colour above it is written on in black


class Upload(anywidget.AnyWidget):
    """A button that calls `picked(content)` with a picture file's bytes; the page makes a file of more than 8 MiB
    smaller, since no Jupyter server takes a message of more than 10, or says why it cannot."""

    _esm = Path(__file__).with_name("upload.js").read_text(encoding="utf-8")

    def __init__(self, picked: Callable[[bytes], Any]):
        super().__init__()
        self.on_msg(lambda widget, content, buffers: picked(bytes(buffers[0])) if buffers else None)


class ScenePanel(widgets.VBox):
    """Calls `picked(picture)` with an upload's bytes or a drawn picture, `picked(picture, sample)` with a new scene; it
    says whether the picture was taken.

    size: px of a drawn picture's side. scene: what the board of nine places shows; number: of the next new scene.
    """

    def __init__(self, picked: Callable[..., bool], size: int):
        self.picked, self.size = picked, min(max(size // GRID, 2), 64) * GRID
        self.scene, self.number = Scene(BACKGROUNDS[0], ()), 0
        self.upload = Upload(self._uploaded)
        self.next_button = widgets.Button(
            description="New scene", icon="random", tooltip="the next scene of the drawn world, with an instruction",
            layout={"width": "130px"},
        )  # fmt: skip
        self.draw_toggle = widgets.ToggleButton(description="Draw", icon="pencil", layout={"width": "130px"})
        self.background, self.kind, self.colour = (
            widgets.Dropdown(options=options, description=name, layout={"width": "220px"})
            for name, options in (("background", BACKGROUNDS), ("object", KINDS), ("colour", tuple(COLOURS)))
        )
        self.clear_button = widgets.Button(description="Clear", layout={"width": "80px", "margin": "2px 2px 2px 92px"})
        self.places = {place: widgets.Button(layout={"width": "auto"}) for place in PLACES}

        self.next_button.on_click(lambda _: self.next())
        self.draw_toggle.observe(lambda change: self._unfold(change["new"]), "value")
        self.background.observe(lambda change: self._paint(change["new"]), "value")
        self.clear_button.on_click(lambda _: self.draw(replace(self.scene, items=())))
        for place, button in self.places.items():
            button.on_click(lambda _, place=place: self.press(place))
        tools = widgets.VBox([self.background, self.kind, self.colour, self.clear_button])
        grid = widgets.GridBox(
            list(self.places.values()),
            layout={"grid_template_columns": "repeat(3, 104px)", "grid_gap": "2px", "margin": "0 0 0 16px"},
        )
        self.board = widgets.VBox(
            [widgets.Box([tools, grid], layout={"flex_flow": "row wrap"}), widgets.HTML(HINT)],
            layout={"display": "none", "margin": "4px 0 8px 0"},
        )
        buttons = widgets.Box([self.upload, self.next_button, self.draw_toggle], layout={"flex_flow": "row wrap"})
        self._label()
        super().__init__([buttons, self.board])

    def next(self) -> EditSample:
        """Take the next scene of the drawn world; its sample has a fitting instruction and the truth of that edit."""
        sample = sample_edit(self.number, split=SPLIT, size=self.size)
        self.number += 1
        self._take(sample.source_scene)
        self.picked(sample.source, sample)
        return sample

    def draw(self, scene: Scene) -> None:
        """Take this scene as the picture, unless the board shows it already."""
        if scene != self.scene:
            self._take(scene)
            self.picked(render(scene, self.size))

    def _paint(self, background: str | None) -> None:
        """None: the page has unchosen it."""
        if background is not None:
            self.draw(replace(self.scene, background=background))

    def press(self, place: str) -> None:
        """Put the chosen object in a place, or take out what stands there."""
        if None in (self.kind.value, self.colour.value):
            return
        others = tuple(item for item in self.scene.items if item.place != place)
        here = () if len(others) < len(self.scene.items) else (Item(self.kind.value, self.colour.value, place),)
        self.draw(replace(self.scene, items=others + here))

    def _take(self, scene: Scene) -> None:
        self.scene = scene
        self.background.value = scene.background
        self._label()

    def _uploaded(self, file: Picture) -> None:
        if self.picked(file):
            self._take(replace(self.scene, items=()))

    def _unfold(self, opened: bool) -> None:
        self.board.layout.display = "" if opened else "none"

    def _label(self) -> None:
        """Every place's button names its object, in the object's colour."""
        items = {item.place: item for item in self.scene.items}
        for place, button in self.places.items():
            item = items.get(place)
            button.description = item.kind if item else "+"
            button.tooltip = f"take the {item.colour} {item.kind} out" if item else f"put it at the {place}"
            rgb = COLOURS[item.colour] if item else None
            button.style.button_color = rgb and "#{:02x}{:02x}{:02x}".format(*rgb)
            button.style.text_color = rgb and ("black" if sum(rgb) / 3 > BRIGHT else "white")
