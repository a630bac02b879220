from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from editmgt_lab import world
from editmgt_lab.errors import SettingError
from editmgt_lab.training.build import build_tokenizer
from editmgt_lab.world.edits import difference, paraphrases

SKILLS = tuple(world.SKILLS)


@lru_cache
def samples(name, split):
    return [world.sample_skill(seed, name, split=split, size=64) for seed in range(60)]


def words(sample):
    return set(f"{sample.instruction} {sample.source_caption} {sample.target_caption}".replace(",", "").split())


def test_a_style_an_object_and_a_verb_in_small_sets():
    assert [world.SKILLS[name].category for name in SKILLS] == ["style", "add", "wrap"]
    for name, skill in world.SKILLS.items():
        assert skill.word == name and skill.what
        assert 2 <= len(skill.phrasings) <= 4 and all(name in phrasing.split() for phrasing in skill.phrasings)
        assert 64 <= skill.count <= 200


@pytest.mark.parametrize("name", SKILLS)
def test_a_seed_gives_the_same_pair_and_splits_share_none(name):
    one, again = samples(name, "train")[7], world.sample_skill(7, name, size=64)
    assert (one.instruction, one.source_scene, one.target_scene) == (
        again.instruction,
        again.source_scene,
        again.target_scene,
    )
    assert one.source.tobytes() == again.source.tobytes() and one.target.tobytes() == again.target.tobytes()
    edits = [{(s.source_scene, s.target_scene) for s in samples(name, split)} for split in world.SPLITS]
    assert all(len(found) > 57 for found in edits)
    assert sum(map(len, edits)) == len(set.union(*edits))


@pytest.mark.parametrize("name", SKILLS)
@pytest.mark.parametrize("size", [64, 96])
def test_the_pair_shows_the_skill_and_the_mask_where(name, size):
    for seed in range(8):
        sample = world.sample_skill(seed, name, split="validation", size=size)
        assert sample.source.size == sample.target.size == sample.mask.size == (size, size)
        assert sample.category == world.SKILLS[name].category
        assert sample.source.tobytes() == world.render(sample.source_scene, size).tobytes()
        assert sample.target.tobytes() == world.render(sample.target_scene, size).tobytes()
        assert sample.mask.tobytes() == difference(sample.source, sample.target).tobytes()
        share = np.mean(np.asarray(sample.mask) > 0)
        assert share > 0.9 if name == "blueprint" else 0.03 < share < 0.2


@pytest.mark.parametrize("split", world.SPLITS)
def test_the_instruction_says_what_was_done(split):
    for sample in samples("blueprint", split):
        assert sample.target_scene.style == "blueprint" and sample.target_scene.items == sample.source_scene.items
    for sample in samples("cactus", split):
        (come,) = set(sample.target_scene.items) - set(sample.source_scene.items)
        assert come.kind == "cactus" and sample.instruction.endswith(f"at the {come.place}")
        assert come.place in sample.source_scene.empty_places
    for sample in samples("wrap", split):
        (gone,) = set(sample.source_scene.items) - set(sample.target_scene.items)
        (come,) = set(sample.target_scene.items) - set(sample.source_scene.items)
        assert come.kind == "gift" and come.box == gone.box and f"the {gone.kind}" in sample.instruction


def test_the_new_is_kept_out_of_what_the_small_model_was_trained_on():
    """Not one word of it is in the tokenizer's sentences, which hold every word of every split."""
    known = {word for sentence in world.phrases() for word in sentence.replace(",", "").split()}
    new = {"blueprint", "cactus", "wrap", "gift"}
    assert not known & new and not set(world.KINDS + world.STYLES) & new
    for split in world.SPLITS:
        for seed in range(30):
            assert not words(world.sample_edit(seed, split=split, size=64)) & new
    for name in SKILLS:
        assert all(words(sample) & new == words(sample) - known - {"up"} for sample in samples(name, "train"))


def test_the_tokenizer_spells_the_new_words_out():
    tokenizer = build_tokenizer(world.phrases(), length=32)
    for name in SKILLS:
        ids = tokenizer(name).input_ids[1:-1]
        assert len(ids) > 1 and tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == name


def test_no_style_of_the_world_passes_for_the_new_one():
    passed = []
    for sample in samples("blueprint", "test"):
        source, target = (np.asarray(picture, np.float32) for picture in (sample.source, sample.target))
        scenes = (replace(sample.source_scene, style=style) for style in world.STYLES)
        styled = (np.asarray(world.render(scene, 64), int) for scene in scenes)
        nearest = min(np.abs(picture - target).mean() for picture in styled)
        passed.append(nearest <= 0.5 * np.abs(source - target).mean())  # half the way: a score of 5, a success
    assert np.mean(passed) <= 0.2


def test_bad_input_is_refused():
    with pytest.raises(SettingError, match="(?s)unknown skill 'dance'.*blueprint, cactus, wrap"):
        world.sample_skill(0, "dance")
    with pytest.raises(SettingError, match=r"unknown skill \['cactus'\]"):
        world.sample_skill(0, ["cactus"])
    with pytest.raises(SettingError, match="unknown split"):
        world.sample_skill(0, "wrap", split="dev")
    with pytest.raises(SettingError, match="is not a seed"):
        world.sample_skill(-1, "wrap")


def test_what_the_world_has_no_words_and_no_number_for():
    with pytest.raises(SettingError, match="(?s)unknown category 'wrap'.*add, replace.*phrasings"):
        paraphrases(samples("wrap", "train")[0])
    with pytest.raises(SettingError, match="(?s)unknown kind 'gift'.*ball"):
        world.label_map(samples("wrap", "train")[0].target_scene)
    for name in ("cactus", "blueprint"):  # of categories that are the world's
        assert paraphrases(samples(name, "train")[0])
