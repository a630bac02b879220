"""The lab against numbers that the released code computed (tests/parity/README.md says what they are)."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from editmgt_lab import blocks
from editmgt_lab.attention import capture_attention
from editmgt_lab.consolidation import smooth_heat
from editmgt_lab.decoding import RegionHoldSampler
from editmgt_lab.editor import Editor
from editmgt_lab.settings import Defaults
from editmgt_lab.text import TextCondition
from editmgt_lab.transformer import MaskedGenerativeTransformer
from editmgt_lab.vq import VQModel
from tests.support.tiny import RECIPE

PARITY = Path(__file__).parent / "parity"
MASK = 79


@pytest.fixture(scope="module")
def golden():
    return load_file(PARITY / "stages" / "golden.safetensors")


@pytest.fixture(scope="module")
def transformer():
    return MaskedGenerativeTransformer.from_pretrained(PARITY / "stages" / "transformer")


@torch.no_grad()
def run(transformer, golden, **settings):
    text = TextCondition(golden["text"], golden["pooled"])
    return transformer(
        golden["tokens"], text, golden["timestep"], micro_conditions=golden["micro"], bias_text=True, **settings
    )


def logits_error(transformer, golden, strength):
    if strength is None:
        return (run(transformer, golden) - golden["logits_text_to_image"]).abs().max().item()
    logits = run(transformer, golden, source=golden["source"], strength=strength)
    return (logits - golden[f"logits_edit_strength_{strength}"]).abs().max().item()


@pytest.mark.parametrize("strength", [None, 1.0, 1.1, 0.5])
def test_logits(transformer, golden, strength):
    # The timestep, 7000, multiplies the last bit of every frequency, and exp differs in that bit between processors.
    assert logits_error(transformer, golden, strength) < 2e-4


@pytest.mark.parametrize("strength", [None, 1.0, 1.1, 0.5])
def test_logits_with_the_recorded_frequencies(transformer, golden, strength, monkeypatch):
    exponents = -torch.arange(128, dtype=torch.float32) * 9.210340371976184 / 128
    frequencies = exponents.double().exp().float()
    frequencies[13] = frequencies[13].nextafter(torch.tensor(1.0))  # one bit, as the recording processor rounded it
    monkeypatch.setattr(blocks, "frequencies", lambda: frequencies)
    assert logits_error(transformer, golden, strength) < 2e-5


def test_sinusoids_are_those_of_diffusers():
    embeddings = pytest.importorskip("diffusers.models.embeddings")
    values = torch.tensor([0.0, 6.0, 512.0, 7000.0])
    expected = embeddings.get_timestep_embedding(values, 256, flip_sin_to_cos=True, downscale_freq_shift=0)
    assert torch.equal(blocks.sinusoids(values), expected)


@pytest.mark.parametrize(
    ("strength", "captured_blocks", "name"),
    [
        (1.0, range(5), "text_to_image_attention_strength_1.0_all_blocks"),
        (1.1, range(2, 5), "text_to_image_attention_strength_1.1_single_blocks"),
    ],
)
def test_captured_attention(transformer, golden, strength, captured_blocks, name):
    with capture_attention(transformer, blocks=captured_blocks, keys="generated") as captured:
        run(transformer, golden, source=golden["source"], strength=strength)
    maps = torch.stack([captured.text_to_image(block) for block in captured_blocks], dim=1)
    torch.testing.assert_close(maps, golden[name], atol=1e-5, rtol=0)


def test_smoothing():
    maps = load_file(PARITY / "smoothing.safetensors")
    torch.testing.assert_close(smooth_heat(maps["rescaled"]), maps["adaptive"], atol=1e-4, rtol=0)
    assert (maps["rescaled"] - maps["adaptive"]).abs().max() > 0.1  # the filter does something


@pytest.mark.parametrize("hold_threshold", [0.0, 0.3])
def test_decoding_token_for_token(golden, hold_threshold):
    sampler = RegionHoldSampler(MASK, 8, hold="released")
    generator = torch.Generator().manual_seed(123)
    tokens = torch.full_like(golden["tokens"], MASK)
    for index, expected in enumerate(golden[f"decode_lambda_{hold_threshold}"]):
        tokens = sampler.step(
            golden["logits_edit_strength_1.1"],
            tokens,
            index,
            heat=golden["heat"].reshape(tokens.shape),
            hold_threshold=hold_threshold,
            source=golden["source"],
            generator=generator,
        )
        assert torch.equal(tokens, expected), f"step {index}"


class Conditions(nn.Module):
    """A text encoder that has one answer, whose last rows are said to be padding."""

    def __init__(self, golden):
        super().__init__()
        self.condition = TextCondition(golden["text"], golden["pooled"], padding=torch.arange(9).expand(2, 9) > 5)
        self.width, self.pooled_width = 48, 40

    def tokenize(self, texts):
        return [{"offset_mapping": torch.zeros(len(texts), 9, 2, dtype=torch.long)}]

    def forward(self, texts):
        return self.condition


RELEASED_HEAT = {"heat_keys": "generated", "heat_padding": True}


def first_step(transformer, golden, monkeypatch, strength, blocks, **heat):
    """An editor's first of 8 steps, from the golden tokens, at λ = 0.1."""
    prepare, vq = transformer.prepare, VQModel(replace(RECIPE.vq, num_vq_embeddings=64))
    micro = {"micro_conditions": golden["micro"]}
    monkeypatch.setattr(transformer, "prepare", lambda *inputs, **others: prepare(*inputs, **others | micro))
    defaults = Defaults(
        image_size=48, blocks=tuple(blocks), strength=strength, guidance_scale=1.0, hold_threshold=0.1, **heat
    )
    editor = Editor(vq, Conditions(golden), transformer, defaults=defaults)
    monkeypatch.setattr(editor, "_encode", lambda fitted: golden["source"])
    task = editor.prepare([Image.new("RGB", (48, 48))] * 2, "make it blue", steps=8, seed=[5, 6])
    return next(editor.decode(replace(task, start=golden["tokens"])))


@pytest.mark.parametrize(
    ("strength", "blocks", "name"),
    [
        (1.0, range(5), "text_to_image_attention_strength_1.0_all_blocks"),
        (1.1, range(2, 5), "text_to_image_attention_strength_1.1_single_blocks"),
    ],
)
def test_the_released_heat_map_and_its_tokens(transformer, golden, monkeypatch, strength, blocks, name):
    mean = golden[name].mean(dim=(1, 2, 3))  # of blocks, heads and all text rows: [2, 36]
    low, high = mean.amin(1, keepdim=True), mean.amax(1, keepdim=True)
    heat = smooth_heat(((mean - low) / (high - low)).reshape(2, 6, 6))
    heat = F.interpolate(heat[:, None], size=(12, 12), mode="bicubic")[:, 0].clamp(0, 1)
    tokens = RegionHoldSampler(MASK, 8).step(
        golden[f"logits_edit_strength_{strength}"], golden["tokens"], 0, heat=heat, hold_threshold=0.1,
        source=golden["source"], generator=[torch.Generator().manual_seed(seed) for seed in (5, 6)],
    )  # fmt: skip
    step = first_step(transformer, golden, monkeypatch, strength, blocks, **RELEASED_HEAT)
    torch.testing.assert_close(step.heat, heat, atol=1e-3, rtol=0)
    assert torch.equal(step.tokens, tokens) and 0 < step.held.float().mean() < 1
    for one in RELEASED_HEAT:
        settings = {key: value for key, value in RELEASED_HEAT.items() if key != one}
        other = first_step(transformer, golden, monkeypatch, strength, blocks, **settings)
        assert (other.heat - heat).abs().max() > 0.01, "ours is another map"


def test_full_size_names_and_shapes():
    inventory = json.loads((PARITY / "inventory_960m.json").read_text(encoding="utf-8"))["transformer"]
    with torch.device("meta"):
        full = MaskedGenerativeTransformer.from_config(inventory["config"])
    shapes = {name: list(value.shape) for name, value in full.state_dict().items()}
    assert shapes == inventory["parameters"]
    assert sum(value.numel() for value in full.parameters()) == 1_009_306_624
