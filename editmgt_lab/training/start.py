"""Where the transformer starts from: a network that repeats the tokens it sees, and looks first where it stands.

Trained from random numbers, most of a short run goes into learning to carry 2×2 tokens through the network unharmed, to
find the same place in the source, and to know where in the picture a position is. All three are known beforehand, so
they are written into the weights; training may change all of it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..blocks import Modulation, MultiModalBlock, TransformerConfig
from ..transformer import MaskedGenerativeTransformer

LOOK_FIRST = 3  # every third block starts with its attention on its own place
SHARPNESS = 2.0  # of that attention: about 80% on the place itself, the rest next to it
GATE = 0.5


@torch.no_grad()
def start_from_codes(transformer: MaskedGenerativeTransformer, codes: Tensor, positions: int = 8) -> None:
    """Make a fresh transformer repeat its input. codes: the VQ model's codebook [codebook, C]; positions: along a side.

    Similar codes get similar embeddings, in a quarter of the width; each of the 2×2 tokens of a position has a quarter
    of its channels, and as many heads; the head compares with the same embeddings.
    """
    config = transformer.config
    width, quarter = config.width, config.width // 4
    numbers = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=numbers).to(codes)

    lifted = ((codes - codes.mean(0)) / codes.std(0)) @ normal(codes.shape[1], quarter)
    lifted = nn.functional.normalize(lifted) + 0.5 * nn.functional.normalize(normal(len(codes), quarter))
    basis = torch.linalg.qr(normal(width, quarter)).Q  # [D, D/4], orthonormal columns
    embeddings = nn.functional.normalize(lifted) @ basis.T * width**0.5  # [codebook, D], rms 1

    transformer.embed.embeddings.weight[: len(codes)] = embeddings
    others = transformer.embed.embeddings.weight[len(codes) :]
    others -= others @ basis @ basis.T  # the mask token is nothing, until training gives it a meaning
    transformer.mlm_layer.conv2.weight[:, :, 0, 0] = 1.5 * embeddings / width**0.5
    identity = torch.eye(width).to(codes)
    for conv in (transformer.embed.conv, transformer.mlm_layer.conv1):
        conv.weight[:, :, 0, 0] = identity
    for linear in (transformer.project_to_hidden, transformer.project_from_hidden):
        linear.weight.copy_(identity)
    down, up = (transformer.down_block["downsample"].conv.weight, transformer.up_block["upsample"].conv.weight)
    down.zero_(), up.zero_()
    for token, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        part = slice(token * quarter, (token + 1) * quarter)
        down[part, :, row, column] = up[part, :, row, column] = basis.T
    know_the_place(transformer.blocks[0], config, positions)
    for block in transformer.blocks[1::LOOK_FIRST]:
        look_at_own_place(block, config)


@torch.no_grad()
def know_the_place(block: MultiModalBlock, config: TransformerConfig, positions: int) -> None:
    """Let each head of a multi-modal block say how far down or across a position is.

    Text stands at row and column 0, so a query and a text key that never change meet at an angle that grows with the
    position, and how much text a position reads is a function of where it is.
    """
    attention, width, (_, rows, _) = block.attn, config.width, config.axes_dims_rope
    down = config.axes_dims_rope[0]
    across = down + rows
    turns = [10_000.0 ** (-pair / rows) * positions for pair in range(0, rows, 2)]  # of each rotation, over a side
    slow = 2 * max(1, [turn < 2.5 for turn in turns].index(True))  # the quickest that no two places share
    query = torch.zeros(config.num_attention_heads, config.attention_head_dim)
    key = torch.zeros_like(query)
    quick = slow - 2
    readings = ((down + slow, 0.6), (across + slow, 0.6), (down + quick, 0.0), (across + quick, 0.0))
    for head in range(config.num_attention_heads):
        pair, lead = readings[head % len(readings)]
        query[head, pair], key[head, pair], key[head, pair + 1] = 1, math.cos(lead), -math.sin(lead)
    for to, vectors in ((attention.to_q, query), (attention.add_k_proj, key)):
        hold_constant(to, vectors.flatten() * config.attention_head_dim**0.5)
    attention.norm_k.weight.fill_(0.1)  # pictures are read evenly, and say nothing
    for parameter in (attention.to_v.weight, attention.to_v.bias, attention.to_out[0].bias):
        parameter.zero_()
    attention.add_v_proj.weight.mul_(0.2)
    attention.add_v_proj.bias.fill_(1)
    attention.to_out[0].weight.copy_(torch.eye(width))
    open_gate(block.norm1)


@torch.no_grad()
def look_at_own_place(block: nn.Module, config: TransformerConfig) -> None:
    """Let a block's image and source positions add what stands at the same place, in themselves and in the source."""
    attention, width = block.attn, config.width
    near = torch.zeros(config.num_attention_heads, config.attention_head_dim)
    _, rows, columns = config.axes_dims_rope
    for axis in (config.axes_dims_rope[0], config.axes_dims_rope[0] + rows):
        near[:, axis : axis + 4] = 1  # the two quickest rotations of each axis fall off most with distance
    near = near.flatten() * (config.attention_head_dim / 8) ** 0.5  # rms 1 in each head
    for to, norm in ((attention.to_q, attention.norm_q), (attention.to_k, attention.norm_k)):
        hold_constant(to, near)
        norm.weight.fill_(SHARPNESS)
    identity = torch.eye(width).to(attention.to_v.weight)
    attention.to_v.weight.copy_(identity)
    if isinstance(block, MultiModalBlock):
        attention.to_out[0].weight.copy_(identity)
        open_gate(block.norm1)
    else:
        block.proj_out.weight[:, :width] = identity
        block.proj_out.weight[:, width:] = 0
        open_gate(block.norm)


def hold_constant(linear: nn.Linear, output: Tensor) -> None:
    """Let a projection give nearly the same output whatever it sees."""
    linear.weight.mul_(0.2)
    linear.bias.copy_(output)


def open_gate(modulation: Modulation) -> None:
    """Let a block's attention through from the first step on."""
    modulation.linear.bias.chunk(modulation.parts)[2].fill_(GATE)
