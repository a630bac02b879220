"""The drawn world as tensors: pictures for the VQ model, cached tokens for the transformer."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from .. import world
from ..basics.fingerprints import code_fingerprint, fingerprint, tokenizer_fingerprint
from ..basics.folders import written_whole
from ..data.tokens import keep_unchanged
from ..errors import CheckpointError, TrainingError
from ..images import to_tensor
from ..text import TextEncoder
from ..vq import VQModel
from ..world.edits import is_related, paraphrases
from .run import check_same
from .tokenizer.local import encode, is_local
from .windows import window_of

SHARD = 500
HARD = ("add", "motion")
TRIES, TRIES_APART = 3, 10_000_000  # for an edit with an object beside its place
MADE_OF = "made_of"  # in a shard's metadata
SEES = 4  # tokens beyond its own that a token of a local VQ model depends on, at most


def pictures(count: int, size: int) -> Tensor:
    """Sources and targets of the training split's edits in turn, uint8 [count, 3, size, size]."""
    stack = []
    for seed in tqdm(range((count + 1) // 2), desc="drawing pictures", unit="edit"):
        sample = world.sample_edit(seed, size=size)
        stack.append((to_tensor([sample.source, sample.target]) * 255).round().to(torch.uint8))
    return torch.cat(stack)[:count]


def picture_pairs(count: int, size: int) -> tuple[Tensor, Tensor]:
    """Sources and targets of `count` edits of the training split, every other one a new background, uint8
    [2, count, 3, size, size]; and bool [count, 1, size, size], True where the two show the same.
    """
    stack, same = [], []
    for seed in tqdm(range(count), desc="drawing pairs", unit="edit"):
        sample = world.sample_edit(seed, category="background" if seed % 2 else None, size=size)
        stack.append((to_tensor([sample.source, sample.target]) * 255).round().to(torch.uint8))
        same.append(to_tensor([sample.mask.convert("RGB")])[:, :1] < 0.5)
    return torch.stack(stack, dim=1), torch.cat(same)


def training_edit(seed: int, size: int, hard_share: float = 0.0) -> world.EditSample:
    """An edit of the training split, the categories in turn: in the published proportions one pair in sixty is a
    motion, and a small model does not learn it.

    hard_share: of the edits, so many are of HARD, most of them with a place that is named by the object right beside
    it. To find an object and then the place beside it is learned last.
    """
    if seed % 100 >= 100 * hard_share:
        return world.sample_edit(seed, category=world.CATEGORIES[seed % len(world.CATEGORIES)], size=size)
    for attempt in range(TRIES):
        sample = world.sample_edit(seed + attempt * TRIES_APART, category=HARD[seed % len(HARD)], size=size)
        if beside := [text for text in paraphrases(sample) if is_related(text)]:
            return replace(sample, instruction=beside[seed // len(HARD) % len(beside)])
    return sample


def token_shard(vq: VQModel, text: TextEncoder, seeds: range, size: int, hard_share: float = 0.0) -> dict[str, Tensor]:
    """Draw and tokenize the training edits of these seeds; see `training_edit` and `tokenize_edits`."""
    return tokenize_edits(vq, text, [training_edit(seed, size, hard_share) for seed in seeds])


@torch.no_grad()
def tokenize_edits(vq: VQModel, text: TextEncoder, samples: Sequence[world.EditSample]) -> dict[str, Tensor]:
    """What training needs of n edits.

    Returns source, target: int16 [n, h, w]; instruction, source_caption, target_caption: int16 [n, L]; source_labels,
    target_labels: int16 [n, 3, 16, 16], as `world.label_map` has them; window: int16 [n], see `window_of`.

    Away from the mask the target takes the source's tokens: see keep_unchanged.
    """
    source = encode(vq, [s.source for s in samples])  # (n, h, w)
    target = encode_targets(vq, samples, source)
    masks = torch.cat([to_tensor(s.mask.convert("RGB"))[:, :1] for s in samples])  # (n, 1, H, W)
    target = keep_unchanged(source, target, masks, vq.config.factor)
    shard = {"source": source, "target": target}
    for name in ("instruction", "source_caption", "target_caption"):
        shard[name] = text.tokenize([getattr(s, name) for s in samples])[0]["input_ids"]
    for name in ("source", "target"):
        maps = [world.label_map(getattr(s, f"{name}_scene")) for s in samples]
        shard[f"{name}_labels"] = torch.from_numpy(np.stack(maps))
    shard["window"] = torch.tensor([window_of(s) for s in samples])
    return {name: tensor.to(torch.int16).contiguous() for name, tensor in shard.items()}


def encode_targets(vq: VQModel, samples: Sequence[world.EditSample], source: Tensor) -> Tensor:
    """The tokens of the targets, [n, h, w]; of a local VQ model and a small edit only the surroundings are encoded.

    source: the sources' tokens, which are the targets' elsewhere.
    """
    if not is_local(vq):
        return encode(vq, [s.target for s in samples])
    target, factor = source.clone(), vq.config.factor
    for tokens, sample in zip(target, samples, strict=True):
        left, top, right, bottom = sample.mask.getbbox()
        rows, columns = (
            slice(max(low // factor - SEES, 0), min(-(-high // factor) + SEES, side))
            for low, high, side in ((top, bottom, len(tokens)), (left, right, tokens.shape[1]))
        )
        box = [factor * edge for edge in (columns.start, rows.start, columns.stop, rows.stop)]
        tokens[rows, columns] = encode(vq, [sample.target.crop(box)])[0]
    return target


def token_cache(
    folder: Path,
    vq: VQModel,
    text: TextEncoder,
    pairs: int,
    size: int,
    *,
    hard_share: float = 0.0,
    other_code: bool = False,
) -> dict[str, Tensor]:
    """So many edits of the training split, made once and kept in `folder`; resumable shard by shard.

    hard_share: see `training_edit`. A shard that another VQ model, tokenizer, size, share or code made is not used:
    CheckpointError. other_code: see `run.check_same`.
    """
    encoder = [vq.encoder, vq.quant_conv, vq.quantize]
    made_of = {"VQ model": fingerprint(encoder), "tokenizer": tokenizer_fingerprint(text), "size": size}
    made_of["hard share"] = hard_share
    made_of["code"] = code_fingerprint(__name__, world.sample_edit.__module__, keep_unchanged.__module__)
    shards = []
    for start in tqdm(range(0, pairs, SHARD), desc="training tokens", unit="shard"):
        count = min(SHARD, pairs - start)
        path = folder / f"{start:07d}{'' if count == SHARD else f'-{count}'}.safetensors"
        if not path.exists():
            shard = token_shard(vq, text, range(start, start + count), size, hard_share)
            with written_whole(path) as unfinished:
                save_file(shard, unfinished, {MADE_OF: json.dumps(made_of)})
        kept, shard = _read_shard(path)
        check_same(path, kept, made_of, other_code=other_code)
        shards.append(shard)
    return {name: torch.cat([shard[name] for shard in shards]).long() for name in shards[0]}


def _read_shard(path: Path) -> tuple[dict[str, Any] | None, dict[str, Tensor]]:
    """How it was made, None where it does not say, and what it holds. Raises CheckpointError for a damaged one."""
    try:
        with safe_open(path, framework="pt") as file:
            kept = (file.metadata() or {}).get(MADE_OF)
        return json.loads(kept) if kept else None, load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{path} is damaged or cut short: {error}",
            expected="a whole shard of training tokens",
            fix="delete it, and it is made anew",
        ) from error


def batches(count: int, batch: int, done: int, seed: int) -> Iterator[Tensor]:
    """Endless batches of indices, every sample at most once an epoch, continuing after `done` samples. Raises
    TrainingError for fewer samples than a batch.
    """
    if count < batch:
        raise TrainingError(
            f"{count} samples for a batch of {batch}",
            expected="at least a batch",
            fix="draw more pairs, or set --batch",
        )
    epoch, first = divmod(done // batch, count // batch)  # in whole batches, as an epoch has them
    while True:
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed + epoch))
        for number in range(first, count // batch):
            yield order[number * batch :][:batch]
        epoch, first = epoch + 1, 0
