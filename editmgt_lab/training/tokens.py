"""Pairs as tokens, made once: what the transformer is trained on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from ..editor import Editor
from ..errors import DataError, ShapeError
from ..images import fit_together, to_tensor
from ..vq import VQModel
from .pairs import Pair

MOST_OFF = 0.02


@dataclass
class TokenPairs:
    """n pairs: source, target: long [n, h, w] on the CPU; instructions; categories, None where there is none.

    Raises ShapeError for parts that are not of one length.
    """

    source: Tensor
    target: Tensor
    instructions: list[str]
    categories: list[str | None]

    def __post_init__(self) -> None:
        lengths = [len(part) for part in (self.source, self.target, self.instructions, self.categories)]
        if self.source.shape != self.target.shape or len(set(lengths)) > 1:
            raise ShapeError(
                f"tokens {list(self.source.shape)} and {list(self.target.shape)} with {lengths[2]} instructions and "
                f"{lengths[3]} categories",
                expected="[n, h, w] twice, with n instructions and n categories",
                fix="make them with token_pairs",
            )

    def __len__(self) -> int:
        return len(self.instructions)

    def subset(self, indices: Sequence[int] | Tensor) -> TokenPairs:
        """The pairs of these indices, in their order."""
        chosen = torch.as_tensor(indices, dtype=torch.long)
        return TokenPairs(
            self.source[chosen],
            self.target[chosen],
            [self.instructions[index] for index in chosen.tolist()],
            [self.categories[index] for index in chosen.tolist()],
        )

    @classmethod
    def concatenate(cls, parts: Sequence[TokenPairs]) -> TokenPairs:
        """All pairs of all parts, in order. Raises ShapeError for parts of different grids, or none."""
        grids = list(dict.fromkeys(tuple(part.source.shape[1:]) for part in parts))
        if len(grids) != 1:
            raise ShapeError(
                f"pairs of {len(grids)} grids: {', '.join(map(str, grids)) or 'there are none'}",
                expected="one or more parts of one grid",
                fix="tokenize all of them with one editor",
            )
        return cls(
            torch.cat([part.source for part in parts]),
            torch.cat([part.target for part in parts]),
            [text for part in parts for text in part.instructions],
            [kind for part in parts for kind in part.categories],
        )

    def save(self, path: str | os.PathLike[str]) -> None:
        """One safetensors file, whole or not at all; the texts are in its metadata. Raises DataError."""
        path = Path(path)
        tokens = {"source": self.source, "target": self.target}
        small = max((int(each.max()) for each in tokens.values() if each.numel()), default=0) < 2**15
        tokens = {name: each.to(torch.int16 if small else torch.int32).contiguous() for name, each in tokens.items()}
        texts = {"instructions": json.dumps(self.instructions), "categories": json.dumps(self.categories)}
        part = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tokens, part, metadata=texts)
            part.replace(path)
        except (OSError, SafetensorError) as error:
            part.unlink(missing_ok=True)
            raise DataError(
                f"{path} cannot be written: {error}", expected="a folder with room on its disk", fix="make room there"
            ) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TokenPairs:
        """What `save` wrote. Raises DataError."""
        try:
            with safe_open(path, framework="pt") as file:
                texts = file.metadata()
                source, target = (file.get_tensor(name).long() for name in ("source", "target"))
            return cls(source, target, json.loads(texts["instructions"]), json.loads(texts["categories"]))
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path} holds no token pairs: {error}",
                expected="a file that TokenPairs.save wrote",
                fix="check the path, or tokenize the pairs again",
            ) from error


def token_pairs(editor: Editor, pairs: Iterable[Pair], *, batch: int = 16, progress: bool = True) -> TokenPairs:
    """Tokenizes every pair once. Raises DataError for no pair, ImageError for a pair that does not line up.

    All pairs get the grid of the editor's square: of a picture of another aspect only the middle square is kept, of
    source and target the same one, so an edit near a far end can be lost. Where a pair has a mask, see keep_unchanged.
    """
    parts, waiting = [], []
    for pair in tqdm(pairs, desc="tokens", unit="pair", disable=not progress):
        waiting.append(pair)
        if len(waiting) == batch:
            parts.append(_tokenize(editor, waiting))
            waiting = []
    if waiting:
        parts.append(_tokenize(editor, waiting))
    if not parts:
        raise DataError("there is no pair", expected="one or more pairs", fix="check the data set")
    return TokenPairs.concatenate(parts)


@torch.no_grad()
def encode(vq: VQModel, pictures: Sequence[Image.Image], batch: int = 100) -> Tensor:
    """Pictures of one size → tokens, long [n, h, w] on the CPU, `batch` at a time."""
    batches = (pictures[start : start + batch] for start in range(0, len(pictures), batch))
    return torch.cat([vq.encode(to_tensor(each).to(vq.quant_conv.weight)).cpu() for each in batches])


def keep_unchanged(source: Tensor, target: Tensor, masks: Tensor, factor: int) -> Tensor:
    """The target's tokens, but the source's where the mask and the tokens next to it are empty.

    source, target: [n, h, w]; masks: float [n, 1, H, W], above 0 where the pictures differ; factor: px of a token. Away
    from the mask the pictures are the same: what differs in their tokens is only the VQ model's normalisation, which
    looks at the whole picture and is not part of any edit.
    """
    changed = F.max_pool2d(masks, 3 * factor, stride=factor, padding=factor)[:, 0] > 0  # [n, h, w]
    return torch.where(changed, target, source)


def _tokenize(editor: Editor, pairs: Sequence[Pair]) -> TokenPairs:
    size = {"pixels": editor.defaults.image_size, "multiple": editor.multiple, "square": True, "most_off": MOST_OFF}
    fitted = [fit_together(pair.source, pair.target, pair.mask, **size) for pair in pairs]
    tokens = encode(editor.vq, [each.source for each in fitted] + [each.target for each in fitted], 2 * len(pairs))
    source, target = tokens.chunk(2)
    unknown = Image.new("L", fitted[0].source.size, "white")
    masks = to_tensor([each.mask or unknown for each in fitted])[:, :1]
    return TokenPairs(
        source,
        keep_unchanged(source, target, masks, editor.vq.config.factor),
        [pair.instruction for pair in pairs],
        [pair.category for pair in pairs],
    )
