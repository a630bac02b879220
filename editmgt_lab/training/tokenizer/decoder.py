"""Stage 1 once more: the decoder alone, on pairs, learns to show the same where two pictures are the same.

Trained on single crops, it lets a token's neighbours tinge what it shows: under a new background an object that nobody
touched changes colour, and objects, a twentieth of the picture, weigh little in its loss. Here it sees both pictures of
an edit. Encoder and codebook stay, so every token keeps its meaning.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...vq import VQModel
from ..optimizer import load_all, make_optimizers, step_all
from ..run import Run, learning_rate_scale
from .local import as_trained, hold_constant, is_local
from .vq import crops

STAYS, AGREES = 0.4, 2.0  # weights of the part that stays, and of its likeness in both pictures, beside the picture's 1


def pair_loss(rebuilt: Tensor, pictures: Tensor, same: Tensor) -> Tensor:
    """Of one batch of pairs; rebuilt, pictures: [2, B, 3, H, W], sources and targets; same: [B, 1, H, W], 1 where a
    pair shows the same. The error of the pictures and of their edges, that of the part that stays, and how far the two
    differ there.
    """
    difference = rebuilt - pictures
    error = difference.abs() + 4 * difference.square()
    edges = difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
    area = 3 * same.sum(dim=(1, 2, 3)).clamp(min=1)  # [B]

    def where_same(values: Tensor) -> Tensor:
        return ((values * same).sum(dim=(-3, -2, -1)) / area).mean()

    apart = (rebuilt[0] - rebuilt[1]).abs()
    return error.mean() + edges + STAYS * where_same(error) + AGREES * where_same(apart)


def train_decoder(
    vq: VQModel,
    draw: Callable[[], tuple[Tensor, Tensor]],
    run: Run,
    *,
    samples: int,
    batch_size: int,
    learning_rate: float,
    muon_learning_rate: float,
    crop: int = 0,
    seed: int = 0,
) -> VQModel:
    """Train the decoder of a finished VQ model in place; resumes from `run`, returns the model.

    draw: makes the pairs, uint8 [2, n, 3, H, W] and bool [n, 1, H, W], True where a pair shows the same; called only if
    there is something left to train. samples, batch_size: in pairs; crop: px of the squares that are seen of them, 0
    for whole pictures, which is what a VQ model needs whose norms look at all of a picture.
    """
    device = vq.quantize.embedding.weight.device
    decoder = vq.decoder.requires_grad_(True).to(memory_format=torch.channels_last)
    convolutions = [p for p in decoder.parameters() if p.ndim == 4]
    optimizers = make_optimizers(decoder, matrices=convolutions, lr=learning_rate, muon_lr=muon_learning_rate)
    done, local = 0, is_local(vq)
    if state := run.load():
        decoder.load_state_dict(state["decoder"])
        load_all(optimizers, state["optimizers"])
        done = state["done"]

    pictures, same = draw() if done < samples else (None, None)
    both = None if pictures is None else torch.cat([*pictures, same.to(torch.uint8) * 255], dim=1)  # [n, 7, H, W]

    def state() -> dict:
        return {"decoder": decoder.state_dict(), "optimizers": [optimizer.state_dict() for optimizer in optimizers]}

    def step(done: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed + done)
        seen = crops(both, batch_size, crop or both.shape[-1], vq.config.factor, generator).to(device)  # [B, 7, H, W]
        pair, stays = torch.stack([seen[:, :3], seen[:, 3:6]]), seen[:, 6:]  # [2, B, 3, H, W], [B, 1, H, W]
        with as_trained(vq):
            with torch.no_grad():
                codes = vq.post_quant_conv(vq.quantize(vq.encode(pair.flatten(0, 1))))  # [2B, C, h, w]
            rebuilt = decoder(codes.contiguous(memory_format=torch.channels_last)).unflatten(0, (2, -1))
        loss = pair_loss(rebuilt, pair, stays)
        decoder.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        step_all(optimizers, learning_rate_scale(done, samples))
        if local:
            hold_constant(decoder)
        return {"loss": loss, "psnr": -10 * (rebuilt - pair).square().mean().log10()}

    run.repeat(step, state, done=done, samples=samples, batch=batch_size, title="decoder", unit="pair")
    return vq.eval().requires_grad_(False)
