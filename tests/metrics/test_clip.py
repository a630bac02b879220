"""The small CLIP that comes along: it loads without a network, is small, and knows the drawn world."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

import editmgt_lab as lab
from editmgt_lab.images import to_tensor
from editmgt_lab.metrics import Scores
from editmgt_lab.metrics.backbones import TINY, clip_folder, cosine, direction, load_clip
from editmgt_lab.metrics.clip import ClipTruth
from editmgt_lab.studies.clip import COPY, NEAR, OTHER, TRUE, agreement, directions, embed, untrained
from tests.support import ROOT

COUNT, BAR = 70, 0.92  # edits, ten of each category; the share of pairs that are right is 98% of 1000, less four errors


@pytest.fixture(scope="module")
def seen():
    return embed(load_clip(TINY), range(COUNT), split="test", size=64)


@pytest.fixture(scope="module")
def seen_at_random():
    return embed(untrained(), range(COUNT), split="test", size=64)


def share(values):
    return sum(values) / len(values)


def test_it_is_small_and_loads_without_a_network(monkeypatch):
    files = [path for path in clip_folder(TINY).iterdir() if path.is_file()]
    assert clip_folder(TINY) == ROOT / "data_samples" / "clip" and sum(path.stat().st_size for path in files) <= 5e6
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("it asks the network"))
    clip = load_clip(TINY)
    assert clip.name == "tiny CLIP" and clip.fingerprint == load_clip(clip_folder(TINY)).fingerprint
    assert clip.embed_texts(["snow"]).dtype == torch.float32


def test_captions_of_the_world_are_not_cut():
    clip = load_clip(TINY)
    for seed in range(50):
        assert not clip.too_long(lab.world.sample_edit(seed, split="test", size=32).target_caption)


def test_pictures_agree_with_their_own_caption_and_random_weights_do_not(seen, seen_at_random):
    for values in agreement(seen):
        assert share(values) >= BAR
    for values in agreement(seen_at_random):
        assert share(values) < BAR - 0.15


def test_direction_tells_the_true_edit_from_none_and_from_another(seen, seen_at_random):
    found, chance = directions(seen), directions(seen_at_random)
    assert set(found[COPY]) == {0}
    for name in (COPY, NEAR, OTHER):
        assert share(found[TRUE]) > share(found[name]) + 0.1
        assert share([a > b for a, b in zip(found[TRUE], found[name], strict=True)]) >= 0.75
    assert share([a > b for a, b in zip(chance[TRUE], chance[OTHER], strict=True)]) < 0.75


def test_it_reads_larger_drawings_as_well():
    for values in agreement(embed(load_clip(TINY), range(14), split="test", size=256)):
        assert share(values) >= 0.8


def test_direction_of_vectors():
    source, output = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 2.0, 0.0])
    before, after = torch.tensor([3.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    assert direction(source, output, before, after) == pytest.approx(1)
    assert direction(output, source, before, after) == pytest.approx(-1)
    assert direction(source, source, before, after) == 0
    assert direction(source, source + 1e-7 * after, before, after) == 0, "rounding is no direction"
    assert math.isnan(direction(source, output, before, 2 * before))


def test_scores_of_a_batch_are_those_of_single_edits():
    clip = load_clip(TINY)
    samples = [lab.world.sample_edit(seed, split="test") for seed in range(2)]
    sources, targets = (to_tensor([getattr(s, side) for s in samples]) for side in ("source", "target"))
    truth = SimpleNamespace(samples=samples, sources=sources, targets=targets)
    found = ClipTruth.of(clip, truth).scored([Scores(5.0, 0.0, 1.0)] * 2, targets.flip(0))
    made = clip.embed([samples[1].target])[0]
    texts = clip.embed_texts([samples[0].source_caption, samples[0].target_caption])
    source, target = clip.embed([samples[0].source, samples[0].target])
    assert found[0].clip_image == pytest.approx(cosine(made, target), abs=1e-4)
    assert found[0].clip_text == pytest.approx(cosine(made, texts[1]), abs=1e-4)
    assert found[0].clip_direction == pytest.approx(direction(source, made, *texts), abs=1e-4)
    assert found[0].score == 5.0
