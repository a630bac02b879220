"""The decode player: how a masked picture fills up, step by step, and what the network proposes for every cell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import traitlets
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ...editor import Editor
from ...images import Picture
from ...results import EditResult
from ..figures import DECIDED, panels_figure
from ..overlays import HELD, MASKED
from ..recording import STATES, Run
from ..widget import RunWidget, heat_colours, packed, png

JUST_DECIDED = (230, 140, 20)
COLOURS = dict(zip(STATES, (MASKED, JUST_DECIDED, HELD, DECIDED), strict=True))
COMPUTED = {"from the cache": (226, 226, 226), "computed": (0, 158, 115)}  # as Run.computed says, 0 or 1
STRIP = 6  # steps in a figure


def decode_player(
    editor: Editor | Run, image: Picture | EditResult | None = None, instruction: str = "", **settings: Any
) -> DecodePlayer:
    """Open the player on a recorded run, or on an editor and a picture (or a finished edit, or None for text to
    image), whose run it records beside the page; the arguments are those of `record`."""
    return DecodePlayer(editor, image, instruction, **settings)


class DecodePlayer(RunWidget):
    """step: 0 … steps - 1; cell: its number row by row, -1 for none; colour_by: "state", "confidence", or
    "computed": what each step computed and what it took from the cache."""

    script, title = Path(__file__).with_suffix(".js"), "Decode player"

    step = traitlets.Int(0).tag(sync=True, page=True)
    cell = traitlets.Int(-1).tag(sync=True, page=True)
    colour_by = traitlets.Enum(("state", "confidence", "computed"), "state").tag(sync=True, page=True)

    def show(self, run: Run) -> None:
        arrays = (
            "states", "sampled", "confidence", "candidates", "probabilities", "taken", "computed", "codes", "patches"
        )  # fmt: skip
        self.run, self.step, self.cell = run, 0, -1
        self.data = {
            "instruction": run.instruction,
            "order": run.settings.order,
            "grid": run.states.shape[1:],
            "ratio": run.image.width / run.image.height,
            "previews": [png(preview) for preview in run.previews],
            "legends": {"states": list(COLOURS.items()), "computed": list(COMPUTED.items())},
            "palette": heat_colours(),
            "source_tokens": None if run.source_tokens is None else packed(run.source_tokens),
        } | {name: packed(getattr(run, name)) for name in arrays}

    def figure(self) -> Figure:
        """A strip of steps, the one on the page among them: above what is known, below the picture as it stands; then,
        of a run with a cache, what each step computed."""
        last = len(self.run.previews) - 1
        chosen = sorted({round(i) for i in np.linspace(0, last, min(STRIP, last + 1))} | {min(self.step, last)})
        states, computed = (np.array(list(each.values()), np.uint8) for each in (COLOURS, COMPUTED))
        rows = [
            [(states[self.run.states[i]], f"step {i + 1} of {last + 1}") for i in chosen],
            [
                (self.run.previews[i], f"{np.mean(self.run.states[i] != STATES.index('masked')):.0%} known")
                for i in chosen
            ],
        ]
        legend = COLOURS
        if not self.run.computed.all():
            rows.append(
                [(computed[self.run.computed[i]], f"{self.run.computed[i].mean():.0%} computed") for i in chosen]
            )
            legend = COLOURS | COMPUTED
        figure = panels_figure(rows, [f"“{self.run.instruction}”", *[""] * (len(rows) - 1)])
        patches = [Patch(color=np.array(colour) / 255, label=name) for name, colour in legend.items()]
        figure.legend(handles=patches, loc="lower center", ncols=len(patches), frameon=False, fontsize=11)
        return figure
