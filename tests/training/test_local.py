"""The VQ model that training makes: its norms see constants, so what it does stays where it is."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from editmgt_lab.training.recipe import SMALL
from editmgt_lab.training.run import Run
from editmgt_lab.training.tokenizer.local import (
    ANCHOR,
    as_trained,
    hold_constant,
    is_local,
    start_local,
    stream_convolutions,
)
from editmgt_lab.training.tokenizer.vq import crops, reconstruction_loss, train_vq
from editmgt_lab.vq import VQModel

CONFIG = replace(SMALL.vq, block_out_channels=(8, 8, 16), latent_channels=4, num_vq_embeddings=16)


@pytest.fixture(scope="module")
def vq():
    torch.manual_seed(0)
    vq = VQModel(CONFIG)
    start_local(vq, torch.rand(4, 3, 32, 32))
    return vq.requires_grad_(False)


def test_norms_left_out_change_nothing(vq):
    pictures = torch.rand(2, 3, 48, 48)
    plain = vq.decode_latents(vq.latents(pictures))
    with as_trained(vq):
        fast = vq.decode_latents(vq.latents(pictures))
    torch.testing.assert_close(plain, fast, atol=0.01, rtol=0)
    assert not any("forward" in module.__dict__ for module in vq.modules())


def test_an_edit_stays_where_it_is(vq):
    picture = torch.rand(1, 3, 96, 96)
    changed = picture.clone()
    changed[..., :16, :16] = 1 - changed[..., :16, :16]
    difference = (vq.latents(picture) - vq.latents(changed)).abs().amax(dim=1)[0]
    assert difference[:4, :4].max() > 0.1
    assert difference[9:].max() < 0.01 and difference[:, 9:].max() < 0.01
    codes = vq.latents(picture)
    other = codes.clone()
    other[..., :4, :4] = 1 - other[..., :4, :4]
    difference = (vq.decode_latents(codes) - vq.decode_latents(other)).abs().amax(dim=1)[0]
    assert difference[:16, :16].max() > 0.01 and difference[64:].max() < 0.001


def test_a_crop_meets_what_the_whole_picture_does(vq):
    picture = torch.rand(1, 3, 96, 96)
    inside = vq.latents(picture)[..., 8:16, 8:16]
    assert torch.allclose(vq.latents(picture[..., 16:80, 16:80])[..., 4:12, 4:12], inside, atol=0.01)


def test_the_start_lets_signals_through(vq):
    assert 0.5 < vq.latents(torch.rand(4, 3, 32, 32)).std() < 2


def test_weights_come_back_after_a_step():
    torch.manual_seed(0)
    vq = VQModel(CONFIG)
    assert not is_local(vq)
    start_local(vq)
    assert is_local(vq)
    with torch.no_grad():
        for parameter in vq.decoder.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    assert not is_local(vq)
    hold_constant(vq.decoder)
    assert is_local(vq)
    for conv, carries, _ in stream_convolutions(vq.decoder):
        assert conv.weight[:-1].sum(dim=0).abs().max() < 1e-5
        assert conv.bias[-1] == (ANCHOR * conv.out_channels if carries else 0)


def test_norms_of_many_groups_cannot_be_held():
    with pytest.raises(ValueError, match="groups"):
        start_local(VQModel(replace(CONFIG, norm_num_groups=4)))


def test_a_vq_model_that_is_not_local_is_left_alone():
    vq = VQModel(CONFIG)
    with as_trained(vq):
        assert not any("forward" in module.__dict__ for module in vq.modules())


def test_crops_are_whole_tokens():
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    pictures = torch.stack([rows, columns, torch.zeros_like(rows)])[None].to(torch.uint8)  # each pixel says its place
    drawn = (255 * crops(pictures, 50, 16, 8, torch.Generator().manual_seed(0))).round().long()
    corners = drawn[:, :2, 0, 0]
    assert (corners % 8 == 0).all() and len(corners.unique(dim=0)) > 10
    assert torch.equal(drawn[:, :2, -1, -1], corners + 15), "one piece of the picture"


def test_crops_prefer_what_is_busy():
    pictures = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    pictures[..., 32:] = torch.randint(0, 255, (1, 3, 64, 32), dtype=torch.uint8)
    drawn = crops(pictures, 200, 16, 8, torch.Generator().manual_seed(0))
    assert drawn.shape == (200, 3, 16, 16) and drawn.max() <= 1
    calm = (drawn.std(dim=(1, 2, 3)) == 0).float().mean()
    assert calm < 0.35, "3 places of 7 are calm, both of two in 3 of 16"


def test_blurred_edges_cost_more_than_the_same_error_spread_evenly():
    picture = torch.zeros(1, 3, 8, 8)
    picture[..., 4:] = 1
    blurred = picture.clone()
    blurred[..., 3], blurred[..., 4] = 0.25, 0.75
    even = picture + 0.25 * 2 / 8
    assert reconstruction_loss(blurred, picture)[0] > 2 * reconstruction_loss(even, picture)[0]
    assert reconstruction_loss(picture, picture)[0] == 0


def test_a_tuned_vq_model_starts_where_the_first_one_ended(tmp_path):
    torch.manual_seed(0)
    pictures = torch.randint(0, 255, (4, 3, 8, 8), dtype=torch.uint8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    settings = {"batch_size": 4, "crop": 32, "learning_rate": 2e-3, "muon_learning_rate": 0.01, "device": "cpu"}
    first = train_vq(CONFIG, lambda: pictures, Run(tmp_path / "first"), samples=160, **settings)
    untouched = train_vq(CONFIG, lambda: pictures, Run(tmp_path / "none"), samples=0, start=first, **settings)
    drawn = pictures.float() / 255
    assert torch.equal(untouched.encode(drawn), first.encode(drawn))
    tuned = train_vq(CONFIG, lambda: pictures, Run(tmp_path / "tuned"), samples=160, start=first, **settings)
    assert is_local(tuned)
    errors = [(vq.decode(vq.encode(drawn)) - drawn).abs().mean() for vq in (first, tuned)]
    assert errors[1] < errors[0]
