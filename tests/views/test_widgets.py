"""The widgets show what the sampler and the capture did, say what goes wrong, and export all of it."""

import base64
import io
import json
import re
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ipywidgets.widgets.widget import _instances
from PIL import Image
from playwright.sync_api import expect

import editmgt_lab as lab
from editmgt_lab import views
from editmgt_lab.consolidation import to_heat
from editmgt_lab.plain_text import page_json
from editmgt_lab.views import maps as maps_module
from editmgt_lab.views import widget as widget_module
from editmgt_lab.views.attention_explorer.attention_explorer import token_colours
from editmgt_lab.views.maps import in_bytes, quantise, restored
from editmgt_lab.views.recording import STATES, code_patches, word_rows
from editmgt_lab.views.turns import TURNS
from editmgt_lab.views.widget import HERE, SHARED, source
from tests.support import PATIENCE, WatchedLock, until
from tests.support import browser as pages

INSTRUCTION = "make the ball blue"
SETTINGS = {"steps": 4, "seed": 3, "hold_threshold": 0.4, "guidance_scale": 2.0, "strength": 1.5}
WIDGETS = ("attention_explorer", "decode_player", "hold_studio", "injection_dial", "token_lab")


@pytest.fixture(scope="module")
def run(editor, picture):
    return views.record(editor, picture(64, 24), INSTRUCTION, attention=True, **SETTINGS)


@pytest.fixture(scope="module")
def steps(editor, picture):
    return list(editor.steps(picture(64, 24), INSTRUCTION, **SETTINGS))


@pytest.fixture
def opened(editor, run, picture):
    """Each widget, with its work done."""
    widgets = {
        "attention_explorer": views.attention_explorer(run),
        "decode_player": views.decode_player(run),
        "hold_studio": views.hold_studio(editor, picture(64, 64), INSTRUCTION, threshold=0.4, steps=3),
        "injection_dial": views.injection_dial(editor, picture(64, 24), INSTRUCTION, strengths=(0, 1, 2), steps=3),
        "token_lab": views.token_lab(editor, picture(64, 24)),
    }
    for widget in widgets.values():
        widget.pending.result(timeout=PATIENCE)
    return widgets


def quiet(*_):
    """No progress bar."""


# Recording


def test_a_run_is_the_edit_itself(run, steps):
    for name in ("sampled", "confidence", "heat"):
        np.testing.assert_array_equal(getattr(run, name), np.stack([getattr(step, name)[0] for step in steps]))
    for preview, step in zip(run.previews, steps, strict=True):
        np.testing.assert_array_equal(np.asarray(preview), np.asarray(step.preview()))
    assert run.settings.seeds == (3,) and run.described()["seeds"] == (3,)


def test_states_say_what_happened_to_each_cell(run, steps):
    masked, just, held, kept = (run.states == i for i in range(len(STATES)))
    before = np.ones_like(masked[0])
    for i, step in enumerate(steps):
        np.testing.assert_array_equal(masked[i], step.masked[0])
        sources = step.held[0] & (step.sampled[0] == torch.from_numpy(run.source_tokens))
        np.testing.assert_array_equal(held[i], sources & ~step.masked[0])
        np.testing.assert_array_equal(just[i] | kept[i], ~(step.masked[0] | sources))
        assert not (just[i] & ~before).any() and not (kept[i] & before).any()
        before = step.masked[0].numpy()
    assert all(state.any() for state in (masked, just, held)), "so that they could be wrong"


@pytest.mark.parametrize("hold", ["released", "commit", "agree"])
def test_held_is_said_only_of_the_sources_tokens(editor, picture, hold):
    """A released hold leaves a cell that was decided before its own token; by the others all held cells are the
    source's."""
    own, asked = editor.with_defaults(hold=hold), (picture(64, 24), INSTRUCTION)
    settings = {"steps": 6, "seed": 3, "hold_threshold": 0.6}
    run = views.record(own, *asked, **settings, progress=quiet)
    steps = list(own.steps(*asked, **settings))
    named = np.stack([(step.held & ~step.masked)[0].numpy() for step in steps])
    other, held = named & (run.sampled != run.source_tokens), run.states == STATES.index("held")
    np.testing.assert_array_equal(held, named & ~other)
    assert (run.states[other] == STATES.index("kept")).all() and held.any() and other.any() == (hold == "released")


def test_a_run_with_a_cache_says_what_each_step_computed(editor, picture, run):
    mask = Image.new("L", (32, 32))
    mask.paste(255, (0, 0, 16, 16))
    asked = (editor, picture(), INSTRUCTION)
    cached = views.record(*asked, **SETTINGS | {"steps": 3}, mask=mask, refresh_every=2, progress=quiet)
    shares = cached.computed.mean(axis=(1, 2))
    assert cached.computed.dtype == np.uint8 and shares[0] == shares[2] == 1 and shares[1] <= 0.25
    player, plain = views.decode_player(cached), views.decode_player(run)
    captions = [axes.get_title() for part in player.figure().subfigs for axes in part.axes]
    assert captions[-3:] == ["100% computed", f"{shares[1]:.0%} computed", "100% computed"]
    assert len(plain.figure().subfigs) == 2 and run.computed.all(), "nothing to tell without a cache"
    np.testing.assert_array_equal(player.arrays()["computed"], cached.computed)


def test_candidates_are_the_ones_that_the_sampler_drew_from(editor, picture):
    """In the last step there is no noise: a token's confidence is the log of its probability."""
    run = views.record(editor, picture(), INSTRUCTION, **SETTINGS | {"hold_threshold": 0}, progress=quiet)
    competed = np.isfinite(run.confidence[-1])
    assert competed.any()
    np.testing.assert_allclose(np.exp(run.confidence[-1])[competed], run.taken[-1][competed], rtol=1e-4)
    assert (np.diff(run.probabilities, axis=-1) <= 0).all() and (run.probabilities.sum(axis=-1) <= 1 + 1e-5).all()
    among = run.candidates == run.sampled[..., None]
    np.testing.assert_allclose(run.probabilities[among], run.taken[among.any(axis=-1)], rtol=1e-6)
    assert among.any()


@torch.no_grad()
def test_patches_are_what_codes_decode_to(editor, run):
    assert set(run.codes) >= set(run.sampled.ravel()) | set(run.candidates.ravel())
    field = editor.detokenize(torch.full((1, 3, 3), int(run.codes[1])))[0]
    np.testing.assert_array_equal(run.patches[1], np.asarray(field)[4:8, 4:8])
    assert code_patches(editor, np.arange(32)).shape == (32, 4, 4, 3)


def test_text_to_image_is_recorded_too(editor):
    run = views.record(editor, None, "a red ball", attention=True, steps=3, seed=1, progress=quiet)
    np.testing.assert_array_equal(run.sampled[-1], editor.generate("a red ball", steps=3, seed=1).tokens[0])
    assert run.source is None and run.attention.patches.shape[-1] == len(run.attention.plan.words) + 16
    arrays = views.attention_explorer(run).arrays()
    assert "source" not in arrays and "attention_words_in_source" not in arrays


@pytest.mark.parametrize(
    "asked, said",
    [({"focus": "zebra"}, "zebra"), ({"negative": 7}, "int"), ({"mask": Image.new("L", (32, 32), 255)}, "a mask"),
     ({"hold_threshold": 0.4}, "hold_threshold is 0.4")],
)  # fmt: skip
def test_what_text_to_image_cannot_take_is_refused(editor, asked, said):
    with pytest.raises(lab.LabError, match=said):
        views.record(editor, None, "a ball", steps=1, seed=1, progress=quiet, **asked)


def test_text_to_image_takes_a_negative_text_and_says_that_nothing_is_held(editor):
    settings = {"steps": 3, "seed": 1, "guidance_scale": 3.0, "progress": quiet}
    plain, other = (views.record(editor, None, "a red ball", **settings, negative=text) for text in ("", "a hat"))
    assert not np.array_equal(plain.sampled, other.sampled)
    assert editor.defaults.hold_threshold > 0 and plain.described()["hold_threshold"] == 0


def test_a_finished_edit_is_repeated_with_its_settings(editor, picture):
    result = editor.edit([picture()] * 2, INSTRUCTION, steps=3, seed=[5, 6], hold_threshold=0.3, strength=2.0)
    run = views.record(editor, result, progress=quiet)
    np.testing.assert_array_equal(run.sampled[-1], result.tokens[0])
    assert run.instruction == INSTRUCTION


def test_a_finished_edit_is_repeated_with_its_mask(editor, picture):
    mask = Image.new("L", (50, 71))
    mask.paste(255, (0, 0, 50, 30))
    result = editor.edit(picture(50, 71), INSTRUCTION, steps=3, seed=5, mask=mask)
    run = views.record(editor, result, progress=quiet)
    np.testing.assert_array_equal(run.sampled[-1], result.tokens[0])
    fixed = result.fixed[0].numpy()
    assert fixed.any() and (run.states[0, fixed] == STATES.index("held")).all(), "outside the mask the source stays"


def test_a_finished_edit_is_repeated_with_its_negative_text(editor, picture):
    settings = {"steps": 3, "seed": 5, "guidance_scale": 5.0, "negative": "a hat"}
    result = editor.edit(picture(), INSTRUCTION, **settings)
    run = views.record(editor, result, progress=quiet)
    np.testing.assert_array_equal(run.sampled[-1], result.tokens[0])


def test_an_edit_that_cannot_be_repeated_is_not_shown_as_it(editor, picture):
    other = editor.with_defaults(bias_text=True)
    result = other.edit(picture(), INSTRUCTION, steps=3, seed=5, strength=3.0)
    with pytest.raises(lab.LabError, match="another picture"):
        views.record(editor, result, progress=quiet)
    run = views.record(other, result, progress=quiet)
    np.testing.assert_array_equal(run.sampled[-1], result.tokens[0])


def test_words_know_all_their_rows(editor):
    words, length = word_rows(editor, "make the purplish ball blue")
    assert [word.name for word in words] == ["‹start›", "make", "the", "purplish", "ball", "blue", "‹end›"]
    rows = [row for word in words for row in word.rows]
    assert rows == list(range(len(rows))) and length == 16
    assert len(words[3].rows) > 1, "a word of several rows, so that some could be lost"
    assert [word.special for word in words] == [True, *[False] * 5, True]


@pytest.mark.parametrize(
    "text, tokens, words",
    [("把鱼变蓝", [(0, 1), (1, 3), (3, 4)], {"把": 1, "鱼变": 1, "蓝": 1}),
     ("把鱼变蓝 now", [(0, 2), (1, 3), (3, 4), (4, 6), (6, 8)], {"把鱼变": 2, "蓝": 1, "now": 2}),
     ("鱼 blue", [(0, 1), (0, 1), (1, 6)], {"鱼": 2, "blue": 1})],
)  # fmt: skip
def test_a_row_belongs_to_one_word_or_its_attention_would_count_twice(text, tokens, words):
    offsets = [(0, 0), *tokens, (0, 0), (0, 0)]
    mask = [1] * (len(offsets) - 1) + [0]
    rows = {"offset_mapping": torch.tensor([offsets]), "attention_mask": torch.tensor([mask])}
    stand_in = SimpleNamespace(text_encoder=SimpleNamespace(tokenize=lambda texts: [rows]))
    found, length = word_rows(stand_in, text)
    assert {word.name: len(word.rows) for word in found if not word.special} == words and length == len(mask)
    assert sorted(row for word in found for row in word.rows) == list(range(sum(mask)))


# Attention


@torch.no_grad()
@pytest.mark.parametrize("mapped", ["image", "source"])
def test_recorded_maps_are_the_captured_ones(editor, picture, run, mapped):
    """Step by step, against a capture around the same edit; a level is a 255th of what a map varies by."""
    plan = run.attention.plan
    with lab.capture_attention(editor.transformer, plan.blocks, mapped=mapped) as captured:
        for step in editor.steps(picture(64, 24), INSTRUCTION, **SETTINGS):
            recorded = run.attention.word_maps(step.index, mapped)
            for place, block in enumerate(plan.blocks):
                for number, word in enumerate(plan.words):
                    exact = captured.text_to_image(block)[-1][:, list(word.rows)].mean(dim=1).numpy()
                    error = np.abs(recorded[place, :, number] - exact)
                    assert (error <= np.ptp(exact, axis=1, keepdims=True) / 510 + 1e-7).all()


@torch.no_grad()
def test_patches_look_where_the_joint_attention_looks(editor, picture, run):
    """Against an explicit softmax of all rows, bias and all."""
    seen = {}

    class All:
        thread = threading.get_ident()

        def record(self, q, k, layout):
            scores = q[-1] @ k[-1].transpose(-2, -1) / q.shape[-1] ** 0.5 + layout.bias
            seen["rows"] = scores.softmax(dim=-1)[:, layout.text : layout.text + layout.image]
            seen["text"] = layout.text

    recorder, plan = All(), run.attention.plan
    editor.transformer.blocks[1].attn.recorders.append(recorder)
    try:
        list(editor.steps(picture(64, 24), INSTRUCTION, **SETTINGS))
    finally:
        editor.transformer.blocks[1].attn.recorders.remove(recorder)
    rows, text = seen["rows"].numpy(), seen["text"]
    recorded = run.attention.patch_maps(-1)[1]
    exact = np.concatenate(
        [np.stack([rows[..., list(word.rows)].sum(axis=-1) for word in plan.words], axis=-1), rows[..., text:]], axis=-1
    )
    assert (np.abs(recorded - exact) <= np.ptp(exact, axis=-1, keepdims=True) / 510 + 1e-7).all()
    assert recorded.shape == (plan.heads, plan.positions, plan.keys)


def test_the_memory_is_stated_before_and_kept_to(editor, picture):
    said = []
    run = views.record(
        editor, picture(), INSTRUCTION, attention=[0, 2], steps=2, progress=lambda done, total, what: said.append(what)
    )
    assert run.attention.memory == run.attention.plan.memory
    assert in_bytes(run.attention.memory) in said[0] and "2 blocks × 2 heads × 2 steps" in said[0]
    with lab.capture_attention(editor.transformer, [0, 2], pictures=slice(-1, None)) as captured:
        editor.edit(picture(), INSTRUCTION, steps=1, guidance_scale=2.0)
    assert 2 * captured.memory == run.attention.plan.passing, "of the image and the source, with guidance or without"


def test_patches_are_left_out_where_they_are_too_large(editor, picture, monkeypatch):
    monkeypatch.setattr(maps_module, "PATCHES_LIMIT", 1000)
    run = views.record(editor, picture(), INSTRUCTION, attention=True, steps=2, progress=quiet)
    assert run.attention.patches is None and run.attention.memory == run.attention.plan.memory
    assert "left out" in str(run.attention.plan)
    assert views.attention_explorer(run).data["patches"] is None


def test_maps_that_are_too_large_are_refused_before_anything_runs(editor, picture, monkeypatch):
    monkeypatch.setattr(maps_module, "WORDS_LIMIT", 1000)
    monkeypatch.setattr(type(editor), "steps", None)
    with pytest.raises(lab.LabError, match="name fewer blocks"):
        views.record(editor, picture(), INSTRUCTION, attention=True, progress=quiet)


def test_nothing_stays_on_the_transformer(editor, picture):
    def stop(done, total, what):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        views.record(editor, picture(), INSTRUCTION, attention=True, progress=stop)
    assert not editor.transformer._forward_hooks
    assert not any(block.attn.recorders for block in editor.transformer.blocks)


def test_a_level_is_a_255th_of_what_a_map_varies_by():
    levels, scales = quantise(torch.tensor([[0.5, 0.6, 0.7], [0.2, 0.2, 0.2]]))
    np.testing.assert_array_equal(levels, [[0, 128, 255], [0, 0, 0]])
    np.testing.assert_allclose(scales, [[0.5, 0.2], [0.2, 0]], atol=1e-6)
    np.testing.assert_allclose(restored(levels, scales), [[0.5, 0.6, 0.7], [0.2, 0.2, 0.2]], atol=0.2 / 510 + 1e-6)
    assert [in_bytes(n) for n in (12, 3456, 12_345_678, 4.2e9)] == ["12 bytes", "3.46 kB", "12.3 MB", "4.2 GB"]


# Widgets


@pytest.mark.parametrize("strength", [1.5, 0])
@pytest.mark.parametrize("heat_from", ["image", "source", "both"])
def test_the_explorer_opens_on_what_the_heat_map_is_made_of(editor, picture, heat_from, strength):
    """Its look becomes the heat map that the editor held by. Without injection there is no source to look at."""
    own = editor.with_defaults(heat_from=heat_from, blocks=[0, 2])
    settings = SETTINGS | {"strength": strength, "steps": 2}
    run = views.record(own, picture(64, 24), INSTRUCTION, attention=True, **settings, progress=quiet)
    explorer = views.attention_explorer(run)
    for step in (1, 0):
        explorer.step = step
        look = torch.from_numpy(explorer.look())[None]  # [1, rows, columns]
        heat = to_heat(look, smooth=own.defaults.smooth, token_grid=run.heat.shape[1:])[0]
        np.testing.assert_allclose(heat, run.heat[step], atol=0.02)
    assert explorer.data["heat_from"] == (heat_from if strength else "image")
    assert (explorer.data["source_maps"] is None) == (strength == 0)


def test_the_explorer_wants_attention(editor, picture):
    run = views.record(editor, picture(), INSTRUCTION, steps=1, progress=quiet)
    with pytest.raises(lab.LabError, match="attention=True"):
        views.attention_explorer(run)
    with pytest.raises(lab.LabError, match="blocks is 3.5"):
        views.record(editor, picture(), INSTRUCTION, attention=3.5, progress=quiet)
    of_one = views.record(editor, picture(), INSTRUCTION, attention=1, steps=1, progress=quiet)
    assert of_one.attention.plan.blocks == (1,)


def test_a_recorded_run_is_shown_as_it_is(run, picture):
    for more in ({"image": picture()}, {"instruction": "remove it"}, {"steps": 9}, {"nonsense": 4}):
        for view in (views.decode_player, views.attention_explorer):
            with pytest.raises(lab.LabError, match="a recorded run, and more beside it"):
                view(run, **more)
    with pytest.raises(lab.LabError, match="a recorded run, and more beside it"):
        views.attention_explorer(run, attention=[0])
    with pytest.raises(lab.LabError, match="unknown mapped 'nowhere'"):
        views.attention_explorer(run).look(mapped="nowhere")


def test_masked_tokens_have_no_colour_of_their_own(run):
    masked = run.states == STATES.index("masked")
    assert (token_colours(run)[masked] == 128).all() and masked.any()


def test_a_view_opens_at_once_and_records_beside_the_page(editor, picture):
    gate = Gate(editor)  # before it is let go, nothing can have been recorded
    player = views.decode_player(gate, picture(), INSTRUCTION, steps=3, seed=0)
    explorer = views.attention_explorer(gate, picture(), INSTRUCTION, steps=3, seed=0)
    assert player.busy and explorer.busy
    gate.go.release(100)
    for view in (player, explorer):
        view.pending.result(timeout=PATIENCE)
    assert len(player.run.previews) == 3 and explorer.run.attention is not None
    assert not player.busy and player.message == ""


class Gate:
    """An editor that waits for `go` before every step."""

    def __init__(self, editor):
        self.editor, self.go, self.begun = editor, threading.Semaphore(0), threading.Event()

    def __getattr__(self, name):
        return getattr(self.editor, name)

    def steps(self, *arguments, **settings):
        for step in self.editor.steps(*arguments, **settings):
            self.begun.set()
            assert self.go.acquire(timeout=PATIENCE)
            yield step

    def edit(self, *arguments, on_step, **settings):
        def wait(step):
            self.begun.set()
            assert self.go.acquire(timeout=PATIENCE)
            on_step(step)

        return self.editor.edit(*arguments, on_step=wait, **settings)


def test_cancel_stops_and_says_so(editor, picture):
    gate = Gate(editor)
    player = views.decode_player(gate, picture(), INSTRUCTION, steps=5)
    assert gate.begun.wait(PATIENCE) and player.busy
    player._handle_custom_msg({"kind": "cancel"}, [])
    assert player.message == "cancelled" and not player.busy
    gate.go.release(100)
    player.pending.result(timeout=PATIENCE)
    assert player.data == {} and player.message == "cancelled"


def test_a_work_says_nothing_after_it_was_cancelled(editor, picture):
    gate, lock = Gate(editor), WatchedLock()
    player = views.decode_player(gate, picture(), INSTRUCTION, steps=5)
    player._saying, cancelling = lock, threading.Thread(target=player.cancel)
    assert gate.begun.wait(PATIENCE)

    def cancel(change):  # in the work, which has seen that it is wanted, and is about to say how far it is
        if not cancelling.ident:
            cancelling.start()
            until(lambda: lock.contended.is_set() or not cancelling.is_alive(), "the other thread")

    player.observe(cancel, "progress")
    gate.go.release(100)
    player.pending.result(timeout=PATIENCE)
    cancelling.join(PATIENCE)
    assert player.message == "cancelled" and not player.busy and player.run is None


def test_closing_a_view_stops_its_work(editor, picture):
    gate = Gate(editor)
    player = views.decode_player(gate, picture(), INSTRUCTION, steps=300)
    assert gate.begun.wait(PATIENCE)
    player.close()
    gate.go.release(1000)
    player.pending.result(timeout=PATIENCE)
    assert player.run is None and player.ticket.is_set()


def test_errors_are_shown_in_the_widget(editor, picture, tmp_path, monkeypatch):
    player = views.decode_player(editor, picture(), "ball " * 500)
    player.pending.result(timeout=PATIENCE)
    assert "text tokens" in player.message and player.wrong and not player.busy
    with pytest.raises(lab.LabError, match="nothing to save yet"):
        player.export(tmp_path / "player.html")
    assert "image/png" not in data_of(player)

    tokens = views.token_lab(editor, tmp_path / "missing.png")
    tokens.pending.result(timeout=PATIENCE)
    assert "no picture file" in tokens.message and tokens.wrong


def test_surprises_are_shown_too(editor, picture, opened, monkeypatch):
    tokens = opened["token_lab"]
    before = tokens.states
    monkeypatch.setattr(tokens, "_decode", None)
    tokens.swap(0, 0, 1).result(timeout=PATIENCE)
    assert tokens.message.startswith("TypeError") and tokens.wrong and tokens.states == before
    tokens._handle_custom_msg({"kind": "swap", "cell": 0, "code": 99}, [])
    assert "code is 99" in tokens.message and "to 31" in tokens.message and tokens.wrong


def test_another_code_changes_the_picture_around_it(editor, opened):
    tokens = opened["token_lab"]
    code = (int(tokens.tokens[0][1, 2]) + 1) % 32
    columns = tokens.tokens[0].shape[1]
    tokens._handle_custom_msg({"kind": "swap", "cell": columns + 2, "code": code}, [])
    tokens.pending.result(timeout=PATIENCE)
    changed = tokens.tokens[1] != tokens.tokens[0]
    assert changed.sum() == 1 and changed[1, 2] and tokens.tokens[1][1, 2] == code and tokens.at == 1
    decoded = editor.detokenize(torch.from_numpy(tokens.tokens[1])[None].long())[0]
    np.testing.assert_array_equal(np.asarray(tokens.decoded[1]), np.asarray(decoded))
    np.testing.assert_array_equal(
        tokens.difference(), np.abs(np.asarray(decoded, int) - np.asarray(tokens.decoded[0], int)).max(axis=2)
    )
    assert "of the change lies within" in tokens.states[1]["said"]

    tokens.swap(0, 0, 5).result(timeout=PATIENCE)
    tokens.at = 1  # undo
    tokens.swap(0, 1, 6).result(timeout=PATIENCE)
    assert tokens.swaps == [(1, 2, code), (0, 1, 6)] and len(tokens.states) == 3 and tokens.at == 2


def test_swaps_asked_for_in_a_row_are_all_made(opened):
    tokens, asked = opened["token_lab"], [(0, 0, 5), (0, 1, 6), (1, 0, 7)]
    begun, go = threading.Event(), threading.Event()

    def other(give_way):
        begun.set()
        assert go.wait(PATIENCE)

    TURNS.submit(other, threading.Event())
    assert begun.wait(PATIENCE)
    made = [tokens.swap(*each) for each in asked]
    assert not any(each.done() for each in made)
    go.set()
    for each in made:
        each.result(timeout=PATIENCE)
    assert tokens.swaps == asked and len(tokens.states) == 4
    tokens.pending.result(timeout=PATIENCE)
    assert not tokens.busy and tokens.message == ""


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_swaps_that_are_not_wanted_any_more_are_not_made(opened, end):
    tokens, go = opened["token_lab"], threading.Event()
    TURNS.submit(lambda give_way: go.wait(PATIENCE), threading.Event())
    until(lambda: TURNS._taken, "the other's turn")
    made = [tokens.swap(0, 0, 5), tokens.swap(0, 1, 6)]
    getattr(tokens, end)()
    go.set()
    for each in (*made, tokens.pending):
        each.result(timeout=PATIENCE)
    assert tokens.swaps == []


def test_the_lab_opens_on_a_finished_edits_own_tokens(editor, run, picture):
    result = editor.edit(picture(), INSTRUCTION, steps=2, seed=0)
    for finished, tokens in ((result, result.tokens[0]), (run, run.sampled[-1])):
        opened = views.token_lab(editor, finished)
        opened.pending.result(timeout=PATIENCE)
        np.testing.assert_array_equal(opened.tokens[0], tokens)


def test_the_dial_makes_the_edit_of_each_strength_and_bias(editor, picture, opened):
    dial = opened["injection_dial"]
    assert [result["strength"] for result in dial.results] == [0, 1, 2]
    dial._handle_custom_msg({"kind": "turn", "strength": 2.0, "bias_text": True}, [])
    dial.pending.result(timeout=PATIENCE)
    assert [(result["strength"], result["bias_text"]) for result in dial.results][-1] == (2, True)
    options = {"strength": 2.0, "steps": 3, "seed": 0, "hold_threshold": 0}
    edit, other = (
        each.edit(picture(64, 24), INSTRUCTION, **options) for each in (editor, editor.with_defaults(bias_text=True))
    )
    assert torch.equal(dial.edits[2, False].tokens, edit.tokens)
    assert torch.equal(dial.edits[2, True].tokens, other.tokens)
    assert not torch.equal(dial.edits[2, True].heat, edit.heat), "the other form is another edit"
    assert dial.results[2]["l1"] == pytest.approx(
        np.abs(np.asarray(edit.image, float) - np.asarray(edit.source, float)).mean() / 255, abs=1e-6
    )
    assert editor.defaults.bias_text is False, "the editor stays as it was"
    dial._handle_custom_msg({"kind": "turn", "strength": -1.0, "bias_text": True}, [])
    assert "strength" in dial.message and dial.wrong and len(dial.results) == 4
    with pytest.raises(lab.LabError, match="strength"):
        dial.turn(-1)


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_turn_comes_before_what_the_dial_has_still_to_make(editor, picture, cancelled):
    go = threading.Event()
    TURNS.submit(lambda give_way: go.wait(PATIENCE), threading.Event())
    until(lambda: TURNS._taken, "the other's turn")
    dial = views.injection_dial(editor, picture(), INSTRUCTION, strengths=(0, 1, 2), steps=2)
    turned = threading.Event()

    def turn(change):  # in the opening work, once the first edit is on the page
        if not turned.is_set():
            if cancelled:
                dial.cancel()
            dial.turn(0.3)
            turned.set()

    dial.observe(turn, "results")
    go.set()
    assert turned.wait(PATIENCE)
    dial.pending.result(timeout=PATIENCE)
    assert [strength for strength, _ in dial.edits] == ([0, 0.3] if cancelled else [0, 0.3, 1, 2])
    assert not dial.busy and dial.message == ""


def test_a_dial_that_begins_again_makes_all_that_it_had_to(editor, picture):
    go = threading.Event()
    TURNS.submit(lambda give_way: go.wait(PATIENCE), threading.Event())
    until(lambda: TURNS._taken, "the other's turn")
    dial = views.injection_dial(editor, picture(), INSTRUCTION, strengths=(0, 5), steps=1)
    dial.cancel()
    dial._handle_custom_msg({"kind": "again"}, [])
    dial.turn(0.3)
    go.set()
    dial.pending.result(timeout=PATIENCE)
    assert [strength for strength, _ in dial.edits] == [0.3, 0, 5] and dial.data["most"] == 5


def test_a_page_shows_no_edit_of_another_bias(browser, opened, tmp_path):
    dial = opened["injection_dial"]
    dial.bias_text = True  # and the page left before an edit was made with it
    with pages.opened(browser, dial.export(tmp_path / "page.html")) as page:
        edit, (made, other) = page.locator(".lab-panel").nth(1), page.locator(".lab-tab").all()
        expect(edit.locator("img")).to_be_hidden()
        expect(edit).to_contain_text("not made")
        expect(other).to_be_disabled()
        made.click()
        expect(edit.locator("img")).to_be_visible()
        expect(edit).to_contain_text("γ = 1, L1")


@pytest.mark.parametrize(
    "wrong", [{"strengths": []}, {"strengths": [-1]}, {"strengths": ["a"]}, {"strength": 2.0}, {"on_step": print},
              {"image": [Image.new("RGB", (32, 32))]}, {"image": "nope.png"}, {"instruction": " "}],
    ids="-".join,
)  # fmt: skip
def test_a_dial_that_cannot_be_is_refused_and_leaves_nothing_open(editor, picture, wrong):
    before = len(_instances)
    with pytest.raises(lab.LabError):
        views.injection_dial(editor, **{"image": picture(), "instruction": INSTRUCTION} | wrong)
    assert len(_instances) == before


@pytest.mark.parametrize(
    "wrong", [{"threshold": "a"}, {"threshold": 2}, {"hold_threshold": 0.1}, {"on_step": print}, {"instruction": ""},
              {"image": [Image.new("RGB", (32, 32))]}, {"image": "nope.png"}],
    ids="-".join,
)  # fmt: skip
def test_a_studio_that_cannot_be_is_refused_and_leaves_nothing_open(editor, picture, wrong):
    before = len(_instances)
    with pytest.raises(lab.LabError):
        views.hold_studio(editor, **{"image": picture(), "instruction": INSTRUCTION} | wrong)
    assert len(_instances) == before


@pytest.mark.parametrize("wrong", ["more beside a run", "no attention", "no picture", "too narrow", "no text"])
def test_what_is_refused_leaves_nothing_open(editor, run, picture, wrong):
    bare = views.record(editor, picture(), INSTRUCTION, steps=1, progress=quiet)
    refused = {
        "more beside a run": lambda: views.decode_player(run, steps=9),
        "no attention": lambda: views.attention_explorer(bare),
        "no picture": lambda: views.playground(editor, "nope.png"),
        "too narrow": lambda: views.playground(editor, Image.new("RGB", (4000, 1))),
        "no text": lambda: views.playground(editor, picture(), 5),
    }
    before = len(_instances)
    with pytest.raises(lab.LabError):
        refused[wrong]()
    assert len(_instances) == before


def test_without_a_seed_all_edits_of_a_view_have_the_same(editor, picture):
    studio = views.hold_studio(editor, picture(), INSTRUCTION, threshold=0.5, steps=1, seed=None)
    dial = views.injection_dial(editor, picture(), INSTRUCTION, strengths=(0, 1), steps=1, seed=None)
    for view in (studio, dial):
        view.pending.result(timeout=PATIENCE)
        assert view.described()["seeds"] == (0,)
    made = [each for edits in studio.made.values() for each in edits.values()] + [*dial.edits.values()]
    assert {edit.settings.seeds for edit in made} == {(0,)}


@pytest.mark.parametrize("threshold, expected", [(np.float32(0.5), 0.5), (1, 1), (None, 0.25), (0.0004, 0.0004)])
def test_the_studios_threshold_is_what_an_edit_takes(editor, picture, threshold, expected):
    studio = views.hold_studio(
        editor.with_defaults(hold_threshold=0.25), picture(), INSTRUCTION, threshold=threshold, steps=1
    )
    studio.pending.result(timeout=PATIENCE)
    assert studio.threshold == expected and list(studio.made) == [0, expected]


def test_the_settings_that_an_edit_takes_are_saved(editor, picture, tmp_path):
    settings = {"blocks": range(2), "seed": np.int64(3), "guidance_scale": np.float32(2), "steps": 2}
    settings |= {"focus": ("ball",), "negative": "red"}
    studio = views.hold_studio(editor, picture(), INSTRUCTION, threshold=0.5, strength=np.float32(1.5), **settings)
    dial = views.injection_dial(editor, picture(), INSTRUCTION, strengths=np.array([0.0, 1.0]), **settings)
    shared = {"blocks": [0, 1], "seeds": [3], "guidance_scale": 2, "focus": ["ball"], "negative": "red"}
    theirs = {"strength": 1.5}, {"hold_threshold": 0}
    for widget, own, chosen in zip((studio, dial), theirs, ("hold_threshold", "strength"), strict=True):
        widget.pending.result(timeout=PATIENCE)
        assert not widget.wrong, widget.message
        with np.load(widget.save_arrays(tmp_path / "arrays.npz")) as saved:
            told = json.loads(str(saved["settings"]))
        assert {name: told[name] for name in shared | own} == shared | own and chosen not in told


def test_the_studio_shows_what_a_released_hold_kept(editor, picture):
    released = editor.with_defaults(hold="released")
    studio = views.hold_studio(released, picture(64, 64), INSTRUCTION, threshold=0.6, steps=6, seed=3)
    studio.pending.result(timeout=PATIENCE)
    by_heat, at_random = (studio.made[0.6][way] for way in ("by heat", "at random"))
    kept = by_heat.held & (by_heat.tokens == by_heat.source_tokens)
    assert 0 < kept.sum() < by_heat.held.sum(), "so that the two could be confused"
    assert at_random.held.sum() == kept.sum()
    result = studio.results[-1]
    np.testing.assert_array_equal(np.frombuffer(result["cells"]["bytes"], np.uint8), kept.flatten())
    assert result["held"] == pytest.approx(float(kept.float().mean()))
    captions = [axes.get_title() for part in studio.figure().subfigs for axes in part.axes]
    assert f"λ = 0.6: {kept.float().mean():.0%} held" in captions
    np.testing.assert_array_equal(studio.arrays()["held_by_heat"][-1], kept[0])


def test_the_studio_holds_by_heat_and_as_many_cells_at_random(editor, picture, opened):
    studio = opened["hold_studio"]
    assert not studio.wrong, studio.message
    assert [result["threshold"] for result in studio.results] == [0, 0.4] and studio.results[0]["held"] == 0
    edits = studio.made[0.4]
    same = editor.edit(picture(64, 64), INSTRUCTION, hold_threshold=0.4, steps=3, seed=0)
    assert torch.equal(edits["by heat"].tokens, same.tokens)
    assert edits["at random"].held.sum() == edits["by heat"].held.sum() > 0
    assert not torch.equal(edits["at random"].held, edits["by heat"].held)
    studio._handle_custom_msg({"kind": "hold", "threshold": 0.7}, [])
    studio.pending.result(timeout=PATIENCE)
    held = [result["held"] for result in studio.results]
    assert len(held) == 3 and held == sorted(held)
    assert set(studio.results[0]["numbers"][0]) == {"L1"}, "without a truth there is no score"


@pytest.mark.parametrize("cancelled", [False, True])
def test_the_studio_opens_with_the_hold_that_comes_before_its_opening_is_done(editor, picture, cancelled):
    gate = Gate(editor)
    studio = views.hold_studio(gate, picture(), INSTRUCTION, threshold=0.4, steps=3)
    assert gate.begun.wait(PATIENCE)
    if cancelled:
        studio.cancel()
    studio.hold(0.7)
    gate.go.release(100)
    studio.pending.result(timeout=PATIENCE)
    assert not studio.wrong, studio.message
    assert [result["threshold"] for result in studio.results] == [0, 0.7] and studio.data and studio.figure()


def test_the_studio_scores_an_edit_whose_truth_is_known():
    editor, sample = lab.load(), lab.world.sample_edit(0, split="validation", category="remove")
    studio = views.hold_studio(editor, sample, steps=4)
    studio.pending.result(timeout=PATIENCE)
    assert not studio.wrong, studio.message
    numbers = studio.numbers(studio.made[0.2]["by heat"])
    assert 0 <= numbers["score"] <= 10 and 0 <= numbers["leakage"] < 1
    copied = replace(studio.made[0.2]["by heat"], images=[studio.before])
    assert studio.numbers(copied) == {"L1": 0, "score": 0, "leakage": 0}


def test_the_studio_scores_an_edit_of_another_size(editor):
    studio = views.hold_studio(editor, lab.world.sample_edit(3, size=64), steps=2)
    studio.pending.result(timeout=PATIENCE)
    assert not studio.wrong, studio.message
    numbers = studio.numbers(studio.made[0.2]["by heat"])
    assert 0 <= numbers["score"] <= 10 and studio.mask.shape == (32, 32) and studio.mask.any()
    asked = {"score": 9.94, "L1": 0.000017, "leakage": 0.00028}
    studio.numbers = lambda edit: asked
    captions = [axes.get_title() for part in studio.figure().subfigs for axes in part.axes]
    assert "by heat: score 9.9\nL1 0.0000, leakage 0.0003" in captions


def test_the_player_shows_another_run_from_its_beginning(editor, picture, opened):
    player = opened["decode_player"]
    player.step, player.cell = 3, 90
    player.show(views.record(editor, picture(), INSTRUCTION, steps=2, progress=quiet))
    assert (player.step, player.cell) == (0, -1)


# Export


def state_of(page):
    """The recorded state of an exported page, as a browser reads it."""
    state = page.read_text(encoding="utf-8").partition('type="application/json">')[2].partition("</script>")[0]
    return json.loads(state, parse_constant=lambda name: pytest.fail(f"no JSON: {name}"))


@pytest.mark.parametrize("end", ["cancel", "error"])
def test_a_page_does_not_say_how_the_last_work_ended(opened, tmp_path, end):
    tokens = opened["token_lab"]
    if end == "cancel":
        tokens.cancel()
    else:
        tokens.begin(lambda progress: 1 / 0).result(timeout=PATIENCE)
    assert tokens.message
    state = state_of(tokens.export(tmp_path / "page.html"))
    assert (state["message"], state["wrong"], state["busy"]) == ("", False, False)


def test_numbers_that_are_not_finite_are_none_on_a_page(opened, tmp_path):
    tokens, numbers = opened["token_lab"], [float("nan"), float("inf"), 1.5]
    tokens.data = tokens.data | {"numbers": numbers}
    assert state_of(tokens.export(tmp_path / "page.html"))["data"]["numbers"] == [None, None, 1.5]
    with pytest.raises(ValueError, match="JSON"):
        page_json(numbers)


def test_a_page_that_no_browser_could_read_is_refused(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(widget_module, "LONGEST", 10_000)
    with pytest.raises(lab.LabError, match=r"million characters(.|\n)*fewer blocks"):
        opened["decode_player"].export(tmp_path / "page.html")
    assert not [*tmp_path.iterdir()]


def data_of(widget):
    bundle = widget._repr_mimebundle_()
    return bundle[0] if isinstance(bundle, tuple) else bundle


def test_every_widget_on_an_edit_is_among_these():
    rooms = {file.parent.name for file in HERE.glob("*/*.js") if file.stem == file.parent.name}
    assert rooms == {*WIDGETS, "filter_studio", "finetune_dashboard"}  # which have tests of their own


@pytest.mark.parametrize("name", WIDGETS)
def test_without_a_kernel_there_is_a_picture(opened, name):
    data = data_of(opened[name])
    assert "application/vnd.jupyter.widget-view+json" in data
    drawn = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB"))
    assert drawn.shape[1] > 250 and drawn.std() > 10


@pytest.mark.parametrize("name", WIDGETS)
def test_figures_are_saved_in_both_kinds(opened, name, tmp_path):
    assert Image.open(opened[name].save_figure(tmp_path / "new" / "figure.png")).width > 250
    assert "<svg" in opened[name].save_figure(tmp_path / "figure.svg").read_text(encoding="utf-8")
    with pytest.raises(lab.LabError, match=".png or .svg"):
        opened[name].save_figure(tmp_path / "figure.gif")


def test_arrays_come_back_as_they_were(opened, run, tmp_path):
    for name in ("attention_explorer", "decode_player"):
        with np.load(opened[name].save_arrays(tmp_path / f"{name}.npz")) as saved:
            settings = json.loads(str(saved["settings"]))
            assert settings["seeds"] == [3] and settings["instruction"] == INSTRUCTION
            assert settings["hold_threshold"] == 0.4 and settings["attention_words"][3] == "ball"
            for field in ("sampled", "confidence", "candidates", "probabilities", "states"):
                np.testing.assert_array_equal(saved[field], getattr(run, field))
            np.testing.assert_array_equal(saved["attention_words"], run.attention.words)
            np.testing.assert_array_equal(saved["attention_words_in_source"], run.attention.words_in_source)
            pictures = {"attention_words": "image", "attention_words_in_source": "source"}
            assert settings["attention_seen_in"] == pictures
    tokens = opened["token_lab"]
    tokens.swap(0, 0, 1).result(timeout=PATIENCE)
    with np.load(tokens.save_arrays(tmp_path / "tokens.npz")) as saved:
        assert json.loads(str(saved["settings"])) == {"changes": [[0, 0, 1]]}
        np.testing.assert_array_equal(saved["tokens"], np.stack(tokens.tokens))


@pytest.mark.parametrize("name", WIDGETS)
def test_an_exported_page_carries_the_same_module_and_needs_nothing(opened, name, tmp_path):
    page = opened[name].export(tmp_path / "page.html").read_text(encoding="utf-8")
    assert source(opened[name].script) in page and "http://" not in page and "https://" not in page
    assert page.count("</script>") == 2


def test_the_player_has_a_saying_for_every_state():
    script = views.DecodePlayer.script.read_text(encoding="utf-8")
    sayings = script.partition("const sayings = {\n")[2].partition("};")[0]
    assert tuple(re.findall(r'^ {6}"?([a-z][a-z ]*)"?:', sayings, flags=re.MULTILINE)) == STATES


@pytest.mark.parametrize("name", WIDGETS)
def test_modules_are_plain_and_shared_by_concatenation(name):
    script = HERE / name / f"{name}.js"
    shared, own = (file.read_text(encoding="utf-8") for file in (HERE / SHARED, script))
    assert source(script) == shared + own.split('from "../lab.js";\n')[1]
    assert own.count("import ") == 1 and "import " not in shared
