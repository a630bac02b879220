"""Near duplicates: pictures whose perceptual hashes differ in few bits. Of each group the first good one is kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CHUNK = 4096  # earlier pictures that one is compared with at a time
_ONES = np.array([bin(value).count("1") for value in range(256)], np.uint8)  # of every byte


def near_duplicates(
    ids: Sequence[str], hashes: Sequence[bytes], most: int, good: Sequence[bool] | None = None
) -> dict[str, tuple[str, int]]:
    """id → the earlier picture that it repeats, and in how many bits they differ (`most` or fewer).

    Every picture is compared with all good ones before it that are no duplicates themselves, the nearest wins, of those
    the first: exact, and of n² steps, each a few nanoseconds. good: whether a picture breaks no other rule, since one
    that goes for another reason must take none with it (None: all).
    """
    if not ids:
        return {}
    bits = np.frombuffer(b"".join(hashes), np.uint8).reshape(len(ids), -1)
    kept, count, found = np.empty(len(ids), np.int64), 0, {}
    originals = np.empty_like(bits)
    for i, one in enumerate(bits):
        best = (most + 1, -1)
        for start in range(0, count, CHUNK):
            apart = _ONES[originals[start : min(start + CHUNK, count)] ^ one].sum(axis=1, dtype=np.int64)
            nearest = int(apart.argmin())
            best = min(best, (int(apart[nearest]), start + nearest))
        if best[1] >= 0:
            found[ids[i]] = (ids[kept[best[1]]], best[0])
        elif good is None or good[i]:
            originals[count], kept[count] = one, i
            count += 1
    return found
