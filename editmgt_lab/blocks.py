"""Stage 3: the sizes and the parts of the transformer: embeddings, resampling and head, and the two kinds of block.

Parameter names are the released ones; the blocks are Flux's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .attention import Layout, MultiModalAttention, RMSNorm, SingleModalAttention
from .basics.checks import may_look
from .errors import SettingError, ShapeError

SINUSOID_WIDTH = 256


@dataclass(frozen=True)
class TransformerConfig:
    """Every size of the network, under the keys of the released `config.json`; the defaults are the released values.

    patch_size, in_channels and text_encoder_architecture belong to the file's layout and change nothing here.
    """

    patch_size: int = 1
    in_channels: int = 64
    num_layers: int = 14
    num_single_layers: int = 28
    attention_head_dim: int = 128
    num_attention_heads: int = 8
    joint_attention_dim: int = 2304
    pooled_projection_dim: int = 1024
    guidance_embeds: bool = False
    axes_dims_rope: tuple[int, ...] = (16, 56, 56)
    vocab_size: int = 8256
    codebook_size: int = 8192
    downsample: bool = True
    upsample: bool = True
    text_encoder_architecture: str = "CLIP_Gemma2"
    connector_type: str | None = "linear"

    def __post_init__(self):
        object.__setattr__(self, "axes_dims_rope", tuple(self.axes_dims_rope))
        if sum(self.axes_dims_rope) != self.attention_head_dim or any(width % 2 for width in self.axes_dims_rope):
            raise SettingError(
                f"axes_dims_rope {self.axes_dims_rope} does not fit heads of {self.attention_head_dim}",
                expected="even widths that sum to attention_head_dim",
                fix="change axes_dims_rope or attention_head_dim",
            )
        if self.guidance_embeds:
            raise SettingError(
                "guidance_embeds is true", expected="false: no released weights use it", fix="set it to false"
            )
        if self.connector_type not in (None, "none", "linear"):
            raise SettingError(
                f"unknown connector_type {self.connector_type!r}",
                expected="'linear' or 'none'",
                fix="choose one of them",
            )
        if self.downsample != self.upsample:
            raise SettingError(
                "only one of downsample and upsample is set", expected="both or neither", fix="set both alike"
            )

    @property
    def width(self) -> int:
        return self.num_attention_heads * self.attention_head_dim

    @property
    def has_connector(self) -> bool:
        return self.connector_type == "linear"

    @property
    def text_width(self) -> int:
        return self.joint_attention_dim if self.has_connector else self.width

    def check_tokens(self, tokens: Tensor, name: str = "tokens") -> None:
        """Raises ShapeError for what is no long [B, h, w] of ids that the network has an embedding of. Ids are read on
        the CPU alone: elsewhere that would wait for all that is still to be computed."""
        is_tensor = isinstance(tokens, Tensor)
        if not is_tensor or tokens.ndim != 3 or tokens.dtype not in (torch.long, torch.int):
            found = f"{tokens.dtype} {list(tokens.shape)}" if is_tensor else f"a {type(tokens).__name__}"
            raise ShapeError(
                f"{name} are {found}",
                expected="whole numbers [B, h, w], long",
                fix="pass token ids, one grid for each picture",
            )
        low, high = map(int, tokens.aminmax()) if may_look(tokens) and tokens.numel() else (0, 0)
        if low < 0 or high >= self.vocab_size:
            raise ShapeError(
                f"{name} are ids from {low} to {high}",
                expected=f"ids from 0 to {self.vocab_size - 1}, a picture's below {self.codebook_size}",
                fix="pass tokens of this network's own tokenizer",
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TransformerConfig:
        """From the content of a config.json, without keys that begin with an underscore.

        Raises SettingError for other unknown keys.
        """
        values = {key: value for key, value in values.items() if not key.startswith("_")}
        unknown = sorted(values.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise SettingError(
                f"unknown configuration keys {unknown}", expected="the keys of TransformerConfig", fix="remove them"
            )
        return cls(**values)


@dataclass(frozen=True)
class Prepared:
    """What all steps of one decoding share; `MaskedGenerativeTransformer.prepare` makes it.

    text: [B, L, D]; pooled: [B, D], of text and micro-conditions; source: [B, N, D] and the vector [B, D] that
    modulates it, both None for text to image.
    """

    layout: Layout
    text: Tensor
    pooled: Tensor
    source: Tensor | None = None
    source_condition: Tensor | None = None


def frequencies() -> Tensor:
    """[128]: from 1 down to almost 1 / 10,000."""
    half = SINUSOID_WIDTH // 2
    return torch.exp(-math.log(10_000.0) * torch.arange(half, dtype=torch.float32) / half)


def sinusoids(values: Tensor) -> Tensor:
    """[...] → [..., 256], cosines first."""
    angles = values.float().unsqueeze(-1) * frequencies().to(values.device, non_blocking=True)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TwoLinears(nn.Module):
    """linear → SiLU → linear."""

    def __init__(self, width_in: int, width: int, bias: bool = True):
        super().__init__()
        self.linear_1 = nn.Linear(width_in, width, bias=bias)
        self.linear_2 = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.silu(self.linear_1(x)))


class TimeTextEmbedding(nn.Module):
    """The vector that modulates every block: timestep and pooled text."""

    def __init__(self, width: int):
        super().__init__()
        self.timestep_embedder = TwoLinears(SINUSOID_WIDTH, width)
        self.text_embedder = TwoLinears(width, width)

    def forward(self, timestep: Tensor, pooled: Tensor) -> Tensor:
        """timestep: [B], already times 1000; pooled: [B, D]; returns [B, D]."""
        return self.timestep_embedder(sinusoids(timestep).type_as(pooled)) + self.text_embedder(pooled)


def pointwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1×1 convolution of channels-last x: [..., in] → [..., out]."""
    return F.linear(x, conv.weight.flatten(1))


class TokenEmbedding(nn.Module):
    def __init__(self, vocabulary: int, width: int):
        super().__init__()
        self.embeddings = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.embeddings.weight, std=0.02)
        self.layer_norm = RMSNorm(width)
        self.conv = nn.Conv2d(width, width, kernel_size=1, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, h, w] → [B, h, w, D]."""
        return pointwise(self.conv, self.layer_norm(self.embeddings(tokens)))


class Downsample(nn.Module):
    """RMS norm, then a 2×2 convolution of stride 2: four tokens become one position."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = RMSNorm(width)
        self.conv = nn.Conv2d(width, width, kernel_size=2, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, h, w, D] → [B, h/2, w/2, D]."""
        fours = rearrange(self.norm(x), "b (row i) (column j) d -> b row column (i j d)", i=2, j=2)
        return F.linear(fours, rearrange(self.conv.weight, "out d i j -> out (i j d)"))


class Upsample(nn.Module):
    """RMS norm, then a transposed 2×2 convolution of stride 2: one position becomes four tokens."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = RMSNorm(width)
        self.conv = nn.ConvTranspose2d(width, width, kernel_size=2, stride=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, h/2, w/2, D] → [B, h, w, D]."""
        fours = F.linear(self.norm(x), rearrange(self.conv.weight, "d out i j -> (i j out) d"))
        return rearrange(fours, "b row column (i j d) -> b (row i) (column j) d", i=2, j=2)


class MaskedTokenHead(nn.Module):
    def __init__(self, width: int, codebook: int):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, kernel_size=1, bias=False)
        self.layer_norm = RMSNorm(width)
        self.conv2 = nn.Conv2d(width, codebook, kernel_size=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] → [..., codebook]."""
        return pointwise(self.conv2, self.layer_norm(pointwise(self.conv1, x)))


class Modulation(nn.Module):
    """adaLN-zero: shifts, scales and gates from the conditioning vector; all zero before training."""

    def __init__(self, width: int, parts: int):
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(width, parts * width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:
        """condition: [B, D] → `parts` tensors [B, 1, D]."""
        return self.linear(F.silu(condition)).unsqueeze(1).chunk(self.parts, dim=-1)


def modulated_norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)


class ProjectedGELU(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.proj = nn.Linear(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x), approximate="tanh")


class FeedForward(nn.Module):
    """The MLP, four times as wide inside."""

    def __init__(self, width: int):
        super().__init__()
        self.net = nn.Sequential(ProjectedGELU(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class MultiModalBlock(nn.Module):
    """Two sets of weights, one for text, one for image and source; they meet in one joint attention."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1, self.norm1_context = Modulation(width, 6), Modulation(width, 6)
        self.attn = MultiModalAttention(width, heads)
        self.ff, self.ff_context = FeedForward(width), FeedForward(width)

    def forward(
        self, text: Tensor, pictures: list[Tensor], conditions: list[Tensor], layout: Layout
    ) -> tuple[Tensor, list[Tensor]]:
        """text: [B, L, D]; pictures: image and, in an edit, source, [B, N, D]; conditions: [B, D] for each picture."""
        shift, scale, gate, *text_mlp = self.norm1_context(conditions[0])
        modulations = [self.norm1(condition) for condition in conditions]

        normed = torch.cat([modulated_norm(x, *m[:2]) for x, m in zip(pictures, modulations, strict=True)], dim=1)
        attended_text, attended = self.attn(modulated_norm(text, shift, scale), normed, layout)

        text = torch.addcmul(text, gate, attended_text)
        pictures = add_gated(pictures, [m[2] for m in modulations], attended)

        shift, scale, gate = text_mlp
        text = torch.addcmul(text, gate, self.ff_context(modulated_norm(text, shift, scale)))
        normed = torch.cat([modulated_norm(x, *m[3:5]) for x, m in zip(pictures, modulations, strict=True)], dim=1)
        return text, add_gated(pictures, [m[5] for m in modulations], self.ff(normed))


class SingleModalBlock(nn.Module):
    """One set of weights for all; attention and MLP side by side."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm = Modulation(width, 3)
        self.attn = SingleModalAttention(width, heads)
        self.proj_mlp = nn.Linear(width, 4 * width)
        self.proj_out = nn.Linear(5 * width, width)

    def forward(self, streams: list[Tensor], conditions: list[Tensor], layout: Layout) -> list[Tensor]:
        """streams: [text; image] [B, L + N, D] and, in an edit, source [B, N, D]; one condition [B, D] for each."""
        modulations = [self.norm(condition) for condition in conditions]
        normed = torch.cat(
            [modulated_norm(x, *m[:2]) for x, m in zip(streams, modulations, strict=True)], dim=1
        )  # [B, T, D]
        mlp = F.gelu(self.proj_mlp(normed), approximate="tanh")  # [B, T, 4D]
        out = self.proj_out(torch.cat([self.attn(normed, layout), mlp], dim=-1))
        return add_gated(streams, [m[2] for m in modulations], out)


def add_gated(streams: list[Tensor], gates: list[Tensor], update: Tensor) -> list[Tensor]:
    """x + gate · update for every stream; update: all streams behind one another, [B, T, D]."""
    updates = update.split([x.shape[1] for x in streams], dim=1)
    return [torch.addcmul(x, gate, part) for x, gate, part in zip(streams, gates, updates, strict=True)]
