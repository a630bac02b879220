"""What an edit has to multiply, whatever it runs on: counted on networks without weights or numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ...text import TextCondition
from .parts import Part

LANGUAGE_LENGTH = 256  # rows of the language model's padded text


@torch.no_grad()
def floors(parts: dict[str, Part], size: int, *, passes: int) -> dict[str, float]:
    """FLOP (two for each multiplication) of matrix products and convolutions: reading a picture of size² px, reading
    the text, one step, painting.

    parts: as parts_of makes them; passes: 2 with guidance.
    """
    transformer, vq = parts["editmgt"].network, parts["vqvae"].network
    config, side = transformer.config, size // vq.config.factor

    def empty(*shape: int, whole: bool = False) -> Tensor:
        return torch.empty(shape, device="meta", dtype=torch.long if whole else torch.float32)

    tokens = empty(passes, side, side, whole=True)
    text = TextCondition(empty(passes, LANGUAGE_LENGTH, config.text_width), empty(passes, config.pooled_projection_dim))

    def read_picture() -> None:
        vq.quantize.nearest(vq.latents(empty(1, 3, size, size)))

    return {
        "picture": counted(read_picture),
        "text": passes * sum(text_flops(parts[name]) for name in ("text_encoder", "llm_encoder")),
        "step": counted(lambda: transformer(tokens, text, empty(passes), source=tokens)),
        "painting": counted(lambda: vq.decode_latents(empty(1, vq.config.embed_dim, side, side))),
    }


def text_flops(part: Part) -> float:
    """Of one padded text in a network of transformers, which cannot run without numbers: each linear layer once a row,
    and in each layer every row with every row, twice."""
    config = part.config
    rows = min(config["max_position_embeddings"], LANGUAGE_LENGTH)
    width = config["num_attention_heads"] * config.get(
        "head_dim", config["hidden_size"] // config["num_attention_heads"]
    )
    linear = sum(each.weight.numel() for each in part.network.modules() if isinstance(each, nn.Linear))
    return 2 * rows * linear + config["num_hidden_layers"] * 4 * rows**2 * width


def counted(call: Callable[[], object]) -> float:
    """FLOP of what a call multiplies."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()
