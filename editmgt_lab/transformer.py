"""Stage 3: the masked generative transformer, from tokens and text to logits over the codebook."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import Layout, RMSNorm, SingleModalAttention, injection_bias, position_ids, rotary_table
from .basics.checks import check_number, check_switch
from .basics.dtypes import Dtype
from .blocks import (
    SINUSOID_WIDTH,
    Downsample,
    MaskedTokenHead,
    MultiModalBlock,
    Prepared,
    SingleModalBlock,
    TimeTextEmbedding,
    TokenEmbedding,
    TransformerConfig,
    TwoLinears,
    Upsample,
    sinusoids,
)
from .caching import FeatureCache
from .checkpoints import load_module
from .errors import SettingError, ShapeError, TextError
from .text import TextCondition

PIXELS_PER_TOKEN = 16  # of the released VQ: the micro-conditions speak of pixels
AESTHETIC_SCORE = 6.0
PLAIN = {"strength": 1.0, "bias_text": False}  # what these are where a call leaves them out; the others are None


class MaskedGenerativeTransformer(nn.Module):
    """Predicts every image token at once from text, the unmasked image tokens and, in an edit, the source tokens.

    Source: the released code (Meissonic's backbone, blocks as in Flux) and the paper's attention injection. All
    parameters have the released names.
    """

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.config = config
        self.checkpointing = False
        width, heads = config.width, config.num_attention_heads
        if config.has_connector:
            self.connector = nn.ModuleDict({"projector": nn.Linear(config.joint_attention_dim, width)})
        self.context_embedder = nn.Linear(width, width)
        self.encoder_proj_layer_norm = RMSNorm(width)
        self.cond_embed = TwoLinears(5 * SINUSOID_WIDTH + config.pooled_projection_dim, width, bias=False)
        self.time_text_embed = TimeTextEmbedding(width)

        self.embed = TokenEmbedding(config.vocab_size, width)
        self.down_block = nn.ModuleDict({"downsample": Downsample(width)} if config.downsample else {})
        self.project_to_hidden_norm = RMSNorm(width)
        self.project_to_hidden = nn.Linear(width, width, bias=False)

        self.transformer_blocks = nn.ModuleList(MultiModalBlock(width, heads) for _ in range(config.num_layers))
        self.single_transformer_blocks = nn.ModuleList(
            SingleModalBlock(width, heads) for _ in range(config.num_single_layers)
        )

        self.project_from_hidden_norm = RMSNorm(width)
        self.project_from_hidden = nn.Linear(width, width, bias=False)
        self.up_block = nn.ModuleDict({"upsample": Upsample(width)} if config.upsample else {})
        self.mlm_layer = MaskedTokenHead(width, config.codebook_size)

    @classmethod
    def from_config(cls, values: Mapping[str, Any]) -> MaskedGenerativeTransformer:
        """A fresh network from the content of a `config.json`."""
        return cls(TransformerConfig.from_dict(values))

    @classmethod
    def from_pretrained(
        cls, folder: str | os.PathLike[str], *, device: torch.device | str | None = None, dtype: Dtype | None = None
    ) -> MaskedGenerativeTransformer:
        """Read a folder of the released layout, sharded or not. Raises what load_module does."""
        return load_module(cls.from_config, folder, device=device, dtype=dtype)

    def forward(
        self,
        tokens: Tensor,
        text: TextCondition | Prepared,
        timestep: Tensor,
        *,
        source: Tensor | None = None,
        strength: float = 1.0,
        bias_text: bool = False,
        micro_conditions: Tensor | None = None,
        only: Tensor | None = None,
        origin: Tensor | None = None,
    ) -> Tensor:
        """Predict every image token.

        tokens, source: long [B, h, w]; text: tokens [B, L, text width], pooled [B, P]; timestep: [B], before its factor
        1000; micro_conditions: [B, 5] of width, height, crop top, crop left and aesthetic score, by default those of an
        uncropped picture of 16 pixels a token. Returns logits [B, codebook, h, w].
        A decoding, whose steps differ in tokens and timestep alone, gives what `prepare` made in place of the text, and
        of the rest no more than `only`.
        only: bool [B, h, w], as training needs it: predict these n tokens alone and return [n, codebook].
        origin: [B, 2], for windows of larger pictures: row and column of their first position there.
        Padded text rows are attended to like all others, as in the released code; only `consolidate` leaves them out.

        strength: γ of the paper's section on attention injection; 1 adds no bias, more stays closer to the source.
        bias_text=False is the paper's bias (image ↔ source), True the released code's (source ↔ all, text included).
        At γ = 0 the source is left out altogether, in both forms, so the logits are exactly text-to-image. The released
        bias tends to that as γ → 0; the paper's does not, since there text goes on reading the source.

        Raises SettingError for a strength that is negative or not finite and for what was to be prepared, ShapeError
        for tensors that do not fit and ids that the network does not have, TextError for a text that is not encoded.
        """
        shared = {
            "source": source, "strength": strength, "bias_text": bias_text,
            "micro_conditions": micro_conditions, "origin": origin,
        }  # fmt: skip
        if isinstance(text, Prepared):
            self.config.check_tokens(tokens)
            refuse_beside_prepared(shared)
            prepared = text
        else:
            prepared = self.prepare(tokens, text, **shared)
        layout, encoded, batch = prepared.layout, prepared.text, len(prepared.text)
        whole = batch, *layout.token_grid
        check_shapes(tokens, [("tokens", tokens, whole), ("timestep", timestep, (batch,)), ("only", only, whole)])
        pictures = [self.encode_tokens(tokens)]  # [B, N, D]
        conditions = [self.time_text_embed(timestep.float() * 1000, prepared.pooled)]  # [B, D]
        cache, positions = layout.cache, None
        if cache is not None:
            positions = cache.open_positions(tokens, self.config.codebook_size, layout.position_grid)
        if positions is not None:
            layout = layout.only(positions)
            pictures = [x.gather(1, positions.unsqueeze(-1).expand(-1, -1, x.shape[-1])) for x in pictures]  # [B, R, D]
        elif prepared.source is not None:
            pictures.append(prepared.source)
            conditions.append(prepared.source_condition)

        for block in self.transformer_blocks:
            encoded, pictures = self.through(block, encoded, pictures, conditions, layout)
        streams = [torch.cat([encoded, pictures[0]], dim=1), *pictures[1:]]
        for block in self.single_transformer_blocks:
            streams = self.through(block, streams, conditions, layout)
        image = streams[0][:, layout.text :]
        if cache is not None:
            image = cache.complete_features(image, positions)
        features = self.decode(image, layout)  # [B, h, w, D]
        if only is not None:
            return self.mlm_layer(features[only])
        return rearrange(self.mlm_layer(features), "b h w codebook -> b codebook h w")

    def prepare(
        self,
        tokens: Tensor,
        text: TextCondition,
        *,
        source: Tensor | None = None,
        strength: float = 1.0,
        bias_text: bool = False,
        micro_conditions: Tensor | None = None,
        origin: Tensor | None = None,
        cache: FeatureCache | None = None,
    ) -> Prepared:
        """What `forward` makes of these anew in every step, made once; of the tokens it takes the shape alone.

        cache: says in every pass which positions are computed; the others' logits stay. Raises what `forward` does.
        """
        check_switch(bias_text, "bias_text")
        self.check_inputs(tokens, text, source, strength, micro_conditions)
        pooled, with_source = self.pool(tokens, text, micro_conditions), source is not None and strength > 0
        layout = self.layout(
            tokens, text, with_source=with_source, strength=strength, bias_text=bias_text, origin=origin
        )
        prepared = Prepared(replace(layout, cache=cache), self.encode_text(text.tokens), pooled)
        if not with_source:
            return prepared
        at_rest = self.time_text_embed(tokens.new_zeros(len(tokens)).float(), pooled)  # always timestep 0
        return replace(prepared, source=self.encode_tokens(source), source_condition=at_rest)

    def through(self, block: nn.Module, *inputs: Any) -> Any:
        """One block; with `checkpointing`, what it computes inside is not kept for the backward pass but made again."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *inputs, use_reentrant=False)
        return block(*inputs)

    def compile_blocks(self) -> None:
        """Let torch compile every block, before its attention and after it. What changes from pass to pass, capture and
        cache, sits in the attention between, so that all steps of a decoding run the same code."""
        attend = torch.compiler.disable(SingleModalAttention.attend)
        forward = {kind: torch.compile(kind.forward) for kind in (MultiModalBlock, SingleModalBlock)}
        for block in self.blocks:
            block.attn.attend = MethodType(attend, block.attn)  # bound, so that a copy of the network gets its own
            block.forward = MethodType(forward[type(block)], block)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """[B, L, text width] → [B, L, D], as precise as the weights, in mixed precision too."""
        tokens = tokens.to(self.dtype)
        if self.config.has_connector:
            tokens = self.connector["projector"](tokens)
        return self.encoder_proj_layer_norm(self.context_embedder(tokens)).to(self.dtype)

    def encode_tokens(self, tokens: Tensor) -> Tensor:
        """[B, h, w] → [B, N, D]: one row for each position inside the transformer; as precise as the weights."""
        x = self.embed(tokens)
        for downsample in self.down_block.values():
            x = downsample(x)
        return self.project_to_hidden(self.project_to_hidden_norm(x.flatten(1, 2))).to(self.dtype)

    def decode(self, x: Tensor, layout: Layout) -> Tensor:
        """[B, N, D] → [B, h, w, D]: what the head turns into logits."""
        x = self.project_from_hidden(self.project_from_hidden_norm(x))
        x = x.unflatten(1, layout.position_grid)
        for upsample in self.up_block.values():
            x = upsample(x)
        return x

    def pool(self, tokens: Tensor, text: TextCondition, micro_conditions: Tensor | None) -> Tensor:
        """[B, D]: the pooled text and the micro-conditions, for the vectors that modulate the blocks."""
        if micro_conditions is None:
            h, w = tokens.shape[1:]
            size = (PIXELS_PER_TOKEN * w, PIXELS_PER_TOKEN * h, 0, 0, AESTHETIC_SCORE)
            micro_conditions = torch.tensor(size, dtype=torch.float32, device=tokens.device).expand(len(tokens), 5)
        micro = sinusoids(micro_conditions).flatten(1).to(self.dtype)  # [B, 5 * 256]
        return self.cond_embed(torch.cat([text.pooled.to(self.dtype), micro], dim=1))

    def layout(
        self,
        tokens: Tensor,
        text: TextCondition,
        *,
        with_source: bool,
        strength: float,
        bias_text: bool,
        origin: Tensor | None = None,
    ) -> Layout:
        """The positions [text; image; source] of this pass, their rotations and the injection bias."""
        token_grid, length = tuple(tokens.shape[1:]), text.tokens.shape[1]
        grid = self.position_grid(*token_grid)
        positions = position_ids(length, grid, 2 if with_source else 1)
        if origin is not None:
            begin = F.pad(origin.cpu(), (1, 0))[:, None]  # [B, 1, 3]
            positions = torch.where(torch.arange(len(positions))[:, None] < length, positions, positions + begin)
        rotary = rotary_table(positions, self.config.axes_dims_rope).to(tokens.device)
        bias = None
        if with_source and strength != 1:
            bias = injection_bias(length, math.prod(grid), strength, bias_text=bias_text).to(tokens.device, self.dtype)
        return Layout(length, token_grid, grid, rotary if origin is None else rotary[:, None], bias, text.padding)

    def position_grid(self, h: int, w: int) -> tuple[int, int]:
        """The grid inside the transformer of an h×w token grid."""
        factor = 2 if self.config.downsample else 1
        return h // factor, w // factor

    @property
    def dtype(self) -> torch.dtype:
        return self.project_to_hidden.weight.dtype

    @property
    def blocks(self) -> list[nn.Module]:
        """All blocks, numbered through: multi-modal first."""
        return [*self.transformer_blocks, *self.single_transformer_blocks]

    def check_inputs(
        self, tokens: Tensor, text: TextCondition, source: Tensor | None, strength: float, micro: Tensor | None
    ) -> None:
        check_number(strength, "strength", 0, math.inf, "1.0 is the plain attention")
        if not isinstance(text, TextCondition):
            raise TextError(
                f"the text is a {type(text).__name__}",
                expected="a TextCondition, or what `prepare` made of one",
                fix="pass editor.encode_text(instruction)",
            )
        self.config.check_tokens(tokens)
        batch, h, w = tokens.shape
        if self.config.downsample and (h % 2 or w % 2):
            raise ShapeError(
                f"the token grid is {h}×{w}",
                expected="height and width a multiple of 2, since this network joins 2×2 tokens to one position",
                fix="resize or crop the picture",
            )
        length = text.tokens.shape[1] if text.tokens.ndim == 3 else "L"
        check_shapes(tokens, [
            ("source", source, (batch, h, w)),
            ("text.tokens", text.tokens, (batch, length, self.config.text_width)),
            ("text.pooled", text.pooled, (batch, self.config.pooled_projection_dim)),
            ("text.padding", text.padding, (batch, length)), ("micro_conditions", micro, (batch, 5)),
        ])  # fmt: skip
        if source is not None:
            self.config.check_tokens(source, "source tokens")


def check_shapes(tokens: Tensor, wanted: Sequence[tuple[str, Tensor | None, tuple[Any, ...]]]) -> None:
    for name, tensor, shape in wanted:
        is_tensor = isinstance(tensor, Tensor)
        if tensor is not None and not (is_tensor and tuple(tensor.shape) == shape):
            raise ShapeError(
                f"{name} is {list(tensor.shape) if is_tensor else repr(tensor)}",
                expected=f"[{', '.join(map(str, shape))}] beside tokens {list(tokens.shape)}",
                fix="give every picture its own row, and the text encoder that belongs to this network",
            )


def refuse_beside_prepared(shared: Mapping[str, Any]) -> None:
    given = [name for name, value in shared.items() if isinstance(value, Tensor) or value != PLAIN.get(name)]
    if given:
        raise SettingError(
            f"{' and '.join(given)} beside what was prepared",
            expected="tokens and timestep, and `only` at most",
            fix="pass it to `prepare`, whose result all steps share",
        )
