import re
from collections import Counter
from functools import lru_cache

import numpy as np
import pytest

from editmgt_lab import world
from editmgt_lab.errors import SettingError
from editmgt_lab.world import samples as sample_pictures
from editmgt_lab.world.edits import RELATIONS
from editmgt_lab.world.scenes import PARTS

HELD_OUT = set(world.HELD_OUT_PAIRS)
SLOTS = {
    "old": world.KINDS,
    "kind": world.KINDS,
    "colour": world.COLOURS,
    "place": world.PLACES,
    "background": world.BACKGROUNDS,
    "style": world.STYLES,
    "where": [f"at the {place}" for place in world.PLACES],
    "goal": [f"to the {place}" for place in world.PLACES],
}
BESIDE = [f"{relation} the {kind}" for relation in RELATIONS.values() for kind in world.KINDS]
SLOTS |= {slot: SLOTS[slot] + BESIDE for slot in ("where", "goal")}


@lru_cache
def samples(split):
    return [world.sample_edit(seed, split=split, size=64) for seed in range(300 if split == "test" else 150)]


def read(phrasing, instruction):
    """The words that fill a phrasing to give the instruction, or None."""
    pattern = re.sub(r"\ba\b", "an?", phrasing)
    pattern = re.sub(r"{(\w+)}", lambda slot: f"(?P<{slot[1]}>{'|'.join(SLOTS[slot[1]])})", pattern)
    match = re.fullmatch(pattern, instruction)
    return match and match.groupdict()


def shown(sample):
    """Every (kind, colour) pair of both pictures."""
    return {(item.kind, item.colour) for scene in (sample.source_scene, sample.target_scene) for item in scene.items}


def named_place(where, scene):
    """The place that "at the top left" or "above the car" means in a scene."""
    if where not in BESIDE:
        return where.split(" the ")[1]
    relation, kind = where.rsplit(" the ", 1)
    row, column = next(divmod(world.PLACES.index(item.place), 3) for item in scene.items if item.kind == kind)
    down, right = next(offset for offset, name in RELATIONS.items() if name == relation)
    assert 0 <= row + down < 3 and 0 <= column + right < 3
    return world.PLACES[3 * (row + down) + column + right]


def words(text):
    return text.replace(",", " ,").split()


def test_the_world_is_as_large_as_promised():
    assert len(world.KINDS) >= 20 and len(world.COLOURS) >= 8 and len(world.PLACES) == 9
    assert len(world.BACKGROUNDS) >= 8 and len(world.STYLES) >= 6
    pairs = set(world.TRAIN_PAIRS)
    assert not pairs & HELD_OUT and len(pairs | HELD_OUT) == len(world.KINDS) * len(world.COLOURS)
    assert 0.08 <= len(HELD_OUT) / len(pairs | HELD_OUT) <= 0.12
    names = [*world.KINDS, *world.COLOURS, *world.BACKGROUNDS, *world.STYLES]
    assert len(set(names)) == len(names), "one word names one thing"


def test_categories_are_the_published_ones_and_all_reachable():
    assert world.CATEGORIES == ("add", "replace", "remove", "color", "background", "style", "motion")
    for category in world.CATEGORIES:
        assert world.sample_edit(0, category=category).category == category


def test_proportions_are_the_published_ones():
    drawn = Counter(world.sample_edit(seed, size=64).category for seed in range(800))
    total = sum(world.PROPORTIONS.values())
    for category, weight in world.PROPORTIONS.items():
        assert drawn[category] / 800 == pytest.approx(weight / total, abs=0.04)


def test_a_seed_gives_the_same_sample_and_another_split_another():
    one, again, other = (world.sample_edit(7, split=split) for split in ("train", "train", "test"))
    assert one.instruction == again.instruction
    assert (one.source_scene, one.target_scene) == (again.source_scene, again.target_scene)
    assert one.source.tobytes() == again.source.tobytes() and one.mask.tobytes() == again.mask.tobytes()
    assert one.source_scene != other.source_scene
    assert world.sample_scene(7) == world.sample_scene(7) != world.sample_scene(7, split="test")


def test_splits_share_no_edit():
    edits = {split: {(s.source_scene, s.target_scene) for s in samples(split)} for split in world.SPLITS}
    assert all(len(found) > 145 for found in edits.values())
    assert not (edits["train"] & edits["validation"] or (edits["train"] | edits["validation"]) & edits["test"])


@pytest.mark.parametrize("split", ["train", "validation"])
def test_only_the_test_split_shows_held_out_pairs_and_phrasings(split):
    for sample in samples(split):
        assert not shown(sample) & HELD_OUT
        assert any(read(phrasing, sample.instruction) for phrasing in world.PHRASINGS[sample.category])
        assert not any(read(phrasing, sample.instruction) for phrasing in world.HELD_OUT_PHRASINGS[sample.category])
    for seed in range(200):
        assert not {(item.kind, item.colour) for item in world.sample_scene(seed, split=split).items} & HELD_OUT


def test_three_test_samples_in_ten_are_held_out():
    paired = [sample for sample in samples("test") if sample.category not in ("background", "style")]
    assert np.mean([bool(shown(sample) & HELD_OUT) for sample in paired]) == pytest.approx(0.3, abs=0.1)
    rare = [any(read(p, s.instruction) for p in world.HELD_OUT_PHRASINGS[s.category]) for s in samples("test")]
    assert np.mean(rare) == pytest.approx(0.3, abs=0.1)


def test_held_out_phrasings_use_only_words_of_the_others():
    known = {word for phrasings in world.PHRASINGS.values() for phrasing in phrasings for word in phrasing.split()}
    for category in world.CATEGORIES:
        assert len(world.PHRASINGS[category]) >= 5 and len(world.HELD_OUT_PHRASINGS[category]) >= 1
        assert {word for phrasing in world.HELD_OUT_PHRASINGS[category] for word in phrasing.split()} <= known


@pytest.mark.parametrize("split", world.SPLITS)
def test_the_instruction_says_what_was_done(split):
    for sample in samples(split):
        before, after = sample.source_scene, sample.target_scene
        phrasings = world.PHRASINGS[sample.category] + world.HELD_OUT_PHRASINGS[sample.category]
        said = next(found for phrasing in phrasings if (found := read(phrasing, sample.instruction)))
        gone, come = set(before.items) - set(after.items), set(after.items) - set(before.items)
        if "old" in said:
            assert [item.kind for item in gone] == [said["old"]]
        for item in come:
            assert item.colour == said.get("colour", item.colour) and item.kind == said.get("kind", item.kind)
            assert item.place == said.get("place", item.place)
            where = said.get("where") or said.get("goal")
            assert where is None or named_place(where, before) == item.place
        assert after.background == said.get("background", before.background) and after.style == said.get("style")
        counts = {"add": (0, 1), "remove": (1, 0), "background": (0, 0), "style": (0, 0)}
        assert (len(gone), len(come)) == counts.get(sample.category, (1, 1))
        if sample.category in ("replace", "color"):
            assert [item.box for item in gone] == [item.box for item in come]
        if sample.category in ("add", "motion"):
            assert [item.start for item in come] == [(0, 0)]
            assert all(item.place in before.empty_places for item in come)


def test_items_stay_inside_and_hide_little_of_each_other():
    for seed in range(300):
        items = world.sample_scene(seed).items
        assert 1 <= len(items) <= 4 and len({item.kind for item in items}) == len(items)
        for i, one in enumerate(items):
            left, top, right, bottom = one.box
            assert 0 <= left < right <= 16 and 0 <= top < bottom <= 16
            assert left % 2 == top % 2 == 0, "on the grid of the network's positions"
            for other in items[:i]:
                wide = min(right, other.box[2]) - max(left, other.box[0])
                high = min(bottom, other.box[3]) - max(top, other.box[1])
                assert min(wide, high) <= 2, "neighbours overlap by at most two units"


@pytest.mark.parametrize("size", [64, 96])
def test_the_mask_covers_the_difference_and_little_else(size):
    for category in world.CATEGORIES:
        for seed in range(3):
            sample = world.sample_edit(seed, category=category, size=size)
            assert sample.source.size == sample.target.size == sample.mask.size == (size, size)
            assert (sample.source.mode, sample.mask.mode) == ("RGB", "L")
            source, target = (np.asarray(picture, np.int16) for picture in (sample.source, sample.target))
            mask = np.asarray(sample.mask)
            gap = np.abs(source - target).max(2)
            assert set(np.unique(mask)) <= {0, 255} and gap.max() > 30
            assert gap[mask == 0].max(initial=0) <= 4, "outside the mask nothing changes"
            if category not in ("background", "style"):
                touched = {item for scene in (sample.source_scene, sample.target_scene) for item in scene.items}
                touched -= set(sample.source_scene.items) & set(sample.target_scene.items)
                near = np.zeros((size, size), bool)
                for left, top, right, bottom in (np.array(item.box) * size // 16 for item in touched):
                    near[max(top - 2, 0) : bottom + 2, max(left - 2, 0) : right + 2] = True
                assert not mask[~near].any(), "the edit stays in the boxes that it touches"


def drawn(background, *items):
    return np.asarray(world.render(world.Scene(background, items), 64), np.int16)


def test_every_object_is_mostly_its_colour():
    plain = drawn("snow")
    for kind in world.KINDS:
        red, blue = (drawn("snow", world.Item(kind, colour, "center")) for colour in ("red", "blue"))
        covered, recoloured = np.abs(red - plain).max(2) > 40, np.abs(red - blue).max(2) > 40
        assert (recoloured & covered).sum() > 0.45 * covered.sum(), kind


def test_every_colour_can_be_seen_on_every_background():
    for background in world.BACKGROUNDS:
        for colour in world.COLOURS:
            gap = np.abs(drawn(background, world.Item("heart", colour, "center")) - drawn(background)).max(2)
            enough = 30 if (background, colour) == ("snow", "white") else 120  # white on snow: the rim alone
            assert (gap > 40).sum() > enough, (background, colour)


def test_backgrounds_and_styles_differ_from_each_other():
    item = world.Item("cat", "orange", "center")
    plain = [np.asarray(world.render(world.Scene(name, (item,)), 64), float) for name in world.BACKGROUNDS]
    scenes = [world.Scene("meadow", (item,), name) for name in (None, *world.STYLES)]
    styled = [np.asarray(world.render(scene, 64), float) for scene in scenes]
    for pictures in (plain, styled):
        for i, one in enumerate(pictures):
            assert all(np.abs(one - other).mean() > 12 for other in pictures[:i])


def test_places_are_also_named_by_what_stands_beside_them():
    drawn = [world.sample_edit(seed, category="add", size=64).instruction for seed in range(120)]
    related = [text for text in drawn if any(beside in text for beside in BESIDE)]
    assert 0.1 < len(related) / len(drawn) < 0.4
    assert all(any(f"{relation} the " in text for text in related) for relation in RELATIONS.values())


def test_captions_name_the_whole_scene():
    items = (world.Item("house", "blue", "center"), world.Item("ball", "red", "top left", "big"))
    scene = world.Scene("snow", items)
    assert world.caption(scene) == "snow, big red ball top left, blue house center"
    assert world.caption(world.Scene("snow", items[:1], "sepia")) == "sepia, snow, blue house center"


def test_phrases_hold_every_word():
    known = {word for sentence in world.phrases() for word in words(sentence)}
    for sample in samples("test"):
        for text in (sample.instruction, sample.source_caption, sample.target_caption):
            assert set(words(text)) <= known and text == text.lower()
        assert len(sample.instruction.split()) <= 16
        assert max(len(words(sample.source_caption)), len(words(sample.target_caption))) <= 28
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", sample.instruction)
    assert known >= {*world.KINDS, *world.COLOURS, *world.BACKGROUNDS, *world.STYLES, *" ".join(world.PLACES).split()}


@pytest.mark.parametrize(
    "setting", [{"split": "training"}, {"category": "colour"}, {"size": 60}, {"size": 0}, {"seed": -1}, {"seed": 0.5}]
)
def test_wrong_settings_say_what_is_expected(setting):
    with pytest.raises(SettingError, match=r"expected: .+\n +to do:"):
        world.sample_edit(**{"seed": 0, **setting})


def test_the_label_map_says_what_stands_where():
    fish = world.Item("fish", "blue", "top left", "big")
    cat = world.Item("cat", "red", "bottom right")
    scene = world.Scene("snow", (fish, cat))
    kinds, colours, parts = world.label_map(scene)
    names = (*world.KINDS, *world.BACKGROUNDS)
    assert {names[kind] for kind in np.unique(kinds)} == {"fish", "cat", "snow"}
    for item in (fish, cat):
        left, top, right, bottom = item.box
        here = kinds == world.KINDS.index(item.kind)
        assert here[top:bottom, left:right].mean() > 0.3 and here.sum() == here[top:bottom, left:right].sum()
        assert (colours[here] == list(world.COLOURS).index(item.colour)).all()
        units = (right - left) ** 2
        assert np.unique(parts[top:bottom, left:right]).size == units, "each unit of a box is a part of its own"
    assert (parts < PARTS).sum() == sum((i.box[2] - i.box[0]) ** 2 for i in (fish, cat))
    assert (colours[kinds == names.index("snow")] == len(world.COLOURS)).all()
    plain, drawn = (np.asarray(world.render(s, 64), np.int16) for s in (world.Scene("snow", ()), scene))
    differs = (np.abs(plain - drawn).max(2) > 40).reshape(16, 4, 16, 4).mean((1, 3)) > 0.5
    assert (differs == (kinds < len(world.KINDS))).mean() > 0.97, "as the picture shows it"


@pytest.mark.parametrize(
    ("make", "unknown", "known"),
    [
        (lambda: world.Item("dragon", "red", "top"), "kind 'dragon'", "cactus"),
        (lambda: world.Item(["cat"], "red", "top"), r"kind \['cat'\]", "ball"),
        (lambda: world.Item("cat", "beige", "top"), "colour 'beige'", "pink"),
        (lambda: world.Item("cat", "red", "middle"), "place 'middle'", "center"),
        (lambda: world.Item("cat", "red", "top", "huge"), "size 'huge'", "medium"),
        (lambda: world.Scene("moon", ()), "background 'moon'", "meadow"),
        (lambda: world.Scene("snow", (), "cubist"), "style 'cubist'", "blueprint"),
    ],
)
def test_a_scene_is_made_of_what_the_pen_knows(make, unknown, known):
    with pytest.raises(SettingError, match=rf"(?s)unknown {unknown}.*expected: .*'{known}'.*to do:"):
        make()


@pytest.mark.parametrize("start", [(5, 0), "00", (-1, 0), (0,), (0, 0, 0), [0, 0], None])
def test_an_item_starts_where_its_place_lets_it(start):
    with pytest.raises(SettingError, match="a small object top left has no start"):
        world.Item("cat", "red", "top left", "small", start)
    assert world.Item("cat", "red", "top left", "small", (1, 0)).box == (2, 0, 6, 4)


def test_a_size_may_be_numpys():
    scene = world.sample_scene(0)
    assert world.render(scene, np.int64(64)).tobytes() == world.render(scene, 64).tobytes()
    for size in (64.0, "64", True, np.int64(60)):
        with pytest.raises(SettingError, match="is not a size"):
            world.render(scene, size)


def test_the_command_of_the_samples_makes_no_folder_of_an_option(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sample_pictures, "SAMPLES", sample_pictures.SAMPLES[:1])
    monkeypatch.setattr(sample_pictures, "SIZE", 64)
    with pytest.raises(SystemExit):
        sample_pictures.main(["--help"])
    assert not [*tmp_path.iterdir()]
    (tmp_path / "file").touch()
    assert sample_pictures.main(["file"]) == 2 and "cannot be written" in capsys.readouterr().err
    assert sample_pictures.main(["deep/folder"]) == 0
    assert sorted(path.name for path in (tmp_path / "deep/folder").iterdir()) == ["edits.json", "fish_and_star.png"]
