"""What a run can do so far: one validation edit of each category and one caption, drawn beside every saved state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from .. import crisp
from ..editor import Editor
from ..views.figures import panels_figure
from ..vq import VQModel
from .build import small_defaults
from .recipe import Recipe


def sample_drawer(path: Path, vq: VQModel, recipe: Recipe) -> Callable[[nn.ModuleDict], None]:
    """A function that draws what the averaged modules do with a few edits they never saw, into the picture `path`."""
    samples = [
        crisp.sample_edit(0, split="validation", category=category, size=recipe.image_size)
        for category in crisp.CATEGORIES
    ]
    defaults = small_defaults(recipe.transformer, recipe.image_size)

    def draw(average: nn.ModuleDict) -> None:
        editor = Editor(vq, average["text_encoder"], average["transformer"], defaults=defaults)
        instructions = [sample.instruction for sample in samples]
        edits = editor.edit([sample.source for sample in samples], instructions, hold_threshold=0, seed=0)
        scene = editor.generate(samples[0].target_caption, seed=0)
        rows = [
            [(sample.source, "source"), (edit, "edit"), (sample.target, "target")]
            for sample, edit in zip(samples, edits.images, strict=True)
        ]
        rows.append([(scene.image, "from the caption"), (samples[0].target, "the scene that it tells")])
        panels_figure(rows, [*instructions, samples[0].target_caption]).savefig(path, dpi=50)

    return draw
