"""Stage 1 of the recipe: the VQ model learns to rebuild pictures of the drawn world from one code per patch."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import TrainingError
from ...vq import VQConfig, VQModel
from ..optimizer import load_all, make_optimizers, step_all
from ..run import Run, learning_rate_scale
from .local import as_trained, hold_constant, is_local, start_local


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
        dead = (self.count < 0.01).nonzero().flatten()[: min(64, len(latents))]
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


def crops(
    pictures: Tensor, count: int, side: int, factor: int, generator: torch.Generator, *, among: int = 2
) -> Tensor:
    """Squares of whole tokens, each the busiest of some: most of a picture is calm ground, which is soon learned.

    pictures: uint8 [n, C, H, W]; returns float [count, C, side, side] in [0, 1].
    """
    chosen = torch.randint(len(pictures), (among * count,), generator=generator).tolist()
    corners = factor * torch.randint((pictures.shape[-1] - side) // factor + 1, (len(chosen), 2), generator=generator)
    drawn = torch.stack(
        [
            pictures[each, :, top : top + side, left : left + side]
            for each, (top, left) in zip(chosen, corners.tolist(), strict=True)
        ]
    )
    drawn = (drawn.float() / 255).unflatten(0, (count, among))  # [count, among, C, side, side]
    busiest = (drawn.diff(dim=-1).abs().mean(dim=(2, 3, 4))).argmax(dim=1)
    return drawn[torch.arange(count, device=drawn.device), busiest]


def reconstruction_loss(rebuilt: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Absolute and squared error, and the error of the differences between neighbours, which asks for sharp edges.

    [B, 3, H, W] twice. Returns the loss and the mean squared error.
    """
    error = rebuilt - images
    squared = error.square().mean()
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 4 * squared + edges, squared


def vq_loss(vq: VQModel, images: Tensor, *, quantized: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Reconstruction plus commitment. Returns the loss, the squared error, the latents [n, C] and their codes [n]."""
    latents = vq.latents(images)  # (B, C, h, w)
    with torch.no_grad():
        indices = vq.quantize.nearest(latents)  # (B, h, w)
        codes = vq.quantize(indices)  # (B, C, h, w)
    straight_through = latents + (codes - latents).detach()
    rebuilt = vq.decode_latents(straight_through if quantized else latents)
    loss, squared = reconstruction_loss(rebuilt, images)
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
    start: VQModel | None = None,
    among: int = 2,
    seed: int = 0,
) -> VQModel:
    """Train on crops, since convolutions at full size are slow; resumes from `run`, returns the trained model.

    draw: makes the pictures, uint8 [n, 3, H, W]; called only if there is something left to train. start: a trained
    model to go on from, of which every code keeps its meaning; among: see `crops`.
    """
    torch.manual_seed(seed)
    vq = VQModel(config).to(device, memory_format=torch.channels_last)
    vq.quantize.embedding.weight.requires_grad_(False)
    average = CodebookAverage(vq.quantize.embedding.weight.data)
    trained = [p for p in vq.parameters() if p.requires_grad]
    convolutions = [p for p in trained if p.ndim == 4]
    optimizers = make_optimizers(vq, matrices=convolutions, lr=learning_rate, muon_lr=muon_learning_rate)
    done, factor = 0, config.factor
    plain = (
        0 if start is not None else samples // 8
    )  # an autoencoder first: codes need latents that already say something
    if state := run.load():
        vq.load_state_dict(state["vq"])
        load_all(optimizers, state["optimizers"])
        average.load(state["average"])
        done = state["done"]
    pictures = draw() if done < samples else None
    if state is None and start is not None:
        if not is_local(start):
            raise TrainingError(
                "the norms of this VQ model look at whole pictures",
                expected="one that this recipe has made",
                fix="train one from nothing, or only its decoder",
            )
        vq.load_state_dict(start.state_dict())
        average.total.copy_(average.codebook)
    elif state is None:
        generator = torch.Generator().manual_seed(seed)
        start_local(vq, crops(pictures, 4 * batch_size, crop, factor, generator).to(device))

    def state() -> dict:
        optimizer_states = [optimizer.state_dict() for optimizer in optimizers]
        return {"vq": vq.state_dict(), "optimizers": optimizer_states, "average": average.state()}

    def step(done: int) -> dict[str, Tensor]:
        generator = torch.manual_seed(seed + done)  # of all that a step draws, so that a resumed run draws the same
        images = crops(pictures, batch_size, crop, factor, generator, among=among).to(
            device, memory_format=torch.channels_last
        )
        quantized = done >= plain
        with as_trained(vq):
            loss, squared, latents, indices = vq_loss(vq, images, quantized=quantized)
        vq.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        step_all(optimizers, learning_rate_scale(done, samples))
        hold_constant(vq.encoder)
        hold_constant(vq.decoder)
        if quantized:
            average.update(latents, indices, revive=start is None and done < 0.7 * samples)
        else:
            average.restart(latents)
        return {"loss": loss, "psnr": -10 * squared.log10(), "used": torch.tensor(len(indices.unique()))}

    run.repeat(step, state, done=done, samples=samples, batch=batch_size, title="VQ model", unit="picture")
    return vq.eval().requires_grad_(False)
