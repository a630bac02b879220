"""The playground: choose a scene, type an instruction, move λ; see the edit, and open every other view on it."""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import ipywidgets as widgets
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ...decoding import map_to_hold_by
from ...editor import Editor
from ...errors import LabError, SettingError
from ...images import Picture, fit, load_image
from ...inputs import check_texts
from ...results import DecodeStep, EditResult
from ...settings import MOST_SEED, Settings
from ...world import EditSample
from ..export import Saves
from ..figures import edit_figure, panels_figure
from ..overlays import enlarge, heat_overlay, held_overlay
from ..recording import asked_of
from ..turns import TURNS, Cancelled
from ..widget import png, told
from .scene_panel import ScenePanel
from .view_tabs import ViewTabs

PAUSE = 0.4  # seconds of rest before a moved slider or a drawn object asks for a new edit
FRAME = 0.1  # seconds for which a preview stays at least; the finished edit does not wait
SIDE = 256  # px of a picture on the screen


def playground(
    editor: Editor,
    image: Picture | EditResult | None = None,
    instruction: str = "",
    *,
    hold_threshold: float | None = None,
    steps: int | None = None,
    seed: int | None = None,
) -> Playground:
    """Open the playground on a picture, on a finished edit of one picture, or, with neither, on a scene of the drawn
    world. A finished edit is shown at once, and made anew where anything else is asked for; None is what it had, else
    the model's own default, and a seed of 0. Raises ImageError, TextError and SettingError."""
    return Playground(editor, image, instruction, hold_threshold=hold_threshold, steps=steps, seed=seed)


class Playground(Saves, widgets.VBox):
    """Moving λ colours at once what lies below it in the heat map of the last step, which may be more than a hold
    takes; after a short rest the edit is made anew, and what it held is shown. Edits run beside the page, one decoding
    step after another; a newer request replaces an older one.

    Every edit has a ticket: a threading.Event that is set once the edit is no longer wanted. `pending` is the newest
    edit's Future; what goes wrong is shown in `message`, and the pictures stay. `result` is the newest finished edit
    of the picture, which is what is saved, and what the views of `tabs` are opened on. others: of the finished edit it
    was opened on, what no control shows; the mask goes with its picture, the focus words with its instruction.
    """

    def __init__(
        self,
        editor: Editor,
        image: Picture | EditResult | None = None,
        instruction: str = "",
        *,
        hold_threshold: float | None = None,
        steps: int | None = None,
        seed: int | None = None,
    ):
        result = image if isinstance(image, EditResult) else None
        if result is not None:
            if not result.sources:
                raise SettingError(
                    "a picture made from text alone has no source to edit",
                    expected="a picture, or a finished edit",
                    fix="pass result.image, to edit what was made",
                )
            image, instruction = result.sources[0], instruction or result.instructions[0]
        check_texts([instruction], may_be_blank=True)
        if image is not None:  # refused before there are widgets, which nobody would close
            fit(image := load_image(image), pixels=editor.defaults.image_size, multiple=editor.multiple)
        self.others = {"seed": 0} if result is None else result.call()
        asked = {"hold_threshold": hold_threshold, "steps": steps, "seed": seed}
        of_the_edit = {name: self.others.get(name) for name in asked}
        asked = of_the_edit | {name: value for name, value in asked.items() if value is not None}
        chosen = Settings.choose(editor.defaults, 1, **asked)
        self.editor, self.step_count = editor, chosen.steps
        self.ticket, self.pending = threading.Event(), Future()
        self.pending.set_result(None)
        self._changing = threading.RLock()
        self.scene = ScenePanel(self.choose, editor.defaults.image_size)
        self._build(instruction, chosen.hold_threshold, chosen.seeds[0])
        if image is None:
            self.scene.next()
            self.instruction.value = instruction or self.instruction.value
            return
        self._put(image)
        if result is not None:
            self.result, self.edited, self.heat = result, result.images[0], result.heat[0].numpy()
            self.held = result.settings.hold_threshold, result.kept[0].numpy()
            self.tabs.show(result)
            if instruction != result.instructions[0]:
                self._reworded()
            elif asked != of_the_edit:
                self.run()
        elif instruction:
            self.run()
        self.redraw()

    def _build(self, instruction: str, hold_threshold: float, seed: int) -> None:
        wide = widgets.Layout(flex="1 1 320px", width="auto")
        labelled = {"description_width": "initial"}
        self.instruction = widgets.Text(
            instruction, placeholder="make the ball blue, then press Enter", description="instruction",
            continuous_update=False, layout=wide, style=labelled,
        )  # fmt: skip
        self.hold_threshold = widgets.FloatSlider(
            hold_threshold, min=0, max=1, step=0.01, description="hold threshold λ", layout=wide, style=labelled
        )
        self.seed = widgets.BoundedIntText(  # a browser writes one beyond 2**53 rounded, and still that one is used
            seed, min=0, max=MOST_SEED, description="seed", layout=widgets.Layout(width="140px"), style=labelled
        )
        self.run_button = widgets.Button(description="Run", button_style="primary", layout={"width": "80px"})
        self.cancel_button = widgets.Button(description="Cancel", disabled=True, layout={"width": "80px"})
        self.progress = widgets.IntProgress(0, 0, self.step_count, layout={"width": "140px", "visibility": "hidden"})
        self.message = widgets.HTML(layout={"min_height": "24px"})
        names = ("source", "heat", "held", "edit")
        self.pictures = {name: widgets.Image(format="png", layout={"width": "100%"}) for name in names}
        self.captions = {name: widgets.HTML() for name in self.pictures}

        self.instruction.observe(lambda _: self._reworded(), "value")
        self.seed.observe(self._moved, "value")
        self.hold_threshold.observe(self._moved, "value")
        self.run_button.on_click(lambda _: self.run())
        self.cancel_button.on_click(lambda _: self.cancel())
        row = widgets.Layout(flex_flow="row wrap", align_items="center", width="100%")
        panel = widgets.Layout(flex="1 1 160px", max_width=f"{SIDE}px", margin="0 10px 0 0")
        panels = [widgets.VBox([self.captions[name], picture], layout=panel) for name, picture in self.pictures.items()]
        self.tabs = ViewTabs(self.editor, widgets.Box(panels, layout=row))
        self.tabs.observe(self._opened, "selected_index")
        asking = self.instruction, self.run_button, self.cancel_button, self.progress
        lines = [widgets.Box(each, layout=row) for each in (asking, (self.hold_threshold, self.seed))]
        super().__init__([self.scene, *lines, self.message, self.tabs])

    def choose(self, picture: Picture, sample: EditSample | None = None) -> bool:
        """Take another picture, and with a sample of the drawn world its instruction; whether it could be taken."""
        try:
            image = load_image(picture)
            with self._changing:
                self._put(image, sample)
                self.others.pop("mask", None)  # which was of the picture before
                self._say("")
                self._rest()
        except LabError as error:
            self._say(str(error), wrong=True)
            return False
        self.tabs.show(None)
        self.redraw()
        if sample is not None and sample.instruction != self.instruction.value:
            self.instruction.value = sample.instruction  # which asks for its edit
        elif self.instruction.value.strip():
            self.run(pause=0 if sample else PAUSE)
        return True

    def _put(self, image: Image.Image, sample: EditSample | None = None) -> None:
        source, _ = fit(image, pixels=self.editor.defaults.image_size, multiple=self.editor.multiple)
        self.ticket.set()
        self.image, self.source, self.truth = image, source, sample
        self.result: EditResult | None = None
        self.edited: Image.Image | None = None
        self.heat: np.ndarray | None = None
        self.held: tuple[float, np.ndarray] | None = None  # λ of what is shown, and the cells that were held by it

    def run(self, pause: float = 0) -> Future:
        """Ask for the edit that the controls describe, after a rest of `pause` seconds; older requests are dropped."""
        with self._changing:  # so that an edit which ends right now does not end this one's show
            self.ticket.set()
            self.ticket = ticket = threading.Event()
            chosen = {"hold_threshold": self.hold_threshold.value, "seed": self.seed.value, "steps": self.step_count}
            self.progress.layout.visibility, self.cancel_button.disabled = "visible", False
            asked = self.instruction.value, self.others | chosen
            self.pending = TURNS.submit(lambda give_way: self._edit(give_way, ticket, *asked), ticket, pause)
            return self.pending

    def cancel(self) -> None:
        """Stop before the next decoding step; the pictures stay as they are."""
        with self._changing:  # so that an edit whose turn comes right now says nothing after it
            self.ticket.set()
            self._say("cancelled")
            self._rest()

    def _reworded(self) -> None:
        self.others.pop("focus", None)  # whose words were those of the instruction before
        self.run()

    def _moved(self, _: Any) -> None:
        self.redraw("held")
        if self.instruction.value.strip():
            self.run(pause=PAUSE)

    def _opened(self, _: Any) -> None:
        try:
            self.tabs.make()
        except Exception as error:  # nobody sees what a callback raises
            self._say(told(error), wrong=True)

    def _edit(
        self, give_way: Callable[[], None], ticket: threading.Event, instruction: str, settings: dict[str, Any]
    ) -> None:
        """Beside the page: one edit, given up as soon as its ticket is set."""
        drawn = -FRAME

        def on_step(step: DecodeStep) -> None:
            nonlocal drawn
            if not ticket.is_set():
                give_way()
            with self._changing:
                if ticket.is_set():
                    raise Cancelled
                self.progress.value = step.index + 1
            if time.monotonic() - drawn >= FRAME:
                heat = map_to_hold_by(self.editor.defaults.hold_by, step.heat, step.heat_so_far)
                self._take(step.preview(), heat, (settings["hold_threshold"], step.kept), ticket)
                drawn = time.monotonic()

        try:
            with self._changing:
                if ticket.is_set():
                    return
                self._say("working …")
            self._finish(self.editor.edit(self.image, instruction, on_step=on_step, **settings), ticket)
            wrong = ""
        except Cancelled:
            return
        except Exception as error:  # nobody sees what a worker raises
            wrong = told(error)
        with self._changing:
            if not ticket.is_set():
                if wrong:
                    self._say(wrong, wrong=True)
                self._rest()

    def _take(self, edited: Image.Image, heat: Tensor, held: tuple[float, Tensor], ticket: threading.Event) -> None:
        with self._changing:
            if ticket.is_set():
                raise Cancelled
            self.edited, self.heat, self.held = edited, heat[0].numpy(), (held[0], held[1][0].numpy())
            self.redraw("heat", "held", "edit")

    def _finish(self, result: EditResult, ticket: threading.Event) -> None:
        with self._changing:
            self._take(result.images[0], result.heat, (result.settings.hold_threshold, result.kept), ticket)
            self._say("")
            self.result = result
            known = self.truth is not None and self.truth.instruction == result.instruction
            self.tabs.show(result, self.truth if known else None)

    def _rest(self) -> None:
        self.progress.value, self.progress.layout.visibility, self.cancel_button.disabled = 0, "hidden", True

    def _say(self, text: str, *, wrong: bool = False) -> None:
        colour = "var(--jp-error-color1, #d32f2f)" if wrong else "inherit"
        self.message.value = f'<pre style="color: {colour}; margin: 0">{html.escape(text)}</pre>'

    def redraw(self, *names: str) -> None:
        """Draw these panels, or all of them, from the pictures and the heat map at hand."""
        with self._changing:
            for name in names or self.pictures:
                picture, caption = self.panel(name)
                self.pictures[name].value = png(enlarge(picture, SIDE))
                self.captions[name].value = f"<b>{caption}</b>"

    def panel(self, name: str) -> tuple[Image.Image, str]:
        """A panel's picture, not enlarged yet, since a small one is coloured faster, and its caption."""
        small = self.source if max(self.source.size) <= SIDE else enlarge(self.source, SIDE)
        if name == "source":
            return small, "source"
        if self.heat is None:
            return Image.new("RGB", small.size, "silver"), "–"
        if name == "heat":
            return Image.fromarray(heat_overlay(small, self.heat)), "heat map"
        if name == "held":
            (made_at, cells), moved_to = self.held, self.hold_threshold.value
            word = "held" if made_at == moved_to else "below λ"
            cells = cells if made_at == moved_to else self.heat < moved_to
            return Image.fromarray(held_overlay(small, cells)), f"{word}: {cells.mean():.0%} (blue)"
        return self.edited, "edit"

    # Export: of the edit; every view in `tabs.views` has its own, a standalone page among it

    def nothing(self) -> str:
        return "" if self.result else "no edit of this picture is finished"

    def figure(self) -> Figure:
        """The finished edit: source, heat map, held region, edit."""
        return edit_figure(self.result)

    def still(self) -> Figure:
        """The panels as they are, finished or not."""
        return panels_figure([[self.panel(name) for name in self.pictures]], [f"“{self.instruction.value}”"])

    def arrays(self) -> dict[str, np.ndarray]:
        """Of the finished edit: source and edit, uint8 [H, W, 3]; tokens, source_tokens, heat and held, [h, w]."""
        held = {"held": self.result.kept[0].numpy()}  # as it is shown
        fields = {name: getattr(self.result, name)[0].numpy() for name in ("tokens", "source_tokens", "heat")}
        return fields | held | {"source": np.asarray(self.result.sources[0]), "edit": np.asarray(self.result.images[0])}

    def described(self) -> dict[str, Any]:
        """What the finished edit was asked for, the seed included."""
        return asked_of(self.result)
