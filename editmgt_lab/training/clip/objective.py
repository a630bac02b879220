"""What the small CLIP learns by: which caption belongs to which picture; and, to get there in minutes, what is where.

Two further questions are asked by linear heads that are thrown away: of the patches, what every unit of the picture
shows (training/reading.py); and of the embeddings of pictures and of captions alike, by one head for both, which kind
in which colour stands at each place, on which background and in which style.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPModel

from ...world import BACKGROUNDS, COLOURS, KINDS, PLACES, STYLES, Scene
from ..reading import SceneReader
from .data import NOTHING, Batch, what_stands
from .recipe import ClipRecipe

HOTTEST = 100.0  # the temperature's inverse may grow to it, as in CLIP


class EmbeddingReader(nn.Module):
    """One linear head for embeddings of both kinds: kinds and colours of nine places, background, style."""

    def __init__(self, width: int):
        super().__init__()
        self.parts = (
            len(PLACES) * (len(KINDS) + 1),
            len(PLACES) * (len(COLOURS) + 1),
            len(BACKGROUNDS),
            len(STYLES) + 1,
        )
        self.head = nn.Linear(width, sum(self.parts))

    def loss(self, embeddings: Tensor, scenes: Sequence[Scene]) -> Tensor:
        """Cross-entropy in nats a question; places where something stands and the others alike. embeddings: [B, D]."""
        told = [torch.tensor(part) for part in zip(*map(what_stands, scenes), strict=True)]  # [B, 9] twice, [B] twice
        kinds, colours, background, style = self.head(embeddings).split(self.parts, dim=1)
        there = told[0] != NOTHING
        loss = F.cross_entropy(background, told[2]) + F.cross_entropy(style, told[3])
        for answers, right in ((kinds, told[0]), (colours, told[1])):
            answers = answers.unflatten(1, (len(PLACES), -1))  # the last answer is: nothing
            nothing = answers.shape[-1] - 1
            each = F.cross_entropy(answers.flatten(0, 1), right.where(there, nothing).flatten(), reduction="none")
            loss = loss + each[there.flatten()].mean() + each[~there.flatten()].mean()
        return loss / 6


def clip_loss(pictures: Tensor, texts: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy of both ways to ask, in nats; and the share of pictures that find their caption among all.

    pictures: [n, D]; texts: [m, D], of which the first n belong to the pictures in order; scale: one over temperature.
    """
    unit = [F.normalize(each, dim=1) for each in (pictures, texts)]
    logits, right = scale * unit[0] @ unit[1].T, torch.arange(len(pictures))
    loss = (F.cross_entropy(logits, right) + F.cross_entropy(logits[:, : len(right)].T, right)) / 2
    return loss, (logits.argmax(1) == right).float().mean()


@contextmanager
def _listening(model: CLIPModel, layer: int) -> Iterator[list[Tensor]]:
    """Collect what leaves a layer of the vision model in the passes inside the context: [B, 1 + N, D] of each."""
    streams: list[Tensor] = []
    handle = model.vision_model.encoder.layers[layer].register_forward_hook(lambda *call: streams.append(call[-1]))
    try:
        yield streams
    finally:
        handle.remove()


def training_loss(
    model: CLIPModel, reader: SceneReader, names: EmbeddingReader, batch: Batch, recipe: ClipRecipe
) -> dict[str, Tensor]:
    """loss: all of it together; its parts; and `found`, see `clip_loss`."""
    (block,) = reader.heads
    with _listening(model, int(block)) as streams:
        pictures = model.visual_projection(model.vision_model(pixel_values=batch.pictures).pooler_output)
    text = model.text_model(input_ids=batch.ids, attention_mask=batch.attention).pooler_output
    texts = model.text_projection(text)
    contrast, found = clip_loss(pictures, texts, model.logit_scale.exp().clamp(max=HOTTEST))
    reading = reader.loss({block: [streams[0][:, 1:]]}, [batch.labels])
    naming = names.loss(pictures, batch.scenes[: len(pictures)]) + names.loss(texts, batch.scenes)
    loss = contrast + recipe.reading_weight * reading + recipe.naming_weight * naming
    return {"loss": loss, "contrast": contrast, "reading": reading, "naming": naming, "found": found}
