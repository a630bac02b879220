"""A cell that is run again closes the views of its run before, and nothing else."""

import gc
import weakref
from types import SimpleNamespace

import IPython
import pytest
from ipywidgets import Image
from ipywidgets.widgets.widget import _instances

from editmgt_lab import views
from editmgt_lab.views.cells import parts_of
from tests.support import PATIENCE, until

INSTRUCTION = "make the ball blue"


@pytest.fixture
def run(monkeypatch):
    """run(cell, number): what is made from now on is made in this run of a cell."""

    def begin(cell, number, kind="execute_request"):
        parent = {"header": {"msg_type": kind, "msg_id": f"{number}"}, "metadata": {"cellId": cell} if cell else {}}
        monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(get_parent=lambda: parent))

    return begin


def opened(editor, picture, kind=views.decode_player):
    view = kind(editor, picture(), INSTRUCTION, steps=2)
    view.pending.result(PATIENCE)
    return view


def sent(widget):
    """What its page has of pictures and arrays."""
    picture = widget.value if isinstance(widget, Image) else b""
    return len(getattr(widget, "data", {})) + len(picture)


@pytest.mark.parametrize("kind", [views.decode_player, views.playground])
def test_a_cell_that_is_run_again(editor, picture, run, kind):
    run("a", 1)
    first, beside = (opened(editor, picture, kind) for _ in range(2))
    run("b", 2)
    other = opened(editor, picture, kind)
    assert all(view.comm is not None for view in (first, beside, other))
    run("a", 3)
    held = weakref.ref(first.pending)
    full = [each for each in (*parts_of(first), first) if sent(each)]
    assert full
    now = opened(editor, picture, kind)
    assert first.comm is None and beside.comm is None

    def let_go():
        gc.collect()
        return held() is None

    until(let_go, "the views' edit to be let go, which IPython's history may not keep")
    assert not any(map(sent, full)), "nor what their pages had"
    assert other.comm is not None and now.comm is not None


def test_a_view_that_was_closed_is_let_go(editor, picture, run):
    run("a", 1)
    view = opened(editor, picture)
    view.close()
    gone = weakref.ref(view)
    del view
    gc.collect()
    assert gone() is None


def test_what_a_page_opens_and_what_no_cell_does_stays(editor, picture, run):
    made = []
    for cell, kind in ((None, "execute_request"), (None, "execute_request"), ("a", "comm_msg"), ("a", "comm_msg")):
        run(cell, len(made), kind)
        made.append(opened(editor, picture))
    assert all(view.comm is not None for view in made)


def test_the_view_in_a_playgrounds_tab_is_the_playgrounds(editor, picture, run):
    """It is made in the edit's thread, where ipykernel names the cell that ran last, whichever that was."""
    run("a", 1)
    playground = opened(editor, picture, views.playground)
    playground.tabs.selected_index = 1
    run("b", 2)
    playground.run().result(PATIENCE)
    shown = playground.tabs.views["Token lab"]
    run("b", 3)
    opened(editor, picture)
    assert shown.comm is not None
    playground.run().result(PATIENCE)
    assert "></pre>" in playground.message.value and playground.tabs.views["Token lab"] is not shown
    run("a", 4)
    shown = playground.tabs.views["Token lab"]
    opened(editor, picture)
    assert playground.comm is None and shown.comm is None


def test_a_playground_leaves_no_widget_behind(editor, picture):
    before = set(_instances)
    playground = opened(editor, picture, views.playground)
    playground.tabs.selected_index = 1
    counts = []
    for _ in range(3):
        playground.run().result(PATIENCE)
        counts.append(len(_instances))
    assert len(set(counts)) == 1
    playground.close()
    assert set(_instances) == before
