"""Stage 3: joint attention over [text; image; source], the injection bias, and the capture of its maps."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .basics.checks import check_name, whole_numbers
from .caching import Layout
from .errors import SettingError

KEYS = ("all", "generated")  # which a captured softmax runs over: see capture_attention
MAPPED = ("image", "source", "both")  # the picture in which a captured map shows where the text looks


def joint_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √d + bias) v. q, k, v: [B, heads, T, d]; bias: [T, T]; returns [B, heads, T, d]."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and torch.is_grad_enabled():
        return attention_probabilities(q, k, bias) @ v  # the fused twin's backward is ten times slower there
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)


def attention_probabilities(q: Tensor, k: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(q kᵀ / √d + bias). q: [B, heads, Q, d]; k: [B, heads, K, d]; returns [B, heads, Q, K]."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # [B, heads, Q, K]
    return (scores if bias is None else scores + bias).softmax(dim=-1)


def injection_bias(text: int, image: int, strength: float, *, bias_text: bool) -> Tensor:
    """The injection's ℰ = log γ as a [T, T] matrix, T = text + 2 · image.

    bias_text=False (paper): on image ↔ source only, 0 for every pair that has text in it.
    bias_text=True (released code): on source ↔ everything else.
    """
    total = text + 2 * image
    source, rest = slice(text + image, total), slice(0 if bias_text else text, text + image)
    bias = torch.zeros(total, total, dtype=torch.float32)
    bias[source, rest] = bias[rest, source] = math.log(strength)
    return bias


def position_ids(text: int, grid: tuple[int, int], pictures: int) -> Tensor:
    """[T, 3]: (0, 0, 0) for text, (0, row, column) for image and, the same again, source."""
    rows, columns = torch.meshgrid(*map(torch.arange, grid), indexing="ij")
    picture = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).flatten(0, 1)  # [N, 3]
    return torch.cat([torch.zeros(text, 3, dtype=picture.dtype), *[picture] * pictures])


def rotary_table(positions: Tensor, axes: Sequence[int], theta: float = 10_000.0) -> Tensor:
    """Rotations of every position. positions: [..., T, axes]; returns complex [..., T, sum(axes) / 2]."""
    turns = []
    for axis, width in enumerate(axes):
        steps = torch.arange(0, width, 2, dtype=torch.float64, device=positions.device) / width
        turns.append(positions[..., axis, None].double() * theta**-steps)
    angles = torch.cat(turns, dim=-1)
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)


def rotate(x: Tensor, rotary: Tensor) -> Tensor:
    """Turn each pair of neighbouring channels by its position. x: [B, heads, T, d]; rotary: complex [T, d / 2]."""
    pairs = torch.view_as_complex(rearrange(x.float(), "b heads t (d two) -> b heads t d two", two=2))
    return torch.view_as_real(pairs * rotary).flatten(-2).type_as(x)


class RMSNorm(nn.RMSNorm):
    """nn.RMSNorm that stays fast where the input is bfloat16 and the weight float32, as in mixed precision."""

    def __init__(self, width: int):
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.type_as(x), self.eps)


class SingleModalAttention(nn.Module):
    """One set of projections for text, image and source alike; no projection out, its block has that."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, width) for _ in range(3))
        self.norm_q, self.norm_k = (RMSNorm(width // heads) for _ in range(2))
        self.recorders: list[Recorder] = []

    def split_heads(self, x: Tensor) -> Tensor:
        return rearrange(x, "b t (heads d) -> b heads t d", heads=self.heads)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (self.split_heads(to(x)) for to in (self.to_q, self.to_k, self.to_v))
        return self.norm_q(q), self.norm_k(k), v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
        q, k = rotate(q, layout.rotary), rotate(k, layout.rotary)
        if layout.cache is not None:
            k, v = layout.cache.complete(self, k, v, layout.rows)
        for recorder in tuple(self.recorders):
            if recorder.thread == threading.get_ident():  # a widget and a cell may use one network at a time
                recorder.record(q, k, layout)
        return rearrange(joint_attention(q, k, v, layout.bias), "b heads t d -> b t (heads d)")

    def forward(self, x: Tensor, layout: Layout) -> Tensor:
        """x: [B, T, D] → [B, T, D]."""
        return self.attend(*self.project(x), layout)


class MultiModalAttention(SingleModalAttention):
    """Text has projections of its own; image and source share theirs."""

    def __init__(self, width: int, heads: int):
        super().__init__(width, heads)
        self.add_q_proj, self.add_k_proj, self.add_v_proj = (nn.Linear(width, width) for _ in range(3))
        self.norm_added_q, self.norm_added_k = (RMSNorm(width // heads) for _ in range(2))
        self.to_out = nn.ModuleList([nn.Linear(width, width)])
        self.to_add_out = nn.Linear(width, width)

    def project_text(self, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (self.split_heads(to(text)) for to in (self.add_q_proj, self.add_k_proj, self.add_v_proj))
        return self.norm_added_q(q), self.norm_added_k(k), v

    def forward(self, text: Tensor, pictures: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """text: [B, L, D], pictures: [B, N or 2N, D] (image, then source) → the same shapes."""
        qkv = (torch.cat(parts, dim=2) for parts in zip(self.project_text(text), self.project(pictures), strict=True))
        out = self.attend(*qkv, layout)  # [B, T, D]
        return self.to_add_out(out[:, : layout.text]), self.to_out[0](out[:, layout.text :])


class CapturedAttention:
    """What `capture_attention` caught in the newest forward pass: the text rows' attention to the image positions.

    blocks: the captured block numbers, multi-modal first; grid: the position grid (rows, columns) of N; token_grid: the
    grid of the tokens; padding: bool [B, L] or None, the text rows that are no words.
    """

    def __init__(self, blocks: Sequence[int], keys: str):
        self.blocks, self.keys = tuple(blocks), keys
        self.maps: dict[int, Tensor] = {}
        self._layout: Layout | None = None

    def text_to_image(self, block: int) -> Tensor:
        """[B, heads, L, N] of one block, [B, 1, L, N] where `heads` is "mean".

        Raises SettingError if it was not captured or nothing has run yet.
        """
        if block not in self.blocks:
            raise SettingError(
                f"block {block} was not captured",
                expected=f"one of {list(self.blocks)}",
                fix="name it in capture_attention(transformer, blocks=[…])",
            )
        if block not in self.maps:
            raise self._nothing_yet()
        return self.maps[block]

    def __getitem__(self, pictures: slice) -> CapturedAttention:
        """The maps of some pictures of the batch, such as the conditional half of a pass with guidance."""
        part = CapturedAttention(self.blocks, self.keys)
        part.maps = {block: m[pictures] for block, m in self.maps.items()}
        part._layout = self.layout[pictures]
        return part

    @property
    def grid(self) -> tuple[int, int]:
        return self.layout.position_grid

    @property
    def token_grid(self) -> tuple[int, int]:
        return self.layout.token_grid

    @property
    def padding(self) -> Tensor | None:
        return self.layout.padding

    @property
    def layout(self) -> Layout:
        if self._layout is None:
            raise self._nothing_yet()
        return self._layout

    @property
    def memory(self) -> int:
        """Bytes that the maps take now; `capture_memory` states them beforehand."""
        return sum(m.numel() * m.element_size() for m in self.maps.values())

    def _nothing_yet(self) -> SettingError:
        return SettingError(
            "no forward pass of this thread has run inside capture_attention",
            expected="a call of the transformer before its maps are asked for",
            fix="call the transformer inside the with block, in the thread that opened it",
        )


class Recorder:
    """Sits on one block's attention; keeps its text → image map, of its own thread's passes, in a CapturedAttention."""

    def __init__(self, captured: CapturedAttention, block: int, heads: str, pictures: slice, mapped: str):
        self.captured, self.block, self.thread = captured, block, threading.get_ident()
        self.heads, self.pictures, self.mapped = heads, pictures, mapped

    @torch.no_grad()
    def record(self, q: Tensor, k: Tensor, layout: Layout) -> None:
        """q, k: [B, heads, T, d], rotated. Only the text rows' softmax is computed, only its image part kept."""
        layout, text, image = layout[self.pictures], layout.text, layout.text + layout.image
        q, k = q[self.pictures, :, :text], k[self.pictures]
        if self.captured.keys == "generated":
            probabilities = attention_probabilities(q, k[:, :, :image])
        else:
            bias = None if layout.bias is None else layout.bias[..., :text, :]
            probabilities = attention_probabilities(q, k, bias)
        found = probabilities[..., text:image]  # [B, heads, L, N]
        if self.mapped != "image" and probabilities.shape[-1] > image:
            in_source = probabilities[..., image : image + layout.image]
            found = in_source if self.mapped == "source" else found + in_source
        self.captured.maps[self.block] = found.mean(1, keepdim=True) if self.heads == "mean" else found.contiguous()
        self.captured._layout = layout.outline()


@contextmanager
def capture_attention(
    transformer: nn.Module,
    blocks: Sequence[int],
    keys: str = "all",
    *,
    heads: str = "each",
    pictures: slice = slice(None),
    mapped: str = "image",
) -> Iterator[CapturedAttention]:
    """Record the text → image attention of `blocks` in every forward pass inside the context, of the thread that opened
    it; the newest pass wins.

    blocks: numbered through, multi-modal first. keys: "all" is the attention that the model used, a softmax over text,
    image and source; "generated" is the released code's, a softmax over text and image only. Contexts can be nested;
    nothing stays on the transformer afterwards, not after an error either.
    heads: "mean" keeps the heads' mean alone, which is all that `consolidate` asks for. pictures: those of the batch
    that are recorded, such as the conditional half of a pass with guidance. mapped: "source" records where the text
    looks in the source instead, "both" the sum of the two, of passes that have a source: what is removed can be found
    in the source alone, what is added in the image alone.

    Raises SettingError for a wrong transformer, block, keys, heads or mapped.
    """
    blocks = check_blocks(transformer, blocks)
    check_name(heads, "heads", ("each", "mean"))
    check_mapped(mapped, keys)
    captured = CapturedAttention(blocks, keys)
    with attached(transformer, {block: Recorder(captured, block, heads, pictures, mapped) for block in blocks}):
        yield captured


def check_mapped(mapped: str, keys: str, *, names: tuple[str, str] = ("mapped", "keys")) -> None:
    """Raises SettingError for what is not in MAPPED or KEYS, and for a map of the source among keys that lack it."""
    check_name(mapped, names[0], MAPPED)
    check_name(keys, names[1], KEYS)
    if keys == "generated" and mapped != "image":
        told = f"{names[0]} is {mapped!r} and {names[1]} is 'generated', which are text and image alone"
        raise SettingError(told, expected="a map of the image", fix=f"pass {names[0]}='image', or {names[1]}='all'")


@contextmanager
def capture_steps(
    transformer: nn.Module, blocks: Sequence[int], keys: str = "all", mapped: str = "image"
) -> Iterator[list[CapturedAttention]]:
    """Record `blocks` as `capture_attention` does, but of every pass: inside the context each adds one to the list."""
    steps: list[CapturedAttention] = []
    mine = threading.get_ident()  # others may use the network meanwhile

    def keep(*_: Any) -> None:
        if threading.get_ident() == mine:
            steps.append(captured[:])

    with capture_attention(transformer, blocks, keys, mapped=mapped) as captured:
        hook = transformer.register_forward_hook(keep)
        try:
            yield steps
        finally:
            hook.remove()


@contextmanager
def attached(transformer: nn.Module, recorders: Mapping[int, Any]) -> Iterator[None]:
    """Inside the context, each block's recorder gets `record(q, k, layout)` in every pass of the recorder's thread."""
    places = [(transformer.blocks[block].attn.recorders, recorder) for block, recorder in recorders.items()]
    try:
        for place, recorder in places:
            place.append(recorder)
        yield
    finally:
        for place, recorder in places:
            place.remove(recorder)


def capture_memory(
    transformer: nn.Module, blocks: Sequence[int], *, batch: int, text: int, token_grid: tuple[int, int]
) -> int:
    """Bytes that capturing `blocks` will keep: Σ batch · heads · text rows · image positions · bytes a number. Raises
    SettingError."""
    blocks = check_blocks(transformer, blocks)
    rows, columns = transformer.position_grid(*token_grid)
    heads = transformer.config.num_attention_heads
    return len(blocks) * batch * heads * text * rows * columns * transformer.dtype.itemsize


def check_blocks(transformer: nn.Module, blocks: int | Sequence[int]) -> list[int]:
    if not hasattr(transformer, "blocks"):
        told = f"the transformer is a {type(transformer).__name__}"
        raise SettingError(told, expected="a MaskedGenerativeTransformer", fix="pass editor.transformer")
    blocks, total = list(dict.fromkeys(whole_numbers(blocks, "blocks"))), len(transformer.blocks)
    if not blocks or not all(0 <= block < total for block in blocks):
        raise SettingError(
            f"cannot capture blocks {blocks}",
            expected=f"block numbers from 0 to {total - 1}, multi-modal first",
            fix="name at least one of them",
        )
    return blocks
