"""Stage 5: logits become tokens, one part of the picture after the other; outside the edit the source is held."""

from .orders import ORDERS
from .sampler import (
    HOLD_BY,
    HOLDS,
    SCHEDULES,
    Decision,
    RegionHoldSampler,
    check_numbers,
    cosine_schedule,
    draw_tokens,
    guide,
    map_to_hold_by,
)

__all__ = [
    "HOLDS", "HOLD_BY", "ORDERS", "SCHEDULES", "Decision", "RegionHoldSampler", "check_numbers",
    "cosine_schedule", "draw_tokens", "guide", "map_to_hold_by",
]  # fmt: skip
