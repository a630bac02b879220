"""The training objective: hide some of the target's tokens, predict them from the text, the rest and the source."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..decoding.orders import neighbours
from ..transformer import AESTHETIC_SCORE

REACH = 0.05  # of the mean squared distance between codes: so near, two codes look much the same


def mask_ratio(u: Tensor) -> Tensor:
    """The share of hidden tokens for u uniform in [0, 1): cos(π u / 2), as in the released code."""
    return torch.cos(u * math.pi / 2)


def hide(
    tokens: Tensor,
    ratio: Tensor,
    mask_token_id: int,
    generator: torch.Generator | None = None,
    late: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Replace a random share of each picture's tokens by the mask token. Only the target's: the source stays whole.

    tokens: [B, h, w]; ratio: [B]; late: bool [B, h, w], True for tokens that are revealed after all others. Returns new
    tokens and bool [B, h, w], True where hidden (at least one each).
    """
    count = tokens[0].numel()
    order = torch.rand(len(tokens), count, device=tokens.device, generator=generator, dtype=torch.float32)
    if late is not None:
        order = order - late.flatten(1).float()  # the lowest are hidden longest
    rank = order.argsort(dim=1).argsort(dim=1)
    hidden = (rank < (ratio * count).ceil().clamp(min=1)[:, None]).view_as(tokens)
    return tokens.masked_fill(hidden, mask_token_id), hidden


def revealed_late(changed: Tensor, share: float) -> Tensor:
    """What decoding would leave to the last, for a random `share` of the edits: bool [B, h, w] → the same.

    Decoding reveals what it is sure of first, which is what an edit leaves alone. In the end only the edit's place is
    hidden, in a picture that shows nothing but the source. Hidden tokens strewn evenly never look like that, and a
    network that learned from those alone takes such a picture for finished: it answers "as in the source".

    The place is that of this edit, up to four tokens wider, and, so that what is hidden does not say where the edit is,
    that of another one of the batch.
    """
    wide = neighbours(changed, reach=int(torch.randint(5, ())))
    chosen = torch.rand(len(changed), device=changed.device) < share
    return (wide | wide.roll(1, dims=0)) & chosen[:, None, None]


def drop_conditions(instructions: Sequence[str], share: float, generator: torch.Generator | None = None) -> list[str]:
    """Take the text from a random `share` of the pairs, which guidance needs; "" is the unconditional text.

    The released code inverts the choice, and then encodes the texts a second time, so that nothing is dropped.
    """
    dropped = torch.rand(len(instructions), generator=generator, dtype=torch.float32) < share
    return ["" if drop else text for text, drop in zip(instructions, dropped.tolist(), strict=True)]


def step_index(u: Tensor, generator: torch.Generator | None = None, *, most: int = 36, least: int = 4) -> Tensor:
    """The timestep that decoding would show here: the step index counting down, for a random number of steps.

    The released weights are trained with the mask ratio and decoded with the step index (facts, section 1); the small
    model is trained with what decoding feeds it. u: [B] → [B].
    """
    steps = torch.randint(least, most + 1, u.shape, device=u.device, generator=generator)
    return ((1 - u) * steps - 1).ceil().clamp(min=0)


def ratio_timestep(u: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The timestep that the released code trains with: 1000 times the mask ratio. u: [B] → [B]."""
    return 1000 * mask_ratio(u)


def picture_conditions(width: int, height: int, count: int, device: torch.device) -> Tensor:
    """What the network is told of `count` pictures that nothing was cropped from: [count, 5], sides in px."""
    return torch.tensor([width, height, 0, 0, AESTHETIC_SCORE], device=device).expand(count, 5)


TIMESTEPS = {"step index": step_index, "mask ratio": ratio_timestep}


def code_likeness(codes: Tensor, reach: float = REACH) -> Tensor:
    """How much alike two codes look, as logarithms, 0 for the same code: [codes, C] → [codes, codes]."""
    squared = torch.cdist(codes, codes).square()
    return -squared / (reach * squared.mean())


def nearest_codes(codes: Tensor, count: int = 64, reach: float = REACH) -> tuple[Tensor, Tensor]:
    """Of every code the codes that look most like it, itself first, and their likeness: [codes, count] twice.

    All others are too far to count, and a large codebook has millions of pairs.
    """
    likeness, neighbours = code_likeness(codes, reach).topk(min(count, len(codes)), dim=1)
    return neighbours, likeness


def token_losses(logits: Tensor, target: Tensor, neighbours: Tensor, likeness: Tensor) -> Tensor:
    """Two questions for every hidden token, each a cross-entropy in nats: which code, and what does it look like?

    The second counts all probability on codes that look like the right one. The small codebook has dozens of them for
    most patches, so that which of them it is says little, and the first question alone teaches what matters slowly.
    Both are 0 for a network that is sure of the right code. logits: [n, codebook]; target: [n];
    neighbours, likeness: as `nearest_codes` gives them. Returns [2, n].
    """
    log_p = logits.log_softmax(dim=-1)
    exact = F.nll_loss(log_p, target, reduction="none")
    near = log_p.gather(1, neighbours[target])  # (n, count)
    return torch.stack([exact, -torch.logsumexp(near + likeness[target], dim=-1)])


def edit_weights(source: Tensor, target: Tensor) -> Tensor:
    """How much each sample counts: as one over the root of its number of changed tokens, 1 on average.

    A new style changes every token, a new colour twenty: unweighted, the wide edits drown the local ones, and weighting
    by token instead of by sample teaches to change too much. source, target: [B, h, w]; returns [B].
    """
    changed = (source != target).flatten(1).sum(dim=1).clamp(min=1)
    weights = changed.rsqrt()
    return weights / weights.mean()


def ask(hidden: Tensor, changed: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
    """Of the hidden tokens those that a loss asks: all that an edit changes, of the others, of which there are many and
    which are easy, a random `share`. Returns how much each one counts [B, h, w]: 0 if it is not asked, 1 if it changes,
    else 1 / share, so that the mean is that of asking all.

    hidden, changed: bool [B, h, w]. A picture of which none would be asked is asked all of its hidden ones.
    """
    drawn = torch.rand(hidden.shape, device=hidden.device, generator=generator, dtype=torch.float32) < share
    asked = (hidden & (changed | drawn)).float()
    asked = torch.where(changed, asked, asked / share)
    return torch.where(asked.flatten(1).any(dim=1)[:, None, None], asked, hidden.float())


def by_token(of_pairs: Tensor, hidden: Tensor) -> Tensor:
    """A value of every pair [B], for each of its hidden tokens: [n]. hidden: bool [B, h, w]."""
    return of_pairs.to(hidden.device).repeat_interleave(hidden.flatten(1).sum(dim=1))
