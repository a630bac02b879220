"""What the editor learns from: pairs of pictures with an instruction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from ..crisp import EditSample


@dataclass(frozen=True)
class Pair:
    """One edit: source and target (RGB, of one shape), what is asked for, and its kind, where the data set names one.

    mask: "L", white where the two differ, of the source's shape; None where that is not known.
    """

    source: Image.Image
    target: Image.Image
    instruction: str
    category: str | None = None
    mask: Image.Image | None = None


def pairs_of(samples: Sequence[EditSample]) -> list[Pair]:
    """Drawn edits as pairs, with their masks."""
    return [Pair(each.source, each.target, each.instruction, each.category, each.mask) for each in samples]
