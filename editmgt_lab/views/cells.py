"""A notebook's cell that is run again closes the views that its run before has opened, whose places on the page are
gone: ipywidgets keeps every widget until it is closed, and a view keeps its editor."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakSet

from ipywidgets import DOMWidget, Widget

_opened: dict[str, tuple[str, WeakSet[Widget]]] = {}  # cell → its last run, and the views which that has opened
_cared_for = ContextVar("cared_for", default=False)


def parts_of(widget: Widget) -> Iterator[Widget]:
    """The widgets that one holds, and that these hold."""
    for name in widget.keys:
        value = getattr(widget, name)
        for each in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(each, Widget):
                yield from parts_of(each)
                yield each


@contextmanager
def cared_for() -> Iterator[None]:
    """Views made inside are of no cell: who makes them closes them. A playground makes some in its edits' threads,
    where ipykernel names whichever cell ran last."""
    before = _cared_for.set(True)
    try:
        yield
    finally:
        _cared_for.reset(before)


def opened(view: Widget) -> None:
    """To be told of every new view. What a cell opens in one run stays until another; JupyterLab and Notebook 7 say
    which cell they run, and where nobody says so nothing is closed."""
    cell, run = _here()
    if cell is None or _cared_for.get():
        return
    before, views = _opened.get(cell, (run, WeakSet()))
    if before != run:
        for each in views:
            parts = [*parts_of(each), each]
            each.close()
            for part in parts:
                _empty(part)
        views = WeakSet()
    views.add(view)
    _opened[cell] = run, views


def _here() -> tuple[str | None, str]:
    """The cell that is run, and which of its runs this is; None outside of one."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    request: dict[str, Any] = shell.get_parent() if hasattr(shell, "get_parent") else {}
    if request.get("header", {}).get("msg_type") != "execute_request":
        return None, ""
    return request.get("metadata", {}).get("cellId"), request["header"]["msg_id"]


def _empty(view: Widget) -> None:
    """Let go of all that a closed view, or a part of it, holds: IPython keeps what a cell has shown in its history."""
    for name in [name for name in vars(view) if not name.startswith("_")]:
        delattr(view, name)
    for name in set(view.keys) - set(DOMWidget.class_trait_names()):  # what its page had, which is not in vars(view)
        view._trait_values.pop(name, None)
