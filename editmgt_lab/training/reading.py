"""A second question while training: what stands here? Its answers are thrown away with the heads that give them.

The released editor starts from a network that has seen many millions of pictures. The small one has to find out what a
fish is, and how to draw one, from the tokens that a few edits hide, which is the slowest thing that it learns. The
drawn world knows, so linear heads read kind, colour and part of the object from the streams inside the network: the
source stream has to see what the source shows, the image stream to plan what the target will show. Attention is never
told where to look, so that what heat maps find is still found by the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..transformer import MaskedGenerativeTransformer
from ..world import BACKGROUNDS, COLOURS, KINDS
from ..world.scenes import PARTS

ANSWERS = (len(KINDS) + len(BACKGROUNDS), len(COLOURS) + 1, PARTS + 1)  # of each layer of `world.label_map`


class SceneReader(nn.Module):
    """One linear head for each of some blocks; a position answers for cells × cells units. No part of the editor."""

    def __init__(self, width: int, blocks: Sequence[int], cells: int = 2):
        super().__init__()
        self.cells = cells
        self.heads = nn.ModuleDict({str(block): nn.Linear(width, cells**2 * sum(ANSWERS)) for block in blocks})

    @contextmanager
    def listening(self, transformer: MaskedGenerativeTransformer, text: int) -> Iterator[dict[str, list[Tensor]]]:
        """Collect what leaves the read blocks in the pass inside the context: the image's and, in an edit, the source's
        streams [B, N, D], by block. text: L, the text rows in front of the image.
        """
        streams: dict[str, list[Tensor]] = {}

        def keep(name: str):
            def hook(block: nn.Module, arguments: tuple, output: tuple | list) -> None:
                # a multi-modal block gives (text, pictures), a single-modal one [text and image, source]
                streams[name] = output[1] if isinstance(output, tuple) else [output[0][:, text:], *output[1:]]

            return hook

        handles = [transformer.blocks[int(name)].register_forward_hook(keep(name)) for name in self.heads]
        try:
            yield streams
        finally:
            for handle in handles:
                handle.remove()

    def loss(self, streams: dict[str, list[Tensor]], labels: Sequence[Tensor]) -> Tensor:
        """Cross-entropy in nats a unit, boxes of objects and the rest alike, the mean over blocks and streams.

        labels: what the image and, in an edit, the source show, [B, 3, h, w] as `world.label_map`.
        """
        losses = []
        for name, head in self.heads.items():
            for stream, shown in zip(streams[name], labels, strict=True):
                rows, cells = shown.shape[2] // self.cells, self.cells
                answers = rearrange(
                    head(stream), "b (h w) (i j c) -> b c (h i) (w j)", h=rows, i=cells, j=cells
                ).float()
                layers = zip(answers.split(ANSWERS, dim=1), shown.unbind(1), strict=True)
                each = sum(F.cross_entropy(layer, label, reduction="none") for layer, label in layers)  # [B, h, w]
                inside = (shown[:, 2] < PARTS).float()
                share = inside.mean().clamp(1e-3, 1 - 1e-3)
                losses.append((each * torch.lerp(0.5 / (1 - share), 0.5 / share, inside)).mean())
        return torch.stack(losses).mean()
