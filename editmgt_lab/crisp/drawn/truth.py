"""What is known of an edit in the drawn world and no filter is told: whether it is good, and how good."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image

from ...errors import TextError
from ...images import to_tensor
from ...metrics.arithmetic import SUCCESS_LEAKAGE, edit_score, leakage, success
from ...world import Scene, render
from ...world.edits import difference
from ...world.scenes import DRAWABLE
from .grammar import understand

CELLS = 8  # the picture is looked at in 8 × 8 cells
WORST = 0.07  # of 1, mean |output − true target| in the worst cell: one object in another colour is 0.15 and more


@dataclass(frozen=True)
class EditTruth:
    """valid: the instruction asks for something that can be done and is not so already; the rest of 1, of 10 the score.

    score, leakage: as in `metrics`; worst: mean |output − what it should be| in the worst of 8 × 8 cells, which finds
    one object out of four that was harmed. NaN where the instruction is not valid, or nothing could leak.
    """

    valid: bool
    score: float = math.nan
    leakage: float = math.nan
    worst: float = math.nan

    @property
    def good(self) -> bool:
        """Done, and nothing broken, also in no one place."""
        return self.valid and success(self.score, self.leakage) == 1.0 and self.worst <= WORST

    @property
    def merit(self) -> float:
        """By which candidates are compared, 0 … 10: the score, half of it where leakage or a cell is just allowed."""
        if not self.valid or math.isnan(self.score):
            return 0.0
        leaked = 0.0 if math.isnan(self.leakage) else self.leakage / SUCCESS_LEAKAGE
        return self.score * max(0.0, 1 - max(leaked, self.worst / WORST) / 2)


def instruction_is_valid(instruction: str, scene: Scene | None) -> bool:
    """Whether it asks for a change that the true scene admits."""
    try:
        return scene is not None and understand(instruction, scene).after != scene
    except TextError:
        return False


def truth_of(instruction: str, scene: Scene | None, source: Image.Image, output: Image.Image) -> EditTruth:
    """Of an edit of a picture that shows `scene` (None: no scene). source, output: RGB, of one size, square.

    They are compared at the nearest size that scenes are drawn at.
    """
    if not instruction_is_valid(instruction, scene):
        return EditTruth(False)
    after = understand(instruction, scene).after
    side = min(DRAWABLE, key=lambda each: abs(each - source.width))
    drawn, target = render(scene, side), render(after, side)
    output, source = (each.convert("RGB").resize((side, side), Image.Resampling.BICUBIC) for each in (output, source))
    made, came, wanted = to_tensor([output, source, target])
    mask = to_tensor(difference(drawn, target))[0, 0] > 0.5
    apart = (made - torch.where(mask, wanted, came)).abs().mean(0)  # [H, W]
    worst = F.adaptive_avg_pool2d(apart[None], CELLS).max().item()
    return EditTruth(True, edit_score(made, came, wanted, mask), leakage(made, came, mask), worst)
