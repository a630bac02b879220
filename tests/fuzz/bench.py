"""What cases work on: a tiny editor and whatever else takes time to make, once in a process."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import editmgt_lab as lab
from tests.support.tiny import save_tiny

INSTRUCTION = "make the ball blue"
SECRET = (13, 211, 89)  # the colour of a picture that lies outside every folder that a case names


class Bench:
    """root: an empty folder of its own."""

    def __init__(self, root: Path):
        self.root, self.tiny = root, root / "tiny"
        save_tiny(self.tiny)
        self.editor = lab.load(self.tiny, device="cpu")
        self.secret = root / "secret.png"
        Image.new("RGB", (32, 32), SECRET).save(self.secret)

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """An empty folder, gone afterwards."""
        folder = Path(tempfile.mkdtemp(dir=self.root))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @staticmethod
    def picture(width: int = 32, height: int = 32) -> Image.Image:
        """Blocks of bright colours, the same for a size."""
        blocks = np.random.default_rng([width, height]).integers(
            40, 250, (max(height // 4, 1), max(width // 4, 1), 3), np.uint8
        )
        return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)

    @cached_property
    def adapter(self) -> Path:
        """A folder with an adapter of the editor's transformer, under which it makes another edit."""
        from editmgt_lab.finetuning import adapters

        editor = lab.load(self.tiny, device="cpu")
        adapters.add_adapter(editor.transformer, rank=2)
        dice = torch.Generator().manual_seed(0)
        for name, weight in editor.transformer.named_parameters():
            if ".lora_" in name:
                weight.data.normal_(std=0.3, generator=dice)
        adapters.save_adapter(editor.transformer, self.root / "adapter")
        self.adapted = editor.edit(self.picture(), INSTRUCTION, steps=1, seed=0)
        return self.root / "adapter"

    @cached_property
    def run(self) -> Any:
        from editmgt_lab import views

        return views.record(
            self.editor, self.picture(), INSTRUCTION, attention=True, steps=2, seed=0, progress=lambda *_: None
        )

    @cached_property
    def result(self) -> lab.EditResult:
        return self.editor.edit(self.picture(), INSTRUCTION, steps=2, seed=0)
