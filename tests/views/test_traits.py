"""What a page sets is looked at first: what cannot be stays as it was, and the message says why, in a few words."""

import math

import pytest
from traitlets import TraitError

from editmgt_lab import views
from tests.support import PATIENCE

INSTRUCTION = "make the ball blue"
NO_CELL, NO_NUMBER = (-2, 10**6, 10**400, "1", 0.5, None), (-0.1, 10.5, math.nan, math.inf, 10**400, "1", None, [])
WRONG = {
    ("decode_player", "cell"): NO_CELL, ("attention_explorer", "cell"): NO_CELL, ("token_lab", "cell"): NO_CELL,
    ("hold_studio", "threshold"): (1.1, *NO_NUMBER), ("injection_dial", "strength"): NO_NUMBER,
}  # fmt: skip


@pytest.fixture(scope="module")
def opened(editor, picture):
    run = views.record(editor, picture(), INSTRUCTION, attention=True, steps=2, progress=lambda *_: None)
    widgets = {
        "decode_player": views.decode_player(run),
        "attention_explorer": views.attention_explorer(run),
        "token_lab": views.token_lab(editor, picture()),
        "hold_studio": views.hold_studio(editor, picture(), INSTRUCTION, steps=1),
        "injection_dial": views.injection_dial(editor, picture(), INSTRUCTION, strengths=[1], steps=1),
    }
    for widget in widgets.values():
        widget.pending.result(PATIENCE)
    return widgets


@pytest.mark.parametrize("name, trait", WRONG, ids="-".join)
def test_what_cannot_be_is_refused(opened, name, trait):
    widget = opened[name]
    before = getattr(widget, trait)
    for value in WRONG[name, trait]:
        with pytest.raises(TraitError):
            setattr(widget, trait, value)
        widget.say("")
        widget.set_state({trait: value})
        assert getattr(widget, trait) == before and widget.wrong and f"{trait} cannot be so" in widget.message


def test_what_can_be_is_taken(opened):
    last = opened["token_lab"].tokens[0].size - 1
    for name, trait, values in (
        ("token_lab", "cell", (last, 0, -1)), ("hold_studio", "threshold", (0, 1, 0.2)),
        ("injection_dial", "strength", (0, 10, 1.5)),
    ):  # fmt: skip
        for value in values:
            opened[name].set_state({trait: value})
            assert getattr(opened[name], trait) == value


@pytest.mark.parametrize("sent", [{"cell": "x" * 10**6}, {"x" * 10**6: 1, "cell": 10**6}])
def test_a_message_repeats_little_of_what_was_sent(opened, sent):
    player = opened["decode_player"]
    player.set_state(sent)
    assert "cell cannot be so" in player.message and len(player.message) < 500


def test_a_fault_of_ours_is_told_and_logged(opened, caplog):
    player = opened["decode_player"]

    def broken(change):
        return 1 / 0

    player.observe(broken, "colour_by")
    data = {"method": "update", "state": {"colour_by": "computed"}, "buffer_paths": []}
    player._handle_msg({"content": {"data": data}, "buffers": []})
    player.unobserve(broken, "colour_by")
    assert player.message.startswith("ZeroDivisionError") and player.wrong
    assert any(record.exc_info and "broken" in record.exc_text for record in caplog.records), "with its traceback"
