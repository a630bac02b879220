"""Tabs of the playground: its pictures first, then every other view on the same edit, made when its tab is opened."""

from __future__ import annotations

import threading
from typing import Any

import ipywidgets as widgets

from ...editor import Editor
from ...results import EditResult
from ...world import EditSample
from ..attention_explorer import attention_explorer
from ..cells import cared_for, parts_of
from ..decode_player import decode_player
from ..hold_studio import hold_studio
from ..injection_dial import injection_dial
from ..token_lab import token_lab
from ..widget import LabWidget

FIRST = "Edit"
VIEWS = ("Token lab", "Decode player", "Attention explorer", "Injection dial", "Hold studio")
EMPTY = "This opens on a finished edit: write an instruction and press Run."


class ViewTabs(widgets.Tab):
    """views: those that were opened on the edit shown, by title; each has its own export."""

    def __init__(self, editor: Editor, first: widgets.Widget):
        self.editor, self.result, self.truth = editor, None, None
        self.views: dict[str, LabWidget] = {}
        self._changing = threading.RLock()  # an edit may finish in its thread while a tab is opened
        self._hints = {title: widgets.HTML(EMPTY) for title in VIEWS}
        self.places = {title: widgets.VBox([hint]) for title, hint in self._hints.items()}
        super().__init__([first, *self.places.values()], titles=(FIRST, *VIEWS), selected_index=0)

    def show(self, result: EditResult | None, truth: EditSample | None = None) -> None:
        """From now on views are of this edit, None for no edit; those of another are closed, the open tab's made anew.

        truth: the sample of the drawn world that was edited, for the hold studio's scores.
        """
        with self._changing:
            self.result, self.truth = result, truth
            views, self.views = self.views, {}
            for title, view in views.items():
                self.places[title].children = [self._hints[title]]
                view.close()
            self.make()

    def make(self) -> None:
        """Make the view of the open tab, unless it is there."""
        title = (FIRST, *VIEWS)[self.selected_index or 0]
        with self._changing:
            if title != FIRST and title not in self.views and self.result is not None:
                with cared_for():
                    self.views[title] = self._view(title)
                self.places[title].children = [self.views[title]]

    def close(self) -> None:
        """The hints too, which are nowhere while a view is in their place."""
        for hint in self._hints.values():
            for part in (*parts_of(hint), hint):
                part.close()
        super().close()

    def _view(self, title: str) -> LabWidget:
        editor, result = self.editor, self.result
        if title == "Token lab":
            return token_lab(editor, result)
        if title == "Decode player":
            return decode_player(editor, result)
        if title == "Attention explorer":
            return attention_explorer(editor, result)
        picture, instruction = result.sources[0], result.instructions[0]
        settings: dict[str, Any] = result.call()
        strength, threshold = settings.pop("strength"), settings.pop("hold_threshold")
        if title == "Injection dial":
            return injection_dial(editor, picture, instruction, hold_threshold=threshold, **settings)
        picture = self.truth or picture
        return hold_studio(editor, picture, instruction, threshold=threshold, strength=strength, **settings)
