"""Stage 1: pixels ↔ tokens.

The VQ model has the layout and the parameter names of diffusers' `VQModel`, so that its folders load as they are.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from .basics.checks import check_number
from .basics.dtypes import Dtype
from .checkpoints import load_module
from .errors import CheckpointError, SettingError, ShapeError

MOST_TOKENS = 2**26  # that are decoded at once


@dataclass(frozen=True)
class VQConfig:
    """The keys of diffusers' `VQModel` configuration that shape the network."""

    in_channels: int = 3
    out_channels: int = 3
    block_out_channels: tuple[int, ...] = (128, 256, 256, 512, 768)
    layers_per_block: int = 2
    latent_channels: int = 64
    num_vq_embeddings: int = 8192
    norm_num_groups: int = 32
    vq_embed_dim: int | None = None
    norm_type: str = "group"
    mid_block_add_attention: bool = False
    act_fn: str = "silu"

    @classmethod
    def from_dict(cls, config: dict) -> VQConfig:
        """From the known keys of a `config.json`. Raises CheckpointError for a variant that this one does not build,
        SettingError for a number of groups that is none."""
        known = {f.name for f in fields(cls)}
        chosen = cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in config.items() if k in known})
        check_number(chosen.norm_num_groups, "norm_num_groups", 1, sys.maxsize, "copy config.json again", whole=True)
        for name, only in (("norm_type", "group"), ("mid_block_add_attention", False), ("act_fn", "silu")):
            if getattr(chosen, name) != only:
                raise CheckpointError(
                    f"The VQ model has {name} = {getattr(chosen, name)!r}.",
                    expected=f"{name} = {only!r}, as in the released VQ model.",
                    fix="Use a VQ folder with the released architecture.",
                )
        return chosen

    @property
    def embed_dim(self) -> int:
        """Channels of one code."""
        return self.vq_embed_dim or self.latent_channels

    @property
    def factor(self) -> int:
        """Pixels along one side of a token."""
        return 2 ** (len(self.block_out_channels) - 1)


class ResnetBlock(nn.Module):
    """Two normalised 3×3 convolutions around a skip."""

    def __init__(self, in_channels: int, out_channels: int, groups: int):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=1e-6)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=1e-6)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return self.conv_shortcut(x) + h


class Downsample(nn.Module):
    """Halve the grid with a strided convolution, padded at the right and the bottom only."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Double the grid by repetition, then convolve."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The residual blocks of one resolution, then a change of resolution at every level but the last."""

    def __init__(self, in_channels: int, out_channels: int, layers: int, groups: int, resize: str | None):
        super().__init__()
        self.resnets = nn.ModuleList(
            ResnetBlock(in_channels if i == 0 else out_channels, out_channels, groups) for i in range(layers)
        )
        if resize == "down":
            self.downsamplers = nn.ModuleList([Downsample(out_channels)])
        elif resize == "up":
            self.upsamplers = nn.ModuleList([Upsample(out_channels)])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.resnets:
            x = block(x)
        for resize in getattr(self, "downsamplers", getattr(self, "upsamplers", ())):
            x = resize(x)
        return x


class Encoder(nn.Module):
    """Pixels → latents before quantisation."""

    def __init__(self, config: VQConfig):
        super().__init__()
        widths, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            Level(
                widths[max(i - 1, 0)], width, config.layers_per_block, groups, "down" if i < len(widths) - 1 else None
            )
            for i, width in enumerate(widths)
        )
        self.mid_block = Level(widths[-1], widths[-1], 2, groups, None)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        x = self.mid_block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class Decoder(nn.Module):
    """Quantised latents → pixels."""

    def __init__(self, config: VQConfig):
        super().__init__()
        widths, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = Level(widths[0], widths[0], 2, groups, None)
        self.up_blocks = nn.ModuleList(
            Level(
                widths[max(i - 1, 0)], width, config.layers_per_block + 1, groups, "up" if i < len(widths) - 1 else None
            )
            for i, width in enumerate(widths)
        )
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class Codebook(nn.Module):
    """The list of codes; a token is the index of the nearest one."""

    def __init__(self, size: int, channels: int):
        super().__init__()
        self.embedding = nn.Embedding(size, channels)
        nn.init.uniform_(self.embedding.weight, -1 / size, 1 / size)

    def nearest(self, latents: Tensor) -> Tensor:
        """[B, C, h, w] → indices [B, h, w]."""
        flat = latents.permute(0, 2, 3, 1).flatten(0, 2).float()  # (B·h·w, C)
        indices = torch.cdist(flat, self.embedding.weight.float()).argmin(dim=1)
        return indices.view(latents.shape[0], *latents.shape[2:])

    def forward(self, indices: Tensor) -> Tensor:
        """Indices [B, h, w] → codes [B, C, h, w]."""
        return self.embedding(indices).permute(0, 3, 1, 2)


class VQModel(nn.Module):
    """A picture as a grid of tokens, and back.

    Pictures are float [B, 3, H, W] in [0, 1], sides a multiple of `config.factor`; tokens are long [B, h, w] with
    h = H / factor.
    """

    def __init__(self, config: VQConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quant_conv = nn.Conv2d(config.latent_channels, config.embed_dim, 1)
        self.quantize = Codebook(config.num_vq_embeddings, config.embed_dim)
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.latent_channels, 1)
        self.decoder = Decoder(config)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        *,
        device: torch.device | str | None = None,
        dtype: Dtype | None = None,
    ) -> VQModel:
        """Read diffusers' folder of a VQModel: config.json and safetensors; dtype: see dtypes.choose_dtype.

        Raises CheckpointError, and SettingError for a dtype or a device that is none.
        """
        return load_module(lambda config: cls(VQConfig.from_dict(config)), folder, device=device, dtype=dtype)

    def latents(self, images: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] → latents before quantisation [B, C, h, w]. Raises ShapeError."""
        return self.quant_conv(self.encoder(self._checked(images)))

    def encode(self, images: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] → tokens [B, h, w]. Raises ShapeError, and SettingError where no numbers come out."""
        images = self._checked(images)
        return self.quantize.nearest(in_numbers(nn.Sequential(self.encoder, self.quant_conv), images))

    def decode_latents(self, latents: Tensor) -> Tensor:
        """Codes [B, C, h, w] → pictures [B, 3, H, W], not clipped."""
        return self.decoder(self.post_quant_conv(latents))

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens [B, h, w] → pictures [B, 3, H, W] in [0, 1]. Raises ShapeError, and SettingError as `encode` does."""
        size = self.config.num_vq_embeddings
        whole = not (tokens.is_floating_point() or tokens.is_complex() or tokens.dtype == torch.bool)
        whole = whole and 0 < tokens.numel() <= MOST_TOKENS
        lowest, highest = (int(each) for each in tokens.long().aminmax()) if whole else (0, -1)
        if tokens.ndim != 3 or not 0 <= lowest <= highest < size:
            raise ShapeError(
                f"The tokens are {tokens.dtype} {list(tokens.shape)}"
                + (f" and lie in [{lowest}, {highest}]." if lowest <= highest else "."),
                expected=f"whole numbers [B, h, w] in [0, {size - 1}], from 1 to {MOST_TOKENS:,} of them.",
                fix="Replace mask tokens by codes before decoding.",
            )
        codes = self.quantize(tokens.long())
        return in_numbers(nn.Sequential(self.post_quant_conv, self.decoder), codes).clamp(0, 1)

    def _checked(self, images: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] in the dtype of the weights."""
        factor, shape = self.config.factor, images.shape
        whole = images.is_floating_point() and images.numel() > 0
        if not whole or len(shape) != 4 or shape[1] != self.config.in_channels or any(s % factor for s in shape[2:]):
            raise ShapeError(
                f"The pictures are {images.dtype} {list(shape)}.",
                expected=f"floats [B, {self.config.in_channels}, H, W] with H and W a multiple of {factor}.",
                fix="Bring pictures to the grid with `editmgt_lab.images.fit` first, then `to_tensor`.",
            )
        return images.to(self.quant_conv.weight.dtype)


def in_numbers(network: nn.Module, x: Tensor) -> Tensor:
    """network(x); where float16 overflows, the same in float32. Raises SettingError for what is no number even so."""
    y = network(x)
    if x.dtype == torch.float16 and not y.isfinite().all():
        weights = {name: weight.float() for name, weight in network.named_parameters()}
        y = functional_call(network, weights, (x.float(),))
    if not y.isfinite().all():
        raise SettingError(
            f"The VQ model makes no numbers of these, in {x.dtype}.",
            expected="finite pictures and weights, and a dtype that they do not overflow in.",
            fix='Load it with dtype="float32"; if it is, check the pictures, or download the weights again.',
        )
    return y
