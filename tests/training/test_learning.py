"""What the transformer is trained on: which text, which tokens, which step, and how the losses are summed."""

from dataclasses import replace

import pytest
import torch

from editmgt_lab.training.build import build_text_encoder
from editmgt_lab.training.data import token_shard
from editmgt_lab.training.objective import edit_weights, nearest_codes, token_losses
from editmgt_lab.training.reading import SceneReader
from editmgt_lab.training.run import Run
from editmgt_lab.training.transformer import read_blocks, train_transformer, training_loss
from editmgt_lab.transformer import MaskedGenerativeTransformer
from editmgt_lab.vq import VQModel
from tests.training.test_training import SMALL

SHARE = 0.5
RECIPE = replace(SMALL, text_dropout=0.0, asked_share=SHARE)
STRONG = {"samples": 320, "adam_learning_rate": 4e-3, "muon_learning_rate": 0.02, "average_decay": 0.9}


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return build_text_encoder(SMALL).requires_grad_(False)


@pytest.fixture(scope="module")
def codes():
    return torch.randn(SMALL.vq.num_vq_embeddings, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def data(encoder):
    torch.manual_seed(0)
    vq = VQModel(SMALL.vq).eval().requires_grad_(False)
    return {name: tensor.long() for name, tensor in token_shard(vq, encoder, range(14), 64).items()}


@pytest.fixture
def model(encoder):
    torch.manual_seed(1)
    transformer = MaskedGenerativeTransformer(SMALL.transformer)
    reader = SceneReader(transformer.config.width, read_blocks(transformer), 2)
    return torch.nn.ModuleDict({"transformer": transformer, "text_encoder": encoder, "reader": reader})


@pytest.fixture
def learn(model, encoder, data, codes, monkeypatch):
    """learn(editing, recipe) → what the transformer was given, and the losses."""

    def once(editing, recipe=RECIPE, seed=0):
        seen = {}
        forward, encode = model["transformer"].forward, encoder.encode_ids

        def listening(tokens, text, timestep, **given):
            seen.update(given, tokens=tokens, timestep=timestep, logits=forward(tokens, text, timestep, **given))
            return seen["logits"]

        def reading(ids):
            seen["ids"] = ids
            return encode(ids)

        with monkeypatch.context() as patch:
            patch.setattr(model["transformer"], "forward", listening)
            patch.setattr(encoder, "encode_ids", reading)
            torch.manual_seed(seed)
            empty = encoder.tokenize([""])[0]["input_ids"]
            looks = nearest_codes(codes, reach=recipe.look_reach)
            losses = training_loss(model, data, empty, looks, recipe, editing)
        return seen, losses

    return once


def test_an_edit_is_learned_from_its_instruction_and_its_source(learn, data):
    seen, _ = learn(editing=True)
    hidden = seen["tokens"] == SMALL.transformer.vocab_size - 1
    assert torch.equal(seen["ids"], data["instruction"]) and torch.equal(seen["source"], data["source"])
    assert torch.equal(seen["tokens"][~hidden], data["target"][~hidden]), "what is not hidden is the target's"
    assert seen["only"].any() and not (seen["only"] & ~hidden).any(), "only hidden tokens are asked"
    changed = data["source"] != data["target"]
    assert (seen["only"] | ~(hidden & changed)).all(), "and of the edit's all"
    assert seen["timestep"].max() < 36 and torch.equal(seen["timestep"], seen["timestep"].round())


def test_text_to_image_learns_both_pictures_by_their_own_captions(learn, data):
    drawn = set()
    for seed in range(3):
        seen, _ = learn(editing=False, seed=seed)
        assert seen["source"] is None
        shown = seen["tokens"] != SMALL.transformer.vocab_size - 1
        for row in range(len(shown)):
            of = [name for name in ("source", "target") if torch.equal(seen["ids"][row], data[f"{name}_caption"][row])]
            assert any(torch.equal(seen["tokens"][row][shown[row]], data[name][row][shown[row]]) for name in of)
            drawn |= {tuple(of)}
    assert {("source",), ("target",)} <= drawn


def test_texts_are_dropped(learn, encoder):
    empty = encoder.tokenize([""])[0]["input_ids"]
    assert torch.equal(learn(True, replace(RECIPE, text_dropout=1.0))[0]["ids"], empty.expand(14, -1))


def test_an_edits_place_is_hidden_to_the_last(learn, data):
    changed = data["source"] != data["target"]
    local = changed.flatten(1).float().mean(1) < 0.2
    shares = {}
    for late in (0.0, 1.0):
        runs = [learn(True, replace(RECIPE, late_share=late), seed)[0]["tokens"] for seed in range(8)]
        hidden = torch.stack(runs) == SMALL.transformer.vocab_size - 1
        shares[late] = hidden[:, changed & local[:, None, None]].float().mean() - hidden.float().mean()
    assert shares[0.0].abs() < 0.1 < 0.2 < shares[1.0]


def test_the_loss_is_the_mean_over_edits_that_count_alike_by_what_they_change(learn, data, codes):
    seen, (exact, look, _) = learn(editing=True)
    changed = data["source"] != data["target"]
    weights = edit_weights(data["source"], data["target"])[:, None, None] * torch.where(changed, 1.0, 1 / SHARE)
    weights = weights[seen["only"]]
    logits = seen["logits"].float()  # in bfloat16 where the processor has it
    by_hand = token_losses(logits, data["target"][seen["only"]], *nearest_codes(codes, reach=RECIPE.look_reach))
    assert torch.allclose(torch.stack([exact, look]), (by_hand * weights).sum(1) / weights.sum(), atol=1e-5)


def test_it_learns_and_keeps_an_average(tmp_path, model, encoder, data, codes, learn):
    before = [loss.item() for loss in learn(editing=True)[1]]
    train_transformer(
        model["transformer"], encoder, data, codes, Run(tmp_path), replace(RECIPE, caption_share=0.0, **STRONG)
    )
    after = [loss.item() for loss in learn(editing=True)[1]]
    assert after[0] < before[0] - 1 and after[1] < before[1] - 1, "both questions about tokens"
    state = Run(tmp_path).load()
    apart = {name: (state["model"][name] - state["average"][name]).abs().max() for name in state["model"]}
    for part in ("transformer.", "reader."):
        moved = max(value for name, value in apart.items() if name.startswith(part))
        assert moved > 1e-4, f"{part} the average is not the last weights, and the last are not the first"
