"""`python -m editmgt_lab.studies.clip`: how far can a CLIP be trusted on the drawn world?

Three questions about edits that no training has seen. Which of 100 captions belongs to a picture? Of an edit, does the
target picture agree more with the target's caption than with the source's, which differ in one thing, and the source
picture the other way round? And does CLIP's direction tell the true target from the source itself, from a picture that
is wrong in one thing, and from another edit's target? Beside the network stands one of its kind with random weights,
which must fail.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import SettingError, command
from ..metrics.arithmetic import summary
from ..metrics.backbones import TINY, TextBackbone, direction, load_clip
from ..metrics.report import align, cell, save_json
from ..training.clip.build import build_clip, save_clip
from ..training.clip.data import near_miss
from ..training.clip.recipe import ClipRecipe
from ..world import CATEGORIES, SPLITS, EditSample, render, sample_edit
from ..world.scenes import held_out

POOL = 100  # captions to choose from
TRUE, COPY, NEAR, OTHER = "true target", "copy of the source", "wrong in one thing", "another edit's target"
RETRIEVAL, TARGETS, SOURCES, UNSEEN = "1 of 100 captions", "target pictures", "source pictures", "unseen pairs"


@dataclass(frozen=True)
class Seen:
    """Edits as a CLIP sees them, of length 1, [n, D] each. pictures: TRUE, COPY (the source), NEAR and OTHER (of
    another edit of the same category)."""

    samples: list[EditSample]
    pictures: dict[str, Tensor]
    before: Tensor
    after: Tensor


def embed(clip: TextBackbone, numbers: Sequence[int], *, split: str, size: int) -> Seen:
    """The edits of these numbers, all categories in turn, two or more of each, drawn at `size` px."""
    samples = [
        sample_edit(i, split=split, category=CATEGORIES[i % len(CATEGORIES)], size=size)
        for i in tqdm(numbers, desc=f"{clip.name}, {size} px", unit="edit")
    ]
    missed = [
        render(near_miss(sample.target_scene, random.Random(f"clip/{split}/{i}")), size)
        for i, sample in zip(numbers, samples, strict=True)
    ]
    drawn = {TRUE: [s.target for s in samples], COPY: [s.source for s in samples], NEAR: missed}
    pictures = {name: _embedded(clip.embed, each) for name, each in drawn.items()}
    pictures[OTHER] = pictures[TRUE][another([sample.category for sample in samples])]
    texts = [
        _embedded(clip.embed_texts, [getattr(s, f"{side}_caption") for s in samples]) for side in ("source", "target")
    ]
    return Seen(samples, pictures, *texts)


def another(categories: Sequence[str]) -> list[int]:
    """For each edit the place of the one before it in its category; for a category's first one that of its last."""
    last = {category: place for place, category in enumerate(categories)}
    before = []
    for place, category in enumerate(categories):
        before.append(last[category])
        last[category] = place
    return before


def _embedded(embed: Any, things: Sequence[Any], at_once: int = 64) -> Tensor:
    parts = [embed(things[start : start + at_once]) for start in range(0, len(things), at_once)]
    return F.normalize(torch.cat(parts), dim=1)


def retrieval(seen: Seen) -> list[float]:
    """1.0 for each target picture whose own caption agrees most, or one that is equal to it, of POOL captions of
    different edits; else 0.0."""
    found, captions = [], [sample.target_caption for sample in seen.samples]
    for start in range(0, len(seen.after) - POOL + 1, POOL):
        part = slice(start, start + POOL)
        best = (seen.pictures[TRUE][part] @ seen.after[part].T).argmax(1).tolist()
        found += [float(captions[start + i] == own) for i, own in zip(best, captions[part], strict=True)]
    return found


def agreement(seen: Seen) -> tuple[list[float], list[float]]:
    """1.0 for each target picture that agrees more with the target's caption than with the source's; and for each
    source picture the other way round."""

    def wins(pictures: Tensor, own: Tensor, other: Tensor) -> list[float]:
        return ((pictures * own).sum(1) > (pictures * other).sum(1)).double().tolist()

    return wins(seen.pictures[TRUE], seen.after, seen.before), wins(seen.pictures[COPY], seen.before, seen.after)


def directions(seen: Seen) -> dict[str, list[float]]:
    """Of each kind of picture, the direction of every edit."""
    return {
        name: [direction(*each) for each in zip(seen.pictures[COPY], pictures, seen.before, seen.after, strict=True)]
        for name, pictures in seen.pictures.items()
    }


def ahead(one: float, other: float) -> float:
    """1.0 where the one is the larger, else 0.0; NaN where one of them has no direction."""
    return math.nan if math.isnan(one) or math.isnan(other) else float(one > other)


def measure(
    clip: TextBackbone, *, split: str = "test", count: int = 1000, size: int = 64, seed: int = 0
) -> dict[str, Any]:
    """All three questions for one network: a summary of each, ready for JSON. seed: of the intervals.

    Raises SettingError for fewer edits than captions to choose from.
    """
    if count < POOL:
        raise SettingError(f"count is {count}", expected=f"{POOL} or more", fix="1000 are usual")
    seen = embed(clip, range(count), split=split, size=size)
    targets, sources = agreement(seen)
    categories = [sample.category for sample in seen.samples]
    unseen = [
        any(held_out(i.kind, i.colour) for i in (*s.source_scene.items, *s.target_scene.items)) for s in seen.samples
    ]
    by_category = {
        name: summary([value for value, own in zip(targets, categories, strict=True) if own == name], seed)
        for name in CATEGORIES
    }
    by_category[UNSEEN] = summary([value for value, new in zip(targets, unseen, strict=True) if new], seed)
    found = directions(seen)
    return {
        RETRIEVAL: summary(retrieval(seen), seed),
        TARGETS: summary(targets, seed),
        SOURCES: summary(sources, seed),
        "by category": by_category,
        "direction": {name: summary(values, seed) for name, values in found.items()},
        "true target ahead of": {
            name: summary(list(map(ahead, found[TRUE], values)), seed) for name, values in found.items() if name != TRUE
        },
    }


def untrained(seed: int = 0) -> TextBackbone:
    """The control: the recipe's CLIP before any training."""
    torch.manual_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        save_clip(Path(folder), *build_clip(ClipRecipe()))
        return replace(load_clip(folder), name="random weights")


def table(rows: dict[str, dict[str, Any]]) -> str:
    """A column for each network and size; shares in %."""

    def line(name: str, pick: Any, factor: float = 100, digits: int = 1) -> list[str]:
        return [name, *(cell(pick(row), factor, digits) for row in rows.values())]

    first = next(iter(rows.values()))
    lines = [["", *rows], line(f"{RETRIEVAL} found, %", lambda row: row[RETRIEVAL])]
    lines += [
        line(f"{which} nearer to their own caption, %", lambda row, w=which: row[w]) for which in (TARGETS, SOURCES)
    ]
    lines += [line(f"  targets, {name}, %", lambda row, n=name: row["by category"][n]) for name in first["by category"]]
    lines += [line(f"direction: {name}", lambda row, n=name: row["direction"][n], 1, 3) for name in first["direction"]]
    ahead = "true target ahead of"
    lines += [line(f"{ahead} {name}, %", lambda row, n=name: row[ahead][n]) for name in first[ahead]]
    return align(lines)


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table and save it as JSON."""
    name, _, about = __doc__.split("\n\n")[0].partition("`: ")
    parser = argparse.ArgumentParser(prog=name.strip("`"), description=about)
    parser.add_argument("--clip", default=TINY, help="tiny, a folder or a hub name [%(default)s]")
    parser.add_argument("--split", default="test", choices=SPLITS, help="[%(default)s]")
    parser.add_argument("--count", type=int, default=1000, help="edits, all categories in turn [%(default)s]")
    parser.add_argument("--sizes", type=int, nargs="+", default=(64, 128, 256), help="px drawn at [64 128 256]")
    parser.add_argument("--seed", type=int, default=0, help="of the intervals and the random weights")
    parser.add_argument("--output", type=Path, default=Path("outputs") / "clip", help="folder [%(default)s]")
    options = parser.parse_args(arguments)
    clip, asked = load_clip(options.clip), {"split": options.split, "count": options.count, "seed": options.seed}
    rows = {f"{clip.name}, {size} px": measure(clip, size=size, **asked) for size in options.sizes}
    control = untrained(options.seed)
    rows[f"{control.name}, {options.sizes[0]} px"] = measure(control, size=options.sizes[0], **asked)
    print(table(rows))
    path = options.output / "clip.json"
    save_json({"clip": clip.name, "fingerprint": clip.fingerprint, "settings": asked, "rows": rows}, path)
    print("saved:", path)


if __name__ == "__main__":
    raise SystemExit(main())
