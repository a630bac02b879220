"""The injection dial: one edit at several strengths γ side by side, from text to image to ever more of the source."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
from matplotlib.figure import Figure
from PIL import Image

from ...editor import Editor
from ...errors import SettingError
from ...images import Picture, load_image
from ...inputs import check_texts
from ...results import EditResult
from ...settings import STRONGEST, Settings
from ..figures import panels_figure
from ..recording import Progress, asked_of
from ..widget import LabWidget, Number, asked, png, seeded

STRENGTHS = (0.0, 0.25, 0.5, 1.0, 2.0, 3.0)  # shown when the dial opens
MOST = 3.0  # at the dial's end, or the strongest that it opens with


def injection_dial(
    editor: Editor, image: Picture, instruction: str, *, strengths: Sequence[float] = STRENGTHS, **settings: Any
) -> InjectionDial:
    """Open the dial on a picture and an instruction; settings: as in `Editor.edit`, the same for every strength.

    Nothing is held unless they say so: held tokens would be the source's at any strength. Raises ImageError, TextError
    and SettingError, also for what the dial itself chooses; what is wrong with the others stands in its message.
    """
    return InjectionDial(editor, image, instruction, strengths, settings)


class InjectionDial(LabWidget):
    """strength: γ on the dial; bias_text: the released code's bias instead of the paper's; results: what was made so
    far, by strength, each with its γ, its bias, its picture and its L1 to the source."""

    script, title = Path(__file__).with_suffix(".js"), "Injection dial"

    strength = Number(1.0, min=0, max=STRONGEST).tag(sync=True, page=True)
    bias_text = traitlets.Bool(False).tag(sync=True, page=True)
    results = traitlets.List().tag(sync=True)

    def __init__(
        self, editor: Editor, image: Picture, instruction: str, strengths: Sequence[float], settings: dict[str, Any]
    ):
        if taken := {"strength", "on_step"} & settings.keys():
            raise SettingError(
                f"the dial chooses {' and '.join(sorted(taken))} itself",
                expected="other settings of Editor.edit",
                fix="pass strengths=[…] for the γ to begin with",
            )
        several = strengths if isinstance(strengths, Iterable) else [strengths]
        strengths = [Settings.choose(editor.defaults, 1, strength=each, seed=0).strength for each in several]
        if not strengths:
            raise SettingError("no strength", expected="one γ or more to begin with", fix="leave strengths out")
        check_texts([instruction])
        self.editor, self.image, self.instruction = editor, load_image(image), instruction
        super().__init__(bias_text=editor.defaults.bias_text)
        self.settings = seeded({"hold_threshold": 0} | settings)
        self.most = max(MOST, *strengths)
        self.source: Image.Image | None = None
        self.edits: dict[tuple[float, bool], EditResult] = {}
        self._wanted: list[tuple[float, bool]] = []  # by the newest work
        self._want([(strength, self.bias_text) for strength in strengths])

    def turn(self, strength: float, *, bias_text: bool | None = None) -> Future:
        """Make the edit at another strength, beside the page, unless it is there already; before those that are still
        to be made. Raises SettingError."""
        strength = Settings.choose(self.editor.defaults, 1, strength=strength).strength
        return self._want([(strength, self.bias_text if bias_text is None else bias_text)])

    def receive(self, content: Mapping[str, Any]) -> None:
        super().receive(content)
        if content.get("kind") == "turn":
            self.turn(asked(content, "strength", float), bias_text=asked(content, "bias_text", bool))

    def _want(self, pairs: list[tuple[float, bool]]) -> Future:
        """Make the edits of these strengths and biases, then what the work before has not come to, unless it was
        cancelled."""
        left = [] if self.ticket.is_set() else self._wanted
        wanted = [*pairs, *(pair for pair in left if pair not in pairs and pair not in self.edits)]
        self._wanted = wanted
        return self.begin(lambda progress: self._make(progress, wanted))

    def _make(self, progress: Progress, wanted: Sequence[tuple[float, bool]]) -> None:
        for number, (strength, bias_text) in enumerate(wanted):
            at = number, len(wanted), f"γ = {strength:g}"
            progress(*at)
            if (strength, bias_text) not in self.edits:
                editor = copy.copy(self.editor)
                editor.defaults = replace(self.editor.defaults, bias_text=bias_text)
                edit = editor.edit(
                    self.image, self.instruction, strength=strength, on_step=lambda _, at=at: progress(*at),
                    **self.settings,
                )  # fmt: skip
                self.source = edit.source
                self.edits[strength, bias_text] = edit
            self._show()

    def _show(self) -> None:
        if not self.data:
            ratio = self.source.width / self.source.height
            self.data = {"instruction": self.instruction, "source": png(self.source), "ratio": ratio, "most": self.most}
        self.results = [
            {"strength": strength, "bias_text": bias, "picture": png(edit.image), "l1": self.distance(edit)}
            for (strength, bias), edit in sorted(self.edits.items())
        ]

    def distance(self, edit: EditResult) -> float:
        """L1 to the source: the mean absolute difference over pixels and channels, in [0, 1]."""
        now, before = (np.asarray(picture, np.float32) / 255 for picture in (edit.image, self.source))
        return float(np.abs(now - before).mean())

    def figure(self) -> Figure:
        """The source, then every strength that was made with the bias on the page."""
        row = [(self.source, "source")] + [
            (edit.image, f"γ = {strength:g}, L1 {self.distance(edit):.3f}")
            for (strength, bias), edit in sorted(self.edits.items())
            if bias == self.bias_text
        ]
        form = "released bias: source ↔ all" if self.bias_text else "paper's bias: source ↔ image"
        return panels_figure([row], [f"“{self.instruction}”, {form}"])

    def arrays(self) -> dict[str, np.ndarray]:
        """strength, bias_text, l1, tokens and picture of every result, and the source."""
        made = sorted(self.edits.items())
        return {
            "strength": np.array([strength for (strength, _), _ in made]),
            "bias_text": np.array([bias for (_, bias), _ in made]),
            "l1": np.array([self.distance(edit) for _, edit in made]),
            "tokens": np.stack([edit.tokens[0].numpy() for _, edit in made]),
            "pictures": np.stack([np.asarray(edit.image) for _, edit in made]),
            "source": np.asarray(self.source),
        }

    def described(self) -> dict[str, Any]:
        """What was asked for at every strength, the seed included."""
        told = asked_of(next(iter(self.edits.values())))
        del told["strength"], told["bias_text"]
        return told
