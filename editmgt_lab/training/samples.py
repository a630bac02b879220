"""What a run can do so far: one validation edit of each category and one caption, drawn beside every saved state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image
from torch import nn

from .. import world
from ..editor import Editor
from ..metrics.report import gallery
from ..vq import VQModel
from .build import small_defaults
from .recipe import Recipe


def sample_drawer(path: Path, vq: VQModel, recipe: Recipe) -> Callable[[nn.ModuleDict], None]:
    """A function that draws what the averaged modules do with a few edits they never saw, into the picture `path`."""
    samples = [
        world.sample_edit(0, split="validation", category=category, size=recipe.image_size)
        for category in world.CATEGORIES
    ]
    defaults = small_defaults(recipe.transformer, recipe.image_size)

    def draw(average: nn.ModuleDict) -> None:
        editor = Editor(vq, average["text_encoder"], average["transformer"], defaults=defaults)
        instructions = [sample.instruction for sample in samples]
        edits = editor.edit([sample.source for sample in samples], instructions, hold_threshold=0, seed=0)
        scene = editor.generate(samples[0].target_caption, seed=0)
        rows = [
            (sample.instruction, (sample.source, edit, sample.target))
            for sample, edit in zip(samples, edits.images, strict=True)
        ]
        nothing = Image.new("RGB", scene.image.size, "white")
        rows.append((samples[0].target_caption, (nothing, scene.image, samples[0].target)))
        pairs = list(zip(rows[::2], rows[1::2], strict=True))
        gallery("What it can do so far", pairs, ("source", "answer", "target")).savefig(path, dpi=50)

    return draw
