"""Stage 5: logits become tokens, the most confident first; outside the edit the source is held."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from einops import rearrange
from torch import Tensor

from ..basics.checks import check_name, check_number, may_look
from ..errors import SettingError, ShapeError
from .draws import DRAWS, Generators, draw_tokens, gumbel_noise, to_probabilities
from .orders import ORDERS

T = TypeVar("T")


def cosine_schedule(progress: Tensor) -> Tensor:
    """Share of the tokens still masked at a progress of 0…1: slow at first, when little is known."""
    return torch.cos(progress * math.pi / 2)


def linear_schedule(progress: Tensor) -> Tensor:
    """Share of the tokens still masked at a progress of 0…1: the same number of tokens in every step."""
    return 1 - progress


SCHEDULES: dict[str, Callable[[Tensor], Tensor]] = {"cosine": cosine_schedule, "linear": linear_schedule}
HOLDS = ("released", "commit", "agree")
COLDEST = 0.01  # token temperature; what is drawn is then nearly always the most probable token
MOST_STEPS = 10_000  # more than any grid here has tokens to decide
HOLD_BY = ("step", "mean")  # which heat map a step holds by: its own, or the one over all steps so far


def temperatures(value: float | tuple[float, float]) -> tuple[float, float]:
    """Of the noise on the confidence, in the first and the last step; a single number falls to 0.01, as in the released
    code. Raises SettingError."""
    first, last = value if isinstance(value, (tuple, list)) and len(value) == 2 else (value, 0.01)
    for each in (first, last):
        check_number(each, "temperature", 0, math.inf, "pass those of the first and the last step; (2.0, 0.0) is usual")
    return float(first), float(last)


def map_to_hold_by(hold_by: str, of_step: T, so_far: T) -> T:
    """Of a step's own heat map and the one over all steps so far, that which `hold_by`, of HOLD_BY, names."""
    return so_far if hold_by == "mean" else of_step


@dataclass(frozen=True)
class Decision:
    """What one step decided; every field is [B, h, w].

    tokens: after re-masking; sampled: before it, no token masked; confidence: by which they competed, as their order
    says (in the last step log p(token)), infinite where a token did not have to; held: positions below the hold
    threshold, under hold="agree" only those of them at which the network itself drew the source's token, now or before,
    so that λ = 1 holds no more than these; masked: those that the next step has to fill.
    """

    tokens: Tensor
    sampled: Tensor
    confidence: Tensor
    held: Tensor
    masked: Tensor


def guide(logits: Tensor, guidance_scale: float) -> Tensor:
    """Classifier-free guidance: [2B, …], those without the text first → [B, …]; the scale 1 gives those with it."""
    without, conditional = logits.chunk(2)
    return without + guidance_scale * (conditional - without)


class RegionHoldSampler:
    """Iterative decoding with region hold (paper, section on region-hold sampling).

    mask_token_id: the id of masked tokens; steps: K; temperature: of the Gumbel noise on the confidence, first and last
    step, linear in between (a single number falls to 0.01, as in the released code); token_temperature: divides the
    logits before tokens are drawn from them, 1 as in the released code, less draws fewer of the unlikely ones;
    schedule: a name in SCHEDULES; order: a name in ORDERS, in which the tokens are decided; draw: a name in DRAWS, by
    which they are drawn.

    hold="released": a masked position below the threshold takes the source token, then competes by that token's own
    confidence and may be masked again, so the hold leaks. hold="commit": all positions below the threshold are source
    tokens at once and for good; the schedule runs over the others. hold="agree": of these, only positions commit at
    which the token that was drawn, or is known, is the source's. So a wrong heat map cannot undo an edit, least of all
    one of the whole picture, and nearly all that an edit leaves alone is settled in the first step.

    revise: in every step but the last, a token that was decided before and is now less probable than this is masked
    again, unless it is held or, where a hold is for good, the source's; 0 revises nothing. Source: token-to-mask
    remasking (arXiv 2605.26436), and token editing (arXiv 2606.29814, diffusers' BlockRefinementScheduler), which puts
    another token there at once.

    Raises SettingError for a setting out of range.
    """

    def __init__(
        self,
        mask_token_id: int,
        steps: int,
        *,
        temperature: float | tuple[float, float] = (2.0, 0.0),
        token_temperature: float = 1.0,
        schedule: str = "cosine",
        hold: str = "released",
        order: str = "confidence",
        draw: str = "race",
        revise: float = 0.0,
    ):
        check_number(mask_token_id, "mask_token_id", 0, math.inf, "editor.mask_token_id is the model's", whole=True)
        check_number(steps, "steps", 1, MOST_STEPS, "12 to 36 are usual", whole=True)
        for name, value, known in (
            ("schedule", schedule, SCHEDULES), ("hold", hold, HOLDS), ("order", order, ORDERS), ("draw", draw, DRAWS)
        ):  # fmt: skip
            check_name(value, name, known)
        check_number(revise, "revise", 0, 1, "0 revises nothing")
        check_number(token_temperature, "token_temperature", COLDEST, math.inf, "1.0 is usual")
        self.mask_token_id, self.steps, self.hold = mask_token_id, steps, hold
        self.token_temperature, self.draw = token_temperature, draw
        self.schedule, self.order, self.revise = SCHEDULES[schedule], ORDERS[order], revise
        self.temperatures = torch.linspace(*temperatures(temperature), steps, dtype=torch.float32).tolist()

    def step(
        self,
        logits: Tensor,
        tokens: Tensor,
        index: int,
        *,
        heat: Tensor | None = None,
        hold_threshold: float = 0.0,
        source: Tensor | None = None,
        generator: Generators = None,
    ) -> Tensor:
        """The tokens after step `index`: `decide(...)` without its reasons."""
        return self.decide(
            logits, tokens, index, heat=heat, hold_threshold=hold_threshold, source=source, generator=generator
        ).tokens

    @torch.no_grad()
    def decide(
        self,
        logits: Tensor,
        tokens: Tensor,
        index: int,
        *,
        heat: Tensor | None = None,
        hold_threshold: float = 0.0,
        source: Tensor | None = None,
        fixed: Tensor | None = None,
        generator: Generators = None,
    ) -> Decision:
        """One step: fill every masked position, hold the source, mask the least confident again.

        logits: [B, codebook, h, w]; tokens, source: [B, h, w]; index: 0 … steps - 1; heat: [B, h, w] in [0, 1];
        hold_threshold: λ in [0, 1], positions with less heat are held, 0 holds nothing; fixed: bool [B, h, w], tokens
        known from the start that stay, such as those outside a mask: the schedule leaves them out; generator: one, or
        one for each picture. No input is changed.

        Raises SettingError for a setting out of range, a hold without heat and source or logits or heat that are no
        numbers, ShapeError for tensors that do not fit each other and for ids that there are none of. Values are looked
        at on the CPU alone (see `may_look`).
        """
        self.check_inputs(logits, tokens, index, heat, hold_threshold, source, fixed)
        scores = rearrange(logits, "b codebook h w -> b (h w) codebook")
        probabilities = to_probabilities(scores, self.token_temperature)
        before = tokens.flatten(1)  # [B, N]
        unknown = before == self.mask_token_id
        sampled = torch.where(unknown, draw_tokens(probabilities, generator, self.draw), before)

        held = settled = torch.zeros_like(unknown)
        if hold_threshold > 0:
            held = heat.reshape(before.shape).to(before.device) < hold_threshold
            if self.hold == "agree":
                held = held & (sampled == source.flatten(1))
            replaced = held & unknown if self.hold == "released" else held
            replaced = replaced if fixed is None else replaced & ~fixed.flatten(1)
            sampled = torch.where(replaced, source.flatten(1), sampled)
            settled = held if self.hold == "released" else sampled == source.flatten(1)  # also by an earlier heat map
        committed = torch.zeros_like(held) if self.hold == "released" else held
        if fixed is not None:
            committed = committed | fixed.flatten(1)

        competing = unknown & ~committed
        known_ids = sampled.where(sampled < logits.shape[1], 0)
        chosen = probabilities.gather(-1, known_ids.unsqueeze(-1)).squeeze(-1)  # [B, N]
        priority, after = chosen.clamp(min=1e-20).log(), sampled
        if index < self.steps - 1:
            grids = [each.view_as(tokens) for each in (priority, gumbel_noise(chosen, generator), ~competing)]
            priority = self.order(*grids, temperature=self.temperatures[index]).flatten(1)
        priority = priority.where(competing, math.inf) + 0 * chosen  # what is no number stays none, whatever the order
        if index < self.steps - 1:
            places = (~committed).sum(dim=1, keepdim=True)
            doubted = ~unknown & ~committed & ~settled & (chosen < self.revise)
            rank = priority.argsort(dim=1, stable=True).argsort(dim=1)  # each place its own, also where they tie
            again = competing & (rank < self.count_masked(competing, places, index)) | doubted
            after = sampled.where(~again, self.mask_token_id)

        fields = (after, sampled, priority, held, after == self.mask_token_id)
        return Decision(*(field.reshape(tokens.shape) for field in fields))

    def count_masked(self, competing: Tensor, places: Tensor, index: int) -> Tensor:
        """How many tokens [B, 1] are masked again. competing: bool [B, N]; places [B, 1]: those in the schedule."""
        progress = torch.tensor((index + 1) / self.steps, dtype=torch.float32)
        count = (places * self.schedule(progress)).floor().long()
        count = torch.minimum(count, competing.sum(dim=1, keepdim=True) - 1).clamp(min=1)
        return count.clamp(max=competing.shape[1] - 1)

    def check_inputs(
        self,
        logits: Tensor,
        tokens: Tensor,
        index: int,
        heat: Tensor | None,
        hold_threshold: float,
        source: Tensor | None,
        fixed: Tensor | None,
    ) -> None:
        check_number(index, "step index", 0, self.steps - 1, "count up, one call for each step", whole=True)
        check_number(hold_threshold, "hold_threshold", 0, 1, "0 holds nothing")
        given = {"logits": logits, "tokens": tokens, "heat": heat, "source tokens": source, "fixed": fixed}
        for name, value in given.items():
            if not isinstance(value, Tensor) and (value is not None or name in ("logits", "tokens")):
                raise ShapeError(
                    f"{name}: a {type(value).__name__}", expected="a tensor", fix="torch.as_tensor takes an array"
                )
        if hold_threshold > 0 and (heat is None or source is None):
            missing = " and ".join(name for name, value in (("heat", heat), ("source", source)) if value is None)
            raise SettingError(
                f"hold_threshold is {hold_threshold}, but {missing} is missing",
                expected="heat map and source tokens, to know where and what to hold",
                fix="pass both, or hold_threshold=0",
            )
        if tokens.ndim != 3 or 0 in tokens.shape or logits.shape[:1] + logits.shape[2:] != tokens.shape:
            raise ShapeError(
                f"logits {list(logits.shape)} for tokens {list(tokens.shape)}",
                expected="[B, codebook, h, w] and [B, h, w]",
                fix="pass the transformer's output for these tokens",
            )
        codes = logits.shape[1]
        if self.mask_token_id < codes:
            raise SettingError(
                f"mask_token_id is {self.mask_token_id}, which is a code of the codebook",
                expected=f"{codes} or more",
                fix="editor.mask_token_id is the model's",
            )
        for name, ids in (("tokens", tokens), ("source tokens", source)):
            if ids is not None and ids.is_floating_point():
                raise ShapeError(f"{name} are {ids.dtype}", expected="whole numbers", fix="pass token ids")
        for name, other in (("source", source), ("fixed", fixed)):
            if other is not None and other.shape != tokens.shape:
                raise ShapeError(
                    f"{name} {list(other.shape)} for tokens {list(tokens.shape)}",
                    expected="the same shape",
                    fix="check both",
                )
        if fixed is not None and fixed.dtype != torch.bool:
            raise ShapeError(f"fixed is {fixed.dtype}", expected="bool [B, h, w]", fix="True is a token that stays")
        flat = (len(tokens), tokens[0].numel())
        check_ids("tokens", tokens.where(tokens != self.mask_token_id, 0), codes, "pass the model's own mask_token_id")
        if hold_threshold > 0:
            check_ids("source tokens", source, codes, "pass those of the source picture, none of them masked")
        if heat is not None and heat.shape not in (tokens.shape, flat):
            raise ShapeError(
                f"heat {list(heat.shape)} for tokens {list(tokens.shape)}",
                expected="the token grid",
                fix="consolidate captured maps, or resize the heat map",
            )
        if hold_threshold > 0 and may_look(heat) and heat.isnan().any():
            raise SettingError(
                "the heat map's values are not numbers",
                expected="heat in [0, 1]",
                fix='load the model with dtype="float32", or look at what made the map',
            )


def check_ids(name: str, ids: Tensor, codes: int, fix: str) -> None:
    """Raises ShapeError for ids that are no codes of the codebook; they are looked at on the CPU alone."""
    low, high = map(int, ids.aminmax()) if may_look(ids) else (0, 0)
    if low < 0 or high >= codes:
        raise ShapeError(f"{name} hold {low if low < 0 else high}", expected=f"ids from 0 to {codes - 1}", fix=fix)
