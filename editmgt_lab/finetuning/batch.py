"""What one step of fine-tuning learns from: pairs of tokens, and all the noise that is drawn for them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.tokens import TokenPairs
from ..training.objective import TIMESTEPS, ask, drop_conditions, edit_weights, hide, mask_ratio
from .settings import FinetuneSettings


@dataclass(frozen=True)
class Batch:
    """Pairs of one step with their noise. source, target: [B, h, w]; hidden: bool [B, h, w], what of the target the
    network does not see; weights: [B, h, w], how much the loss of each hidden token counts, 0 where it is not asked;
    timestep: [B]; replayed: bool [B], the old ones; texts: B instructions."""

    source: Tensor
    target: Tensor
    hidden: Tensor
    timestep: Tensor
    weights: Tensor
    replayed: Tensor
    texts: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, part: slice | Tensor) -> Batch:
        """Some of the pairs, by a slice or by bool [B]."""
        texts = [self.texts[i] for i in torch.arange(len(self))[part].tolist()]
        return Batch(**{name: texts if name == "texts" else value[part] for name, value in vars(self).items()})

    def __add__(self, other: Batch) -> Batch:
        return Batch(
            **{
                name: mine + theirs if name == "texts" else torch.cat([mine, theirs])
                for (name, mine), theirs in zip(vars(self).items(), vars(other).values(), strict=True)
            }
        )

    def split(self, size: int) -> list[Batch]:
        return [self[start : start + size] for start in range(0, len(self), size)]

    @property
    def asked(self) -> Tensor:
        """bool [B, h, w]: the hidden tokens whose loss counts."""
        return self.weights > 0

    @property
    def total(self) -> Tensor:
        """The weight of all tokens that are asked, by which a sum of their losses becomes a mean."""
        return self.weights.sum()


def draw_batch(
    pairs: TokenPairs,
    chosen: Tensor,
    settings: FinetuneSettings,
    generator: torch.Generator,
    *,
    replayed: bool = False,
) -> Batch:
    """The chosen pairs [B], with a mask ratio, hidden tokens, timestep and dropped texts drawn for each."""
    source, target = pairs.source[chosen], pairs.target[chosen]
    u = torch.rand(len(chosen), generator=generator, dtype=torch.float32)
    _, hidden = hide(target, mask_ratio(u), -1, generator)
    counts = ask(hidden, source != target, settings.asked_share, generator)
    return Batch(
        source=source,
        target=target,
        hidden=hidden,
        timestep=TIMESTEPS[settings.timestep](u, generator).float(),
        weights=edit_weights(source, target)[:, None, None] * counts,
        replayed=torch.full((len(chosen),), replayed),
        texts=drop_conditions([pairs.instructions[i] for i in chosen.tolist()], settings.text_dropout, generator),
    )
