"""The lab against numbers that the released code computed (tests/parity/README.md says what they are)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from editmgt_lab import blocks
from editmgt_lab.attention import capture_attention
from editmgt_lab.consolidation import smooth_heat
from editmgt_lab.decoding import RegionHoldSampler
from editmgt_lab.text import TextCondition
from editmgt_lab.transformer import MaskedGenerativeTransformer

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


def test_full_size_names_and_shapes():
    inventory = json.loads((PARITY / "inventory_960m.json").read_text())["transformer"]
    with torch.device("meta"):
        full = MaskedGenerativeTransformer.from_config(inventory["config"])
    shapes = {name: list(value.shape) for name, value in full.state_dict().items()}
    assert shapes == inventory["parameters"]
    assert sum(value.numel() for value in full.parameters()) == 1_009_306_624
