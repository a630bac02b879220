"""What an editor is, and how the pipeline asks it."""

from __future__ import annotations

import hashlib
from typing import Protocol

from PIL import Image


class PictureEditor(Protocol):
    """Any editor by instruction. A frozen dataclass: its fields and `version` are part of the key of what it made."""

    @property
    def name(self) -> str:
        """For tables: short, and another one for every editor of a run."""

    def edit(self, image: Image.Image, instruction: str, seed: int) -> Image.Image:
        """The edited picture, RGB, of the image's size; the same for the same seed. Raises LabError."""


def seed_of(name: str, number: int) -> int:
    """A seed for candidate `number` of the row `name`: 31 bits, the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{name}/{number}".encode()).digest()[:4], "big") >> 1
