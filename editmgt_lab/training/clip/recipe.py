"""Every setting of the small CLIP, in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClipRecipe:
    """Sizes, then the training, whose length is counted in edits: each brings two pictures and their captions."""

    image_size: int = 64  # px; pictures of other sizes are brought to it, as `metrics.backbones` does
    patch: int = 8
    width: int = 128
    heads: int = 4
    picture_layers: int = 4
    text_layers: int = 3
    text_length: int = 32
    projection: int = 256

    drawn_at: tuple[int, ...] = (64, 64, 64, 128, 256)  # px, in turn: what it is to read
    edits: int = 16_000
    batch: int = 16
    near_misses: int = 1  # captions for every picture that are wrong in one thing
    without_sizes: float = 0.3  # share of the edits whose captions name no sizes
    reading_weight: float = 0.5  # of what stands where, read from the picture's patches
    naming_weight: float = 1.0  # of what stands where, read from the embeddings
    muon_learning_rate: float = 0.02
    adam_learning_rate: float = 2e-3
    warm_up: float = 0.03
    cool_down: float = 0.7  # the last share of the edits, over which the learning rates fall to zero
