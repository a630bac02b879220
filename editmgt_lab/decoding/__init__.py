"""Stage 5: logits become tokens, one part of the picture after the other; outside the edit the source is held."""

from .draws import DRAWS, draw_tokens, refuse_nan
from .orders import ORDERS
from .sampler import (
    COLDEST,
    HOLD_BY,
    HOLDS,
    MOST_STEPS,
    SCHEDULES,
    Decision,
    RegionHoldSampler,
    cosine_schedule,
    guide,
    map_to_hold_by,
    temperatures,
)

__all__ = [
    "COLDEST", "DRAWS", "HOLDS", "HOLD_BY", "MOST_STEPS", "ORDERS", "SCHEDULES", "Decision", "RegionHoldSampler",
    "cosine_schedule", "draw_tokens", "guide", "map_to_hold_by", "refuse_nan", "temperatures",
]  # fmt: skip
