"""How complex and how varied a set of instructions is: what refining them should raise."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

MOST = 500  # instructions whose pairwise spread is measured
# What editing instructions begin with or turn on. Other verbs are not counted.
VERBS = frozenset(
    "add adjust alter apply blend blur brighten change clean color colour combine convert copy crop cut darken delete "
    "draw drop edit eliminate enlarge erase exchange fade fill flip give hide insert introduce keep lay lift lower "
    "make modify move open paint place position put raise recolor recolour redraw remove render repaint replace "
    "reposition rotate set sharpen shift shrink slide smooth stretch style stylize substitute swap switch take tint "
    "transform transfer turn use wipe disappear".split()
)


def variety(
    instructions: Sequence[str], embed: Callable[[Sequence[str]], np.ndarray] | None = None
) -> dict[str, float]:
    """length: mean number of words; verbs: how many different ones; distinct_1 … distinct_3: different n-grams by all;
    spread: mean cosine distance of two instructions, 0 … 1 for the default.

    embed: texts → [n, D]; None compares the words that they use (by their counts), which needs no network. NaN for what
    cannot be measured of so few.
    """
    words = [re.findall(r"[^\W_]+", text.lower()) for text in instructions]
    found = {
        "length": float(np.mean([len(each) for each in words])) if words else math.nan,
        "verbs": float(len({word for each in words for word in each} & VERBS)),
    }
    for n in (1, 2, 3):
        grams = Counter(tuple(each[i : i + n]) for each in words for i in range(len(each) - n + 1))
        found[f"distinct_{n}"] = len(grams) / grams.total() if grams else math.nan
    chosen = sorted(random.Random(0).sample(range(len(words)), MOST)) if len(words) > MOST else range(len(words))
    texts = [instructions[i] for i in chosen]
    found["spread"] = _spread(embed(texts) if embed else _counts([words[i] for i in chosen]))
    return found


def _counts(words: Sequence[Sequence[str]]) -> np.ndarray:
    known = {word: i for i, word in enumerate(sorted({word for each in words for word in each}))}
    counts = np.zeros((len(words), max(1, len(known))))
    for row, each in zip(counts, words, strict=True):
        for word in each:
            row[known[word]] += 1
    return counts


def _spread(vectors: np.ndarray) -> float:
    """Mean of 1 − cosine over all pairs of two rows, [n, D]."""
    n = len(vectors)
    if n < 2:
        return math.nan
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / np.where(norms == 0, 1, norms)
    total = np.square(units.sum(0)).sum() - np.square(units).sum()  # Σ of the cosines of all ordered pairs
    return float(1 - total / (n * (n - 1)))
