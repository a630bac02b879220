"""Views on an edit under a mask keep to it: whatever they make again changes nothing outside."""

import json

import pytest
from PIL import Image

from editmgt_lab import views
from editmgt_lab.errors import SettingError
from editmgt_lab.images.masks import READINGS
from tests.support import PATIENCE

INSTRUCTION = "make the ball blue"


@pytest.fixture
def mask():
    """White on the left: there the picture may change."""
    mask = Image.new("L", (32, 32))
    mask.paste(255, (0, 0, 16, 32))
    return mask


@pytest.fixture
def edit(editor, picture, mask):
    result = editor.edit(picture(), INSTRUCTION, mask=mask, steps=3, seed=1, hold_threshold=0)
    assert result.fixed.any() and not result.fixed.all() and outside(result) == 0
    return result


def outside(result, fixed=None):
    """How many tokens are other ones where the mask was black."""
    return int(((result.tokens != result.source_tokens) & (result.fixed if fixed is None else fixed)).sum())


def test_the_playground_keeps_the_mask_until_there_is_another_picture(editor, picture, edit):
    opened = views.playground(editor, edit)
    opened.instruction.value = "make the ball green"
    opened.pending.result(PATIENCE)
    assert opened.result is not edit and outside(opened.result, edit.fixed) == 0
    opened.choose(picture(seed=5))
    opened.run().result(PATIENCE)
    assert opened.result.fixed is None


@pytest.mark.parametrize("title", ["Hold studio", "Injection dial"])
def test_the_views_of_its_tabs_keep_it_too(editor, edit, title):
    opened = views.playground(editor, edit)
    opened.tabs.selected_index = opened.tabs.titles.index(title)
    view = opened.tabs.views[title]
    view.pending.result(PATIENCE)
    assert not view.wrong, view.message
    studio = title == "Hold studio"
    made = [each for edits in view.made.values() for each in edits.values()] if studio else [*view.edits.values()]
    assert len(made) > 1 and all(outside(each, edit.fixed) == 0 for each in made)


def test_all_that_was_asked_for_is_saved_by_every_view(editor, picture, mask):
    asked = {"focus": "ball", "negative": "a hat", "guidance_scale": 2.0, "mask": mask, "steps": 2, "seed": 1}
    result = editor.edit(picture(), INSTRUCTION, **asked)
    opened = [
        views.decode_player(editor, picture(), INSTRUCTION, **asked), views.decode_player(editor, result),
        views.playground(editor, result), views.hold_studio(editor, picture(), INSTRUCTION, **asked),
        views.injection_dial(editor, picture(), INSTRUCTION, strengths=[1], **asked),
    ]  # fmt: skip
    expected = {"instruction": INSTRUCTION, "focus": "ball", "negative": "a hat", "steps": 2, "seeds": (1,)}
    for view in opened:
        view.pending.result(PATIENCE)
        told = view.described()
        assert {name: told[name] for name in expected} == expected and told["mask"] in READINGS and json.dumps(told)
    plain = views.record(editor, picture(), INSTRUCTION, steps=1, progress=lambda *_: None).described()
    assert not {"focus", "negative", "mask"} & plain.keys()


def test_the_studio_holds_at_random_within_the_mask(editor, picture, mask, tmp_path):
    studio = views.hold_studio(editor, picture(), INSTRUCTION, threshold=0.5, mask=mask, steps=3)
    studio.pending.result(PATIENCE)
    assert not studio.wrong, studio.message
    by_heat, at_random = (studio.made[0.5][way] for way in ("by heat", "at random"))
    assert (at_random.held & by_heat.fixed).equal(by_heat.fixed), "what the mask holds is held"
    assert at_random.held.sum() == by_heat.held.sum() and outside(at_random, by_heat.fixed) == 0
    assert json.dumps(studio.described()) and studio.described()["mask"] == by_heat.readings[0]
    for wrong in ("hold_threshold", "on_step"):
        with pytest.raises(SettingError, match="chooses"):
            views.hold_studio(editor, picture(), INSTRUCTION, **{wrong: 0.1})


def test_a_dial_with_a_mask_is_saved(editor, picture, mask, tmp_path):
    dial = views.injection_dial(editor, picture(), INSTRUCTION, mask=mask, steps=2)
    dial.pending.result(PATIENCE)
    assert json.dumps(dial.described()) and dial.save_arrays(tmp_path / "dial.npz").exists()
