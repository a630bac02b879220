"""Stage 5: logits become tokens, one part of the picture after the other; outside the edit the source is held."""

from .orders import ORDERS
from .sampler import HOLD_BY, HOLDS, SCHEDULES, Decision, RegionHoldSampler, cosine_schedule, draw_tokens, guide

__all__ = [
    "HOLD_BY", "HOLDS", "ORDERS", "SCHEDULES", "Decision", "RegionHoldSampler", "cosine_schedule", "draw_tokens", "guide",
]  # fmt: skip
