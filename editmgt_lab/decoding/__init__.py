"""Stage 5: logits become tokens, one part of the picture after the other; outside the edit the source is held."""

from .orders import ORDERS
from .sampler import (
    HOLD_BY,
    HOLDS,
    SCHEDULES,
    STRICT_HOLDS,
    Decision,
    RegionHoldSampler,
    check_numbers,
    cosine_schedule,
    draw_tokens,
    guide,
)

__all__ = [
    "HOLDS", "HOLD_BY", "ORDERS", "SCHEDULES", "STRICT_HOLDS", "Decision", "RegionHoldSampler", "check_numbers",
    "cosine_schedule", "draw_tokens", "guide",
]  # fmt: skip
