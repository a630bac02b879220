"""Stage 1 of the recipe: the VQ model learns to rebuild pictures of the drawn world from one code per patch."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..vq import Downsample, ResnetBlock, Upsample, VQConfig, VQModel
from .optimizer import load_all, make_optimizers, step_all
from .run import Run, learning_rate_scale


class CodebookAverage:
    """The codebook as a running mean of the latents that chose each code, instead of a gradient.

    Codes that nothing chooses are moved onto the latents that are coded worst, which keeps the whole book in use.
    """

    def __init__(self, codebook: Tensor, decay: float = 0.99):
        self.codebook, self.decay = codebook, decay
        self.count = torch.ones(len(codebook), device=codebook.device)
        self.total = codebook.clone()

    @torch.no_grad()
    def restart(self, latents: Tensor) -> None:
        """Replace codes, oldest first, by latents [n, C]: the book to start quantising with."""
        fresh = latents[torch.randperm(len(latents), device=latents.device)[: min(64, len(self.codebook))]]
        self.codebook.copy_(torch.cat([self.codebook[len(fresh) :], fresh]))
        self.total.copy_(self.codebook)

    @torch.no_grad()
    def update(self, latents: Tensor, indices: Tensor, *, revive: bool) -> None:
        """latents: [n, C]; indices: [n], the code that each of them chose; revive: whether to move unused codes."""
        chosen = torch.bincount(indices, minlength=len(self.codebook)).to(latents.dtype)
        self.count.lerp_(chosen, 1 - self.decay)
        self.total.lerp_(torch.zeros_like(self.total).index_add_(0, indices, latents), 1 - self.decay)
        dead = (self.count < 0.05).nonzero().flatten()[:64]
        if revive and len(dead):
            error = (latents - self.codebook[indices]).square().sum(1)
            worst = torch.multinomial(error + 1e-8, len(dead))
            self.total[dead], self.count[dead] = latents[worst], 1.0
        known = self.count > 1e-6
        self.codebook[known] = self.total[known] / self.count[known, None]

    def state(self) -> dict:
        """For a checkpoint."""
        return {"count": self.count, "total": self.total}

    def load(self, state: dict) -> None:
        """From a checkpoint."""
        self.count.copy_(state["count"])
        self.total.copy_(state["total"])


@torch.no_grad()
def start_local(vq: VQModel, anchor: float = 20.0) -> None:
    """Give the network a start in which a token, and what it is decoded to, depend on their surroundings alone.

    A group norm looks at the whole picture, so an edit in one corner would change tokens and colours in all others.
    Here one channel in eight is a constant of ±anchor in front of every norm: it rules the norm's statistics, which
    then hardly move with the picture. And the encoder's convolutions on the token grid begin, and stay, pointwise.
    """
    for module in vq.modules():
        if isinstance(module, ResnetBlock):
            _hold_constant(module.conv1, anchor)
            _hold_constant(module.conv2, 0.0)
            if isinstance(module.conv_shortcut, nn.Conv2d):
                _hold_constant(module.conv_shortcut, anchor)
        elif isinstance(module, (Downsample, Upsample)):
            _hold_constant(module.conv, anchor)
        elif isinstance(module, nn.GroupNorm):
            module.weight.fill_(anchor / 8**0.5)
            module.weight[-(module.num_channels // 8) :] = 0
    _hold_constant(vq.encoder.conv_in, anchor)
    _hold_constant(vq.decoder.conv_in, anchor)
    for module in [*vq.encoder.down_blocks[-1].modules(), *vq.encoder.mid_block.modules(), vq.encoder.conv_out]:
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            centre = torch.zeros(3, 3, device=module.weight.device)
            centre[1, 1] = 1
            module.weight.mul_(centre * 3)
            module.weight.register_hook(lambda gradient, centre=centre: gradient * centre)


def _hold_constant(conv: nn.Conv2d, anchor: float) -> None:
    """Make the last eighth of the output channels +anchor, -anchor, +anchor, …"""
    last = conv.out_channels // 8
    conv.weight[-last:] = 0
    conv.bias[-last:] = anchor * torch.tensor([1.0, -1.0]).repeat(last // 2).to(conv.bias)


def vq_loss(vq: VQModel, images: Tensor, *, quantized: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Reconstruction plus commitment. Returns the loss, the squared error, the latents [n, C] and their codes [n]."""
    latents = vq.latents(images)  # (B, C, h, w)
    with torch.no_grad():
        indices = vq.quantize.nearest(latents)  # (B, h, w)
        codes = vq.quantize(indices)  # (B, C, h, w)
    straight_through = latents + (codes - latents).detach()
    rebuilt = vq.decode_latents(straight_through if quantized else latents)
    squared = F.mse_loss(rebuilt, images)
    loss = F.l1_loss(rebuilt, images) + 4 * squared
    if quantized:
        loss = loss + 0.25 * F.mse_loss(latents, codes)
    return loss, squared, latents.detach().permute(0, 2, 3, 1).flatten(0, 2), indices.flatten()


def train_vq(
    config: VQConfig,
    draw: Callable[[], Tensor],
    run: Run,
    *,
    samples: int,
    batch_size: int,
    crop: int,
    learning_rate: float,
    muon_learning_rate: float,
    device: str,
    seed: int = 0,
) -> VQModel:
    """Train on crops, since convolutions at full size are slow; resumes from `run`, returns the trained model.

    draw: makes the pictures, uint8 [n, 3, H, W]; called only if there is something left to train.
    """
    torch.manual_seed(seed)
    vq = VQModel(config).to(device, memory_format=torch.channels_last)
    start_local(vq)
    vq.quantize.embedding.weight.requires_grad_(False)
    average = CodebookAverage(vq.quantize.embedding.weight.data)
    trained = [p for p in vq.parameters() if p.requires_grad]
    convolutions = [p for p in trained if p.ndim == 4]
    optimizers = make_optimizers(vq, matrices=convolutions, lr=learning_rate, muon_lr=muon_learning_rate)
    done, factor = 0, config.factor
    plain = samples // 8  # an autoencoder first: codes need latents that already say something
    if state := run.load():
        vq.load_state_dict(state["vq"])
        load_all(optimizers, state["optimizers"])
        average.load(state["average"])
        done = state["done"]

    def save() -> None:
        run.save(
            {
                "vq": vq.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "average": average.state(),
                "done": done,
            }
        )

    progress = tqdm(total=samples, initial=done, desc="VQ model", unit="picture")
    pictures = draw() if done < samples else None
    while done < samples:
        generator = torch.Generator().manual_seed(seed + done)
        chosen = torch.randint(len(pictures), (batch_size,), generator=generator)
        top, left = (
            factor * torch.randint((pictures.shape[-1] - crop) // factor + 1, (2,), generator=generator)
        ).tolist()
        images = pictures[chosen.to(device), :, top : top + crop, left : left + crop].float() / 255
        quantized = done >= plain
        loss, squared, latents, indices = vq_loss(vq, images.to(memory_format=torch.channels_last), quantized=quantized)
        vq.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        step_all(optimizers, learning_rate_scale(done, samples))
        if quantized:
            average.update(latents, indices, revive=done < samples // 2)
        else:
            average.restart(latents)
        done += batch_size
        progress.update(batch_size)
        if (done // batch_size) % 20 == 0:
            psnr = -10 * squared.log10().item()
            run.log(done=done, loss=loss.item(), psnr=psnr, used=len(indices.unique()))
            progress.set_postfix(psnr=f"{psnr:.1f} dB")
        if run.is_due():
            save()
    progress.close()
    save()
    return vq.eval().requires_grad_(False)
