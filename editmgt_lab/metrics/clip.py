"""CLIP of the small world's edits: is an answer near the target, near its caption, and does it go the right way?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from ..images import to_images
from .backbones import TextBackbone, cosine, direction
from .truth import Scores, Truth


@dataclass(frozen=True)
class ClipTruth:
    """The truth of one batch as a CLIP sees it, [B, D] each: pictures as the tokenizer shows them, and captions."""

    network: TextBackbone
    sources: Tensor
    targets: Tensor
    before: Tensor
    after: Tensor

    @classmethod
    def of(cls, network: TextBackbone, truth: Truth) -> ClipTruth:
        pictures = network.embed([*to_images(truth.sources), *to_images(truth.targets)]).chunk(2)
        captions = [sample.source_caption for sample in truth.samples]
        captions += [sample.target_caption for sample in truth.samples]
        return cls(network, *pictures, *network.embed_texts(captions).chunk(2))

    def scored(self, scores: Sequence[Scores], outputs: Tensor) -> list[Scores]:
        """The scores of the batch's answers with those of CLIP; outputs: [B, 3, H, W] in [0, 1]."""
        made = self.network.embed(to_images(outputs))
        truth = zip(scores, made, self.sources, self.targets, self.before, self.after, strict=True)
        return [
            replace(
                each,
                clip_image=cosine(output, target),
                clip_text=cosine(output, after),
                clip_direction=direction(source, output, before, after),
            )
            for each, output, source, target, before, after in truth
        ]
