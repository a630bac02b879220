"""Widgets share one network: the newest request goes first, older work waits for it and comes out as if alone."""

import sys
import threading

import numpy as np
import pytest

from editmgt_lab import views
from editmgt_lab.views.turns import TURNS, Turns
from tests.support import PATIENCE, WatchedLock, until

INSTRUCTION = "make the ball blue"


@pytest.fixture
def turns():
    return Turns()


def test_newer_work_overtakes_older_where_it_gives_way(turns):
    order, begun, go = [], threading.Event(), threading.Event()

    def older(give_way):
        order.append("older begins")
        begun.set()
        assert go.wait(PATIENCE)
        give_way()
        order.append("older goes on")

    first = turns.submit(older, threading.Event())
    assert begun.wait(PATIENCE)
    second = turns.submit(lambda give_way: order.append("newer"), threading.Event())
    until(lambda: turns._waiting or second.done(), "the second to wait its turn")
    assert not second.done(), "two works at a time"
    go.set()
    first.result(PATIENCE)
    assert order == ["older begins", "newer", "older goes on"]


def test_older_work_does_not_overtake_newer(turns):
    order, begun, go = [], threading.Event(), threading.Event()

    def newer(give_way):
        begun.set()
        assert go.wait(PATIENCE)
        give_way()
        order.append("newer")

    rested = threading.Event()  # the older work's, whose pause ends once the newer one is under way
    rested.wait = lambda pause: not begun.wait(PATIENCE)
    older = turns.submit(lambda give_way: order.append("older"), rested, pause=20)
    newest = turns.submit(newer, threading.Event())
    until(lambda: turns._waiting or older.done(), "the older one to wait its turn")
    assert not older.done(), "two works at a time"
    go.set()
    newest.result(PATIENCE)
    older.result(PATIENCE)
    assert order == ["newer", "older"]


def test_work_that_fails_gives_its_turn_back(turns):
    with pytest.raises(ZeroDivisionError):
        turns.submit(lambda give_way: 1 / 0, threading.Event()).result(PATIENCE)
    assert turns.submit(lambda give_way: 1, threading.Event()).exception(PATIENCE) is None


def test_work_that_is_not_wanted_any_more_does_not_begin(turns):
    dropped = threading.Event()
    done = []
    work = turns.submit(lambda give_way: done.append(1), dropped, pause=2 * PATIENCE)
    dropped.set()
    work.result(PATIENCE)
    assert done == []


def test_work_that_is_dropped_while_it_waits_for_its_turn_does_not_begin(turns):
    begun, go, dropped, done = threading.Event(), threading.Event(), threading.Event(), []

    def newer(give_way):
        begun.set()
        assert go.wait(PATIENCE)

    other = turns.submit(newer, threading.Event())
    assert begun.wait(PATIENCE)
    work = turns.submit(lambda give_way: done.append(1), dropped)
    until(lambda: turns._waiting, "the work to wait its turn")
    dropped.set()
    go.set()
    work.result(PATIENCE), other.result(PATIENCE)
    assert done == []


def test_an_edit_that_is_cancelled_while_it_waits_stays_cancelled(editor, picture, monkeypatch):
    begun, go = threading.Event(), threading.Event()

    def other(give_way):
        begun.set()
        assert go.wait(PATIENCE)

    playground = views.playground(editor, picture(), steps=3)
    monkeypatch.setattr(editor, "edit", None)
    under_way = TURNS.submit(other, threading.Event())
    assert begun.wait(PATIENCE)
    playground.instruction.value = INSTRUCTION
    until(lambda: TURNS._waiting, "the edit to wait its turn")
    playground.cancel()
    go.set()
    under_way.result(PATIENCE), playground.pending.result(PATIENCE)
    assert "cancelled" in playground.message.value and playground.cancel_button.disabled


def test_the_playground_does_not_wait_for_another_views_long_work(editor, picture):
    playground = views.playground(editor, picture(), steps=3)
    dial = views.injection_dial(editor, picture(), INSTRUCTION, strengths=np.linspace(0, 3, 2000))
    playground.instruction.value = INSTRUCTION
    playground.pending.result(PATIENCE)
    assert playground.result is not None and dial.busy and not dial.pending.done()
    dial.cancel()
    dial.pending.result(PATIENCE)
    assert len(dial.edits) < 2000


def test_what_is_overtaken_comes_out_as_if_alone(editor, picture):
    """The explorer is overtaken in every step, and captures its own attention and no other."""
    settings = {"steps": 4, "seed": 3, "hold_threshold": 0.4}
    alone = views.record(editor, picture(), INSTRUCTION, attention=True, progress=lambda *_: None, **settings)

    class Interrupted:
        """An editor beside which other work is asked for in every step."""

        others = []

        def __getattr__(self, name):
            return getattr(editor, name)

        def steps(self, *arguments, **chosen):
            for step in editor.steps(*arguments, **chosen):
                self.others.append(views.decode_player(editor, picture(seed=1), "remove the ball", steps=2))
                until(lambda: TURNS._waiting or self.others[-1].pending.done(), "the other to wait its turn")
                assert not self.others[-1].pending.done(), "two works at a time"
                yield step

    interrupted = Interrupted()
    explorer = views.attention_explorer(interrupted, picture(), INSTRUCTION, **settings)
    explorer.pending.result(PATIENCE)
    assert len(interrupted.others) == 4 and all(other.run for other in interrupted.others)
    expected = alone.arrays()
    for name, array in explorer.run.arrays().items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_a_view_that_was_cancelled_while_it_opened_begins_again(editor, picture):
    view = views.decode_player(editor, picture(), INSTRUCTION, steps=20)
    view.cancel()
    view.pending.result(PATIENCE)
    assert view.data == {} and view.message == "cancelled"
    view._handle_custom_msg({"kind": "again"}, [])
    view._handle_custom_msg({"kind": "again"}, [])  # a second click finds it at work
    view.pending.result(PATIENCE)
    assert len(view.run.previews) == 20 and view.message == ""


def test_a_work_that_ends_does_not_hide_the_one_that_begins(editor, picture):
    """The work before is at its last word, and not quite through, when another one is begun."""
    view = views.decode_player(editor, picture(), INSTRUCTION, steps=2)
    view.pending.result(PATIENCE)
    at_its_last_word, begun, go = threading.Event(), threading.Event(), threading.Event()
    view._saying = lock = WatchedLock()

    def ends(change):
        if change.new == "" and not begun.is_set():
            at_its_last_word.set()
            until(lambda: lock.contended.is_set() or begun.is_set(), "the other to begin, or to wait for the last word")

    view.observe(ends, "message")
    before = view.begin(lambda progress: None)
    assert at_its_last_word.wait(PATIENCE)
    view.begin(lambda progress: go.wait(PATIENCE))
    begun.set()
    before.result(PATIENCE)
    busy = view.busy
    go.set()
    view.pending.result(PATIENCE)
    assert busy and not view.busy


def test_an_edit_that_ends_does_not_hide_the_one_that_begins(editor, picture, monkeypatch):
    """The playground's edit before is at its last word when another one is asked for."""
    playground = views.playground(editor, picture(), INSTRUCTION, steps=2)
    playground.pending.result(PATIENCE)
    at_its_last_word, begun, go = threading.Event(), threading.Event(), threading.Event()
    playground._changing = lock = WatchedLock()

    def ends(change):
        if change.new == 0 and not begun.is_set():
            at_its_last_word.set()
            until(lambda: lock.contended.is_set() or begun.is_set(), "the other to begin, or to wait for the last word")

    playground.progress.observe(ends, "value")
    before = playground.run()
    assert at_its_last_word.wait(PATIENCE)
    monkeypatch.setattr(editor, "edit", lambda *_, **__: go.wait(PATIENCE))
    newest = playground.run()
    begun.set()
    before.result(PATIENCE)
    shown = playground.progress.layout.visibility, playground.cancel_button.disabled
    playground.cancel()
    go.set()
    newest.result(PATIENCE)
    assert shown == ("visible", False)


@pytest.mark.parametrize("other", [{"steps": 5}, {"seed": 3}, {"hold_threshold": 0.6},
                                   {"instruction": "remove the ball"}])  # fmt: skip
def test_a_finished_edit_is_made_anew_where_anything_else_is_asked_for(editor, picture, other):
    made = {"steps": 3, "seed": 0, "hold_threshold": 0.3}
    result = editor.edit(picture(), INSTRUCTION, focus="ball", **made)
    playground = views.playground(editor, result, **other)
    playground.pending.result(PATIENCE)
    asked = {"instruction": INSTRUCTION, "focus": None if "instruction" in other else "ball"} | made | other
    np.testing.assert_array_equal(playground.result.mean_heat, editor.edit(picture(), **asked).mean_heat)
    assert playground.result is not result and playground.step_count == asked["steps"]
    assert (playground.instruction.value, playground.seed.value) == (asked["instruction"], asked["seed"])


def test_the_next_edit_has_the_focus_and_the_negative_text_of_the_finished_one(editor, picture):
    """The focus words go with the instruction that they are words of."""
    settings = {"steps": 3, "seed": 5, "guidance_scale": 9.0, "negative": "a hat"}
    result = editor.edit(picture(), INSTRUCTION, focus="ball", **settings)
    playground = views.playground(editor, result)
    for instruction, focus in ((INSTRUCTION, "ball"), ("remove the cube", None)):
        playground.instruction.value = instruction
        playground.run().result(PATIENCE)
        expected = editor.edit(picture(), instruction, focus=focus, **settings)
        np.testing.assert_array_equal(playground.result.tokens, expected.tokens)
        np.testing.assert_array_equal(playground.result.mean_heat, expected.mean_heat)


def test_a_preview_shows_what_is_really_held(editor, picture, monkeypatch):
    monkeypatch.setattr(sys.modules[views.Playground.__module__], "FRAME", 0)
    shown = []
    monkeypatch.setattr(views.Playground, "redraw", lambda self, *names: shown.append(self.held))
    leaking, settings = editor.with_defaults(hold="released"), {"steps": 6, "seed": 0, "hold_threshold": 0.6}
    playground = views.playground(leaking, picture(), **settings)
    shown.clear()
    playground.instruction.value = INSTRUCTION
    playground.pending.result(PATIENCE)
    steps = [*leaking.steps(picture(), INSTRUCTION, **settings)]
    assert any((step.held & (step.tokens != playground.result.source_tokens)).any() for step in steps)
    for (_, cells), step in zip(shown, [*steps, steps[-1]], strict=True):
        np.testing.assert_array_equal(cells, (step.held & (step.tokens == playground.result.source_tokens))[0])
