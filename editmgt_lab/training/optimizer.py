"""Muon for matrices and convolutions inside a network, AdamW for everything else.

`torch.optim.Muon` orthogonalises in bfloat16, which CPUs without bf16 units emulate a hundred times slower than
float32; this one does so only where it is fast, and handles all matrices of one shape at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..basics.dtypes import has_bfloat16


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration of Muon (Jordan et al. 2024): singular values [n, r, c] → near 1."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised; lr is the spectral size of one step; convolutions are [out, rest]."""

    def __init__(self, params, lr: float, momentum: float = 0.95, weight_decay: float = 0.01):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[p.flatten(1).shape].append(p)
            for shape, params in by_shape.items():
                updates = []
                for p in params:
                    buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    buffer.lerp_(p.grad, 1 - group["momentum"])
                    updates.append(p.grad.lerp(buffer, group["momentum"]).flatten(1))
                stack = torch.stack(updates)
                half = stack.bfloat16() if has_bfloat16(stack.device) else stack
                scale = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for p, update in zip(params, orthogonalize(half), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update.view_as(p).to(p.dtype), alpha=-scale)


def make_optimizers(
    model: nn.Module, *, matrices: list[Tensor], lr: float, muon_lr: float, slow: Sequence[Tensor] = ()
) -> list:
    """One Muon for `matrices`, one AdamW for the other parameters of `model`, at a tenth of its rate for `slow`."""
    chosen = {id(p) for p in (*matrices, *slow)}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
    decayed = [p for p in rest if p.ndim > 1]
    plain = [p for p in rest if p.ndim <= 1]
    adam = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}], lr=lr, betas=(0.9, 0.98)
    )
    if slow:
        adam.add_param_group({"params": list(slow), "weight_decay": 0.0, "lr": lr / 10})
    optimizers = [Muon(matrices, lr=muon_lr), adam]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def step_all(optimizers: list, scale: float) -> None:
    """One step of each, at `scale` times the learning rate that it began with."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * scale
        optimizer.step()


def load_all(optimizers: list, states: list[dict]) -> None:
    """The states of all, as a checkpoint keeps them."""
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict(state)
