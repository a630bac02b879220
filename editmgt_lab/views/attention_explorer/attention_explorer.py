"""The attention explorer: where every word and every patch looks, in any block, head and step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
from matplotlib.figure import Figure

from ...attention import MAPPED
from ...basics.checks import check_name
from ...editor import Editor
from ...errors import SettingError
from ...images import Picture
from ...results import EditResult
from ..figures import panels_figure
from ..overlays import MASKED, heat_overlay
from ..recording import STATES, Run
from ..widget import RunWidget, heat_colours, packed, png

MOST_WORDS = 8  # in a figure
SEEN = {"image": "the picture", "source": "the source", "both": "source\u00a0+\u00a0picture"}  # as the page has it


def attention_explorer(
    editor: Editor | Run,
    image: Picture | EditResult | None = None,
    instruction: str = "",
    *,
    attention: bool | Sequence[int] | None = None,
    **settings: Any,
) -> AttentionExplorer:
    """Open the explorer on a run that was recorded with its attention, or on an editor and a picture (or a finished
    edit, or None for text to image), whose run it records beside the page; the arguments are those of `record`.
    attention: None records all of it."""
    if attention is not None or not isinstance(editor, Run):
        settings["attention"] = True if attention is None else attention
    return AttentionExplorer(editor, image, instruction, **settings)


class AttentionExplorer(RunWidget):
    """step: 0 … steps - 1; chosen: numbers of words, none for all of them; picked: numbers of maps, block by block and
    head by head, whose mean is shown; cell: the number of a patch, row by row, -1 for none."""

    script, title = Path(__file__).with_suffix(".js"), "Attention explorer"

    step = traitlets.Int(0).tag(sync=True, page=True)
    chosen = traitlets.List(traitlets.Int()).tag(sync=True, page=True)
    picked = traitlets.List(traitlets.Int()).tag(sync=True, page=True)
    cell = traitlets.Int(-1).tag(sync=True, page=True)

    @traitlets.validate("chosen", "picked")
    def _known(self, proposal: Mapping[str, Any]) -> list[int]:
        numbers, name = proposal["value"], proposal["trait"].name
        if getattr(self, "run", None):
            plan = self.run.attention.plan
            count = len(plan.words) if name == "chosen" else plan.heads * len(plan.blocks)
            if not all(0 <= number < count for number in numbers) or (name == "picked" and not numbers):
                raise traitlets.TraitError(f"{name} is {numbers}, of {count}, of which one map is always picked")
        return numbers

    @staticmethod
    def check(run: Run) -> None:
        """Raises SettingError for a run without attention maps."""
        if run.attention is None:
            raise SettingError(
                "this run has no attention maps",
                expected="a run recorded with attention=True, or with a list of blocks",
                fix="record it again so",
            )

    def show(self, run: Run) -> None:
        """Put a run on the page, at its last step, with the maps of the blocks that its heat map is made of."""
        self.check(run)
        plan, maps = run.attention.plan, run.attention
        heat_blocks = [block for block in plan.blocks if block in run.settings.blocks]
        self.run, self.step, self.chosen, self.cell = run, len(run.previews) - 1, [], -1
        self.picked = [
            place * plan.heads + head
            for place, block in enumerate(plan.blocks)
            for head in range(plan.heads)
            if block in heat_blocks or not heat_blocks
        ]
        self.data = {
            "instruction": run.instruction,
            "grid": plan.grid,
            "token_grid": run.states.shape[1:],
            "ratio": run.image.width / run.image.height,
            "source": run.source and png(run.source),
            "previews": [png(preview) for preview in run.previews],
            "words": [word.name for word in plan.words],
            "special": [word.special for word in plan.words],
            "weights": [len(word.rows) for word in plan.words],
            "blocks": plan.blocks,
            "heads": plan.heads,
            "heat_blocks": heat_blocks,
            "heat_from": self.heat_from,
            "multi_modal": run.multi_modal,
            "words_maps": packed(maps.words),
            "words_scale": packed(maps.words_scale),
            "source_maps": None if maps.words_in_source is None else packed(maps.words_in_source),
            "source_scale": None if maps.words_in_source is None else packed(maps.words_in_source_scale),
            "patches": None if maps.patches is None else packed(maps.patches),
            "patches_scale": None if maps.patches is None else packed(maps.patches_scale),
            "token_colours": packed(token_colours(run)),
            "palette": heat_colours(),
            "about": f"Recorded: {plan}.",
        }

    @property
    def heat_from(self) -> str:
        """The picture in which the run's heat map is taken: "image", "source" or "both"; without injection no pass has
        the source."""
        return self.run.settings.heat_from if self.run.attention.plan.pictures == 2 else "image"

    def look(self, chosen: Sequence[int] = (), mapped: str | None = None) -> np.ndarray:
        """Where these words look, none for all of them: float32 [rows, columns] of attention, the mean over their text
        rows and the picked maps, at the step on the page. mapped: in the "image", the "source" or, added up, "both";
        None as for the run's heat map. Raises SettingError for a map that the run does not have."""
        plan = self.run.attention.plan
        mapped = self.heat_from if mapped is None else mapped
        check_name(mapped, "mapped", MAPPED if plan.pictures == 2 else MAPPED[:1])
        chosen = list(chosen) or list(range(len(plan.words)))
        step = min(self.step, plan.steps - 1)
        maps = self.run.attention.word_maps(step, mapped)  # [blocks, heads, W, N]
        picked = maps.reshape(-1, *maps.shape[2:])[list(self.picked)].mean(axis=0)[chosen]  # [chosen, N]
        weights = [len(plan.words[word].rows) for word in chosen]
        return np.average(picked, axis=0, weights=weights).astype(np.float32).reshape(plan.grid)

    def figure(self) -> Figure:
        """Source, picture and the chosen words' map; below, the map of each word; every map from its least to its most,
        in the picture or the pictures that the heat map is taken in."""
        step, plan = min(self.step, len(self.run.previews) - 1), self.run.attention.plan
        picture = self.run.previews[step] if self.heat_from == "image" else self.run.source
        titles = ", ".join(f"“{plan.words[word].name}”" for word in self.chosen) or "all words"
        first = [
            *([(self.run.source, "source")] if self.run.source else []),
            (self.run.previews[step], f"step {step + 1} of {len(self.run.previews)}"),
            (heat_overlay(picture, _stretched(self.look(self.chosen))), titles),
        ]
        each = [
            (heat_overlay(picture, _stretched(self.look([place]))), word.name)
            for place, word in enumerate(plan.words)
            if not word.special
        ]
        maps = f"mean of {len(self.picked)} of {plan.heads * len(plan.blocks)} maps, in {SEEN[self.heat_from]}"
        return panels_figure([first, each[:MOST_WORDS]], [f"“{self.run.instruction}”, {maps}", "each word"])


def token_colours(run: Run) -> np.ndarray:
    """uint8 [steps, h, w, 3]: similar tokens in similar colours, grey where a token is masked."""
    colours = run.colours[np.searchsorted(run.codes, run.sampled)]
    return np.where((run.states == STATES.index("masked"))[..., None], np.uint8(MASKED), colours)


def _stretched(look: np.ndarray) -> np.ndarray:
    span = np.ptp(look)
    return (look - look.min()) / span if span else np.zeros_like(look)
