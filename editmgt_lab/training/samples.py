"""What a run can do so far: one validation edit of each category and one caption, drawn beside the saved states."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from .. import world
from ..decoding import RegionHoldSampler
from ..images import to_images
from ..metrics.report import gallery, save_figure
from ..vq import VQModel
from .objective import picture_conditions
from .recipe import Recipe
from .tokenizer.local import encode
from .windows import caption_windows, corners, cut, window_of

EVERY = 600.0  # seconds: drawing takes as long as some dozens of training steps


@torch.no_grad()
def fill(
    model: nn.ModuleDict,
    texts: Sequence[str],
    source: Tensor | None,
    shape: tuple[int, int],
    recipe: Recipe,
    *,
    origin: Tensor | None = None,
    steps: int = 12,
    token_temperature: float = 0.3,
    seed: int = 0,
) -> Tensor:
    """Tokens [B, h, w] on the CPU for instructions about `source` [B, h, w], or, without one, for captions; also in
    windows."""
    transformer, text_encoder = model["transformer"], model["text_encoder"]
    device, mask_token_id, count = next(transformer.parameters()).device, transformer.config.vocab_size - 1, len(texts)
    tokens, text = torch.full((count, *shape), mask_token_id, device=device), text_encoder(list(texts))
    micro = picture_conditions(recipe.image_size, recipe.image_size, count, device)
    sampler = RegionHoldSampler(mask_token_id, steps, token_temperature=token_temperature)
    generator = torch.Generator(device).manual_seed(seed)
    source, origin = (None if each is None else each.to(device) for each in (source, origin))
    for index in range(steps):
        timestep = torch.full((count,), steps - 1 - index, device=device)
        logits = transformer(tokens, text, timestep, source=source, micro_conditions=micro, origin=origin)
        tokens = sampler.step(logits.float(), tokens, index, generator=generator)
    return tokens.cpu()


def sample_drawer(path: Path, vq: VQModel, recipe: Recipe) -> Callable[[nn.ModuleDict, int], None]:
    """A function that draws what the averaged modules do with a few edits they never saw, into the picture `path`,
    every ten minutes at most. Its second argument: tokens along the side of a window, 0 for whole pictures.
    """
    samples = [
        world.sample_edit(0, split="validation", category=category, size=recipe.image_size)
        for category in world.CATEGORIES
    ]
    sources, targets = (encode(vq, [getattr(s, name) for s in samples]) for name in ("source", "target"))
    labels = torch.stack([torch.from_numpy(world.label_map(s.target_scene)).long() for s in samples])
    drawn_at = -EVERY

    def draw(average: nn.ModuleDict, window: int) -> None:
        nonlocal drawn_at
        if time.monotonic() - drawn_at < EVERY:
            return
        source, target, origin = sources, targets, None
        if window:
            units = window * labels.shape[-1] // source.shape[-1]
            index = torch.tensor([window_of(sample, units) for sample in samples])
            index = torch.where(index < 0, caption_windows(labels, units), index)
            source, target, origin = (
                cut(sources, index, window),
                cut(targets, index, window),
                corners(sources.shape[-1] // 2, window // 2)[index],
            )
        average.eval()
        shape = tuple(source.shape[1:])
        texts, captions = [s.instruction for s in samples], [s.target_caption for s in samples]
        edits = fill(average, texts, source, shape, recipe, origin=origin)
        scenes = fill(average, captions, None, shape, recipe, origin=origin)
        columns = [[image.resize((256, 256)) for image in shown(vq, each)] for each in (source, edits, target, scenes)]
        rows = [*zip(texts, zip(*columns, strict=True), strict=True), ("", ())]
        pairs = list(zip(rows[::2], rows[1::2], strict=True))
        names = ("source", "edit", "target", "from the target's caption")
        save_figure(gallery("What it can do so far", pairs, names), path, dpi=60)
        drawn_at = time.monotonic()

    return draw


@torch.no_grad()
def shown(vq: VQModel, tokens: Tensor) -> list[Image.Image]:
    """Tokens [B, h, w] → pictures."""
    return to_images(vq.decode(tokens.to(vq.quant_conv.weight.device)).cpu())
