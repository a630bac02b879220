"""Pairs as tokens, made once: what the transformer is trained on."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm.auto import tqdm

from ..basics.checks import check_number
from ..basics.fingerprints import code_fingerprint, fingerprint, tokenizer_fingerprint
from ..basics.folders import plain, write_tensors, write_text
from ..editor import Editor
from ..errors import DataError, SettingError, ShapeError, TextError
from ..images import Mask, fit_together, to_tensor
from ..vq import VQModel
from .pairs import Pair, PairReader
from .rows import MOST_OFF, Report
from .tables import read_json_file

SHARD = 256  # pairs; at most so many are tokenized again after a kill
MOST_TOKENS = 2048  # at once; their distances to all codes should stay in the processor's cache


@dataclass
class TokenPairs:
    """n pairs: source, target: long [n, h, w] on the CPU; instructions; categories, None where a pair has none.

    Raises ShapeError for parts that are not of one length.
    """

    source: Tensor
    target: Tensor
    instructions: list[str]
    categories: list[str | None] | None = None

    def __post_init__(self) -> None:
        if self.categories is None:
            self.categories = [None] * len(self.instructions)
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
        """The pairs of these indices, in their order; or those where a bool [n] is True."""
        chosen = torch.as_tensor(indices)
        chosen = chosen.nonzero().flatten() if chosen.dtype == torch.bool else chosen.long()
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
        """One safetensors file, whole or not at all; the texts are in its metadata. Raises DiskError."""
        path = Path(path)
        tokens = {"source": self.source, "target": self.target}
        small = max((int(each.max()) for each in tokens.values() if each.numel()), default=0) < 2**15
        tokens = {name: each.to(torch.int16 if small else torch.int32).contiguous() for name, each in tokens.items()}
        texts = {"instructions": json.dumps(self.instructions), "categories": json.dumps(self.categories)}
        write_tensors(path, tokens, texts)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TokenPairs:
        """What `save` wrote. Raises DataError."""
        try:
            with safe_open(plain(Path(path)), framework="pt") as file:
                texts = file.metadata()
                source, target = (file.get_tensor(name).long() for name in ("source", "target"))
            return cls(source, target, json.loads(texts["instructions"]), json.loads(texts["categories"]))
        except (OSError, RecursionError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path} holds no token pairs: {error}",
                expected="a file that TokenPairs.save wrote",
                fix="check the path, or tokenize the pairs again",
            ) from error


def token_pairs(
    editor: Editor,
    pairs: Iterable[Pair],
    *,
    folder: str | os.PathLike[str] | None = None,
    batch: int = 4,
    progress: bool = True,
) -> TokenPairs:
    """Tokenizes every pair once, `batch` pictures at a time. Raises DataError where there is none, SettingError.

    All pairs get the grid of the editor's square: of a picture of another aspect only the middle square is kept, of
    source and target the same one, so an edit near a far end can be lost. Where a pair has a mask, see keep_unchanged.
    An instruction that is too long for the editor is one more bad row in a PairReader's report. Of other pairs it is a
    TextError, and pictures that do not line up are an ImageError.

    folder: keep the tokens of a PairReader there, apart for every combination of VQ model, size, tokenizer, data set
    and code. What a killed run had finished is not done again. One process fills it, others read it afterwards.
    """
    check_number(batch, "batch", 1, sys.maxsize, "4 are usual", whole=True)
    reader = pairs if isinstance(pairs, PairReader) else None
    if folder is None:
        parts = list(_tokenized(editor, pairs, reader, batch, _bar(pairs, 0, progress)))
    elif reader:
        parts = _kept(editor, reader, Path(folder) / _fingerprint(editor, reader), batch, progress)
    else:
        raise SettingError("tokens of a list are not kept", expected="a PairReader", fix="leave the folder out")
    if not parts:
        raise DataError("there is no pair", expected="one or more pairs", fix="check where they come from")
    return TokenPairs.concatenate(parts)


@torch.no_grad()
def encode(vq: VQModel, pictures: Sequence[Image.Image]) -> Tensor:
    """Pictures of one size → tokens, long [n, h, w] on the CPU, some thousands of tokens at a time."""
    width, height = pictures[0].size
    batch = max(1, MOST_TOKENS * vq.config.factor**2 // (width * height))
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


def _kept(editor: Editor, reader: PairReader, folder: Path, batch: int, progress: bool) -> list[TokenPairs]:
    """All tokens of a reader, in shards that lie in the folder; progress.json says which are whole."""
    file = folder / "progress.json"
    nothing = {"shards": 0, "complete": False, "report": {}}
    state = read_json_file(file) if file.exists() else nothing
    shards = [folder / f"{number:05d}.safetensors" for number in range(state["shards"])]
    if not all(shard.exists() for shard in shards):  # they were deleted under the run that then wrote the others
        state, shards = nothing, []
    parts, fresh = [TokenPairs.load(shard) for shard in shards], []
    reader.report = Report(**state["report"])

    def write(complete: bool) -> None:
        if fresh:
            parts.append(TokenPairs.concatenate(fresh))
            parts[-1].save(folder / f"{len(parts) - 1:05d}.safetensors")
            fresh.clear()
        state = {"shards": len(parts), "complete": complete, "report": asdict(reader.report)}
        write_text(file, json.dumps(state))

    if not state["complete"]:
        bar = _bar(reader, sum(map(len, parts)), progress)
        for group in _tokenized(editor, reader.read(reader.report), reader, batch, bar):
            fresh.append(group)
            if sum(map(len, fresh)) >= SHARD:
                write(complete=False)
        write(complete=True)
    return parts


def _bar(pairs: Iterable[Pair], done: int, progress: bool) -> tqdm:
    total = pairs.limit if isinstance(pairs, PairReader) else len(pairs) if isinstance(pairs, Sequence) else None
    return tqdm(desc="tokens", unit="pair", total=total, initial=done, disable=not progress)


def _tokenized(
    editor: Editor, pairs: Iterable[Pair], reader: PairReader | None, batch: int, bar: tqdm
) -> Iterator[TokenPairs]:
    fitting = _of_fitting_length(editor, pairs, reader)
    with bar:
        while group := list(islice(fitting, batch)):
            yield _tokenize(editor, group)
            bar.update(len(group))


def _of_fitting_length(editor: Editor, pairs: Iterable[Pair], reader: PairReader | None) -> Iterator[Pair]:
    for pair in pairs:
        try:
            editor.text_encoder.tokenize([pair.instruction])
        except TextError as error:
            if reader is None:
                raise
            reader.reject("the instruction is too long for the text encoder", error.problem)
        else:
            yield pair


def _tokenize(editor: Editor, pairs: Sequence[Pair]) -> TokenPairs:
    size = {"pixels": editor.defaults.image_size, "multiple": editor.multiple, "square": True, "most_off": MOST_OFF}
    masks = [Mask(pair.mask, "white") if pair.mask else None for pair in pairs]
    fitted = [fit_together(pair.source, pair.target, mask, **size) for pair, mask in zip(pairs, masks, strict=True)]
    source, target = (encode(editor.vq, [getattr(each, name) for each in fitted]) for name in ("source", "target"))
    unknown = Image.new("L", fitted[0].source.size, "white")
    changed = to_tensor([each.mask or unknown for each in fitted])[:, :1]
    return TokenPairs(
        source,
        keep_unchanged(source, target, changed, editor.vq.config.factor),
        [pair.instruction for pair in pairs],
        [pair.category for pair in pairs],
    )


def _fingerprint(editor: Editor, reader: PairReader) -> str:
    """Of what the tokens depend on: the VQ model's way from pixels to tokens, the size, which instructions are too
    long, the pairs, and the code that reads and fits them."""
    return fingerprint(
        *(editor.vq.encoder, editor.vq.quant_conv, editor.vq.quantize),
        *(editor.defaults.image_size, editor.multiple, tokenizer_fingerprint(editor.text_encoder)),
        *(reader.fingerprint(), code_fingerprint(__name__, PairReader.__module__)),
    )
