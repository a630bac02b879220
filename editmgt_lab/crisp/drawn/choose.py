"""`python -m editmgt_lab.crisp.drawn.choose`: bounds on CLIP for the drawn world, from candidates whose truth is known.

For every category the lower bound that keeps most of the good and least of the bad: the largest difference of the two
shares. `assure/rules.py` has what it found on the train split. Takes the options of `python -m editmgt_lab.crisp`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tqdm.auto import tqdm

from ...errors import DataError, SettingError, command
from ...world import CATEGORIES
from ..assure.rules import CategoryBounds, save_bounds
from ..bounds import Bounds
from ..options import parser, plan_of, run_asked
from .judged import judged
from .truth import EditTruth

CHOSEN = ("clip_alignment", "clip_direction")
DIGITS = 3
LAST = "pick"  # stage


def best_lower_bound(values: Sequence[float], good: Sequence[bool]) -> Bounds | None:
    """Of all values the one from which on most of the good are kept and least of the bad; None without both kinds."""
    kinds = [[value for value, well in zip(values, good, strict=True) if well is kind] for kind in (True, False)]
    if not all(kinds):
        return None

    def gain(low: float) -> float:
        kept, passed = (sum(value >= low for value in of) / len(of) for of in kinds)
        return kept - passed

    best = max(sorted({*values}), key=gain)
    return Bounds(low=math.floor(best * 10**DIGITS) / 10**DIGITS)


def choose_bounds(candidates: Sequence[tuple[dict[str, Any], EditTruth]]) -> CategoryBounds:
    """Of every category and each of CHOSEN; candidates: with their measures."""
    found: dict[str, dict[str, Bounds]] = {}
    for category in CATEGORIES:
        of = [(row, truth.good) for row, truth in candidates if row["type"] == category]
        for name in CHOSEN:
            known = [(row[name], good) for row, good in of if row.get(name) is not None]
            if known and (bounds := best_lower_bound(*zip(*known, strict=True))):
                found.setdefault(category, {})[name] = bounds
    return found


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the bounds and write them as JSON."""
    chosen = parser().parse_args(arguments)
    if chosen.source is not None:
        raise SettingError(
            f"the truth of {chosen.source} is not known",
            expected="pictures of the drawn world, which this command draws",
            fix="name no source",
        )
    plan = plan_of(chosen)
    for vain, name in ((chosen.until is not None, "--until"), (plan.clip is None, "--clip none")):
        if vain:
            raise SettingError(
                f"{name} is not heard, or leaves nothing to choose from",
                expected=f"a run to the stage {LAST!r}, and CLIP's numbers of all edits",
                fix="leave it out",
            )
    found, world = run_asked(chosen, plan, until=LAST)
    total = sum(shard.came for shard in found.shards["pick"])
    with tqdm(judged(found, world), desc="truth", unit="edit", total=total) as bar:
        bounds = choose_bounds([({**row, "picture": None, "output": None}, truth) for row, truth in bar])
    if not bounds:
        raise DataError(
            f"no bound can be chosen of {total} edits",
            expected="good ones and bad ones of a category",
            fix="draw more, by --count",
        )
    for category, of in bounds.items():
        print(f"{category}: " + ", ".join(f"{name} {each}" for name, each in of.items()))
    path = chosen.output / "clip_bounds.json"
    save_bounds(bounds, path)
    print("saved:", path)


if __name__ == "__main__":
    raise SystemExit(main())
