"""The drawn world's reader, grammar, editors and judge: right where nothing is wrong, wrong as they should be."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from editmgt_lab.crisp.assure.rules import load_bounds
from editmgt_lab.crisp.curate.decode import header_size
from editmgt_lab.crisp.drawn.choose import main as choose
from editmgt_lab.crisp.drawn.editors import DONE, FAULTS, DrawnEditor, ManyFaults
from editmgt_lab.crisp.drawn.grammar import ROUNDS, ask, ask_in_vain, understand
from editmgt_lab.crisp.drawn.models import DrawnDescriber, DrawnJudge, DrawnWriter
from editmgt_lab.crisp.drawn.pictures import GOOD, SPOILED, draw, spoiled
from editmgt_lab.crisp.drawn.reader import caption_of, read_drawn, scene_of
from editmgt_lab.crisp.drawn.truth import instruction_is_valid, truth_of
from editmgt_lab.crisp.instruct.captions import CAPTION_SCHEMA, REQUEST_SCHEMA, Caption, Request
from editmgt_lab.crisp.instruct.checks import broken_before
from editmgt_lab.crisp.instruct.variety import variety
from editmgt_lab.crisp.models.client import checked
from editmgt_lab.errors import DataError, ImageError, SettingError, TextError
from editmgt_lab.world import CATEGORIES, STYLES, Item, Scene, render, sample_edit, sample_scene


def same(one, other):
    return set(one.items) == set(other.items) and (one.background, one.style) == (other.background, other.style)


@pytest.mark.parametrize("size", [64, 128])
def test_a_drawing_is_read_exactly(size):
    scenes = [sample_scene(i, split="validation") for i in range(12)]
    readings = [read_drawn(render(scene, size)) for scene in scenes]
    assert sum(same(each.scene, scene) for each, scene in zip(readings, scenes, strict=True)) >= 11
    assert max(each.unexplained for each in readings) < 0.03


@pytest.mark.parametrize("style", STYLES)
def test_a_drawing_in_a_style_is_read(style):
    for number in range(2):
        scene = replace(sample_scene(number, split="validation"), style=style)
        found = read_drawn(render(scene, 64)).scene
        assert (found.background, found.style) == (scene.background, style)
        assert {(item.kind, item.place) for item in found.items} == {(item.kind, item.place) for item in scene.items}


def test_what_is_not_drawn_is_not_read():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    with pytest.raises(DataError, match="no background of the drawn world"):
        read_drawn(Image.fromarray(noise))


def test_a_caption_is_a_scene_and_back_in_its_schema():
    for number in range(20):
        scene = sample_scene(number)
        text = caption_of(scene).to_json()
        assert same(scene_of(Caption.of(checked(text, CAPTION_SCHEMA))), scene)
    thing = replace(caption_of(scene).things[0], name="unicorn")
    with pytest.raises(DataError, match="not of the drawn world"):
        scene_of(Caption("snow", (thing,)))
    with pytest.raises(DataError, match="not of the drawn world"):
        scene_of(Caption("moon"))


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_instruction_of_the_world_is_understood(split):
    for number in range(150):
        sample = sample_edit(number, split=split, size=32)
        asked = understand(sample.instruction, sample.source_scene)
        assert asked.category == sample.category and same(asked.after, sample.target_scene), sample.instruction


def test_what_is_written_is_understood_in_every_round():
    for number in range(30):
        scene, category = sample_scene(number), CATEGORIES[number % 7]
        rounds = [ask(scene, category, random.Random(number), refined) for refined in range(len(ROUNDS))]
        for text, asked in rounds:
            assert asked.category == category and not same(asked.after, scene)
            assert same(understand(text, scene).after, rounds[0][1].after)
        if category in ("remove", "replace", "color", "motion"):
            assert len(rounds[0][0].split()) < len(rounds[2][0].split())


def test_what_makes_no_sense_is_not_understood():
    scene = Scene("snow", (Item("ball", "red", "top left"), Item("cup", "blue", "top")))
    for text, said in [
        ("remove the kite", "there is no kite"),
        ("remove the blue ball", "there is no blue ball"),
        ("add a green tree at the top", "something stands at the top already"),
        ("move the cup above the ball", "there is no place above the ball"),
        ("move the cup to the left of the kite", "there is no kite"),
        ("sing a song", "none of the drawn world's phrasings"),
    ]:
        with pytest.raises(TextError, match=said):
            understand(text, scene)
    assert understand("Make the red ball at the top left green.", scene).after.items[0].colour == "green"
    assert not instruction_is_valid("make the ball red", scene)  # it is so already
    with pytest.raises(TextError, match="no edits of the category"):
        ask(scene, "zoom", random.Random(0))


def test_careless_instructions_are_found_before_they_cost_anything():
    for number in range(28):
        scene, category = sample_scene(number), CATEGORIES[number % 7]
        caption = caption_of(scene)
        for text, asked in (
            ask_in_vain(scene, category, random.Random(number)),
            ask(scene, category, random.Random(1)),
        ):
            request = Request(asked.category, text, asked.thing, caption_of(asked.after))
            assert Request.of(checked(request.to_json(), REQUEST_SCHEMA)) == request
            assert (not broken_before(caption, request)) == instruction_is_valid(text, scene), text


def test_each_check_before_the_edit_finds_its_own():
    scene = sample_scene(3)
    caption = caption_of(scene)
    text, asked = ask(scene, "remove", random.Random(0))
    good = Request("remove", text, asked.thing, caption_of(asked.after))
    assert broken_before(caption, good) == []
    for wrong, said in [
        (replace(good, instruction="移除球"), "another script"),
        (replace(good, instruction="  "), "empty"),
        (replace(good, instruction="remove " * 61), "too long"),
        (replace(good, category="zoom"), "unknown category"),
        (replace(good, thing="unicorn"), "not there"),
        (replace(good, target=caption), "so already"),
        (replace(good, category="add"), "another edit than the category's"),
        (replace(good, target=replace(good.target, background="moon")), "another edit than the category's"),
    ]:
        assert said in " ".join(verdict.rule for verdict in broken_before(caption, wrong)), said


def test_every_kind_of_picture_is_drawn_at_every_size():
    scene = sample_scene(0)
    for size, narrow in ((64, (256, 64)), (256, (1024, 256)), (512, (1024, 256)), (1024, (1024, 256))):
        drawn = {kind: spoiled(scene, kind, size, random.Random(0)) for kind in (GOOD, *SPOILED)}
        assert header_size(drawn[GOOD]) == (size, size) and header_size(drawn["narrow"]) == narrow
    with pytest.raises(SettingError, match="size=1040"):
        spoiled(scene, GOOD, 1040, random.Random(0))


@pytest.mark.parametrize("size", [(70, 70), (20, 20), (65, 64)])
def test_the_truth_is_told_at_sizes_that_are_not_drawn(size):
    for scene, picture, text, seed in edits(5):
        made = [DrawnEditor(fault).edit(picture, text, seed) for fault in (DONE, "nothing")]
        good, bad = (truth_of(text, scene, picture.resize(size), each.resize(size)) for each in made)
        assert good.valid and bad.valid and good.score > bad.score + 5 and not bad.good


def test_bounds_are_chosen_of_the_pictures_that_were_asked_for(tmp_path, capsys):
    """Also where more of them lie in the folder from an earlier time."""
    arguments = ["--output", str(tmp_path), "--size", "64", "--careless", "0"]
    for count in ("12", "8"):
        assert choose([*arguments, "--count", count, "--shard", "1"]) == 0
    assert len(json.loads((tmp_path / "shards" / "manifest.json").read_text())[0]["shards"]) == 8
    assert load_bounds(tmp_path / "clip_bounds.json")
    for wrong, said in (
        (["--count", "0"], "count is 0"),
        ([str(tmp_path)], "is not known"),
        (["--until", "curate"], "--until is not heard"),
        (["--clip", "none"], "--clip none is not heard"),
        (["--count", "2", "--editor", "drawn"], "no bound can be chosen"),
    ):
        assert choose([*arguments, *wrong]) == 2
        assert said in capsys.readouterr().err


def test_pictures_of_another_world_are_drawn_anew(tmp_path):
    """By the line that says what each is; one that comes out the same keeps its time."""
    asked, truth = {"split": "validation", "size": 64, "progress": False}, tmp_path / "truth.jsonl"

    def drawn(count=6, **other):
        place = draw(tmp_path, count, **asked | other)
        return [(path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(place.iterdir())]

    first = drawn()
    assert drawn() == first and drawn(8)[:6] == first and drawn(6)[:6] == first and drawn(8)[:6] == first
    (tmp_path / "pictures" / "00000001.png").write_bytes(b"of other code")
    assert drawn(6)[1][1] == b"of other code", "which nobody tells"
    truth.write_text(truth.read_text().replace('"code": "', '"code": "other '))
    again = drawn(6)
    assert [content for _, content in again[:6]] == [content for _, content in first]
    assert [number for number in range(6) if again[number] != first[number]] == [1]
    assert not {*drawn(6, size=128)[:6]} & {*first}


def edits(count):
    for number in range(count):
        scene, category = sample_scene(number, split="validation"), CATEGORIES[number % 7]
        yield scene, render(scene, 64), ask(scene, category, random.Random(number), number % 3)[0], number


def test_without_a_fault_edits_are_good_and_with_one_they_are_not():
    good = dict.fromkeys((DONE, *FAULTS), 0)
    for scene, picture, text, seed in edits(14):
        for fault in good:
            output = DrawnEditor(fault).edit(picture, text, seed)
            assert output.size == picture.size and output.mode == "RGB"
            good[fault] += truth_of(text, scene, picture, output).good
    assert good[DONE] == 14
    assert good["nothing"] == good["drift"] == good["half done"] == 0
    assert good["shift"] <= 1  # a calm background may be moved and nobody sees it
    assert good["wrong object"] <= 1
    assert good["neighbour"] <= 3 and good["bleed"] <= 5  # where there is no neighbour nothing can go wrong


def test_faults_do_what_they_are_called():
    scene, picture, text, seed = next(iter(edits(1)))
    whole = np.asarray(DrawnEditor().edit(picture, text, seed), np.float32)
    source = np.asarray(picture, np.float32)
    made = {fault: np.asarray(DrawnEditor(fault).edit(picture, text, seed), np.float32) for fault in FAULTS}
    assert (made["nothing"] == source).all()
    assert np.abs(made["half done"] - (0.6 * source + 0.4 * whole)).max() <= 1
    assert np.abs(np.abs(made["drift"] - whole)[whole < 230].mean() - 255 * 0.08) < 2
    asked = understand(text, scene).after
    changed = next(item for item in (*asked.items, *scene.items) if (item in asked.items) != (item in scene.items))
    one = replace(asked, items=tuple(replace(item, colour=changed.colour) for item in asked.items))
    bled = np.asarray(render(one, 64), np.float32)
    assert np.abs(made["bleed"] - bled).mean() < 1 < np.abs(whole - bled).mean(), "another object of another colour"
    moved = [np.roll(whole, step, axis) for axis in (0, 1) for step in (3, -3)]
    assert min(np.abs(made["shift"] - each)[4:-4, 4:-4].max() for each in moved) == 0
    assert np.abs(np.asarray(DrawnEditor("drift", 0.2).edit(picture, text, seed)) - whole).mean() > 30


def test_an_edit_is_the_same_for_the_same_seed_and_says_what_it_cannot():
    _, picture, text, _ = next(iter(edits(1)))
    editor = ManyFaults()
    assert editor.edit(picture, text, 3).tobytes() == editor.edit(picture, text, 3).tobytes()
    assert len({editor.fault(text, seed) for seed in range(200)}) == len(editor.shares)
    with pytest.raises(ImageError, match="a square"):
        editor.edit(picture.resize((64, 48)), text, 0)
    with pytest.raises(SettingError, match="unknown fault"):
        DrawnEditor("sneeze")
    with pytest.raises(SettingError, match="add up to"):
        ManyFaults({"none": 0.5})
    with pytest.raises(SettingError, match="unknown faults sneeze"):
        ManyFaults({"none": 0.5, "sneeze": 0.5})


def test_the_judge_prefers_the_better_edit():
    judge, won, tried = DrawnJudge(), 0, 0
    for scene, picture, text, seed in edits(14):
        asked = understand(text, scene)
        request = Request(asked.category, text, asked.thing, caption_of(asked.after))
        made = [DrawnEditor(fault).edit(picture, text, seed) for fault in (DONE, tuple(FAULTS)[seed % len(FAULTS)])]
        if made[0].tobytes() == made[1].tobytes():
            continue  # a fault that this scene does not show
        whole, spoiled = (judge.judge(picture, each, caption_of(scene), request) for each in made)
        tried += 1
        assert 0 <= spoiled.overall <= 10
        won += whole.overall > spoiled.overall
    assert tried >= 12 and won >= tried - 1


def test_the_writer_keeps_its_rounds_and_its_seed():
    caption = DrawnDescriber().describe(render(sample_scene(1), 64))
    writer = DrawnWriter(careless=0.0)
    written = writer.write(caption, 3, seed=5)
    assert written == writer.write(caption, 3, seed=5) != writer.write(caption, 3, seed=6)
    assert len({rounds[0].category for rounds in written}) == 3 and all(len(rounds) == 3 for rounds in written)
    assert [rounds[0].category for rounds in DrawnWriter(("style",)).write(caption, 3, 0)] == ["style"]
    for wrong in ({"categories": ("zoom",)}, {"rounds": 9}, {"careless": 2.0}):
        with pytest.raises(SettingError):
            DrawnWriter(**wrong)


def test_refining_raises_length_and_verbs():
    writer = DrawnWriter(careless=0.0)
    rounds = [[], [], []]
    for number in range(60):
        for made in writer.write(caption_of(sample_scene(number)), 1, number):
            for texts, request in zip(rounds, made, strict=True):
                texts.append(request.instruction)
    told = [variety(texts) for texts in rounds]
    assert told[0]["length"] < told[1]["length"] < told[2]["length"]
    assert told[0]["verbs"] < told[1]["verbs"] and told[0]["distinct_2"] < told[1]["distinct_2"]


def test_variety_counts():
    told = variety(["remove the cat", "remove the cat", "paint the red dog blue"])
    assert told["length"] == pytest.approx(11 / 3) and told["verbs"] == 2
    assert told["distinct_1"] == pytest.approx(7 / 11) and told["distinct_2"] == pytest.approx(6 / 8)
    assert variety(["a b", "a b"])["spread"] == pytest.approx(0) and variety(["a b", "c d"])["spread"] == pytest.approx(
        1
    )
    same_vector = variety(["a b", "c d"], embed=lambda texts: np.ones((len(texts), 3)))
    assert same_vector["spread"] == pytest.approx(0) and np.isnan(variety(["x"])["spread"])
