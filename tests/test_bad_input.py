"""What a user can get wrong: always a LabError that names it, and never after a network has run."""

import json
import math
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import editmgt_lab as lab
from editmgt_lab.errors import CheckpointError, ImageError, LabError, SettingError, ShapeError, TextError
from editmgt_lab.settings import Defaults
from editmgt_lab.vq import VQModel
from tests.support.pictures import png_header
from tests.support.tiny import RECIPE

INSTRUCTION = "make the ball blue"


@pytest.fixture
def asleep(editor, monkeypatch):
    """The editor, failing the test as soon as one of its networks runs."""
    for network in (editor.vq.encoder, editor.vq.decoder, editor.text_encoder, editor.transformer):
        monkeypatch.setattr(network, "forward", lambda *_, **__: pytest.fail("a network ran"))
    return editor


def refused(editor, kind, match, *arguments, **settings):
    """Both edit and steps refuse at the call; the message says what was wrong, what was expected and what to do."""
    for method in (editor.edit, editor.steps):
        with pytest.raises(kind, match=match) as caught:
            method(*arguments, **settings)
        assert isinstance(caught.value, LabError)
        assert "expected:" in str(caught.value) and "to do:" in str(caught.value)


@pytest.mark.parametrize("thing", [None, 3, {"image": 1}, lambda: None, torch.zeros(3, 8, 8), np.zeros((2, 2, 7))])
def test_not_an_image(asleep, thing):
    refused(asleep, ImageError, "is not a picture", thing, INSTRUCTION)


def test_files_that_are_no_pictures(asleep, picture, tmp_path):
    refused(asleep, ImageError, "there is no picture file .*gone.png", str(tmp_path / "gone.png"), INSTRUCTION)
    (tmp_path / "notes.png").write_text("not a picture", encoding="utf-8")
    refused(asleep, ImageError, "notes.png cannot be read", tmp_path / "notes.png", INSTRUCTION)
    picture(64, 64).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:150])
    refused(asleep, ImageError, "cut.png cannot be read", tmp_path / "cut.png", INSTRUCTION)


def test_a_picture_that_is_too_large(asleep, tmp_path):
    (tmp_path / "huge.png").write_bytes(png_header(20_000, 20_000))
    refused(asleep, ImageError, "huge.png is too large", tmp_path / "huge.png", INSTRUCTION)


def test_a_picture_that_is_too_narrow(asleep):
    refused(asleep, ImageError, "400×1 px is too narrow", Image.new("RGB", (400, 1)), INSTRUCTION)


def test_batches_that_do_not_fit(asleep, picture):
    refused(asleep, ImageError, "different grids: 32×32 px, 48×24 px", [picture(), picture(64, 32)], INSTRUCTION)
    refused(asleep, SettingError, "2 pictures for 3|3 instructions for 2", [picture()] * 2, [INSTRUCTION] * 3)
    refused(asleep, SettingError, "^no pictures", [], INSTRUCTION)
    refused(asleep, SettingError, "2 seeds for 1 pictures", picture(), INSTRUCTION, seed=[1, 2])
    refused(asleep, SettingError, "2 negative texts for 1", picture(), INSTRUCTION, negative=["", ""])
    refused(asleep, SettingError, "2 masks for 1", picture(), INSTRUCTION, mask=[picture(), picture()])


def test_masks(asleep, picture):
    refused(asleep, ImageError, "the mask is 32×64 px and the source", picture(), INSTRUCTION, mask=picture(32, 64))
    refused(asleep, ImageError, "black everywhere", picture(), INSTRUCTION, mask=Image.new("L", (32, 32)))
    refused(asleep, ImageError, "is not a picture", picture(), INSTRUCTION, mask=3)


@pytest.mark.parametrize(
    ("instruction", "problem"),
    [
        ("", "the instruction is empty"),
        (" \n\t", "the instruction is blank"),
        (None, "the instruction is of the type NoneType"),
        (7, "the instruction is of the type int"),
        ([INSTRUCTION, ""], "the instruction is empty"),
        ("the ball " * 50, "102 text tokens"),
    ],
)
def test_instructions(asleep, picture, instruction, problem):
    pictures = [picture()] * len(instruction) if isinstance(instruction, list) else picture()
    refused(asleep, TextError, problem, pictures, instruction)
    with pytest.raises(TextError, match=problem.replace("instruction", "caption")) as caught:
        asleep.generate(instruction)
    assert "to change" not in caught.value.fix, "a caption changes nothing"


def test_empty_lists(asleep, picture):
    refused(asleep, SettingError, "^no pictures", [], [])
    refused(asleep, SettingError, "^no instructions", picture(), [])


def test_other_texts(asleep, picture):
    refused(asleep, TextError, "102 text tokens", picture(), INSTRUCTION, negative="the ball " * 50)
    refused(asleep, TextError, "the negative text is of the type int", picture(), INSTRUCTION, negative=3)


@pytest.mark.parametrize("focus", ["cat", ["ball", "cat"]])
def test_a_focus_word_that_is_not_there(asleep, picture, focus):
    refused(asleep, TextError, "'cat' is not in(?s:.*)make, the, ball, blue", picture(), INSTRUCTION, focus=focus)


@pytest.mark.parametrize("focus", [3, [], "", [["ball"], ["blue"]]])
def test_a_focus_that_is_no_word(asleep, picture, focus):
    refused(asleep, TextError, "focus", picture(), INSTRUCTION, focus=focus)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("hold_threshold", [-0.01, 1.01, math.nan, math.inf, "0.2", True]),
        ("strength", [-0.1, 10.5, math.nan, math.inf, "1", [1.0]]),
        ("steps", [0, -1, 1.5, math.nan, "12", True]),
        ("guidance_scale", [0, 0.99, -3, math.nan, math.inf, "6"]),
        ("temperature", [(1.0,), -1.0, (2.0, -0.1), (1.0, 2.0, 3.0), math.nan, "hot"]),
        ("token_temperature", [0, -1.0, math.nan, math.inf, "cold"]),
        ("seed", [-1, 1.5, "0", 2**63, [1.5], True]),
        ("blocks", [[], [3], [-1], 3, ["1"], [0.5], "all"]),
        ("order", ["confident", None, 3, ["halton"]]),
        ("draw", ["multinomial", "", 3, ["race"]]),
        ("revise", [-0.1, 1.1, math.nan, "0.1", True]),
        ("refresh_every", [0, -1, 1.5, math.inf, "2", True]),
    ],
)
def test_settings_out_of_range(asleep, picture, name, values):
    for value in values:
        refused(asleep, SettingError, name, picture(), INSTRUCTION, **{name: value})


def test_settings_of_text_to_image(asleep):
    for settings in ({"steps": 0}, {"guidance_scale": 0.5}, {"seed": "x"}):
        with pytest.raises(SettingError):
            asleep.generate(INSTRUCTION, **settings)


def test_a_guidance_scale_of_captions_out_of_range(asleep, picture):
    for wrong in (0.5, None, math.nan, "6"):
        editor = asleep.with_defaults(caption_guidance_scale=wrong)
        refused(editor, SettingError, "caption_guidance_scale", picture(), INSTRUCTION)


def test_a_mask_token_is_no_picture(editor):
    for tokens in (torch.full((1, 8, 8), 39), torch.zeros(8, 8).long()):
        with pytest.raises(ShapeError):
            editor.detokenize(tokens)


def test_what_is_called_after_a_step(asleep, picture):
    for on_step in (3, "print"):
        with pytest.raises(SettingError, match="on_step is a"):
            asleep.edit(picture(), INSTRUCTION, on_step=on_step)


def test_defaults_that_there_are_none_of(editor):
    with pytest.raises(SettingError, match="unknown default 'foo'(?s:.*)image_size"):
        editor.with_defaults(foo=1)


def test_a_square_smaller_than_a_cell(asleep, picture):
    tiny = asleep.with_defaults(image_size=2)
    refused(tiny, SettingError, "image_size is 2 px", picture(), INSTRUCTION)
    with pytest.raises(SettingError, match="image_size is 2 px"):
        tiny.generate(INSTRUCTION)


def test_attention_is_captured_from_a_transformer(editor):
    with pytest.raises(SettingError, match="is a Editor(?s:.*)editor.transformer"), lab.capture_attention(editor, [0]):
        pass


def test_text_to_image_has_nothing_to_paste(editor):
    with pytest.raises(SettingError, match="no source"):
        editor.generate("a ball", steps=1).pasted()


def test_a_device_that_is_not_there(tiny_folder):
    for device in ("nonsense", "cuda:99", "meta", 3.5):
        with pytest.raises(SettingError, match=f"device '{device}' cannot be used"):
            lab.load(tiny_folder, device=device)


def test_a_folder_that_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"editmgt.config\.json is missing"):
        lab.load(tmp_path)
    with pytest.raises(CheckpointError, match="no folder here"):
        lab.load(tmp_path / "gone")


@pytest.fixture
def copied(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.parametrize("part", ["editmgt", "vqvae", "text_encoder", "tokenizer", "scheduler"])
def test_a_part_that_is_missing(copied, part):
    shutil.rmtree(copied / part)
    with pytest.raises(CheckpointError, match=part):
        lab.load(copied)


def change(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | values), encoding="utf-8")


def test_a_checkpoint_of_another_shape(copied):
    change(copied / "editmgt" / "config.json", num_single_layers=3, codebook_size=24)
    with pytest.raises(CheckpointError) as caught:
        lab.load(copied)
    message = str(caught.value)
    assert "missing: single_transformer_blocks.2." in message
    assert "mlm_layer.conv2.weight [32, 32, 1, 1] instead of [24, 32, 1, 1]" in message


@pytest.mark.parametrize("values", [{"num_layers": "one"}, {"attention_head_dim": None}, {"depth": 3}])
def test_a_config_that_makes_no_sense(copied, values):
    change(copied / "editmgt" / "config.json", **values)
    with pytest.raises(LabError):
        lab.load(copied)


def test_a_pickle(copied):
    weights = copied / "editmgt" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    weights.with_suffix(".bin").write_bytes(pickle.dumps({}))
    with pytest.raises(CheckpointError, match="pickle"):
        lab.load(copied)


def test_parts_that_do_not_belong_together(editor, copied):
    other = VQModel(replace(RECIPE.vq, num_vq_embeddings=16))
    with pytest.raises(CheckpointError, match="codes 32 in the transformer, 16"):
        lab.Editor(other, editor.text_encoder, editor.transformer)
    for wrong in (5, 40, "39", 39.0, True):
        change(copied / "scheduler" / "scheduler_config.json", mask_token_id=wrong)
        with pytest.raises(CheckpointError, match=f"mask_token_id is {wrong!r}"):
            lab.load(copied)


def test_defaults_that_make_no_sense(editor, picture):
    wrong = [
        ({}, "blocks"),
        ({"hold": "tight", "blocks": (0,)}, "hold"),
        ({"heat_keys": "most", "blocks": (0,)}, "keys"),
        ({"draw": "straws", "blocks": (0,)}, "draw"),
    ]
    for fields, match in wrong:
        defaults = Defaults(**fields)
        other = lab.Editor(editor.vq, editor.text_encoder, editor.transformer, defaults=defaults)
        with pytest.raises(SettingError, match=match):
            other.edit(picture(), INSTRUCTION)
