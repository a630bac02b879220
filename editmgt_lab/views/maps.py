"""The attention of one edit, every block, head and step of it, in bytes: what the explorer answers a hover from."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ..attention import Layout, attached, attention_probabilities, capture_attention, capture_memory, check_blocks
from ..basics.sizes import in_bytes
from ..errors import SettingError

WORDS_LIMIT = 512 * 2**20  # bytes: beyond, the recording is refused
PATCHES_LIMIT = 64 * 2**20  # bytes: beyond, only the words' maps are recorded
LEVELS = 255
SEEN_IN = {"words": "image", "words_in_source": "source"}  # the words' maps → the picture that they show a look in

Keep = Callable[[int], None]


@dataclass(frozen=True)
class Word:
    """A word of the instruction, or a special token such as ‹start›, and its text rows."""

    name: str
    rows: tuple[int, ...]
    special: bool = False


@dataclass(frozen=True)
class Plan:
    """What will be recorded, known before anything runs.

    words: W of them; grid: the positions, rows and columns, N of them; pictures: 1 for text to image, 2 with a source;
    passing: bytes that the captures of one forward pass take beside what is kept.
    """

    steps: int
    blocks: tuple[int, ...]
    heads: int
    words: tuple[Word, ...]
    grid: tuple[int, int]
    pictures: int
    passing: int

    @classmethod
    def make(
        cls,
        transformer: nn.Module,
        words: Sequence[Word],
        *,
        blocks: Sequence[int],
        steps: int,
        token_grid: tuple[int, int],
        text: int,
        pictures: int,
    ) -> Plan:
        """text: the text rows of a pass, padding included.

        Raises SettingError for blocks that are not there, or for more than WORDS_LIMIT bytes.
        """
        passing = pictures * capture_memory(transformer, blocks, batch=1, text=text, token_grid=token_grid)
        grid = transformer.position_grid(*token_grid)
        heads = transformer.config.num_attention_heads
        plan = cls(steps, tuple(check_blocks(transformer, blocks)), heads, tuple(words), grid, pictures, passing)
        if plan.words_memory > WORDS_LIMIT:
            raise SettingError(
                f"the maps of {plan.count} would take {in_bytes(plan.words_memory)}",
                expected=f"at most {in_bytes(WORDS_LIMIT)}",
                fix="name fewer blocks, such as attention=[0, 1], or take fewer steps",
            )
        return plan

    @property
    def positions(self) -> int:
        return math.prod(self.grid)

    @property
    def keys(self) -> int:
        """K: what a patch can look at, the words, then the image's positions, then the source's."""
        return len(self.words) + self.pictures * self.positions

    @property
    def maps(self) -> tuple[int, int, int]:
        return self.steps, len(self.blocks), self.heads

    @property
    def seen_in(self) -> dict[str, str]:
        """The names of the words' maps, each with the picture in which it shows where a word looks."""
        return dict(list(SEEN_IN.items())[: self.pictures])

    @property
    def words_memory(self) -> int:
        """Bytes: one for each number, eight for each map's scale."""
        return self.pictures * math.prod(self.maps) * len(self.words) * (self.positions + 8)

    @property
    def patches_memory(self) -> int:
        return math.prod(self.maps) * self.positions * (self.keys + 8)

    @property
    def with_patches(self) -> bool:
        return self.patches_memory <= PATCHES_LIMIT

    @property
    def memory(self) -> int:
        """Bytes that the recording keeps."""
        return self.words_memory + (self.patches_memory if self.with_patches else 0)

    @property
    def count(self) -> str:
        return f"{len(self.blocks)} blocks × {self.heads} heads × {self.steps} steps"

    def __str__(self) -> str:
        patches = "" if self.with_patches else f"; patches → patches left out, {in_bytes(self.patches_memory)} more"
        return f"{self.count}: {in_bytes(self.memory)} kept, {in_bytes(self.passing)} while a step runs{patches}"


@dataclass(frozen=True)
class AttentionMaps:
    """Recorded attention: a level of 0 … 255 of a map from its least to its most, so off by at most a 510th of what it
    varies by. A map's scale is the pair (least, most - least).

    words: uint8 [steps, blocks, heads, W, N], where each word looks in the image, the mean of its text rows;
    words_scale: float32 [steps, blocks, heads, W, 2]; words_in_source, words_in_source_scale: the same in the source,
    None where the passes have none. patches: uint8 [steps, blocks, heads, N, K], where each image patch looks: the
    words, then the image, then the source; patches_scale: float32 [steps, blocks, heads, N, 2]; None where they would
    have been too large. The padding's share is left out.
    """

    plan: Plan
    words: np.ndarray
    words_scale: np.ndarray
    words_in_source: np.ndarray | None = None
    words_in_source_scale: np.ndarray | None = None
    patches: np.ndarray | None = None
    patches_scale: np.ndarray | None = None

    @classmethod
    def empty(cls, plan: Plan) -> AttentionMaps:
        sizes = {name: (len(plan.words), plan.positions) for name in plan.seen_in}
        sizes |= {"patches": (plan.positions, plan.keys)} if plan.with_patches else {}
        maps = {}
        for name, (rows, keys) in sizes.items():
            maps[name] = np.zeros((*plan.maps, rows, keys), np.uint8)
            maps[f"{name}_scale"] = np.zeros((*plan.maps, rows, 2), np.float32)
        return cls(plan, **maps)

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}

    @property
    def memory(self) -> int:
        return sum(array.nbytes for array in self.arrays().values())

    def word_maps(self, step: int, mapped: str = "image") -> np.ndarray:
        """Where each word looks, in the "image", the "source" or, added up, "both": float32 [blocks, heads, W, N]."""
        arrays = self.arrays()
        names = [name for name, picture in self.plan.seen_in.items() if mapped in (picture, "both")]
        return sum(restored(arrays[name][step], arrays[f"{name}_scale"][step]) for name in names)

    def patch_maps(self, step: int) -> np.ndarray:
        """Where each image patch looks: float32 [blocks, heads, N, K]."""
        return restored(self.patches[step], self.patches_scale[step])


@dataclass(eq=False)
class PatchRecorder:
    """Sits on one block's attention, as the capture's recorders do, and keeps where each image patch looks.

    members: float [L, W], 1 where a text row belongs to a word. found: uint8 [heads, N, K] and float32 [heads, N, 2]
    of the newest pass, of its last picture, which is the conditional one; passes of other threads do not count.
    """

    members: Tensor
    thread: int = field(default_factory=threading.get_ident)
    found: tuple[np.ndarray, np.ndarray] | None = None

    @torch.no_grad()
    def record(self, q: Tensor, k: Tensor, layout: Layout) -> None:
        """q, k: [B, heads, T, d], rotated; where a cache has some positions, q is that of the others alone, and these
        keep what was found when they were last computed.
        """
        part = layout.rows is not None
        rows = slice(layout.text, None if part else layout.text + layout.image)
        bias = None if layout.bias is None else layout.bias[-1:, :, rows] if part else layout.bias[rows]
        attention = attention_probabilities(q[-1:, :, rows], k[-1:], bias)[0].float()  # [heads, N, T]
        words = attention[..., : layout.text] @ self.members.to(attention.device)  # a word's share: its rows' sum
        found = quantise(torch.cat([words, attention[..., layout.text :]], dim=-1))
        if part:
            place = (layout.rows[-1, layout.text :] - layout.text).cpu().numpy()
            for whole, computed in zip(self.found, found, strict=True):
                whole[:, place] = computed
        else:
            self.found = found


@contextmanager
def recorded_maps(transformer: nn.Module, plan: Plan, text: int) -> Iterator[tuple[AttentionMaps, Keep]]:
    """Inside the context, `keep(step)` stores the newest forward pass in the maps. text: the text rows of a pass."""
    maps = AttentionMaps.empty(plan)
    members = torch.zeros(text, len(plan.words), dtype=torch.float32)
    for column, word in enumerate(plan.words):
        members[list(word.rows), column] = 1
    mean_of_rows = (members / members.sum(dim=0)).T  # [W, L]
    arrays = maps.arrays()
    recorders = {block: PatchRecorder(members) for block in plan.blocks if plan.with_patches}

    def keep(step: int) -> None:
        for place, block in enumerate(plan.blocks):
            for name, captured in looks.items():
                by_row = captured.text_to_image(block)[0].float()  # [heads, L, N]
                by_word = mean_of_rows.to(by_row.device) @ by_row  # [heads, W, N]
                arrays[name][step, place], arrays[f"{name}_scale"][step, place] = quantise(by_word)
            if block in recorders:
                maps.patches[step, place], maps.patches_scale[step, place] = recorders[block].found

    with ExitStack() as stack:
        conditional = slice(-1, None)  # of the pictures of a pass, which has two with guidance
        looks = {
            name: stack.enter_context(capture_attention(transformer, plan.blocks, pictures=conditional, mapped=picture))
            for name, picture in plan.seen_in.items()
        }
        stack.enter_context(attached(transformer, recorders))
        yield maps, keep


def quantise(maps: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """[..., N] → levels, uint8 [..., N], and scales, float32 [..., 2]: every map's least and what it varies by."""
    least = maps.amin(dim=-1, keepdim=True)
    span = maps.amax(dim=-1, keepdim=True) - least
    levels = ((maps - least) / span.clamp(min=torch.finfo(maps.dtype).tiny) * LEVELS).round()
    return levels.byte().cpu().numpy(), torch.cat([least, span], dim=-1).cpu().numpy()


def restored(levels: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """The inverse of `quantise`: float32 [..., N]."""
    return levels * (scales[..., 1:] / LEVELS) + scales[..., :1]
