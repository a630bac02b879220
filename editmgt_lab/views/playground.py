"""The playground: type an instruction, move λ, and see the edit, its heat map and the held region."""

from __future__ import annotations

import base64
import html
import io
import threading
from concurrent.futures import Future
from typing import Any

import ipywidgets as widgets
import numpy as np
from PIL import Image

from ..editor import Editor
from ..errors import LabError
from ..images import Picture, fit, load_image
from ..results import DecodeStep, EditResult
from .figures import panels_figure
from .overlays import enlarge, heat_overlay, held_overlay
from .widget import WORKER

PAUSE = 0.4  # seconds of rest before a moved slider asks for a new edit
SIDE = 256  # px of a picture on the screen


def playground(
    editor: Editor,
    image: Picture | EditResult,
    instruction: str = "",
    *,
    hold_threshold: float | None = None,
    steps: int = 12,
    seed: int = 0,
) -> Playground:
    """Open the playground on a picture, or on a finished edit of one picture, which it then shows at once."""
    return Playground(editor, image, instruction, hold_threshold=hold_threshold, steps=steps, seed=seed)


class Playground(widgets.VBox):
    """Moving λ recolours the held region at once, from the heat map of the last step; after a short rest the edit is
    made anew. Edits run beside the page, one decoding step after another; a newer request replaces an older one.

    Every edit has a ticket: a threading.Event that is set once the edit is no longer wanted. `pending` is the newest
    edit's Future; what goes wrong is shown in `message`, and the pictures stay.
    """

    def __init__(
        self,
        editor: Editor,
        image: Picture | EditResult,
        instruction: str = "",
        *,
        hold_threshold: float | None = None,
        steps: int = 12,
        seed: int = 0,
    ):
        result = image if isinstance(image, EditResult) else None
        if result is not None:
            image, instruction = result.sources[0], instruction or result.instructions[0]
            steps, seed = result.settings.steps, result.settings.seeds[0]
            hold_threshold = result.settings.hold_threshold if hold_threshold is None else hold_threshold
        self.others = {} if result is None else result.settings.call()
        self.editor, self.image, self.step_count = editor, load_image(image), steps
        self.source, _ = fit(self.image, pixels=editor.defaults.image_size, multiple=editor.multiple)
        self.edited: Image.Image | None = None if result is None else result.images[0]
        self.heat: np.ndarray | None = None if result is None else result.heat[0].numpy()
        self.ticket, self.pending = threading.Event(), Future()
        self._drawing = threading.Lock()
        self._build(instruction, editor.defaults.hold_threshold if hold_threshold is None else hold_threshold, seed)
        self.redraw()
        if result is None and instruction:
            self.run()

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
        self.seed = widgets.BoundedIntText(
            seed, min=0, max=2**31 - 1, description="seed", layout=widgets.Layout(width="140px"), style=labelled
        )
        self.run_button = widgets.Button(description="Run", button_style="primary", layout={"width": "80px"})
        self.cancel_button = widgets.Button(description="Cancel", disabled=True, layout={"width": "80px"})
        self.progress = widgets.IntProgress(0, 0, self.step_count, layout={"width": "140px"})
        self.message = widgets.HTML(layout={"min_height": "24px"})
        names = ("source", "heat", "held", "edit")
        self.pictures = {name: widgets.Image(format="png", layout={"width": "100%"}) for name in names}
        self.captions = {name: widgets.HTML() for name in self.pictures}

        self.instruction.observe(lambda _: self.run(), "value")
        self.seed.observe(lambda _: self.run(), "value")
        self.hold_threshold.observe(self._moved, "value")
        self.run_button.on_click(lambda _: self.run())
        self.cancel_button.on_click(lambda _: self.cancel())
        row = widgets.Layout(flex_flow="row wrap", align_items="center", width="100%")
        panel = widgets.Layout(flex="1 1 160px", max_width=f"{SIDE}px", margin="0 10px 0 0")
        panels = [widgets.VBox([self.captions[name], picture], layout=panel) for name, picture in self.pictures.items()]
        super().__init__(
            [
                widgets.Box([self.instruction, self.run_button, self.cancel_button, self.progress], layout=row),
                widgets.Box([self.hold_threshold, self.seed], layout=row),
                self.message,
                widgets.Box(panels, layout=row),
            ]
        )

    def run(self, pause: float = 0) -> Future:
        """Ask for the edit that the controls describe, after a rest of `pause` seconds; older requests are dropped."""
        self.ticket.set()
        self.ticket = threading.Event()
        chosen = {"hold_threshold": self.hold_threshold.value, "seed": self.seed.value, "steps": self.step_count}
        self.cancel_button.disabled = False
        self.pending = WORKER.submit(self._edit, self.ticket, pause, self.instruction.value, self.others | chosen)
        return self.pending

    def cancel(self) -> None:
        """Stop before the next decoding step; the pictures stay as they are."""
        self.ticket.set()
        self._say("cancelled")
        self._rest()

    def _moved(self, _: Any) -> None:
        self.redraw("held")
        if self.instruction.value.strip():
            self.run(pause=PAUSE)

    def _edit(self, ticket: threading.Event, pause: float, instruction: str, settings: dict[str, Any]) -> None:
        """In the worker: one edit, given up as soon as its ticket is set."""
        if ticket.wait(pause):
            return
        try:
            self._say("working …")
            for step in self.editor.steps(self.image, instruction, **settings):
                if ticket.is_set():
                    return
                self._take(step, ticket)
            self._say("")
        except LabError as error:
            self._say(str(error), wrong=True)
        except Exception as error:  # nobody sees what a worker raises
            self._say(f"{type(error).__name__}: {error}", wrong=True)
        finally:
            if not ticket.is_set():
                self._rest()

    def _take(self, step: DecodeStep, ticket: threading.Event) -> None:
        preview = step.preview()
        if ticket.is_set():
            return
        self.edited, self.heat = preview, step.heat[0].numpy()
        self.progress.value = step.index + 1
        self.redraw()

    def _rest(self) -> None:
        self.progress.value, self.cancel_button.disabled = 0, True

    def _say(self, text: str, *, wrong: bool = False) -> None:
        colour = "var(--jp-error-color1, #d32f2f)" if wrong else "inherit"
        self.message.value = f'<pre style="color: {colour}; margin: 0">{html.escape(text)}</pre>'

    def redraw(self, *names: str) -> None:
        """Draw these panels, or all of them, from the pictures and the heat map at hand."""
        with self._drawing:
            for name, (picture, caption) in self.panels().items():
                if not names or name in names:
                    self.pictures[name].value = png(picture)
                    self.captions[name].value = f"<b>{caption}</b>"

    def panels(self) -> dict[str, tuple[Image.Image, str]]:
        """Every panel's picture and caption."""
        shown = enlarge(self.source, SIDE)
        panels = dict.fromkeys(("heat", "held", "edit"), (Image.new("RGB", shown.size, "silver"), "–"))
        panels = {"source": (shown, "source")} | panels
        if self.heat is not None:
            held = self.heat < self.hold_threshold.value
            panels["heat"] = Image.fromarray(heat_overlay(shown, self.heat)), "heat map"
            panels["held"] = Image.fromarray(held_overlay(shown, held)), f"held: {held.mean():.0%} (blue)"
            panels["edit"] = enlarge(self.edited, SIDE), "edit"
        return panels

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """The widget, and a static picture of it for where there is no kernel."""
        bundle = super()._repr_mimebundle_(**options)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        figure = panels_figure([list(self.panels().values())], [f"“{self.instruction.value}”"])
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=100)
        return {**data, "image/png": base64.b64encode(file.getvalue()).decode()}


def png(image: Image.Image) -> bytes:
    """A picture as PNG, packed quickly rather than tightly."""
    file = io.BytesIO()
    image.save(file, format="png", compress_level=1)
    return file.getvalue()
