"""Thinning the codebook out."""

from __future__ import annotations

from dataclasses import replace

import torch

from editmgt_lab.training.recipe import SMALL
from editmgt_lab.training.tokenizer.codebook import distinct, swatches, thinned
from editmgt_lab.vq import VQModel


def test_of_codes_that_look_alike_the_most_used_stays():
    looks = torch.tensor([[0.0], [0.01], [0.5], [0.505], [1.0]])
    used = torch.tensor([1.0, 9.0, 3.0, 2.0, 0.0])
    taken = distinct(looks, used.argsort(descending=True), 0.05)
    assert taken.tolist() == [False, True, True, False, True]
    assert distinct(looks, used.argsort(descending=True), 0.0).all()


def test_a_thinned_vq_model_decodes_as_before_with_the_codes_that_are_left():
    torch.manual_seed(0)
    vq = VQModel(replace(SMALL.vq, block_out_channels=(8, 16), latent_channels=4, num_vq_embeddings=40)).eval()
    with torch.no_grad():
        vq.quantize.embedding.weight.normal_()
        vq.quantize.embedding.weight[20:] = vq.quantize.embedding.weight[:20] + 1e-4
    assert swatches(vq).shape == (40, 3 * 4)
    thin = thinned(vq, torch.arange(40.0), 20)
    assert thin.config.num_vq_embeddings == 20
    assert torch.equal(thin.quantize.embedding.weight, vq.quantize.embedding.weight[20:]), "the more used ones"
    tokens = torch.randint(0, 20, (1, 4, 4))
    torch.testing.assert_close(thin.decode(tokens), vq.decode(tokens + 20))
    assert len(thinned(vq, torch.arange(40.0), 33).quantize.embedding.weight) == 33
