"""The stages joined, on random weights: what an edit must obey whatever the network has learned."""

import inspect
import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace

import jedi
import numpy as np
import pytest
import torch
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image

import editmgt_lab as lab
from editmgt_lab.blocks import Prepared
from editmgt_lab.checkpoints import save
from editmgt_lab.consolidation import over_steps
from editmgt_lab.decoding import RegionHoldSampler
from editmgt_lab.errors import CheckpointError, SettingError, TextError
from editmgt_lab.settings import Defaults
from editmgt_lab.transformer import AESTHETIC_SCORE
from editmgt_lab.views import demo
from editmgt_lab.views.recording import record
from tests.support import PATIENCE
from tests.support.tiny import RECIPE, enliven, save_language_model

INSTRUCTION = "make the ball blue"
CODES, MASK = 32, 39
SETTINGS = {"hold_threshold": 0.4, "steps": 4, "guidance_scale": 2.0, "seed": 3}


@pytest.fixture
def calls(editor, monkeypatch):
    """The arguments of every pass of the transformer, with those that were prepared once for all of them."""
    seen, shared = [], {}
    forward, prepare = editor.transformer.forward, editor.transformer.prepare

    def prepare_spy(tokens, text, **others):
        shared.update({"text": text, **others})
        return prepare(tokens, text, **others)

    def forward_spy(tokens, prepared, timestep):
        assert isinstance(prepared, Prepared)
        seen.append({"tokens": tokens.clone(), "timestep": timestep, **shared})
        return forward(tokens, prepared, timestep)

    monkeypatch.setattr(editor.transformer, "prepare", prepare_spy)
    monkeypatch.setattr(editor.transformer, "forward", forward_spy)
    return seen


def recorders(editor):
    return sum(len(block.attn.recorders) for block in editor.transformer.blocks)


@torch.no_grad()
@pytest.mark.parametrize(
    ("guidance_scale", "decoding"),
    [(1.0, {}), (2.0, {}), (2.0, {"order": "halton"}), (2.0, {"draw": "race"}), (2.0, {"revise": 0.5})],
    ids=str,
)
def test_an_edit_is_the_stages_one_after_the_other(editor, picture, guidance_scale, decoding):
    settings = SETTINGS | {"guidance_scale": guidance_scale, "strength": 1.3, "token_temperature": 0.6}
    result = editor.edit(picture(), INSTRUCTION, **settings, **decoding)
    if decoding:
        assert not torch.equal(result.tokens, editor.edit(picture(), INSTRUCTION, **settings).tokens)

    source = editor.tokenize(picture())
    text, empty = editor.encode_text(INSTRUCTION), editor.encode_text("")
    sampler = lab.RegionHoldSampler(MASK, 4, token_temperature=0.6, hold="commit", **{"draw": "inverse"} | decoding)
    generator = torch.Generator().manual_seed(3)
    tokens = torch.full_like(source, MASK)
    micro = torch.tensor([[32, 32, 0, 0, AESTHETIC_SCORE]])
    every = []
    for index in range(4):
        shared = {"source": source, "strength": 1.3, "micro_conditions": micro}
        timestep = torch.tensor([3 - index])
        without = editor.transformer(tokens, empty, timestep, **shared)
        with lab.capture_attention(editor.transformer, blocks=editor.defaults.blocks) as captured:
            logits = editor.transformer(tokens, text, timestep, **shared)
        heat = lab.consolidate(captured)
        every.append(captured[:])
        logits = without + guidance_scale * (logits - without)
        tokens = sampler.step(logits, tokens, index, heat=heat, hold_threshold=0.4, source=source, generator=generator)
    assert torch.equal(result.tokens, tokens)
    torch.testing.assert_close(result.last_heat, heat, atol=1e-4, rtol=0)
    torch.testing.assert_close(result.mean_heat, lab.consolidate(over_steps(every)), atol=1e-4, rtol=0)
    assert result.heat is result.last_heat and not torch.allclose(result.mean_heat, heat, atol=1e-3)
    assert np.array_equal(result.image, editor.detokenize(tokens)[0])


def test_what_an_edit_gives_back(editor, picture):
    result = editor.edit(picture(40, 30), INSTRUCTION, **SETTINGS)
    assert isinstance(result, lab.EditResult) and isinstance(result.image, Image.Image)
    assert result.tokens.shape == result.heat.shape == result.held.shape == (1, 6, 8)
    assert result.tokens.dtype == torch.int64 and result.held.dtype == torch.bool
    assert result.tokens.min() >= 0 and result.tokens.max() < CODES
    assert result.heat.min() >= 0 and result.heat.max() <= 1
    assert result.image.size == result.source.size == result.geometry.size == (32, 24)
    assert result.geometry.original == (40, 30)
    assert result.instruction == INSTRUCTION
    assert torch.equal(result.source_tokens, editor.tokenize(picture(40, 30)))
    assert (result.settings.seeds, result.settings.steps, result.settings.guidance_scale) == ((3,), 4, 2.0)
    assert result.geometry.paste_back(result.image, picture(40, 30)).size == (40, 30)


def test_steps(editor, picture):
    steps = list(editor.steps(picture(), INSTRUCTION, **SETTINGS))
    assert [step.index for step in steps] == [0, 1, 2, 3]
    masked = [int(step.masked.sum()) for step in steps]
    assert masked == sorted(masked, reverse=True) and masked[0] > 0 and masked[-1] == 0
    for step in steps:
        assert isinstance(step, lab.DecodeStep)
        fields = (step.tokens, step.masked, step.confidence, step.heat, step.heat_so_far, step.held)
        assert {field.shape for field in fields} == {(1, 8, 8)}
        assert torch.equal(step.masked, step.tokens == MASK)
        assert torch.equal(step.held, step.heat < 0.4)
    assert torch.equal(steps[-1].tokens, editor.edit(picture(), INSTRUCTION, **SETTINGS).tokens)


def test_a_hold_by_the_mean_holds_by_the_map_that_is_returned(editor, picture):
    by_mean = editor.with_defaults(hold_by="mean")
    steps = list(by_mean.steps(picture(), INSTRUCTION, **SETTINGS))
    assert torch.equal(steps[0].heat, steps[0].heat_so_far)
    assert all(torch.equal(step.held, step.heat_so_far < 0.4) for step in steps)
    assert not torch.equal(steps[-1].held, steps[-1].heat < 0.4)
    result = by_mean.edit(picture(), INSTRUCTION, **SETTINGS)
    assert result.heat is result.mean_heat and torch.equal(result.held, result.heat < 0.4)
    assert torch.equal(result.tokens, steps[-1].tokens)
    with pytest.raises(SettingError, match="hold_by"):
        editor.with_defaults(hold_by="step by step").edit(picture(), INSTRUCTION, **SETTINGS)


def test_a_preview_is_grey_where_tokens_are_masked(editor, picture):
    first, *_, last = editor.steps(picture(), INSTRUCTION, **SETTINGS)
    preview = np.asarray(first.preview())
    masked = first.masked[0].numpy().repeat(4, axis=0).repeat(4, axis=1)
    assert masked.any() and not masked.all()
    assert (preview[masked] == 128).all()
    assert np.array_equal(preview[~masked], np.asarray(editor.detokenize(first.sampled)[0])[~masked])
    assert np.array_equal(last.preview(), editor.edit(picture(), INSTRUCTION, **SETTINGS).image)


def test_changing_a_step_changes_nothing_else(editor, picture):
    expected = editor.edit(picture(), INSTRUCTION, **SETTINGS).tokens
    for step in editor.steps(picture(), INSTRUCTION, **SETTINGS):
        last = step.tokens.clone()
        for field in (step.tokens, step.heat, step.held, step.masked):
            field.zero_()
    assert torch.equal(last, expected)


@pytest.mark.parametrize("size", [(64, 16), (17, 50), (100, 60)])
def test_pictures_that_are_not_square(editor, picture, size):
    result = editor.edit(picture(*size), INSTRUCTION, **SETTINGS)
    width, height = result.image.size
    assert width != height and (width > height) == (size[0] > size[1])
    assert result.tokens.shape == result.heat.shape == (1, height // 4, width // 4)


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_a_batch_of_three_gives_what_single_pictures_give(editor, picture, guidance_scale):
    pictures = [picture(48, 32, seed) for seed in range(3)]
    instructions = [INSTRUCTION, "remove the hat", "draw the picture in pastel"]
    settings = SETTINGS | {"guidance_scale": guidance_scale}
    together = editor.edit(pictures, instructions, **settings | {"seed": [5, 6, 7]}, focus=[["ball"], ["hat"], ["the"]])
    assert len(together.image) == len(together.source) == len(together.geometry) == 3
    assert together.instruction == instructions
    for index, word in enumerate(("ball", "hat", "the")):
        alone = editor.edit(pictures[index], instructions[index], **settings | {"seed": 5 + index}, focus=word)
        assert torch.equal(alone.tokens[0], together.tokens[index])
        assert torch.equal(alone.held[0], together.held[index])
        torch.testing.assert_close(alone.heat[0], together.heat[index], atol=1e-4, rtol=0)
        difference = np.subtract(alone.image, together.image[index], dtype=np.int16)
        assert abs(difference).max() <= 1


def test_one_picture_or_instruction_serves_all(editor, picture):
    words = [INSTRUCTION, "draw a red hat at the top left"]
    by_words = editor.edit(picture(), words, **SETTINGS)
    by_pictures = editor.edit([picture(), picture()], words[0], **SETTINGS)
    assert len(by_words.images) == len(by_pictures.images) == 2
    assert torch.equal(by_words.tokens[0], by_pictures.tokens[0])
    assert torch.equal(by_pictures.tokens[0], by_pictures.tokens[1])  # one seed: the same draws for each
    assert not torch.equal(by_words.tokens[0], by_words.tokens[1])
    previews = next(editor.steps([picture()], words[0], **SETTINGS)).preview()
    assert isinstance(previews, list) and len(previews) == 1


def test_guidance_runs_both_texts_as_one_batch(editor, picture, calls):
    editor.edit(picture(64, 32), INSTRUCTION, **SETTINGS, negative="blue")
    assert len(calls) == 4
    for index, call in enumerate(calls):
        assert call["tokens"].shape[0] == 2 and torch.equal(*call["tokens"])
        assert torch.equal(*call["source"])  # the unguided half keeps the source
        assert call["text"].texts == ("blue", INSTRUCTION)
        assert call["timestep"].tolist() == [3 - index] * 2
        assert call["micro_conditions"].tolist() == [[48, 24, 0, 0, AESTHETIC_SCORE]] * 2
        assert torch.equal(call["source"][:1], editor.tokenize(picture(64, 32)))


def test_without_guidance_one_text_runs(editor, picture, calls):
    editor.edit(picture(), INSTRUCTION, **SETTINGS | {"guidance_scale": 1})
    assert [call["tokens"].shape[0] for call in calls] == [1] * 4
    assert calls[0]["text"].texts == (INSTRUCTION,)


def test_guidance_leads_away_from_the_negative_text(editor, picture):
    settings = SETTINGS | {"hold_threshold": 0, "steps": 8}
    plain = editor.edit(picture(), INSTRUCTION, **settings | {"guidance_scale": 1})
    same = editor.edit(picture(), INSTRUCTION, **settings, negative=INSTRUCTION)
    other = editor.edit(picture(), INSTRUCTION, **settings, negative="a red hat")
    assert torch.equal(plain.tokens, same.tokens) and not torch.equal(plain.tokens, other.tokens)
    with pytest.raises(SettingError, match="nothing would read it"):
        editor.edit(picture(), INSTRUCTION, **settings | {"guidance_scale": 1}, negative="a red hat")


def test_a_seed_repeats_a_picture(editor, picture):
    first, again, other = (
        editor.edit(picture(), INSTRUCTION, **SETTINGS | {"seed": seed}).tokens for seed in (3, 3, 4)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_without_a_seed_the_one_chosen_is_told(editor, picture):
    first, second = (editor.edit([picture()] * 2, INSTRUCTION, **SETTINGS | {"seed": None}) for _ in range(2))
    assert len({*first.settings.seeds, *second.settings.seeds}) == 4
    again = editor.edit([picture()] * 2, INSTRUCTION, **SETTINGS | {"seed": first.settings.seeds})
    assert torch.equal(first.tokens, again.tokens)


def test_nothing_passed_in_is_changed(editor, picture):
    image, mask = picture(40, 40), picture(40, 40, 1).convert("L")
    before = image.tobytes(), mask.tobytes()
    weights = {name: value.clone() for name, value in editor.transformer.state_dict().items()}
    editor.edit([image, image], INSTRUCTION, **SETTINGS, mask=mask, strength=2.0)
    assert (image.tobytes(), mask.tobytes()) == before
    assert all(torch.equal(value, weights[name]) for name, value in editor.transformer.state_dict().items())


def test_strength_does_not_linger(editor, picture):
    plain = editor.edit(picture(), INSTRUCTION, **SETTINGS)
    strong = editor.edit(picture(), INSTRUCTION, **SETTINGS, strength=10.0)
    again = editor.edit(picture(), INSTRUCTION, **SETTINGS, strength=1.0)
    assert torch.equal(plain.tokens, again.tokens) and not torch.equal(plain.heat, strong.heat)


def test_threshold_zero_holds_nothing(editor, picture):
    settings = SETTINGS | {"hold_threshold": 0}
    result = editor.edit(picture(), INSTRUCTION, **settings, blocks=[1])
    assert not result.held.any()
    assert result.heat.max() > 0.5  # still told
    elsewhere = editor.edit(picture(), INSTRUCTION, **settings, blocks=[0])
    assert not torch.equal(result.heat, elsewhere.heat)
    assert torch.equal(result.tokens, elsewhere.tokens)


def test_threshold_one_holds_nearly_everything(editor, picture):
    result = editor.edit(picture(), INSTRUCTION, **SETTINGS | {"hold_threshold": 1})
    assert result.held.float().mean() > 0.9
    assert torch.equal(result.tokens[result.held], result.source_tokens[result.held])


def test_more_threshold_more_source(editor, picture):
    kept = []
    for hold_threshold in (0, 0.3, 0.6, 1):
        result = editor.edit(picture(), INSTRUCTION, **SETTINGS | {"hold_threshold": hold_threshold})
        kept.append((result.tokens == result.source_tokens).float().mean().item())
    assert kept == sorted(kept) and kept[0] < 0.5 < kept[-1]


def test_the_rule_of_the_hold_is_the_models(editor, picture, monkeypatch):
    monkeypatch.setattr(editor, "defaults", replace(editor.defaults, hold="released"))
    steps = list(editor.steps(picture(), INSTRUCTION, **SETTINGS | {"steps": 8}))
    assert any((step.held & step.masked).any() for step in steps)  # the released hold leaks
    assert not steps[-1].masked.any()


@pytest.mark.parametrize("hold_threshold", [0.0, 0.1])
def test_outside_the_mask_the_source_stays(editor, picture, hold_threshold):
    mask = Image.new("L", (80, 40))
    mask.paste(255, (20, 10, 60, 30))
    settings = SETTINGS | {"hold_threshold": hold_threshold, "steps": 5}
    steps = list(editor.steps(picture(80, 40), INSTRUCTION, **settings, mask=mask))
    result = editor.edit(picture(80, 40), INSTRUCTION, **settings, mask=mask)
    free = torch.zeros(1, 6, 12, dtype=torch.bool)
    free[:, 1:5, 3:9] = True  # whoever touches the white part
    for step in steps:
        assert torch.equal(step.tokens[~free], result.source_tokens[~free])
        assert step.held[~free].all()
    assert (result.tokens != result.source_tokens)[free].any()
    if hold_threshold == 0:  # the schedule runs over the free tokens alone
        assert [int(step.masked.sum()) for step in steps[:4]] == [
            math.floor(24 * math.cos(math.pi / 2 * (index + 1) / 5)) for index in range(4)
        ]


def test_every_picture_of_a_batch_has_its_own_mask(editor, picture):
    left, right = Image.new("L", (32, 32)), Image.new("L", (32, 32))
    left.paste(255, (0, 0, 16, 32))
    right.paste(255, (16, 0, 32, 32))
    pictures = [picture(seed=seed) for seed in range(3)]
    result = editor.edit(pictures, INSTRUCTION, mask=[left, right, None], **SETTINGS | {"hold_threshold": 0})
    fixed = torch.zeros(3, 8, 8, dtype=torch.bool)
    fixed[0, :, 4:] = fixed[1, :, :4] = True
    assert torch.equal(result.fixed, fixed)
    changed = result.tokens != result.source_tokens
    assert not changed[fixed].any() and all(each.any() for each in changed)


def test_held_pixels_pasted_back(editor, picture):
    result = editor.edit(picture(), INSTRUCTION, **SETTINGS)
    held = result.held[0].numpy().repeat(4, axis=0).repeat(4, axis=1)
    assert held.any() and not held.all()
    edited, pasted, source = (np.asarray(image) for image in (result.image, result.pasted(), result.source))
    assert (pasted[held] == source[held]).all() and (pasted[~held] == edited[~held]).all()
    assert (edited[held] != source[held]).any()


def test_each_picture_of_a_batch_is_pasted_and_previewed_by_its_own_cells(editor, picture):
    pictures, seeds = [picture(), picture(seed=1)], [3, 4]
    together = editor.edit(pictures, INSTRUCTION, **SETTINGS | {"seed": seeds})
    first = next(editor.steps(pictures, INSTRUCTION, **SETTINGS | {"seed": seeds}))
    assert not torch.equal(*together.kept) and not torch.equal(*first.masked)
    for i, (each, seed) in enumerate(zip(pictures, seeds, strict=True)):
        asked = each, INSTRUCTION
        pasted = editor.edit(*asked, **SETTINGS | {"seed": seed}).pasted()
        preview = next(editor.steps(*asked, **SETTINGS | {"seed": seed})).preview()
        for mine, alone in ((together.pasted()[i], pasted), (first.preview()[i], preview)):
            assert abs(np.subtract(mine, alone, dtype=np.int16)).max() <= 1


def test_focus_words_change_the_heat_map(editor, picture):
    every, ball, blue = (
        editor.edit(picture(), INSTRUCTION, **SETTINGS | {"steps": 1}, focus=focus).heat
        for focus in (None, "ball", ["blue"])
    )
    assert not torch.allclose(every, ball) and not torch.allclose(ball, blue)


def test_one_step_fills_everything(editor, picture):
    assert editor.edit(picture(), INSTRUCTION, **SETTINGS | {"steps": 1}, temperature=0).tokens.max() < CODES


def test_nothing_lingers_after_an_error_in_a_step(editor, picture, monkeypatch):
    expected = editor.edit(picture(), INSTRUCTION, **SETTINGS).tokens
    steps = editor.steps(picture(), INSTRUCTION, **SETTINGS)
    next(steps)
    assert recorders(editor) == 0 and torch.is_grad_enabled()
    with monkeypatch.context() as patch:
        patch.setattr(editor.transformer.mlm_layer, "forward", lambda x: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            next(steps)
    assert recorders(editor) == 0 and torch.is_grad_enabled()
    next(editor.steps(picture(), INSTRUCTION, **SETTINGS)).preview()  # left half-way
    assert recorders(editor) == 0
    assert torch.equal(editor.edit(picture(), INSTRUCTION, **SETTINGS).tokens, expected)


def test_text_to_image(editor, calls):
    result = editor.generate("a red ball", steps=4, seed=3)
    assert result.image.size == (32, 32) and result.tokens.max() < CODES
    assert result.source is None and result.geometry is None and not result.held.any()
    assert all(call["source"] is None for call in calls)
    both = editor.generate(["a red ball", "a blue hat"], steps=4, seed=3)
    assert torch.equal(both.tokens[0], result.tokens[0]) and len(both.image) == 2
    surer = editor.generate("a red ball", steps=4, seed=3, token_temperature=0.1)
    assert surer.settings.token_temperature == 0.1 and not torch.equal(surer.tokens, result.tokens)


def test_captions_have_a_guidance_scale_of_their_own(editor, picture):
    other = editor.with_defaults(guidance_scale=1.0, caption_guidance_scale=3.0)
    settings = {"steps": 2, "seed": 3}
    made, run = other.generate("a red ball", **settings), record(other, None, "a red ball", **settings)
    assert made.settings.guidance_scale == run.settings.guidance_scale == 3
    assert other.edit(picture(), INSTRUCTION, **settings).settings.guidance_scale == 1
    asked = other.generate("a red ball", guidance_scale=1.0, **settings)
    assert asked.settings.guidance_scale == 1 and not torch.equal(asked.tokens, made.tokens)


def test_strength_zero_is_text_to_image(editor, picture):
    settings = {"steps": 4, "guidance_scale": 2.0, "seed": 3}
    edited = editor.edit(picture(), "a red ball", hold_threshold=0, strength=0, **settings)
    assert torch.equal(edited.tokens, editor.generate("a red ball", **settings).tokens)


def test_stages_alone(editor, picture):
    tokens = editor.tokenize([picture(), picture(seed=1)])
    assert tokens.shape == (2, 8, 8) and tokens.dtype == torch.int64
    images = editor.detokenize(tokens)
    assert [image.size for image in images] == [(32, 32)] * 2
    text = editor.encode_text([INSTRUCTION, ""])
    assert isinstance(text, lab.TextCondition) and text.tokens.shape == (2, 16, 32)
    assert not any(tensor.requires_grad for tensor in (text.tokens, text.pooled))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(tiny_folder, picture, dtype):
    half = lab.load(tiny_folder, device="cpu", dtype=dtype)
    for part in (half.vq, half.text_encoder, half.transformer):
        assert {parameter.dtype for parameter in part.parameters()} == {dtype}
    result = half.edit(picture(48, 32), INSTRUCTION, **SETTINGS)
    assert result.tokens.max() < CODES and result.heat.isfinite().all()
    again = half.edit(picture(48, 32), INSTRUCTION, **SETTINGS)
    assert torch.equal(result.tokens, again.tokens)


def test_defaults_come_from_the_folder(tiny_folder, tmp_path, editor, picture, calls):
    assert editor.defaults.image_size == 32 and editor.defaults.hold == "commit"
    settings = editor.edit(picture(), INSTRUCTION, steps=1).settings
    for name in ("hold_threshold", "guidance_scale", "token_temperature", "blocks"):
        assert getattr(settings, name) == getattr(editor.defaults, name)
    assert calls[0]["bias_text"] is False
    shutil.copytree(tiny_folder, tmp_path, dirs_exist_ok=True)
    chosen = Defaults(image_size=64, guidance_scale=1.5, blocks=(0, 2), hold="released", bias_text=False)
    (tmp_path / "lab.json").write_text(json.dumps(chosen.to_dict()), encoding="utf-8")
    other = lab.load(tmp_path)
    assert other.defaults == chosen
    assert other.edit(picture(), INSTRUCTION, steps=1).image.size == (64, 64)
    (tmp_path / "lab.json").unlink()
    assert lab.load(tmp_path).defaults == Defaults()  # the released model's
    for wrong in ('{"image_siez": 64}', '{"image_size": "64"}', '{"blocks": 3}', "[]"):
        (tmp_path / "lab.json").write_text(wrong, encoding="utf-8")
        with pytest.raises(CheckpointError, match=r"lab\.json"):
            lab.load(tmp_path)


def test_steps_and_strength_are_the_models_own(editor, picture, calls):
    other = editor.with_defaults(steps=3, strength=1.3)
    settings = other.edit(picture(), INSTRUCTION, seed=3).settings
    assert (settings.steps, settings.strength) == (3, 1.3) and {call["strength"] for call in calls} == {1.3}
    assert len(list(other.steps(picture(), INSTRUCTION))) == other.generate("a red ball").settings.steps == 3
    assert other.edit(picture(), INSTRUCTION, steps=2, strength=0.5).settings.strength == 0.5
    tiny = lab.load(device="cpu")
    assert (tiny.defaults.steps, tiny.defaults.strength) == (12, 1.0)


def test_the_released_models_settings():
    released = Defaults()
    assert (released.steps, released.strength) == (36, 1.1)
    assert (released.image_size, released.guidance_scale, released.hold_threshold) == (1024, 6.0, 0.01)
    assert released.token_temperature == 1.0
    assert (released.blocks[0], released.blocks[-1], len(released.blocks)) == (28, 36, 9)


def test_an_editor_with_a_language_model(tiny_folder, tmp_path, picture):
    shutil.copytree(tiny_folder, tmp_path, dirs_exist_ok=True)
    save_language_model(tmp_path / "llm_encoder", 24)
    config = replace(
        RECIPE.transformer, text_encoder_architecture="CLIP_Gemma2", connector_type="linear", joint_attention_dim=24
    )
    transformer = lab.MaskedGenerativeTransformer(config)
    enliven(transformer)
    save(transformer, tmp_path / "editmgt", {name: getattr(config, name) for name in config.__dataclass_fields__})
    editor = lab.load(tmp_path)
    result = editor.edit(picture(), "make the purple ball blue", **SETTINGS, focus="purple")
    assert result.tokens.max() < CODES and 0 < result.held.float().mean() < 1


def test_the_settings_of_an_edit_make_it_again(editor, picture):
    other = {"strength": 1.3, "temperature": (1.0, 0.5), "token_temperature": 0.5}
    result = editor.edit(picture(), INSTRUCTION, **SETTINGS, **other)
    again = editor.edit(picture(), INSTRUCTION, **result.settings.call())
    assert again.settings == result.settings and torch.equal(again.tokens, result.tokens)


def test_a_finished_edit_is_repeated_from_what_it_kept(editor, picture):
    """Its picture was cropped to the grid, and its mask with it."""
    mask = Image.new("L", (50, 71), "black")
    mask.paste("white", (0, 0, 30, 71))
    result = editor.edit(picture(50, 71), INSTRUCTION, mask=mask, **SETTINGS)
    assert not result.geometry.whole and result.sources[0].size != (50, 71)
    again = editor.edit(result.sources[0], INSTRUCTION, **result.call())
    assert torch.equal(again.tokens, result.tokens) and torch.equal(again.fixed, result.fixed)
    assert again.images[0].size == result.images[0].size


@pytest.mark.parametrize("focus", ["purple", ["purple", "ball"], [["ball"], ["purple"]]])
def test_a_finished_edit_is_repeated_with_its_focus_and_its_negative_text(editor, picture, focus):
    settings = SETTINGS | {"hold_threshold": 0.5, "guidance_scale": 9.0, "seed": 5}
    asked = {"focus": focus, "negative": ["a hat", ""], **settings}
    result = editor.edit([picture()] * 2, "make the purple ball blue", **asked)
    for without in ({"focus": None}, {"negative": ""}, {"negative": None}):
        other = editor.edit(picture(), "make the purple ball blue", **result.call() | without)
        same = [torch.equal(getattr(other, name)[0], getattr(result, name)[0]) for name in ("tokens", "mean_heat")]
        assert not all(same), f"{without} changes nothing"
    again = editor.edit(picture(), "make the purple ball blue", **result.call())
    assert torch.equal(again.tokens[0], result.tokens[0]) and again.call() == result.call()


@pytest.mark.parametrize("hold", ["released", "agree"])
def test_what_is_kept_is_what_is_held_and_has_the_sources_token(editor, picture, hold):
    steps = []
    result = editor.with_defaults(hold=hold).edit(
        picture(), INSTRUCTION, **SETTINGS | {"hold_threshold": 0.6, "steps": 6}, on_step=steps.append
    )
    for step in (*steps, result):
        assert torch.equal(step.kept, step.held & (step.tokens == result.source_tokens))
    assert 0 < result.kept.sum() and torch.equal(result.kept, result.held) == (hold == "agree")
    made = editor.generate("a red ball", **{name: SETTINGS[name] for name in ("steps", "seed")})
    assert made.kept.shape == made.tokens.shape and not made.kept.any()


def test_a_square_of_no_whole_cells_is_rounded_alike_everywhere(editor, picture):
    multiple = editor.multiple
    odd = editor.with_defaults(image_size=2 * multiple - 1)
    made = odd.generate("ball", steps=1, seed=0)
    assert made.image.size == odd.edit(picture(), INSTRUCTION, steps=1, seed=0).image.size == (2 * multiple,) * 2
    with pytest.raises(SettingError, match="a cell of the grid"):
        editor.with_defaults(image_size=1).generate("ball", steps=1)


def test_how_masks_were_read_stands_beside_their_pictures(editor, picture):
    masks = [None, Image.new("L", (32, 32), "white")]
    assert editor.edit([picture()] * 2, INSTRUCTION, mask=masks, **SETTINGS).readings == [None, "white"]
    assert editor.edit(picture(), INSTRUCTION, **SETTINGS).readings == []


def test_the_signatures_are_the_contract():
    arguments = list(inspect.signature(lab.Editor.steps).parameters)
    assert list(inspect.signature(lab.Editor.edit).parameters) == [*arguments, "on_step"]
    assert arguments == [
        "self", "image", "instruction", "hold_threshold", "strength", "steps", "guidance_scale", "temperature",
        "token_temperature", "blocks", "seed", "order", "draw", "revise", "refresh_every", "heat_from", "focus",
        "negative", "mask",
    ]  # fmt: skip
    for method in (lab.Editor.edit, lab.Editor.steps):
        defaults = inspect.signature(method).parameters
        assert defaults["strength"].default is None and defaults["steps"].default is None  # the model's own
        assert defaults["temperature"].default == (2.0, 0.0)


@pytest.mark.parametrize("call", ["edit(image, 'x', ", "steps(image, 'x', "])
def test_arguments_are_completed(editor, call, monkeypatch, tmp_path):
    monkeypatch.setattr(jedi.settings, "cache_directory", tmp_path)  # the user's may be half written by another process
    shell = InteractiveShell()
    shell.Completer.debug = True  # says what jedi fell over, if it did, among the completions
    shell.user_ns["editor"] = editor
    for name in ("hold_threshold", "temperature", "focus", "mask", "seed"):
        code = f"editor.{call}{name[:3]}"
        with provisionalcompleter():
            assert f"{name}=" in [each.text for each in shell.Completer.completions(code, len(code))]


def test_one_temperature_falls_as_in_the_sampler(editor, picture):
    task = editor.prepare(picture(), INSTRUCTION, temperature=2.0, steps=3)
    assert task.settings.temperature == (2.0, 0.01)
    assert editor._sampler(task.settings).temperatures == RegionHoldSampler(MASK, 3, temperature=2.0).temperatures


def test_no_text_is_refused(editor):
    for ask in (editor.generate, editor.encode_text):
        with pytest.raises(TextError, match="no text"):
            ask([])


def test_an_unknown_argument_is_refused(editor, picture):
    for ask in (editor.edit, editor.steps):
        with pytest.raises(TypeError, match="holdthreshold"):
            ask(picture(), INSTRUCTION, holdthreshold=0.1)


def test_importing_is_light():
    heavy = ["matplotlib", "diffusers", "transformers", "ipywidgets", "scipy"]
    code = f"import sys, editmgt_lab; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert run.stdout == "[]\n", run.stderr


def test_demo(tiny_folder, tmp_path, picture, capsys):
    picture(40, 32).save(tmp_path / "mine.png")
    options = ["--model", str(tiny_folder), "--image", str(tmp_path / "mine.png"), "--steps", "2"]
    assert demo.main([*options, "--instruction", INSTRUCTION, "--output", str(tmp_path / "out")]) == 0
    output = capsys.readouterr().out
    for name in ("source", "result", "heat", "stages"):
        assert str(tmp_path / "out" / f"{name}.png") in output
        with Image.open(tmp_path / "out" / f"{name}.png") as image:
            assert image.width >= 32 and image.convert("L").getextrema()[0] < image.convert("L").getextrema()[1]
    assert INSTRUCTION in output and " s" in output


def test_demo_says_what_is_wrong(tiny_folder, tmp_path, capsys):
    (tmp_path / "mine.png").write_text("no picture", encoding="utf-8")
    options = ["--model", str(tiny_folder), "--image", str(tmp_path / "mine.png"), "--output", str(tmp_path / "out")]
    assert demo.main(options) == 2
    assert "mine.png cannot be read as a picture" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_an_edit_does_not_depend_on_torchs_default_dtype(editor, picture, dtype):
    """Which transformers changes, for all threads, while it loads a network."""
    plain = editor.edit(picture(), INSTRUCTION, **SETTINGS)
    torch.set_default_dtype(dtype)
    try:
        other = editor.edit(picture(), INSTRUCTION, **SETTINGS)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(other.tokens, plain.tokens) and torch.equal(other.mean_heat, plain.mean_heat)
