"""Every setting of a fine-tuning."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from ..basics.checks import check_name, check_number, check_switch
from ..errors import SettingError
from ..training.objective import TIMESTEPS
from .adapters import BRANCHES

MOST_SEED = 10**12  # the generator of a step is seeded with a million times as much
RANGES = {  # name → least, most
    "steps": (1, math.inf), "batch": (1, math.inf), "micro_batch": (1, math.inf), "learning_rate": (0, 1),
    "warm_up": (0, 1), "clip": (0, math.inf), "rank": (0, math.inf), "replay_share": (0, 1),
    "distillation": (0, math.inf), "text_dropout": (0, 1), "asked_share": (0, 1), "look_weight": (0, math.inf),
    "average_decay": (0, 1), "save_every": (1, math.inf), "validate_every": (1, math.inf), "patience": (1, math.inf),
    "seed": (0, MOST_SEED),
}  # fmt: skip
OPEN_ENDS = (("learning_rate", 0), ("learning_rate", 1), ("clip", 0), ("replay_share", 1), ("asked_share", 0))


@dataclass(frozen=True)
class FinetuneSettings:
    """How to fine-tune.

    steps: optimizer steps; batch: pairs in one step, of all processes together; micro_batch: how many of them a process
    computes at once (None: all its share), the gradients add up; learning_rate: AdamW's highest, reached after the
    share `warm_up` of the steps, from where a cosine falls to 0; clip: largest norm of the gradient.
    rank: of a LoRA adapter, 0 trains all weights; branch: where the adapter works, see `add_adapter`; without one only
    "both".
    replay_share: of the first batch, taken from the pairs to replay, where there are some; it rises evenly to all but
    one pair of the last, and 0 means none ever. distillation: weight of keeping to what the network said of these
    before, for which a copy of it is kept. text_dropout: share of the pairs that lose their text. asked_share: of the
    hidden tokens that a pair leaves alone, how many are asked (see `ask`; 1 asks all, as the paper does). look_weight:
    of what a hidden token looks like, against which code it is (see `token_losses`; 0 is the paper's loss). timestep:
    what the network is told of the mask ratio, "step index" or "mask ratio" (the released training).
    average_decay: of the moving average of the weights, which is what is kept. checkpointing: less memory, more time.
    save_every, validate_every: steps between two checkpoints, and two validations; patience: stop after so many
    validations that were no better than the best (None: never). Raises SettingError.
    """

    steps: int = 120
    batch: int = 16
    micro_batch: int | None = None
    learning_rate: float = 8e-4
    warm_up: float = 0.1
    clip: float = 1.0
    rank: int = 0
    branch: str = "both"
    replay_share: float = 0.2
    distillation: float = 10.0
    text_dropout: float = 0.05
    asked_share: float = 0.25
    look_weight: float = 3.0
    timestep: str = "step index"
    average_decay: float = 0.98
    checkpointing: bool = False
    save_every: int = 50
    validate_every: int = 50
    patience: int | None = None
    seed: int = 0

    def __post_init__(self):
        for field in fields(self):
            name, usual, value = field.name, field.default, getattr(self, field.name)
            if name in RANGES and not (value is None and usual is None):
                kind = float if isinstance(usual, float) else int
                check_number(value, name, *RANGES[name], f"{usual} is usual", whole=kind is int)
                object.__setattr__(self, name, kind(value))  # of numpy's numbers JSON knows none
        for name, end in OPEN_ENDS:
            if getattr(self, name) == end:
                side = "less" if end else "more"
                raise SettingError(f"{name} is {end}", expected=f"{side} than {end}", fix=f"take a little {side}")
        check_name(self.timestep, "timestep", TIMESTEPS)
        check_name(self.branch, "branch", BRANCHES)
        check_switch(self.checkpointing, "checkpointing")
        if self.branch != "both" and not self.rank:
            raise SettingError(
                f"branch is {self.branch!r}, and rank 0 trains all weights, on both branches",
                expected="a rank above 0 for an adapter on one branch",
                fix="pass rank=8 or so, or leave branch out",
            )
