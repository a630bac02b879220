"""The codebook, thinned out: of codes that look alike only the one that is used most stays.

Where pictures are calm, a trained codebook has several codes for what looks the same. Which of them it is says nothing,
but the transformer has to predict it, and to draw it at random.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ...vq import VQModel
from .local import as_trained


@torch.no_grad()
def swatches(vq: VQModel) -> Tensor:
    """What every code looks like among its own kind: [codes, 3 · factor²], in [0, 1]."""
    factor, looks = vq.config.factor, []
    with as_trained(vq):
        for codes in vq.quantize.embedding.weight.split(256):
            three = codes[:, :, None, None].expand(-1, -1, 3, 3).contiguous()
            looks.append(vq.decode_latents(three)[..., factor : 2 * factor, factor : 2 * factor].clamp(0, 1).flatten(1))
    return torch.cat(looks)


def distinct(looks: Tensor, order: Tensor, apart: float) -> Tensor:
    """bool [codes]: in this order, whatever is further than `apart`, in the mean square, from all that was taken."""
    distances = torch.cdist(looks, looks) / looks.shape[1] ** 0.5
    taken, gone = torch.zeros(len(looks), dtype=torch.bool), torch.zeros(len(looks), dtype=torch.bool)
    for code in order.tolist():
        if not gone[code]:
            taken[code] = True
            gone |= distances[code].cpu() < apart
    return taken


def thinned(vq: VQModel, used: Tensor, count: int) -> VQModel:
    """The same VQ model with the `count` codes that look most different. used: [codes], how often each was chosen."""
    looks, order = swatches(vq), used.argsort(descending=True, stable=True)
    low, high = 0.0, 0.1
    for _ in range(12):  # the least distance at which no more than `count` are left
        middle = (low + high) / 2
        low, high = (middle, high) if distinct(looks, order, middle).sum() > count else (low, middle)
    taken = distinct(looks, order, high)
    rest = [code for code in order.tolist() if not taken[code]]
    taken[rest[: count - int(taken.sum())]] = True
    thin = VQModel(replace(vq.config, num_vq_embeddings=count))
    state = vq.state_dict()
    state["quantize.embedding.weight"] = state["quantize.embedding.weight"][taken.to(used.device)]
    thin.load_state_dict(state)
    return thin.to(vq.quant_conv.weight.device).eval().requires_grad_(False)
