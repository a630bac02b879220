"""The recipe: what is hidden, what is learned, and that a killed run goes on where it was."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from editmgt_lab import world
from editmgt_lab.errors import CheckpointError, TrainingError
from editmgt_lab.training.__main__ import check, main
from editmgt_lab.training.build import build_text_encoder, save_editor
from editmgt_lab.training.data import batches, picture_pairs, pictures, token_cache, token_shard, training_edit
from editmgt_lab.training.objective import (
    ask,
    code_likeness,
    edit_weights,
    hide,
    mask_ratio,
    nearest_codes,
    revealed_late,
    step_index,
    token_losses,
)
from editmgt_lab.training.optimizer import orthogonalize
from editmgt_lab.training.reading import ANSWERS, SceneReader
from editmgt_lab.training.recipe import RECIPES, TINY
from editmgt_lab.training.run import Run, learning_rate_scale
from editmgt_lab.training.start import start_from_codes
from editmgt_lab.training.tokenizer.decoder import pair_loss, train_decoder
from editmgt_lab.training.tokenizer.local import start_local
from editmgt_lab.training.tokenizer.vq import CodebookAverage, train_vq
from editmgt_lab.training.transformer import train_transformer, training_loss
from editmgt_lab.transformer import MaskedGenerativeTransformer
from editmgt_lab.vq import VQModel
from editmgt_lab.world.edits import is_related

SMALL = replace(
    TINY,
    transformer=replace(
        TINY.transformer,
        num_layers=1,
        num_single_layers=1,
        num_attention_heads=1,
        joint_attention_dim=32,
        pooled_projection_dim=32,
    ),
    batch=4,
)


@pytest.fixture(scope="module")
def text_encoder():
    torch.manual_seed(0)
    return build_text_encoder(SMALL)


@pytest.fixture(scope="module")
def vq():
    torch.manual_seed(0)
    return VQModel(SMALL.vq).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def data(vq, text_encoder):
    return {name: t.long() for name, t in token_shard(vq, text_encoder, range(12), 64).items()}


def test_hide_masks_the_share_it_is_told_and_changes_nothing_else():
    tokens = torch.randint(0, 50, (3, 8, 8))
    before = tokens.clone()
    hidden_tokens, hidden = hide(tokens, torch.tensor([0.0, 0.5, 1.0]), 99)
    assert hidden.flatten(1).sum(1).tolist() == [1, 32, 64]
    assert torch.equal(hidden_tokens == 99, hidden)
    assert torch.equal(hidden_tokens[~hidden], tokens[~hidden])
    assert torch.equal(tokens, before)


def test_what_is_revealed_late_is_hidden_before_all_others():
    late = torch.zeros(2, 8, 8, dtype=torch.bool)
    late[0, 2:4, 2:4] = True
    _, hidden = hide(torch.zeros(2, 8, 8, dtype=torch.long), torch.tensor([2 / 64, 2 / 64]), 99, late=late)
    assert hidden.flatten(1).sum(1).tolist() == [2, 2] and late[hidden][:2].all(), "so few are all of the place"
    _, hidden = hide(torch.zeros(2, 8, 8, dtype=torch.long), torch.tensor([0.5, 0.5]), 99, late=late)
    assert hidden[0][late[0]].all() and hidden.flatten(1).sum(1).tolist() == [32, 32]


def test_the_place_of_an_edit_is_late_and_so_is_that_of_another():
    torch.manual_seed(0)
    changed = torch.zeros(3, 8, 8, dtype=torch.bool)
    changed[0, :2, :2] = changed[1, 6:, 6:] = True
    late = revealed_late(changed, 1.0)
    assert late[0][changed[0]].all() and late[1][changed[1] | changed[0]].all() and late[2][changed[1]].all()
    assert not revealed_late(changed, 0.0).any()
    shares = [revealed_late(changed, 0.5).flatten(1).any(dim=1) for _ in range(100)]
    assert 100 < torch.stack(shares).sum() < 200, "of the edits, not of the tokens"


def test_hard_edits_name_the_object_beside_their_place():
    edits = [training_edit(seed, 64, 0.4) for seed in range(100)]
    assert {edit.category for edit in edits[:40]} == {"add", "motion"}
    assert sum(is_related(edit.instruction) for edit in edits[:40]) > 20
    for seed, edit in enumerate(edits[40:], 40):
        assert edit.instruction == training_edit(seed, 64).instruction, "the others are what they are without"


def test_mask_ratio_falls_from_all_to_none():
    u = torch.linspace(0, 1, 11)
    ratio = mask_ratio(u)
    assert ratio[0] == 1 and ratio[-1].abs() < 1e-6 and (ratio.diff() < 0).all()


def test_step_index_is_what_decoding_feeds():
    torch.manual_seed(0)
    assert step_index(torch.zeros(200), most=12, least=12).unique().tolist() == [11]
    assert step_index(torch.full((200,), 0.999), most=12, least=12).unique().tolist() == [0]


def test_a_local_edit_counts_more_than_a_wide_one_but_not_by_token():
    source = torch.zeros(2, 8, 8, dtype=torch.long)
    target = source.clone()
    target[0, :2, :2] = 1
    target[1] = 1
    local, wide = edit_weights(source, target).tolist()
    assert local == pytest.approx(4 * wide) and local + wide == pytest.approx(2)
    assert edit_weights(source, source).tolist() == [1, 1], "nothing changed is no division by zero"


def test_what_is_asked_counts_as_if_all_were():
    hidden, changed = torch.ones(2, 32, 32, dtype=torch.bool), torch.zeros(2, 32, 32, dtype=torch.bool)
    hidden[0, :4], changed[0, :8] = False, True
    counts = ask(hidden, changed, 0.25, torch.Generator().manual_seed(0))
    assert (counts[~hidden] == 0).all() and (counts[hidden & changed] == 1).all()
    assert counts[~changed].unique().tolist() == [0, 4]
    assert counts[~changed].mean() == pytest.approx(1, abs=0.1)
    assert torch.equal(ask(hidden, changed, 1.0), hidden.float())
    lone = torch.zeros(1, 4, 4, dtype=torch.bool)
    lone[0, 0, 0] = True
    assert torch.equal(ask(lone, torch.zeros_like(lone), 1e-9), lone.float()), "one is asked at least"


def test_a_code_that_looks_alike_is_nearly_right():
    codes = torch.tensor([[0.0, 0.0], [0.1, 0.0], [5.0, 0.0], [0.0, 5.0]])
    likeness = code_likeness(codes)
    assert (likeness.diagonal().abs() < 1e-6).all() and torch.equal(likeness, likeness.T)
    sure = torch.full((4, 4), -20.0).fill_diagonal_(20.0)  # row i is sure of code i
    looks = nearest_codes(codes, len(codes))
    exact, look = token_losses(sure, torch.zeros(4, dtype=torch.long), *looks)
    assert exact[0] < 1e-6 and look[0] < 1e-6
    assert exact[1] > 30 and look[1] < 0.1, "wrong, but it looks the same"
    assert look[2] > 5 and look[3] > 5
    even = token_losses(torch.zeros(1, 4), torch.tensor([2]), *looks)
    torch.testing.assert_close(even[0], torch.tensor([4.0]).log())


def test_orthogonalize_brings_singular_values_near_one():
    torch.manual_seed(0)
    for shape in ((2, 16, 48), (2, 48, 16)):
        values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))
        assert values.min() > 0.5 and values.max() < 1.5


def test_learning_rate_warms_up_holds_and_ends_at_zero():
    scale = [learning_rate_scale(done, 1000) for done in range(1001)]
    assert scale[0] < 0.1 and scale[100] == 1 and scale[1000] == 0
    assert scale[900] < scale[500] < 1


@pytest.mark.parametrize("batch", [2, 4])  # one that divides the samples, and one that leaves some of them out
@pytest.mark.parametrize("begun", [0, 6])  # the second stage begins where the first one left off
def test_batches_resume_where_they_stopped(batch, begun):
    whole = list(islice(batches(10, batch, begun, seed=3), 12))
    for number in range(12):
        again = batches(10, batch, begun + number * batch, seed=3)
        assert all(torch.equal(next(again), expected) for expected in whole[number:]), number
    if begun == 0:
        epoch = torch.cat(whole[: 10 // batch]).tolist()
        assert len(epoch) == len({*epoch}) == 10 // batch * batch and {*epoch} <= {*range(10)}


def test_every_word_of_the_world_is_one_token_and_others_are_spelled_out(text_encoder):
    tokenizer = text_encoder.clip_tokenizer
    for seed in range(40):
        text = world.sample_edit(seed, split="test").instruction
        assert len(tokenizer(text).input_ids) == len(text.replace(",", " ,").split()) + 2
    assert len(tokenizer("zebra").input_ids) > 3


def test_no_text_of_the_world_is_longer_than_the_encoder(text_encoder):
    for seed in range(200):
        sample = world.sample_edit(seed, split="test")
        text_encoder.tokenize([sample.instruction, sample.source_caption, sample.target_caption])


def test_target_keeps_the_source_tokens_away_from_the_mask(data):
    sample = world.sample_edit(0, category=world.CATEGORIES[0])
    same = data["source"][0] == data["target"][0]
    far = torch.from_numpy(np.array(sample.mask.resize((16, 16), 4)))
    far = torch.nn.functional.max_pool2d(far[None, None].float(), 5, 1, 2)[0, 0] == 0
    assert far.any() and same[far].all() and not same.all()


def test_the_reader_hears_the_streams_and_leaves_nothing_behind(data, text_encoder):
    torch.manual_seed(0)
    transformer = MaskedGenerativeTransformer(SMALL.transformer)
    reader = SceneReader(transformer.config.width, blocks=(0, 1))
    text = text_encoder.encode_ids(data["instruction"][:2])
    inputs = data["target"][:2], text, torch.zeros(2)
    with reader.listening(transformer, text.tokens.shape[1]) as edit:
        transformer(*inputs, source=data["source"][:2])
    with reader.listening(transformer, text.tokens.shape[1]) as alone:
        transformer(*inputs)
    shapes = {name: [x.shape for x in streams] for name, streams in edit.items()}
    assert shapes == dict.fromkeys("01", [(2, 64, 32)] * 2)
    assert [len(streams) for streams in alone.values()] == [1, 1]
    assert not any(block._forward_hooks for block in transformer.blocks)
    before = {name: [x.clone() for x in streams] for name, streams in edit.items()}
    transformer(*inputs)
    assert all(torch.equal(a, b) for name in before for a, b in zip(before[name], edit[name], strict=True))


def test_the_reader_reads_each_token_of_a_position(data):
    reader = SceneReader(4 * sum(ANSWERS), blocks=(3,))
    reader.heads["3"] = torch.nn.Identity()
    labels, stream = data["source_labels"][:2], torch.zeros(2, 64, 4, sum(ANSWERS))
    for row in range(16):
        for column in range(16):
            place, part, start = 8 * (row // 2) + column // 2, 2 * (row % 2) + column % 2, 0
            for layer, answers in enumerate(ANSWERS):
                stream[torch.arange(2), place, part, start + labels[:, layer, row, column]] = 50
                start += answers
    stream = stream.flatten(2)
    assert reader.loss({"3": [stream]}, [labels]) < 1e-6
    assert reader.loss({"3": [stream]}, [labels.flip(0)]) > 1
    assert reader.loss({"3": [stream]}, [labels.flip(-1)]) > 1


def test_local_start_keeps_an_edit_local():
    torch.manual_seed(0)
    picture = torch.rand(1, 3, 64, 64)
    changed = picture.clone()
    changed[:, :, :16, :16] = 1 - changed[:, :, :16, :16]
    spread = {}
    for local in (False, True):
        vq = VQModel(SMALL.vq)
        if local:
            start_local(vq)
        with torch.no_grad():
            difference = (vq.latents(picture) - vq.latents(changed)).abs().mean(1)[0]
        spread[local] = (difference[10:, 10:].mean() / difference[:4, :4].mean()).item()
    assert spread[True] < 0.2 * spread[False]


def test_similar_codes_get_similar_embeddings():
    torch.manual_seed(0)
    transformer = MaskedGenerativeTransformer(SMALL.transformer)
    codes = torch.randn(SMALL.vq.num_vq_embeddings, 8)
    codes[1] = codes[0] + 0.01
    start_from_codes(transformer, codes)
    rows = torch.nn.functional.normalize(transformer.embed.embeddings.weight[: len(codes)], dim=1)
    assert rows[0] @ rows[1] > (rows[0] @ rows[2:].T).mean() + 0.5


def test_a_fresh_network_repeats_what_it_sees_and_copies_the_source():
    torch.manual_seed(0)
    recipe = replace(TINY, text_layers=1)
    encoder, transformer = build_text_encoder(recipe), MaskedGenerativeTransformer(recipe.transformer)
    start_from_codes(transformer, torch.randn(TINY.vq.num_vq_embeddings, 8))
    tokens = torch.randint(0, TINY.vq.num_vq_embeddings, (2, 16, 16))
    masked = torch.full_like(tokens, TINY.transformer.vocab_size - 1)
    text = encoder.encode_ids(encoder.tokenize(["make the fish blue", "remove the cat"])[0]["input_ids"])
    with torch.no_grad():
        repeated = transformer(tokens, text, torch.zeros(2)).argmax(1)
        copied = transformer(masked, text, torch.zeros(2), source=tokens).argmax(1)
    assert (repeated == tokens).float().mean() > 0.95
    assert (copied == tokens).float().mean() > 0.5, "random neighbours blur more than those of a picture"


def test_fewer_samples_than_a_batch_are_refused():
    assert len(next(batches(4, 4, 0, seed=0))) == 4
    with pytest.raises(TrainingError, match="3 samples for a batch of 4"):
        next(batches(3, 4, 0, seed=0))


@pytest.mark.parametrize("caption_share", [0.0, 1.0])
def test_a_killed_run_ends_with_the_same_weights(tmp_path, data, vq, caption_share, monkeypatch):
    def run(folder):
        torch.manual_seed(5)
        encoder, transformer = build_text_encoder(SMALL), MaskedGenerativeTransformer(SMALL.transformer)
        recipe = replace(SMALL, samples=16, caption_share=caption_share)
        return train_transformer(transformer, encoder, data, vq.quantize.embedding.weight, Run(folder), recipe)

    whole = run(tmp_path / "whole").state_dict()
    calls = []

    def killed_at_the_third(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return training_loss(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("editmgt_lab.training.run.CHECKPOINT_SECONDS", 0)
        patch.setattr("editmgt_lab.training.transformer.training_loss", killed_at_the_third)
        run(tmp_path / "killed")
    resumed = run(tmp_path / "killed").state_dict()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_vq_learns_and_resumes(tmp_path):
    config = replace(SMALL.vq, num_vq_embeddings=32)
    drawn = pictures(16, 64)
    settings = dict(samples=1600, batch_size=8, crop=32, learning_rate=2e-3, muon_learning_rate=0.01, device="cpu")
    torch.manual_seed(1)
    trained = train_vq(config, lambda: drawn, Run(tmp_path), **settings)
    again = train_vq(config, lambda: pytest.fail("nothing is left to train"), Run(tmp_path), **settings)
    images = drawn[:4].float() / 255
    assert torch.equal(trained.encode(images), again.encode(images))
    psnr = [json.loads(line)["psnr"] for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert psnr[-1] > psnr[0] + 1


def test_a_vq_model_that_was_killed_among_drawn_codes_ends_the_same(tmp_path, monkeypatch):
    """Codes are redrawn in every step of the autoencoder, and later those that nothing chooses."""
    monkeypatch.setattr("editmgt_lab.training.run.CHECKPOINT_SECONDS", 0)
    config, drawn = replace(SMALL.vq, num_vq_embeddings=32), pictures(8, 64)
    settings = dict(samples=64, batch_size=4, crop=32, learning_rate=2e-3, muon_learning_rate=0.01, device="cpu")

    class Killed(Run):
        def save(self, state):
            super().save(state)
            if state["done"] == 4:
                raise KeyboardInterrupt

    whole = train_vq(config, lambda: drawn, Run(tmp_path / "whole"), **settings).state_dict()
    with pytest.raises(KeyboardInterrupt):
        train_vq(config, lambda: drawn, Killed(tmp_path / "killed"), **settings)
    resumed = train_vq(config, lambda: drawn, Run(tmp_path / "killed"), **settings).state_dict()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_a_log_has_each_sample_once_though_a_run_was_killed(tmp_path):
    killed = Run(tmp_path)
    for done in (20, 40, 60):
        killed.log(done=done, loss=1.0)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"done": 80, "lo')
    resumed = Run(tmp_path)
    for done in (40, 60):
        resumed.log(done=done, loss=2.0)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines == [{"done": 20, "loss": 1.0}, {"done": 40, "loss": 2.0}, {"done": 60, "loss": 2.0}]


@pytest.mark.parametrize("line", ["3", "[1]", '{"loss": 1}', '{"done": "x"}'])
def test_a_line_that_is_none_of_a_log_ends_what_is_kept_of_it(tmp_path, line):
    (tmp_path / "log.jsonl").write_text(f'{{"done": 20}}\n{line}\n{{"done": 30}}\n', encoding="utf-8")
    Run(tmp_path).log(done=40)
    assert (tmp_path / "log.jsonl").read_text(encoding="utf-8") == '{"done": 20}\n{"done": 40}\n'


def test_a_state_that_is_none_is_said(tmp_path):
    torch.save([1, 2], tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match="cannot be read: a list"):
        Run(tmp_path).load()


def test_codes_that_nobody_uses_are_revived_by_as_many_latents_as_there_are():
    torch.manual_seed(0)
    book = torch.randn(100, 4)
    average = CodebookAverage(book)
    average.count.zero_()
    latents = 9 + torch.randn(3, 4)
    average.update(latents, torch.zeros(3, dtype=torch.long), revive=True)
    assert (book > 5).all(dim=1).sum() == 3


def test_the_loss_of_pairs_asks_for_likeness_where_they_are_the_same():
    pictures = torch.full((2, 1, 3, 8, 8), 0.5)
    same = torch.zeros(1, 1, 8, 8)
    same[..., :2] = 1
    assert pair_loss(pictures, pictures, same) == 0

    def apart(columns, signs):
        rebuilt = pictures.clone()
        for picture, sign in zip(rebuilt, signs, strict=True):
            picture[..., columns] += sign * 0.1
        return pair_loss(rebuilt, pictures, same)

    stays, changes = slice(0, 2), slice(2, 4)
    assert apart(stays, (1, 1)) > apart(changes, (1, 1)), "the part that stays counts twice"
    assert apart(stays, (1, -1)) > apart(stays, (1, 1)), "the same error in both is better than two"
    assert apart(changes, (1, -1)) == pytest.approx(apart(changes, (1, 1))), (
        "elsewhere the two have nothing to do with each other"
    )
    assert pair_loss(pictures + 0.1, pictures, 0 * same).isfinite(), "nothing stays under a new style"


def test_the_decoder_learns_while_tokens_keep_their_meaning(tmp_path, vq):
    start, drawn = copy.deepcopy(vq), picture_pairs(8, 64)
    assert drawn[0].shape == (2, 8, 3, 64, 64) and 0 < drawn[1].float().mean() < 1
    source, target = drawn[0]
    assert torch.equal(source.where(drawn[1], torch.tensor(0)), target.where(drawn[1], torch.tensor(0)))
    settings = dict(samples=160, batch_size=4, learning_rate=2e-3, muon_learning_rate=0.01)
    trained = train_decoder(copy.deepcopy(vq), lambda: drawn, Run(tmp_path), **settings)
    with torch.no_grad():
        images = source.float() / 255
        before, after = (F.mse_loss(each.decode(start.encode(images)), images) for each in (start, trained))
        assert after < 0.8 * before
        assert torch.equal(trained.encode(images), start.encode(images))
    again = train_decoder(copy.deepcopy(vq), lambda: pytest.fail("nothing is left to train"), Run(tmp_path), **settings)
    for name, value in trained.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_the_folder_has_the_released_layout_and_names(tmp_path, vq, text_encoder):
    transformer = MaskedGenerativeTransformer(SMALL.transformer)
    save_editor(tmp_path, vq, text_encoder, transformer, 64)
    diffusers = pytest.importorskip("diffusers")
    loaded = diffusers.VQModel.from_pretrained(tmp_path / "vqvae")
    assert loaded.state_dict().keys() == vq.state_dict().keys()
    for name in ("editmgt/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json"):
        assert (tmp_path / name).is_file()
    assert {"vocab.json", "tokenizer.json"} & {path.name for path in (tmp_path / "tokenizer").iterdir()}


def test_only_the_pairs_that_were_asked_for_are_drawn(tmp_path, vq, text_encoder, monkeypatch):
    monkeypatch.setattr("editmgt_lab.training.data.SHARD", 4)
    files = {}
    for pairs in (6, 7, 8, 2):
        made = token_cache(tmp_path, vq, text_encoder, pairs, 64)
        assert {len(tensor) for tensor in made.values()} == {pairs}
        files[pairs] = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    whole = token_shard(vq, text_encoder, range(8), 64)
    for pairs in (8, 6):
        for name, tensor in token_cache(tmp_path, vq, text_encoder, pairs, 64).items():
            assert torch.equal(tensor, whole[name][:pairs].long()), name
    assert files[6].items() <= files[7].items() <= files[8].items() <= files[2].items(), "none is made twice"
    assert set(files[8]) == {f"000000{name}.safetensors" for name in ("0", "4", "4-2", "4-3")}


def test_a_damaged_shard_of_tokens_is_said(tmp_path, vq, text_encoder):
    token_cache(tmp_path, vq, text_encoder, 2, 64)
    (shard,) = tmp_path.iterdir()
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        token_cache(tmp_path, vq, text_encoder, 2, 64)


def test_as_many_pictures_are_drawn_as_were_asked_for():
    three = pictures(3, 32)
    assert torch.equal(three, pictures(4, 32)[:3]) and len(pictures(1, 32)) == 1


@pytest.mark.parametrize(
    "given",
    [
        "--pairs 0", "--pairs -5", "--batch 0", "--image-size 0", "--vq-pictures 0", "--codes -1",
        "--window -1", "--cool-down 0", "--asked-share 0", "--caption-share 1.5", "--text-dropout nan",
        "--muon-learning-rate inf", "--look-weight -1",
    ],
)  # fmt: skip
def test_a_number_that_cannot_be_is_refused(tmp_path, capsys, given):
    places = ["--folder", str(tmp_path / "run"), "--output", str(tmp_path / "out")]
    assert main(["--start", "tiny", "--only", "tokens", *given.split(), *places]) == 2
    assert "{} is {}".format(*given.split()) in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_device_that_is_not_there_is_refused(tmp_path, capsys):
    places = ["--folder", str(tmp_path / "run"), "--output", str(tmp_path / "out")]
    assert main(["--device", "nonsense", *places]) == 2
    assert "device 'nonsense' cannot be used" in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipes_pass_their_own_checks(name):
    check(RECIPES[name])


@pytest.mark.parametrize("name", ["--vq-crop", "--decoder-crop"])
def test_crops_larger_than_the_pictures_are_refused(tmp_path, capsys, name):
    places = ["--folder", str(tmp_path / "run"), "--output", str(tmp_path / "out")]
    assert main(["--recipe", "tiny", "--device", "cpu", name, "72", *places]) == 2
    assert f"{name} is 72" in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.parametrize("recipe", ["tiny", "small"])
@pytest.mark.parametrize("only", ["decoder", "tokens", "transformer", "save"])
def test_a_stage_that_has_nothing_to_go_on_from_says_what_to_run(tmp_path, capsys, recipe, only):
    places = ["--folder", str(tmp_path / "run"), "--output", str(tmp_path / "out")]
    assert main(["--recipe", recipe, "--only", only, "--device", "cpu", *places]) == 2
    assert "no state of the stage 'vq'" in (said := capsys.readouterr().err) and "--only vq" in said
    assert not (tmp_path / "out").exists()


def test_an_editor_is_not_saved_before_its_transformer_was_trained(tmp_path, capsys, tiny_folder):
    places = ["--folder", str(tmp_path / "run"), "--output", str(tmp_path / "out")]
    assert main(["--recipe", "tiny", "--only", "save", "--device", "cpu", "--start", str(tiny_folder), *places]) == 2
    said = capsys.readouterr().err
    assert "no state of the stage 'transformer'" in said and "--only transformer" in said
    assert not (tmp_path / "out").exists()
