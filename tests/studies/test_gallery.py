"""The gallery: chosen by rule, successes beside failures, on a page that needs no other file."""

from __future__ import annotations

import re
import shutil

import pytest
from PIL import Image

import editmgt_lab as lab
from editmgt_lab.basics.fingerprints import weights_fingerprint
from editmgt_lab.errors import SettingError
from editmgt_lab.images import to_tensor
from editmgt_lab.metrics.truth import Scores
from editmgt_lab.studies.gallery import Gallery, Shown, collect, main, spread

SETTINGS = {"split": "made up", "count": 9, "seed": 0, "hold_threshold": 0.1, "steps": 1, "guidance_scale": 5.0,
            "token_temperature": 0.5}  # fmt: skip


def shown(number, score, leaked=0.0):
    pictures = tuple(Image.new("RGB", (8, 8), (number, i, 0)) for i in range(4))
    scores = Scores(score, leaked, float(score >= 5 and leaked <= 0.02))
    return Shown("add", number, f"add <{number}> & more", pictures, Scores(0.0, 0.1, 0.0), scores)


def test_those_at_equal_distances_are_shown():
    assert spread(range(9), 1) == [4] and spread(range(9), 2) == [3, 6] and spread(range(1), 2) == [0]
    assert spread([], 2) == [] and spread(range(2), 5) == [0, 1]


def test_successes_and_failures_are_put_in_order_of_their_score():
    edits = [shown(0, 6), shown(1, 9), shown(2, 7), shown(3, 1), shown(4, 8, leaked=0.5), shown(5, 3)]
    done, failed = Gallery(SETTINGS, {"add": edits}, lines=1).chosen("add")
    assert [each.number for each in done] == [2] and [each.number for each in failed] == [5]


def test_the_page_holds_every_picture_and_escapes_words():
    gallery = Gallery(SETTINGS, {"add": [shown(0, 6), shown(1, 1)], "remove": [shown(2, 1)]}, lines=2)
    page = gallery.html()
    assert "1 steps, guidance scale 5, token temperature 0.5, seed 0</h1>" in page and "ships" not in page
    assert page.count("data:image/png;base64,") == 3 * 4 and "add &lt;1&gt; &amp; more" in page
    assert not re.search(r'(src|href)="(?!data:)', page) and "1 of 2 succeed" in page and "none" in page
    figure = gallery.figure()
    assert sum(len(part.axes) for line in figure.subfigs for part in [line]) == 3 * 4


def test_the_edits_are_the_editors_own(editor):
    asked = {"steps": 2, "guidance_scale": 2.0}
    gallery = collect(editor, split="validation", count=2, batch=2, seed=5, progress=False, **asked)
    assert gallery.settings.items() >= asked.items()
    assert set(gallery.edits) <= set(lab.world.CATEGORIES) and len(gallery.edits) >= 5
    for each in (gallery.edits["add"][-1], gallery.edits["style"][0]):
        sample = lab.world.sample_edit(each.number, split="validation", category=each.category, size=32)
        assert each.instruction == sample.instruction
        options = {"seed": 5 + each.number, **asked}
        for made, threshold in ((each.pictures[1], 0.0), (each.pictures[2], None)):
            plain = editor.edit(sample.source, sample.instruction, hold_threshold=threshold, **options).image
            assert (to_tensor(made) - to_tensor(plain)).abs().max() <= 2 / 255
    with pytest.raises(SettingError, match="lines"):
        collect(editor, lines=0)


@pytest.fixture
def three_steps(tiny_folder, tmp_path):
    folder = tmp_path / "three"
    shutil.copytree(tiny_folder, folder)
    lab.load(folder).with_defaults(steps=3).defaults.write(folder)
    return folder


def test_the_page_says_whose_edits_it_shows_in_the_models_own_steps(three_steps, tmp_path):
    assert main(["--model", str(three_steps), "--count", "1", "--output", str(tmp_path / "new")]) == 0
    page = (tmp_path / "new" / "gallery.html").read_text(encoding="utf-8")
    weights = weights_fingerprint(lab.load(three_steps))
    own = lab.load(three_steps).defaults
    decoded = f"guidance scale {own.guidance_scale:g}, token temperature {own.token_temperature:g}"
    assert f"3 steps, {decoded}, seed 0, by {three_steps} (weights {weights})" in page


def test_command(tiny_folder, tmp_path, capsys):
    arguments = ["--model", str(tiny_folder), "--split", "validation", "--count", "2", "--steps", "1"]
    assert main([*arguments, "--lines", "1", "--output", str(tmp_path / "new")]) == 0
    assert "add: 0 of 2 succeed" in capsys.readouterr().out
    page = (tmp_path / "new" / "gallery.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 4 * page.count("<h2>"), "one of the two failures"
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"gallery.html", "gallery.png"}
    assert main([*arguments, "--count", "0"]) == 2 and "count" in capsys.readouterr().err
