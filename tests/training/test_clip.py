"""The small CLIP's recipe: what is drawn, what is learned, and that a killed run goes on where it was."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from editmgt_lab import world
from editmgt_lab.metrics.backbones import load_clip
from editmgt_lab.training.clip.__main__ import main
from editmgt_lab.training.clip.build import build_clip, save_clip
from editmgt_lab.training.clip.data import NOTHING, draw_batch, near_miss, spoiled, what_stands
from editmgt_lab.training.clip.objective import EmbeddingReader, clip_loss, training_loss
from editmgt_lab.training.clip.recipe import ClipRecipe
from editmgt_lab.training.clip.train import train_clip
from editmgt_lab.training.run import Run

SMALL = replace(
    ClipRecipe(), width=32, heads=2, picture_layers=2, text_layers=1, projection=32, batch=4, drawn_at=(64,)
)


def test_a_batch_holds_both_sides_of_every_edit_and_captions_that_nearly_fit():
    recipe = replace(SMALL, drawn_at=(64, 128))
    _, tokenizer = build_clip(recipe)
    batch = draw_batch(recipe, tokenizer, 8)
    assert batch.pictures.shape == (8, 3, 64, 64) and batch.labels.shape == (8, 3, 16, 16)
    assert len(batch.ids) == len(batch.scenes) == 16
    texts = [text.strip() for text in tokenizer.batch_decode(batch.ids, skip_special_tokens=True)]
    for place, number in enumerate(range(8, 12)):
        sample = world.sample_edit(number, category=world.CATEGORIES[number % 7], size=(64, 128)[number % 2])
        assert batch.scenes[2 * place : 2 * place + 2] == [sample.source_scene, sample.target_scene]
        words = texts[2 * place + 1].replace(" ,", ",")
        bare = " ".join(w for w in sample.target_caption.split() if w not in world.SIZES)
        assert words in (sample.target_caption, bare)
    assert not batch.pictures[1].equal(batch.pictures[0])
    assert len({*texts}) == len(texts)
    again = draw_batch(recipe, tokenizer, 8)
    assert torch.equal(batch.pictures, again.pictures) and torch.equal(batch.ids, again.ids)


def test_a_near_miss_is_wrong_in_one_thing_and_can_be_drawn():
    changed = set()
    for seed in range(200):
        scene, dice = world.sample_scene(seed), random.Random(seed)
        missed = near_miss(scene, dice)
        world.render(missed, 32)
        before, after = what_stands(scene), what_stands(missed)
        kinds, colours = (
            [place for place in range(9) if before[part][place] != after[part][place]] for part in range(2)
        )
        asked = [name for name, wrong in zip(("kinds", "colours"), (kinds, colours), strict=True) if wrong]
        asked += [name for name, part in (("background", 2), ("style", 3)) if before[part] != after[part]]
        assert asked and len({*kinds, *colours}) <= 2
        assert not {"background", "style"} & {*asked} or len(asked) == 1
        assert len({item.place for item in missed.items}) == len(missed.items)
        changed |= {*asked}
    assert changed == {"kinds", "colours", "background", "style"}


def test_what_stands_says_where_nothing_does():
    scene = world.Scene("sea", (world.Item("cat", "blue", "top right"),), "sepia")
    kinds, colours, background, style = what_stands(scene)
    assert kinds[2] == world.KINDS.index("cat") and colours[2] == list(world.COLOURS).index("blue")
    assert kinds.count(NOTHING) == colours.count(NOTHING) == 8
    assert world.BACKGROUNDS[background] == "sea" and world.STYLES[style] == "sepia"


def test_spoiling_is_small_and_each_pictures_own():
    pictures = torch.rand(4, 3, 64, 64)
    torch.manual_seed(0)
    made = spoiled(pictures)
    apart = (made - pictures).abs().mean((1, 2, 3))
    assert (apart > 0).all() and len(apart.unique()) == 4
    assert apart.max() < 0.25, "blur does nothing worse to any picture than to one of noise"
    white = torch.ones(16, 3, 16, 16)  # which blur leaves as it is
    assert (spoiled(white) - white).abs().mean((1, 2, 3)).max() < 0.12


def test_the_loss_asks_both_ways_and_nearly_right_captions_count():
    vectors = F.normalize(torch.randn(4, 16), dim=1)
    right, found = clip_loss(vectors, vectors, torch.tensor(100.0))
    assert right < 0.01 and found == 1
    wrong, none = clip_loss(vectors, vectors.roll(1, 0), torch.tensor(100.0))
    assert wrong > 5 and none == 0
    near = torch.cat([vectors, vectors])  # for each caption one that fits as well
    half, _ = clip_loss(vectors, near, torch.tensor(100.0))
    assert half.item() == pytest.approx(torch.tensor(2.0).log().item() / 2, abs=0.02)


def test_the_reader_of_embeddings_is_right_only_about_the_scene_it_was_shown():
    scenes = [world.sample_scene(seed) for seed in range(2)]
    names = EmbeddingReader(2)
    told, width = torch.zeros(2, sum(names.parts)), [len(world.KINDS) + 1, len(world.COLOURS) + 1]
    for row, scene in enumerate(scenes):
        start = 0
        for part, answers in zip(what_stands(scene)[:2], width, strict=True):
            for place, answer in enumerate(part):
                told[row, start + place * answers + (answers - 1 if answer == NOTHING else answer)] = 50
            start += 9 * answers
        told[row, start + what_stands(scene)[2]] = 50
        told[row, start + names.parts[2] + what_stands(scene)[3]] = 50
    names.head = torch.nn.Linear(2, sum(names.parts), bias=False)
    names.head.weight.data = told.T.contiguous()
    assert names.loss(torch.eye(2), scenes) < 1e-4 < 1 < names.loss(torch.eye(2), scenes[::-1])


def test_a_killed_run_ends_with_the_same_weights(tmp_path, monkeypatch):
    recipe = replace(SMALL, edits=16)
    whole = train_clip(recipe, Run(tmp_path / "whole"))[0].state_dict()
    calls = []

    def killed_at_the_third(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return training_loss(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("editmgt_lab.training.run.CHECKPOINT_SECONDS", 0)
        patch.setattr("editmgt_lab.training.clip.train.training_loss", killed_at_the_third)
        train_clip(recipe, Run(tmp_path / "killed"))
    assert torch.load(tmp_path / "killed" / "state.pt", weights_only=True)["done"] == 8
    resumed = train_clip(recipe, Run(tmp_path / "killed"))[0].state_dict()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_it_learns(tmp_path):
    train_clip(replace(SMALL, edits=160), Run(tmp_path))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["done"] for line in lines] == [80, 160] and lines[-1]["loss"] < lines[0]["loss"]


def test_the_command_writes_what_load_clip_reads(tmp_path, capsys):
    few = "--width 32 --heads 2 --picture-layers 2 --text-layers 1 --projection 32 --batch 4 --edits 8".split()
    places = ["--folder", str(tmp_path / "state"), "--output", str(tmp_path / "clip")]
    assert main([*few, *places]) == 0
    clip = load_clip(tmp_path / "clip")
    assert clip.longest == 32 and clip.preprocessing.crop == 64
    vectors = clip.embed_texts(["snow, red ball top left", "snow, blue ball top left"])
    assert vectors.shape == (2, 32) and vectors.dtype == torch.float32 and not torch.equal(*vectors)
    assert main([*few, *places, "--seed", "1"]) == 2 and "another run" in capsys.readouterr().err
    assert main([*few, *places, "--seed", "1", "--anew"]) == 0
    assert load_clip(tmp_path / "clip").fingerprint != clip.fingerprint


def test_saving_leaves_the_model_in_its_precision(tmp_path):
    model, tokenizer = build_clip(SMALL)
    save_clip(tmp_path, model, tokenizer)
    assert next(model.parameters()).dtype == torch.float32
    assert {path.name for path in tmp_path.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--batch", "0"], "--batch is 0"),
        (["--cool-down", "2"], "--cool-down is 2.0"),
        (["--width", "100", "--heads", "3"], "--heads 3"),
        (["--patch", "7"], "--patch 7"),
    ],
)
def test_numbers_that_cannot_be_are_refused_before_anything_is_written(tmp_path, capsys, wrong, said):
    places = ["--folder", str(tmp_path / "run"), "--output", str(tmp_path / "out")]
    assert main([*wrong, *places]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "run").exists()
