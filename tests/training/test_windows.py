"""Windows of pictures: that they show the edit, keep their place, and train what whole pictures use."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from editmgt_lab import world
from editmgt_lab.data.tokens import keep_unchanged
from editmgt_lab.images import to_tensor
from editmgt_lab.training import progress
from editmgt_lab.training.build import build_text_encoder
from editmgt_lab.training.data import tokenize_edits
from editmgt_lab.training.objective import nearest_codes, token_losses
from editmgt_lab.training.progress import edit_figures
from editmgt_lab.training.recipe import SMALL
from editmgt_lab.training.run import Run
from editmgt_lab.training.samples import sample_drawer
from editmgt_lab.training.tokenizer.local import encode, start_local
from editmgt_lab.training.transformer import train_transformer, training_loss, windowed
from editmgt_lab.training.windows import ANYWHERE, NOWHERE, caption_windows, corners, cut, window_of
from editmgt_lab.transformer import MaskedGenerativeTransformer
from editmgt_lab.vq import VQModel

RECIPE = replace(
    SMALL,
    image_size=64,
    vq=replace(SMALL.vq, block_out_channels=(8, 16), latent_channels=8, num_vq_embeddings=64),
    transformer=replace(
        SMALL.transformer,
        in_channels=8,
        num_layers=1,
        num_single_layers=1,
        num_attention_heads=1,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        vocab_size=72,
        codebook_size=64,
    ),
    text_layers=1,
    window_samples=16,
    samples=24,
    batch=4,
    whole_batch=2,
)


@pytest.fixture(scope="module")
def vq():
    torch.manual_seed(0)
    vq = VQModel(RECIPE.vq)
    start_local(vq, torch.rand(2, 3, 64, 64))
    torch.nn.init.normal_(vq.quantize.embedding.weight)
    return vq.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def data(vq):
    encoder = build_text_encoder(RECIPE)
    samples = [world.sample_edit(seed, category=world.CATEGORIES[seed % 7], size=64) for seed in range(21)]
    return {name: t.long() for name, t in tokenize_edits(vq, encoder, samples).items()}


@pytest.mark.parametrize("category", ["add", "replace", "remove", "color"])
def test_a_window_shows_the_whole_edit(category):
    found = []
    for seed in range(60):
        sample = world.sample_edit(seed, category=category, size=64)
        index = window_of(sample)
        found.append(index)
        if index == NOWHERE:
            assert category == "add" and " the " in sample.instruction
            continue
        top, left = (4 * corners(16, 8)[index]).tolist()
        mask = np.array(sample.mask) > 0
        inside = mask[max(top - 1, 0) : top + 33, max(left - 1, 0) : left + 33].sum()  # a mask has grown by one pixel
        assert inside == mask.sum()
    assert len(set(found) - {NOWHERE}) >= 7, "every place has its window"


def test_a_moving_object_is_seen_leaving():
    for seed in range(20):
        sample = world.sample_edit(seed, category="motion", size=64)
        old = next(item for item in sample.source_scene.items if item not in sample.target_scene.items)
        top, left = corners(16, 8)[window_of(sample)].tolist()
        assert left <= old.box[0] and old.box[2] <= left + 8 and top <= old.box[1] and old.box[3] <= top + 8


def test_an_edit_of_everything_can_be_seen_anywhere():
    for category in ("background", "style"):
        assert window_of(world.sample_edit(0, category=category, size=64)) == ANYWHERE


def test_windows_of_tokens_and_labels_are_of_one_place(data):
    index = torch.arange(len(data["source"])) % 9
    seen, origin = windowed(data, index, 16)
    assert seen["source"].shape[1:] == (16, 16) and seen["target_labels"].shape[1:] == (3, 8, 8)
    assert origin.tolist()[:5] == [[0, 0], [0, 4], [0, 8], [4, 0], [4, 4]]
    assert torch.equal(seen["source"][5], data["source"][5, 8:24, 16:32])
    assert torch.equal(seen["source_labels"][5], data["source_labels"][5, :, 4:12, 8:16])
    assert torch.equal(cut(data["target"], index, 16), seen["target"])


def test_targets_are_the_same_where_only_the_edit_is_encoded(vq, data):
    samples = [world.sample_edit(seed, category=world.CATEGORIES[seed % 7], size=64) for seed in range(21)]
    masks = torch.cat([to_tensor(s.mask.convert("RGB"))[:, :1] for s in samples])
    whole = keep_unchanged(data["source"], encode(vq, [s.target for s in samples]), masks, vq.config.factor)
    assert (whole == data["target"]).float().mean() > 0.999
    assert (data["target"] != data["source"]).flatten(1).any(dim=1).all()


def test_captions_are_learned_where_objects_are():
    labels = torch.full((400, 3, 16, 16), 10_000)
    labels[:, 2, :6, 10:] = 0
    chosen = torch.bincount(caption_windows(labels, 8), minlength=9) / 400
    assert chosen.argmax() == 2 and chosen.min() > 0


def test_a_window_stands_where_it_stands_in_the_whole_picture():
    encoder, transformer = build_text_encoder(RECIPE), MaskedGenerativeTransformer(RECIPE.transformer)
    text = encoder.encode_ids(encoder.tokenize(["make the fish blue"])[0]["input_ids"])
    length, row, column = text.tokens.shape[1], 1, 5  # of the window's first position

    def rotations(side, origin=None):
        tokens = torch.zeros(1, 2 * side, 2 * side)
        laid_out = transformer.layout(tokens, text, with_source=True, strength=1, bias_text=False, origin=origin)
        words, pictures = laid_out.rotary.squeeze().tensor_split([length])
        return words, pictures.unflatten(0, (2, side, side))  # image and source

    words, whole = rotations(8)
    same_words, window = rotations(3, torch.tensor([[row, column]]))
    assert torch.equal(same_words, words)
    assert torch.equal(window, whole[:, row : row + 3, column : column + 3])


def test_it_counts_where_a_window_stands():
    torch.manual_seed(0)
    encoder, transformer = build_text_encoder(RECIPE), MaskedGenerativeTransformer(RECIPE.transformer)
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    text = encoder.encode_ids(encoder.tokenize(["make the fish blue"] * 2)[0]["input_ids"])
    tokens = torch.randint(0, 64, (1, 8, 8)).expand(2, 8, 8)
    with torch.no_grad():
        plain = transformer(tokens, text, torch.zeros(2), source=tokens)
        first, moved = transformer(tokens, text, torch.zeros(2), source=tokens, origin=torch.tensor([[0, 0], [4, 8]]))
    torch.testing.assert_close(first, plain[0])
    assert not torch.allclose(moved, plain[1], atol=1e-3)


def test_only_the_nearest_codes_count():
    codes = torch.cat([torch.randn(3, 8), torch.randn(200, 8) + 20])
    neighbours, likeness = nearest_codes(codes, 4)
    assert torch.equal(neighbours[:, 0], torch.arange(203)) and likeness[:, 0].abs().max() < 0.01
    logits, target = torch.randn(5, 203), torch.tensor([0, 1, 2, 100, 150])
    few = token_losses(logits, target, neighbours, likeness)
    every = token_losses(logits, target, *nearest_codes(codes, len(codes)))
    torch.testing.assert_close(few[0], every[0])
    assert (few[1] >= every[1] - 0.01).all() and (few[1] <= few[0] + 0.01).all()


@pytest.fixture
def train(data, vq, monkeypatch):
    """A function that trains in a folder, or goes on there; the state is saved after every step."""
    monkeypatch.setattr("editmgt_lab.training.run.CHECKPOINT_SECONDS", 0)

    def train(folder, **options):
        torch.manual_seed(5)
        encoder, transformer = build_text_encoder(RECIPE), MaskedGenerativeTransformer(RECIPE.transformer)
        codes = vq.quantize.embedding.weight
        return train_transformer(transformer, encoder, data, codes, Run(folder), RECIPE, **options).state_dict()

    return train


def test_windows_first_then_whole_pictures(tmp_path, train, vq):
    shown, draw = [], sample_drawer(tmp_path / "samples.png", vq, RECIPE)
    train(tmp_path, show=lambda average, window: (shown.append(window), draw(average, window)))
    assert shown == [16] * 4 + [0] * 5, "4 batches of windows, 4 of whole pictures, and the end"
    assert (tmp_path / "samples.png").stat().st_size > 1000


def test_a_run_killed_at_any_time_ends_with_the_same_weights(tmp_path, train, monkeypatch):
    whole = train(tmp_path / "whole")
    for step, done in ((2, 4), (4, 12), (5, 16), (7, 20)):  # in windows, at their last, at the change, after it
        folder, calls = tmp_path / f"killed at {step}", []

        def killed(*args, step=step, calls=calls):
            calls.append(args)
            if len(calls) == step:
                raise KeyboardInterrupt
            return training_loss(*args)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("editmgt_lab.training.transformer.training_loss", killed)
            train(folder)
        assert Run(folder).load()["done"] == done
        for name, value in train(folder).items():
            assert torch.equal(value, whole[name]), f"{name}, killed at step {step}"


@pytest.mark.parametrize("window", [16, 0])
def test_progress_gives_a_copy_of_the_source_no_success(vq, monkeypatch, window):
    samples = [
        world.sample_edit(seed, category=category, size=64) for category in world.CATEGORIES for seed in range(2)
    ]
    answers = []

    def answer(model, texts, source, shape, recipe, *, origin, token_temperature):
        assert len(texts) == len(source) and (origin is None) == (window == 0)
        assert recipe.image_size == 64, "the size is that of the pictures"
        answers.append(source)
        return source

    monkeypatch.setattr(progress, "fill", answer)
    found = edit_figures(None, vq, samples, window=window, token_temperature=0.3)
    assert set(found) <= set(world.CATEGORIES) and sum(map(sum, found.values())) == 0
    assert 0 < sum(map(len, found.values())) <= sum(map(len, answers)) <= len(samples)


@pytest.mark.parametrize(
    "given", ["--count -1", "--pictures -1", "--window -1", "--window 9", "--window 2", "--window 3"]
)
def test_progress_refuses_what_cannot_be(tiny_folder, capsys, given):
    options = ["--pictures", "0", "--count", "1", "--window", "4"]
    assert progress.main([str(tiny_folder), *options, *given.split()]) == 2
    assert "{} is {}".format(*given.split()) in capsys.readouterr().err


def test_progress_draws_tokens_as_it_is_told(tiny_folder, monkeypatch):
    asked = []
    monkeypatch.setattr(progress, "edit_figures", lambda *_, **given: asked.append(given) or {})
    options = [str(tiny_folder), "--pictures", "0", "--count", "1", "--window", "4"]
    assert progress.main(options) == progress.main([*options, "--token-temperature", "0.7"]) == 0
    assert asked == [{"window": 4, "token_temperature": temperature} for temperature in (0.3, 0.7)]


def test_progress_says_where_no_window_shows_an_edit(tiny_folder, capsys, monkeypatch):
    monkeypatch.setattr(progress, "window_of", lambda *given: NOWHERE)
    assert progress.main([str(tiny_folder), "--pictures", "0", "--count", "1", "--window", "4"]) == 0
    assert "success: no edit is shown" in capsys.readouterr().out
    assert progress.main([str(tiny_folder), "--pictures", "1", "--count", "0"]) == 0, "a window is of edits"


def test_sharpness_sees_lost_texture():
    """The mean gradient of a single edge stays the same however wide it is blurred; what is fine goes."""
    fine = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(fine, 3, 1, 1, count_include_pad=False)
    assert progress.sharpness(blurred) < 0.5 * progress.sharpness(fine)
    assert progress.sharpness(torch.full((1, 3, 16, 16), 0.5)) == 0


@pytest.mark.parametrize("answer, share", [("source", 1.0), ("target", 0.0)])
def test_what_is_taken_for_unchanged(vq, monkeypatch, answer, share):
    encoder, transformer = build_text_encoder(RECIPE), MaskedGenerativeTransformer(RECIPE.transformer)
    samples = [world.sample_edit(seed, category="color", size=64) for seed in range(2)]
    targets, hidden = iter(encode(vq, [s.target for s in samples for _ in range(2)]).unsqueeze(1)), []

    def answers(tokens, text, timestep, *, source, micro_conditions):
        hidden.append((tokens == RECIPE.transformer.vocab_size - 1).float().mean().item())
        target = next(targets)
        said = source if answer == "source" else torch.where(target == source, (source + 1) % 1024, target)
        return torch.nn.functional.one_hot(said, 1024).movedim(-1, 1).float()

    monkeypatch.setattr(transformer, "forward", answers)
    found = progress.taken_for_unchanged({"transformer": transformer, "text_encoder": encoder}, vq, samples)
    assert list(found.values()) == [share, share]
    assert hidden[::2] == [1.0, 1.0] and 0 < max(hidden[1::2]) < 0.5, "first everything, then the place alone"
