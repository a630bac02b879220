"""The judge of drawn scenes, on pictures whose truth is known, and the check of text to image on a random editor."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image, ImageFilter

from editmgt_lab.errors import SettingError
from editmgt_lab.metrics import judge, read_scene
from editmgt_lab.studies.captions import GENERATED, MEASURES, RENDERS, check_captions, compare, main, measures
from editmgt_lab.world import COLOURS, KINDS, PLACES, SIZES, Item, Scene, render, sample_scene
from editmgt_lab.world.scenes import STARTS

SCENES = [sample_scene(seed, split="test") for seed in range(25)]


def truth(scene):
    return {item.place: (item.kind, item.colour) for item in scene.items}


@pytest.mark.parametrize("size", [64, 128])
def test_the_judge_reads_true_renders_without_error(size):
    assert all(read_scene(render(scene, size), scene.background) == truth(scene) for scene in SCENES)


def test_the_judge_tells_every_kind_and_colour_apart():
    pairs = [(kind, colour) for i, kind in enumerate(KINDS) for colour in (list(COLOURS)[i % 8], "white")]
    for i, (kind, colour) in enumerate(pairs):
        scene = Scene("snow", (Item(kind, colour, PLACES[i % 9], ("small", "medium", "big")[i % 3]),))
        assert read_scene(render(scene, 64), "snow") == truth(scene)


def test_the_judge_reads_through_blur_noise_and_a_colour_cast():
    rng, right = np.random.default_rng(0), 0
    for scene in SCENES:
        picture = render(scene, 64).filter(ImageFilter.GaussianBlur(1))
        spoilt = np.asarray(picture, float) * [0.95, 1, 0.95] + rng.normal(0, 8, (64, 64, 3))
        spoilt = Image.fromarray(spoilt.clip(0, 255).astype(np.uint8))
        right += read_scene(spoilt, scene.background) == truth(scene)
    assert right >= 24


def test_the_judge_finds_nothing_on_a_bare_background_and_says_no_to_another_scene():
    assert all(read_scene(render(Scene(scene.background, ()), 64), scene.background) == {} for scene in SCENES)
    verdicts = [compare(truth(a), b) for a, b in zip(SCENES, SCENES[1:], strict=False)]
    assert not any(verdict["scenes"][0] for verdict in verdicts), "the control must fail"


def test_gains_are_those_of_drawing_each_object():
    objects = judge.Objects.of_size("small")
    canvas, seen = np.random.default_rng(1).random((2, 2, 16, 16, 3), dtype=np.float32)
    gain = judge.gains(objects, canvas, seen)
    assert gain.shape == (192, 2)
    for pair in (0, 77):
        drawn = canvas[1] * objects.behind[pair] + objects.colour[pair]
        expected = ((canvas[1] - seen[1]) ** 2).sum() - ((drawn - seen[1]) ** 2).sum()
        assert gain[pair, 1] == pytest.approx(expected, abs=1e-2)


def test_the_judge_looks_wherever_the_world_puts_an_object_and_nowhere_else():
    windows = [window for size in SIZES for window in judge.Objects.of_size(size).windows]
    boxes = {(w.place, w.columns.start, w.rows.start, w.columns.stop, w.rows.stop) for w in windows}
    used = {(item.place, *(4 * edge for edge in item.box)) for i in range(600) for item in sample_scene(i).items}
    assert used == boxes and len(boxes) == sum(sum(map(len, lines)) ** 2 for lines in STARTS.values())


def test_what_is_right_in_a_scene():
    scene = Scene("sea", (Item("cat", "red", "top"), Item("car", "blue", "left"), Item("cup", "pink", "right")))
    found = {"top": ("cat", "red"), "left": ("car", "green"), "center": ("bell", "white")}
    verdict = compare(found, scene)
    assert verdict == {
        "places": [True, True, False],
        "kinds": [True, True, False],
        "colours": [True, False, False],
        "items": [True, False, False],
        "extras": [True],
        "scenes": [False],
    }
    right = compare(truth(scene), scene)
    assert right["scenes"] == [True] and right["extras"] == [False]
    assert compare(truth(scene) | {"center": ("bell", "white")}, scene)["scenes"] == [False]
    shares = measures([verdict, right])
    assert shares["items"]["mean"] == pytest.approx(4 / 6) and shares["items"]["count"] == 6
    assert shares["scenes"]["mean"] == 0.5 and set(shares) == set(MEASURES)


def test_intervals_are_over_scenes_whose_items_depend_on_each_other():
    verdicts = [dict.fromkeys(MEASURES, [right] * 4) | {"scenes": [right]} for right in [True] * 4 + [False] * 6]
    shares = measures(verdicts)
    assert shares["items"] == shares["scenes"] | {"count": 40}


def test_check_of_captions(editor):
    result = check_captions(editor, count=3, steps=1, batch=2, progress=False)
    assert result["rows"][RENDERS]["scenes"]["count"] == 3 and result["settings"]["steps"] == 1
    assert result["rows"][GENERATED]["scenes"]["mean"] == 0, "a random model draws nothing"
    with pytest.raises(SettingError, match="count is 0"):
        check_captions(editor, count=0)


def test_steps_are_the_models_own_unless_said(editor):
    assert check_captions(editor.with_defaults(steps=3), count=1, progress=False)["settings"]["steps"] == 3


def test_command(tiny_folder, tmp_path, capsys):
    output = tmp_path / "new" / "captions.json"
    options = ["--model", str(tiny_folder), "--count", "2", "--steps", "1", "--output", str(output)]
    assert main(options) == 0
    printed, settings = capsys.readouterr().out, json.loads(output.read_text(encoding="utf-8"))["settings"]
    assert "scenes right" in printed and settings["count"] == 2 and settings["model"] == str(tiny_folder)
    assert len(settings["weights"]) == 16 and settings["weights"] in printed
    assert main(["--model", str(tmp_path / "nothing")]) == 2
