"""Stage 1: the VQ model against diffusers, its full size, its folder and its refusals."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from editmgt_lab.errors import CheckpointError, SettingError, ShapeError
from editmgt_lab.vq import VQConfig, VQModel
from tests.support.tiny import RECIPE, enliven

PARITY = Path(__file__).parent / "parity"


@pytest.fixture
def vq():
    torch.manual_seed(1)
    model = VQModel(RECIPE.vq).eval()
    enliven(model.quantize)
    return model


@torch.no_grad()
def test_indices_and_pictures_are_those_of_diffusers(tiny_folder):
    theirs = pytest.importorskip("diffusers").VQModel.from_pretrained(tiny_folder / "vqvae").eval()
    mine = VQModel.from_pretrained(tiny_folder / "vqvae")
    pictures = torch.rand(2, 3, 24, 40, generator=torch.Generator().manual_seed(0))
    latents = theirs.encode(pictures).latents
    indices = theirs.quantize(latents)[2][2].view(2, 6, 10)
    tokens = mine.encode(pictures)
    assert torch.equal(tokens, indices) and len(tokens.unique()) > 4
    expected = theirs.decode(latents).sample.clamp(0, 1)
    torch.testing.assert_close(mine.decode(tokens), expected, atol=1e-4, rtol=0)
    assert expected.std() > 1e-3


@torch.no_grad()
def test_a_folder_that_diffusers_wrote(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    theirs = diffusers.VQModel(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        layers_per_block=2,
        latent_channels=6,
        num_vq_embeddings=20,
        norm_num_groups=4,
        vq_embed_dim=5,
        mid_block_add_attention=False,
        lookup_from_codebook=True,
    ).eval()
    theirs.save_pretrained(tmp_path)
    mine = VQModel.from_pretrained(tmp_path)
    assert (mine.config.embed_dim, mine.config.factor) == (5, 2)
    tokens = torch.arange(20).reshape(1, 4, 5)
    expected = theirs.decode(tokens, force_not_quantize=True, shape=(1, 4, 5, 5)).sample.clamp(0, 1)
    torch.testing.assert_close(mine.decode(tokens), expected, atol=1e-4, rtol=0)


def test_full_size_names_and_shapes():
    inventory = json.loads((PARITY / "inventory_960m.json").read_text(encoding="utf-8"))["vqvae"]
    with torch.device("meta"):
        full = VQModel(VQConfig.from_dict(inventory["config"]))
    shapes = {name: list(value.shape) for name, value in full.state_dict().items()}
    assert shapes == inventory["parameters"]
    assert full.config.factor == 16


@torch.no_grad()
def test_a_token_is_its_nearest_code(vq):
    latents = vq.latents(torch.rand(1, 3, 16, 24))
    codes = vq.quantize.embedding.weight
    distances = (latents[0, :, :, :, None] - codes.T[:, None, None]).square().sum(0)  # (h, w, codes)
    assert distances.shape == (4, 6, 32)
    assert torch.equal(vq.quantize.nearest(latents)[0], distances.argmin(-1))


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint8, torch.int32, torch.uint16])
@torch.no_grad()
def test_tokens_may_be_kept_small(vq, dtype):
    tokens = torch.arange(32).view(1, 4, 8)
    assert torch.equal(vq.decode(tokens.to(dtype)), vq.decode(tokens))


@torch.no_grad()
def test_pictures_of_another_precision(vq):
    pictures = torch.rand(1, 3, 16, 16)
    assert torch.equal(vq.encode(pictures.double()), vq.encode(pictures))
    vq.bfloat16()
    assert torch.equal(vq.encode(pictures), vq.encode(pictures.bfloat16()))
    assert vq.latents(pictures).dtype == torch.bfloat16


@torch.no_grad()
def test_half_precision(vq):
    half = VQModel(RECIPE.vq).to(torch.bfloat16)
    half.load_state_dict(vq.state_dict())
    tokens = half.encode(torch.rand(1, 3, 16, 16).bfloat16())
    assert tokens.dtype == torch.int64 and half.decode(tokens).dtype == torch.bfloat16


@torch.no_grad()
def test_what_overflows_in_float16_is_computed_in_float32(vq):
    """Finite weights whose results are not: tokens and pictures are those of float32."""
    for part in (vq.encoder.conv_in, vq.post_quant_conv, vq.decoder.conv_in):
        part.weight.mul_(3e4 / part.weight.abs().max())
    half = VQModel(RECIPE.vq).half()
    half.load_state_dict(vq.state_dict())
    vq.load_state_dict(half.state_dict())  # the same rounding of the weights
    pictures = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0)).half()
    assert all(weight.isfinite().all() for weight in half.parameters())
    assert not half.latents(pictures).isfinite().all()
    tokens = half.encode(pictures)
    assert torch.equal(tokens, vq.encode(pictures.float())) and len(tokens.unique()) > 2
    assert not half.decode_latents(half.quantize(tokens)).isfinite().all()
    torch.testing.assert_close(half.decode(tokens).float(), vq.decode(tokens))
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float16}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@torch.no_grad()
def test_what_is_no_number_is_no_token_and_no_picture(vq, dtype):
    pictures = torch.rand(1, 3, 16, 16)
    tokens = vq.encode(pictures)
    vq.to(dtype)
    for value in (float("nan"), float("inf")):
        broken = pictures.to(dtype)
        broken[0, 0, 3, 3] = value
        with pytest.raises(SettingError, match="makes no numbers(?s:.*)float32"):
            vq.encode(broken)
    vq.decoder.conv_in.weight.view(-1)[0] = float("nan")
    with pytest.raises(SettingError, match="makes no numbers"):
        vq.decode(tokens)
    vq.encoder.conv_in.weight.view(-1)[0] = float("nan")
    with pytest.raises(SettingError, match="makes no numbers"):
        vq.encode(pictures.to(dtype))


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 4, 16, 16), (1, 3, 18, 16), (1, 3, 0, 0)])
def test_pictures_off_the_grid(vq, shape):
    with pytest.raises(ShapeError, match="multiple of 4"):
        vq.encode(torch.zeros(shape))
    with pytest.raises(ShapeError, match="torch.uint8"):
        vq.latents(torch.zeros(1, 3, 16, 16, dtype=torch.uint8))


@pytest.mark.parametrize(
    "tokens",
    [torch.zeros(4, 4).long(), torch.full((1, 4, 4), 32), torch.full((1, 4, 4), -1), torch.zeros(1, 4, 4)],
    ids=["no batch", "beyond the codebook", "negative", "floats"],
)
def test_tokens_that_cannot_be_decoded(vq, tokens):
    with pytest.raises(ShapeError, match=r"\[0, 31\]"):
        vq.decode(tokens)


def test_another_architecture_is_refused():
    with pytest.raises(CheckpointError, match="norm_type"):
        VQConfig.from_dict({"norm_type": "spatial"})


@pytest.mark.parametrize("groups", [-1, 0, 0.5, True, None])
def test_groups_that_are_none_are_refused(groups):
    with pytest.raises(SettingError, match="norm_num_groups"):
        VQConfig.from_dict({"norm_num_groups": groups})


def test_weights_of_another_shape(tiny_folder, tmp_path):
    config = json.loads((tiny_folder / "vqvae" / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_vq_embeddings": 48}), encoding="utf-8")
    weights = "diffusion_pytorch_model.safetensors"
    (tmp_path / weights).write_bytes((tiny_folder / "vqvae" / weights).read_bytes())
    with pytest.raises(CheckpointError, match=r"quantize.embedding.weight \[32, 4\] instead of \[48, 4\]"):
        VQModel.from_pretrained(tmp_path)


def test_the_factor_follows_the_levels():
    assert VQConfig().factor == 16 and replace(RECIPE.vq, block_out_channels=(8, 8)).factor == 2


def test_a_device_that_is_not_there(tiny_folder):
    for device in ("cuba", "cuda:99", "meta"):
        with pytest.raises(SettingError, match=f"device '{device}' cannot be used"):
            VQModel.from_pretrained(tiny_folder / "vqvae", device=device)
