"""A VQ model in which a token, and what it is decoded to, depend on their surroundings alone.

A group norm looks at the whole picture: an edit in one corner changes tokens and colours in all others, and a network
trained on crops meets other statistics in whole pictures. So what every norm sees is held constant. The last channel in
front of it is a large constant, which rules the variance; the others sum to zero at every pixel, so that the mean never
moves. Such a norm is the identity, and training leaves it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ...data import tokens
from ...vq import Decoder, Downsample, Encoder, ResnetBlock, Upsample, VQModel

ANCHOR = 64.0  # the mean that every norm subtracts: the last channel is so many times the number of channels
RESIDUAL = 0.3  # of what a block adds, against what passes it, at the start


def stream_convolutions(part: Encoder | Decoder) -> Iterator[tuple[nn.Conv2d, bool, bool]]:
    """All but the last: (convolution, whether its output carries the anchor, whether its input does)."""
    yield part.conv_in, True, False
    for module in part.modules():
        if isinstance(module, ResnetBlock):
            yield module.conv1, True, True
            yield module.conv2, False, True
            if isinstance(module.conv_shortcut, nn.Conv2d):
                yield module.conv_shortcut, True, True
        elif isinstance(module, (Downsample, Upsample)):
            yield module.conv, True, True


def pointwise_convolutions(vq: VQModel) -> list[nn.Conv2d]:
    """The 3×3 convolutions of which only the middle is used: all of the encoder's on the token grid and every second
    one on the grids between, so that it sees few pixels beyond a token; and the decoder's on the token grid but three.
    """
    encoder, decoder = vq.encoder, vq.decoder
    between = [block for level in encoder.down_blocks[1:-1] for block in level.resnets]
    on_tokens = [*encoder.down_blocks[-1].resnets, *encoder.mid_block.resnets]
    on_tokens += [*decoder.mid_block.resnets[1:], *decoder.up_blocks[0].resnets]
    return [
        encoder.conv_out,
        *(block.conv2 for block in between),
        *(conv for block in on_tokens for conv in (block.conv1, block.conv2)),
    ]


@torch.no_grad()
def hold_constant(part: Encoder | Decoder) -> None:
    """Bring the weights back to where norms see constants; called after every step of an optimizer."""
    for conv, carries, reads in stream_convolutions(part):
        conv.weight[:-1] -= conv.weight[:-1].mean(dim=0)
        conv.bias[:-1] -= conv.bias[:-1].mean()
        conv.weight[-1] = 0
        conv.bias[-1] = ANCHOR * conv.out_channels if carries else 0
        if reads:
            conv.weight[:, -1] = 0
    part.conv_out.weight[:, -1] = 0


def is_local(vq: VQModel) -> bool:
    """Whether what the norms of a VQ model see is held constant."""
    parts = (vq.encoder, vq.decoder)
    return all(
        bool((conv.weight[-1] == 0).all()) and conv.bias[-1] == (ANCHOR * conv.out_channels if carries else 0)
        for part in parts
        for conv, carries, _ in stream_convolutions(part)
    )


@torch.no_grad()
def start_local(vq: VQModel, pictures: Tensor | None = None) -> None:
    """Give a fresh VQ model the start above. It needs one group for every norm.

    pictures [B, 3, H, W]: scale every convolution so that what leaves it has a deviation of 1 for these. Without, most
    of a short run goes into undoing how a deep network without working norms shrinks what it is given.
    """
    for module in vq.modules():
        if isinstance(module, nn.GroupNorm):
            if module.num_groups != 1:
                raise ValueError(f"a norm of {module.num_groups} groups cannot be held constant")
            # of the deviation that one channel of ANCHOR · C among C channels makes
            module.weight.fill_(ANCHOR * (module.num_channels - 1) ** 0.5)
            module.bias.fill_(ANCHOR)
            module.weight[-1] = module.bias[-1] = 0
    for conv in pointwise_convolutions(vq):
        centre = torch.zeros_like(conv.weight)
        centre[..., 1, 1] = 1
        conv.weight.mul_(centre)
    hold_constant(vq.encoder)
    hold_constant(vq.decoder)
    if pictures is not None:
        _scale(vq, pictures)


def _scale(vq: VQModel, pictures: Tensor) -> None:
    """One pass in which every convolution is scaled as it is reached."""
    parts = (vq.encoder, vq.decoder)
    wanted = {conv: 1.0 if carries else RESIDUAL for part in parts for conv, carries, _ in stream_convolutions(part)}
    streams = set(wanted)
    wanted |= {vq.encoder.conv_out: 1.0, vq.quant_conv: 1.0, vq.post_quant_conv: 1.0, vq.decoder.conv_out: 0.2}

    def rescale(conv: nn.Conv2d, _: tuple, output: Tensor) -> Tensor:
        signal = slice(-1) if conv in streams else slice(None)
        factor = wanted[conv] / output[:, signal].std()
        conv.weight[signal] *= factor
        conv.bias[signal] *= factor
        return torch.cat([output[:, signal] * factor, output[:, -1:]], dim=1) if conv in streams else output * factor

    handles = [conv.register_forward_hook(rescale) for conv in wanted]
    with as_trained(vq):
        vq.decode_latents(vq.latents(pictures))
    for handle in handles:
        handle.remove()
    vq.decoder.conv_out.bias.fill_(0.5)


@contextmanager
def as_trained(vq: nn.Module) -> Iterator[None]:
    """Inside, norms are left out and convolutions that use only their middle compute only that: the same, faster.

    A VQ model that is not local stays as it is.
    """
    if not is_local(vq):
        yield
        return
    pointwise = set(pointwise_convolutions(vq))
    patched = [module for module in vq.modules() if isinstance(module, nn.GroupNorm) or module in pointwise]

    def middle(conv: nn.Conv2d):
        return lambda x: F.conv2d(x, conv.weight[:, :, 1:2, 1:2], conv.bias)

    for module in patched:
        module.forward = nn.Identity().forward if isinstance(module, nn.GroupNorm) else middle(module)
    try:
        yield
    finally:
        for module in patched:
            del module.forward


def encode(vq: VQModel, pictures: Sequence[Image.Image]) -> Tensor:
    """As `data.tokens.encode`, faster for a local VQ model."""
    with as_trained(vq):
        return tokens.encode(vq, pictures)
