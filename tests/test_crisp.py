import re
from collections import Counter
from functools import lru_cache

import numpy as np
import pytest

from editmgt_lab import crisp
from editmgt_lab.crisp.edits import RELATIONS
from editmgt_lab.crisp.scenes import PARTS
from editmgt_lab.errors import SettingError

HELD_OUT = set(crisp.HELD_OUT_PAIRS)
SLOTS = {
    "old": crisp.KINDS,
    "kind": crisp.KINDS,
    "colour": crisp.COLOURS,
    "place": crisp.PLACES,
    "background": crisp.BACKGROUNDS,
    "style": crisp.STYLES,
    "where": [f"at the {place}" for place in crisp.PLACES],
    "goal": [f"to the {place}" for place in crisp.PLACES],
}
BESIDE = [f"{relation} the {kind}" for relation in RELATIONS.values() for kind in crisp.KINDS]
SLOTS |= {slot: SLOTS[slot] + BESIDE for slot in ("where", "goal")}


@lru_cache
def samples(split):
    return [crisp.sample_edit(seed, split=split) for seed in range(300 if split == "test" else 150)]


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
    row, column = next(divmod(crisp.PLACES.index(item.place), 3) for item in scene.items if item.kind == kind)
    down, right = next(offset for offset, name in RELATIONS.items() if name == relation)
    assert 0 <= row + down < 3 and 0 <= column + right < 3
    return crisp.PLACES[3 * (row + down) + column + right]


def words(text):
    return text.replace(",", " ,").split()


def test_the_world_is_as_large_as_promised():
    assert len(crisp.KINDS) >= 20 and len(crisp.COLOURS) >= 8 and len(crisp.PLACES) == 9
    assert len(crisp.BACKGROUNDS) >= 8 and len(crisp.STYLES) >= 6
    pairs = set(crisp.TRAIN_PAIRS)
    assert not pairs & HELD_OUT and len(pairs | HELD_OUT) == len(crisp.KINDS) * len(crisp.COLOURS)
    assert 0.08 <= len(HELD_OUT) / len(pairs | HELD_OUT) <= 0.12
    names = [*crisp.KINDS, *crisp.COLOURS, *crisp.BACKGROUNDS, *crisp.STYLES]
    assert len(set(names)) == len(names), "one word names one thing"


def test_categories_are_the_published_ones_and_all_reachable():
    assert crisp.CATEGORIES == ("add", "replace", "remove", "color", "background", "style", "motion")
    for category in crisp.CATEGORIES:
        assert crisp.sample_edit(0, category=category).category == category


def test_proportions_are_the_published_ones():
    drawn = Counter(crisp.sample_edit(seed).category for seed in range(800))
    total = sum(crisp.PROPORTIONS.values())
    for category, weight in crisp.PROPORTIONS.items():
        assert drawn[category] / 800 == pytest.approx(weight / total, abs=0.04)


def test_a_seed_gives_the_same_sample_and_another_split_another():
    one, again, other = (crisp.sample_edit(7, split=split) for split in ("train", "train", "test"))
    assert one.instruction == again.instruction
    assert (one.source_scene, one.target_scene) == (again.source_scene, again.target_scene)
    assert one.source.tobytes() == again.source.tobytes() and one.mask.tobytes() == again.mask.tobytes()
    assert one.source_scene != other.source_scene
    assert crisp.sample_scene(7) == crisp.sample_scene(7) != crisp.sample_scene(7, split="test")


def test_splits_share_no_edit():
    edits = {split: {(s.source_scene, s.target_scene) for s in samples(split)} for split in crisp.SPLITS}
    assert all(len(found) > 145 for found in edits.values())
    assert not (edits["train"] & edits["validation"] or (edits["train"] | edits["validation"]) & edits["test"])


@pytest.mark.parametrize("split", ["train", "validation"])
def test_only_the_test_split_shows_held_out_pairs_and_phrasings(split):
    for sample in samples(split):
        assert not shown(sample) & HELD_OUT
        assert any(read(phrasing, sample.instruction) for phrasing in crisp.PHRASINGS[sample.category])
        assert not any(read(phrasing, sample.instruction) for phrasing in crisp.HELD_OUT_PHRASINGS[sample.category])
    for seed in range(200):
        assert not {(item.kind, item.colour) for item in crisp.sample_scene(seed, split=split).items} & HELD_OUT


def test_three_test_samples_in_ten_are_held_out():
    paired = [sample for sample in samples("test") if sample.category not in ("background", "style")]
    assert np.mean([bool(shown(sample) & HELD_OUT) for sample in paired]) == pytest.approx(0.3, abs=0.1)
    rare = [any(read(p, s.instruction) for p in crisp.HELD_OUT_PHRASINGS[s.category]) for s in samples("test")]
    assert np.mean(rare) == pytest.approx(0.3, abs=0.1)


def test_held_out_phrasings_use_only_words_of_the_others():
    known = {word for phrasings in crisp.PHRASINGS.values() for phrasing in phrasings for word in phrasing.split()}
    for category in crisp.CATEGORIES:
        assert len(crisp.PHRASINGS[category]) >= 5 and len(crisp.HELD_OUT_PHRASINGS[category]) >= 1
        assert {word for phrasing in crisp.HELD_OUT_PHRASINGS[category] for word in phrasing.split()} <= known


@pytest.mark.parametrize("split", crisp.SPLITS)
def test_the_instruction_says_what_was_done(split):
    for sample in samples(split):
        before, after = sample.source_scene, sample.target_scene
        phrasings = crisp.PHRASINGS[sample.category] + crisp.HELD_OUT_PHRASINGS[sample.category]
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
        items = crisp.sample_scene(seed).items
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
    for category in crisp.CATEGORIES:
        for seed in range(3):
            sample = crisp.sample_edit(seed, category=category, size=size)
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
    return np.asarray(crisp.render(crisp.Scene(background, items)), np.int16)


def test_every_object_is_mostly_its_colour():
    plain = drawn("snow")
    for kind in crisp.KINDS:
        red, blue = (drawn("snow", crisp.Item(kind, colour, "center")) for colour in ("red", "blue"))
        covered, recoloured = np.abs(red - plain).max(2) > 40, np.abs(red - blue).max(2) > 40
        assert (recoloured & covered).sum() > 0.45 * covered.sum(), kind


def test_every_colour_can_be_seen_on_every_background():
    for background in crisp.BACKGROUNDS:
        for colour in crisp.COLOURS:
            gap = np.abs(drawn(background, crisp.Item("heart", colour, "center")) - drawn(background)).max(2)
            enough = 30 if (background, colour) == ("snow", "white") else 120  # white on snow: the rim alone
            assert (gap > 40).sum() > enough, (background, colour)


def test_backgrounds_and_styles_differ_from_each_other():
    item = crisp.Item("cat", "orange", "center")
    plain = [np.asarray(crisp.render(crisp.Scene(name, (item,))), float) for name in crisp.BACKGROUNDS]
    styled = [np.asarray(crisp.render(crisp.Scene("meadow", (item,), name)), float) for name in (None, *crisp.STYLES)]
    for pictures in (plain, styled):
        for i, one in enumerate(pictures):
            assert all(np.abs(one - other).mean() > 12 for other in pictures[:i])


def test_places_are_also_named_by_what_stands_beside_them():
    drawn = [crisp.sample_edit(seed, category="add").instruction for seed in range(120)]
    related = [text for text in drawn if any(beside in text for beside in BESIDE)]
    assert 0.1 < len(related) / len(drawn) < 0.4
    assert all(any(f"{relation} the " in text for text in related) for relation in RELATIONS.values())


def test_captions_name_the_whole_scene():
    items = (crisp.Item("house", "blue", "center"), crisp.Item("ball", "red", "top left", "big"))
    scene = crisp.Scene("snow", items)
    assert crisp.caption(scene) == "snow, big red ball top left, blue house center"
    assert crisp.caption(crisp.Scene("snow", items[:1], "sepia")) == "sepia, snow, blue house center"


def test_phrases_hold_every_word():
    known = {word for sentence in crisp.phrases() for word in words(sentence)}
    for sample in samples("test"):
        for text in (sample.instruction, sample.source_caption, sample.target_caption):
            assert set(words(text)) <= known and text == text.lower()
        assert len(sample.instruction.split()) <= 16
        assert max(len(words(sample.source_caption)), len(words(sample.target_caption))) <= 28
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", sample.instruction)
    assert known >= {*crisp.KINDS, *crisp.COLOURS, *crisp.BACKGROUNDS, *crisp.STYLES, *" ".join(crisp.PLACES).split()}


@pytest.mark.parametrize(
    "setting", [{"split": "training"}, {"category": "colour"}, {"size": 60}, {"size": 0}, {"seed": -1}, {"seed": 0.5}]
)
def test_wrong_settings_say_what_is_expected(setting):
    with pytest.raises(SettingError, match=r"expected: .+\n +to do:"):
        crisp.sample_edit(**{"seed": 0, **setting})


def test_the_label_map_says_what_stands_where():
    fish = crisp.Item("fish", "blue", "top left", "big")
    cat = crisp.Item("cat", "red", "bottom right")
    scene = crisp.Scene("snow", (fish, cat))
    kinds, colours, parts = crisp.label_map(scene)
    names = (*crisp.KINDS, *crisp.BACKGROUNDS)
    assert {names[kind] for kind in np.unique(kinds)} == {"fish", "cat", "snow"}
    for item in (fish, cat):
        left, top, right, bottom = item.box
        here = kinds == crisp.KINDS.index(item.kind)
        assert here[top:bottom, left:right].mean() > 0.3 and here.sum() == here[top:bottom, left:right].sum()
        assert (colours[here] == list(crisp.COLOURS).index(item.colour)).all()
        units = (right - left) ** 2
        assert np.unique(parts[top:bottom, left:right]).size == units, "each unit of a box is a part of its own"
    assert (parts < PARTS).sum() == sum((i.box[2] - i.box[0]) ** 2 for i in (fish, cat))
    assert (colours[kinds == names.index("snow")] == len(crisp.COLOURS)).all()
    plain, drawn = (np.asarray(crisp.render(s), np.int16) for s in (crisp.Scene("snow", ()), scene))
    differs = (np.abs(plain - drawn).max(2) > 40).reshape(16, 4, 16, 4).mean((1, 3)) > 0.5
    assert (differs == (kinds < len(crisp.KINDS))).mean() > 0.97, "as the picture shows it"
