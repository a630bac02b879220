"""What a pass leaves for the next: exact where nothing has changed, and only what is open is computed."""

import pytest
import torch
from PIL import Image

import editmgt_lab as lab
from editmgt_lab import views
from editmgt_lab.caching import FeatureCache
from editmgt_lab.errors import SettingError

CODES, MASK = 32, 39
INSTRUCTIONS = ["make the ball blue", "remove the hat", "add a cat"]
SETTINGS = {"hold_threshold": 0.2, "steps": 5, "guidance_scale": 2.0, "strength": 1.4, "seed": [3, 4, 5]}


@pytest.fixture
def scene(editor, picture):
    """Tokens with a few masked ones, none in the last picture, and what a pass takes beside them."""
    source = editor.tokenize([picture(seed=seed) for seed in range(3)])
    tokens = source.clone()
    tokens[0, 0, 0] = tokens[1, 2:5, 3] = tokens[1, 7, 7] = MASK
    return tokens, editor.encode_text(INSTRUCTIONS), torch.full((3,), 2), source


@torch.no_grad()
@pytest.mark.parametrize("strength", [1.0, 1.4])
def test_a_pass_over_the_open_positions_is_the_whole_pass_while_nothing_changes(editor, scene, strength):
    tokens, text, timestep, source = scene
    cache = FeatureCache(refresh_every=2)

    def run(cache=None):
        shared = editor.transformer.prepare(tokens, text, source=source, strength=strength, cache=cache)
        with lab.capture_attention(editor.transformer, [0, 1, 2]) as captured:
            logits = editor.transformer(tokens, shared, timestep)
        return logits, [captured.text_to_image(block) for block in (0, 1, 2)]

    whole, maps = run()
    refreshed, _ = run(cache)
    assert torch.equal(refreshed, whole) and cache.computed.all()
    part, maps_of_part = run(cache)
    torch.testing.assert_close(part, whole, atol=1e-4, rtol=1e-4)
    for one, other in zip(maps, maps_of_part, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    cells = torch.zeros_like(tokens, dtype=torch.bool)  # a position is 2 × 2 tokens; without an open one, the first
    cells[0, :2, :2] = cells[1, 2:6, 2:4] = cells[1, 6:, 6:] = cells[2, :2, :2] = True
    assert torch.equal(cache.computed, cells)


@torch.no_grad()
@pytest.mark.parametrize("pictures", [slice(None), slice(1, 3)])
def test_windows_of_larger_pictures_can_be_cached_too(editor, scene, pictures):
    tokens, text, timestep, source = scene
    cache, origin = FeatureCache(refresh_every=2), torch.tensor([[0, 0], [4, 8], [16, 4]])

    def run(cache=None, **window):
        shared = editor.transformer.prepare(tokens, text, source=source, strength=1.4, cache=cache, **window)
        with lab.capture_attention(editor.transformer, [0, 2], pictures=pictures) as captured:
            logits = editor.transformer(tokens, shared, timestep)
        return logits, captured.text_to_image(0), captured.text_to_image(2)

    whole, elsewhere = run(origin=origin), run()
    assert (whole[0][1:] - elsewhere[0][1:]).abs().amax((1, 2, 3)).min() > 1e-3  # it counts where a window lies
    for found in (run(cache, origin=origin), run(cache, origin=origin)):  # all, then the open positions alone
        for one, other in zip(found, whole, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert not cache.computed.all()


@torch.no_grad()
def test_what_has_changed_is_computed_once_more(editor, scene):
    tokens, text, timestep, source = scene
    cache = FeatureCache(refresh_every=9)
    shared, shares = editor.transformer.prepare(tokens, text, source=source, cache=cache), []
    for filled in ([], [(2, 3), (3, 3)], [(4, 3), (7, 7)], []):
        tokens = tokens.clone()
        for cell in filled:
            tokens[1][cell] = 1
        editor.transformer(tokens, shared, timestep)
        shares.append(cache.computed[1].sum().item() / 4)
    assert shares == [16, 3, 2, 1]  # positions: all; masked or just filled; the same; none, so the first


@torch.no_grad()
def test_it_is_not_the_whole_pass_once_something_else_has_changed(editor, scene):
    tokens, text, timestep, source = scene
    whole = editor.transformer(tokens, text, timestep - 1, source=source)
    found = {}
    for refresh_every in (1, 3):
        shared = editor.transformer.prepare(tokens, text, source=source, cache=FeatureCache(refresh_every))
        editor.transformer(tokens, shared, timestep)
        found[refresh_every] = editor.transformer(tokens, shared, timestep - 1)
    assert not torch.allclose(found[3], whole, atol=1e-3) and torch.equal(found[1], whole)


def test_a_cache_refreshed_in_every_step_gives_the_plain_edit(editor, picture, monkeypatch):
    def edit(refresh_every):
        pictures = [picture(seed=seed) for seed in range(3)]
        return editor.edit(pictures, INSTRUCTIONS, **SETTINGS, refresh_every=refresh_every)

    plain, cached, exact = edit(1), edit(2), FeatureCache(refresh_every=1)  # the plain edit has no cache
    assert cached.tokens.max() < CODES and not torch.equal(cached.heat, plain.heat)
    monkeypatch.setattr("editmgt_lab.editor.FeatureCache", lambda refresh_every: exact)
    refreshed = edit(2)
    assert exact.passes == SETTINGS["steps"], "or it was not asked"
    assert torch.equal(refreshed.tokens, plain.tokens) and torch.equal(refreshed.heat, plain.heat)


def test_a_picture_does_not_depend_on_the_others_of_its_batch(editor, picture):
    pictures = [picture(seed=seed) for seed in range(3)]
    together = editor.edit(pictures, INSTRUCTIONS, **SETTINGS, refresh_every=3)
    for i, (each, instruction) in enumerate(zip(pictures, INSTRUCTIONS, strict=True)):
        alone = editor.edit(each, instruction, **SETTINGS | {"seed": 3 + i}, refresh_every=3)
        assert torch.equal(alone.tokens[0], together.tokens[i])


def test_a_step_says_what_it_computed(editor, picture):
    mask = Image.new("L", (32, 32))
    mask.paste(255, (0, 0, 16, 32))  # the right half is known, and settled from the first pass on
    task = editor.prepare(picture(), INSTRUCTIONS[0], **SETTINGS | {"seed": 3}, mask=mask, refresh_every=4)
    steps = list(editor.decode(task))
    came_in = [task.start, *(step.tokens for step in steps)]
    for i, step in enumerate(steps):
        if i % 4 == 0:
            assert step.computed.all()
            continue
        changing = (came_in[i] == MASK) | (came_in[i] != came_in[i - 1])
        positions = changing.unflatten(2, (4, 2)).unflatten(1, (4, 2)).any(dim=(2, 4))  # of 2 × 2 tokens
        assert torch.equal(step.computed, positions.repeat_interleave(2, 1).repeat_interleave(2, 2))
        assert step.computed[..., :4].any() and not step.computed[..., 4:].any()
    assert all(step.computed.all() for step in editor.steps(picture(), INSTRUCTIONS[0], steps=2, seed=3))


def test_text_to_image_can_be_cached_too(editor):
    def decode(refresh_every):
        settings = {"hold_threshold": 0, "steps": 12, "seed": 1, "refresh_every": refresh_every}
        return list(editor.decode(editor.prepare(lab.editor.NO_SOURCE, "a ball", **settings)))

    exact, cached = decode(1), decode(4)
    assert torch.equal(exact[0].tokens, cached[0].tokens)  # of the first pass both computed all
    assert all(step.computed.all() for step in (*exact, *cached[::4])) and not cached[-1].computed.all()
    settled = ~cached[-1].computed
    assert torch.equal(cached[-1].tokens[settled], cached[-2].tokens[settled]) and not cached[-1].masked.any()


@pytest.mark.parametrize("wrong", [0, "2", 1.5])
def test_what_counts_no_passes_is_refused(wrong):
    with pytest.raises(SettingError, match=f"refresh_every is {wrong!r}"):
        FeatureCache(wrong)


def test_recorded_maps_of_settled_patches_are_those_last_computed(editor, picture):
    def run(**settings):
        mask = Image.new("L", (32, 32))
        mask.paste(255, (0, 0, 16, 32))  # the right half is known, and settled from the first pass on
        settings |= {"steps": 3, "seed": 3, "hold_threshold": 0.0, "attention": True, "mask": mask}
        return views.record(editor, picture(), INSTRUCTIONS[0], progress=lambda *_: None, **settings).attention.patches

    exact, cached = run(), run(refresh_every=3)
    assert cached.shape == exact.shape and (cached[0] == exact[0]).all()
    same = (cached[0] == cached[2]).all(axis=(0, 1, 3)).reshape(4, 4)  # of no block or head is anything new
    assert same[:, 2:].all() and not same[:, :2].any()


def test_heat_from_the_source_is_another_map(editor, picture):
    over_image, over_source = (
        editor.edit(picture(), INSTRUCTIONS[0], steps=1, seed=0, hold_threshold=0, heat_from=each)
        for each in ("image", "source")
    )
    assert torch.equal(over_image.tokens, over_source.tokens) and not torch.equal(over_image.heat, over_source.heat)
