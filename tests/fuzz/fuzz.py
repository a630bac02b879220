"""Cases of all kinds, each its share; what failed is made smaller and kept."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from .case import ENDS, GOOD, Kind, Outcome, attempt, recipe_of
from .kinds import adapters, checkpoints, datasets, endpoints, masks, pictures, texts, widgets
from .shrink import smallest
from .watch import Watched

KINDS: dict[str, Kind] = {
    **pictures.KINDS, **texts.KINDS, **masks.KINDS, **checkpoints.KINDS, **adapters.KINDS, **datasets.KINDS,
    **endpoints.KINDS, **widgets.KINDS,
}  # fmt: skip


PLACED = ("foreign", "wrong", "black")  # ends that say where; of others no two need be one fault
MOST = 5  # of these others, of a kind, that are kept


def begin(folder: str) -> Callable[[tuple[str, Any]], Outcome]:
    """In a process of its own, which works in this folder: what answers (kind, recipe)."""
    import torch

    from .bench import Bench

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    root = Path(tempfile.mkdtemp(dir=folder))
    bench = Bench(root)
    os.chdir(root)
    return lambda question: attempt(KINDS[question[0]], question[1], bench)


def fuzz(
    count: int, seed: int, kinds: Sequence[str] | None = None, output: Path | None = None
) -> Iterator[tuple[str, int, Outcome]]:
    """Kind, number and outcome of so many cases. A case that takes too long, or too much memory, is done once more
    before it counts, since libraries are loaded at first use: in a fresh worker, so that what it holds on to counts
    again. output: where failures are kept, with the smallest recipe (None: nowhere)."""
    log = (output or Path(tempfile.gettempdir())) / "worker.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    folder, known = tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True), Counter()
    worker = Watched(partial(begin, folder.name), log)
    try:
        for name, number in plan(count, kinds or list(KINDS)):
            recipe = recipe_of(KINDS[name], name, seed, number)
            outcome = worker.ask((name, recipe))
            if outcome.end in ("hang", "memory"):
                worker.close()
                outcome = worker.ask((name, recipe))
            if outcome.end not in GOOD and output:
                known[name, outcome.end, outcome.where] += 1
                if known[name, outcome.end, outcome.where] <= (1 if outcome.end in PLACED else MOST):
                    keep(output, name, seed, number, recipe, outcome, worker)
            yield name, number, outcome
    finally:
        worker.close()
        folder.cleanup()


def plan(count: int, kinds: Sequence[str]) -> Iterator[tuple[str, int]]:
    """So many cases in all, every kind its share and one at least, numbered within their kind; evenly mixed, so that
    a run that is stopped has seen all kinds."""
    total = sum(KINDS[name].share for name in kinds)
    counts = {name: max(round(count * KINDS[name].share / total), 1) for name in kinds}
    largest = max(counts, key=counts.__getitem__)
    counts[largest] = max(counts[largest] + count - sum(counts.values()), 1)  # what rounding took or gave
    cases = [((number + 0.5) / most, name, number) for name, most in counts.items() for number in range(most)]
    yield from ((name, number) for _, name, number in sorted(cases))


def keep(output: Path, name: str, seed: int, number: int, recipe: Any, outcome: Outcome, worker: Watched) -> None:
    def fails(simpler: Any) -> bool:
        again = worker.ask((name, simpler))
        return (again.end, again.where) == (outcome.end, outcome.where)

    least = smallest(recipe, fails, attempts=150 if outcome.end in PLACED else 10)
    kept = {"kind": name, "seed": seed, "number": number, "recipe": least, "drawn": recipe, "told": outcome.told}
    which = "" if outcome.end in PLACED else hashlib.sha256(json.dumps(least).encode()).hexdigest()[:8]
    place = re.sub(r"\W+", "_", f"{name} {outcome.where} {which}".strip())[:100]
    (output / f"{place}.json").write_text(json.dumps(kept, indent=1), encoding="utf-8")


def replay(kept: dict[str, Any]) -> Outcome:
    """A kept failure, done again in this process."""
    with tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True) as folder:
        return begin(folder)((kept["kind"], kept["recipe"]))


class Report:
    """How many cases of each kind ended how."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = {}
        self._seen: set[tuple[str, str, str]] = set()

    def add(self, name: str, outcome: Outcome) -> bool:
        """Count one; whether it is a failure of a new kind."""
        self.counts.setdefault(name, Counter())[outcome.end] += 1
        which = name, outcome.end, outcome.where
        new = outcome.end not in GOOD and (outcome.end not in PLACED or which not in self._seen)
        self._seen.add(which)
        return new

    def cases(self) -> dict[str, int]:
        return {name: sum(counts.values()) for name, counts in self.counts.items()}

    def failed(self) -> int:
        return sum(counts[end] for counts in self.counts.values() for end in ENDS if end not in GOOD)

    def table(self) -> str:
        """In Markdown."""
        heads = {"foreign": "foreign error", "wrong": "wrong result", "black": "silent black picture"}
        lines = ["| kind | cases | " + " | ".join(heads.get(end, end) for end in ENDS) + " |"]
        lines.append("| --- |" + " ---: |" * (len(ENDS) + 1))
        total = sum(self.counts.values(), Counter())
        for name, counts in [*self.counts.items(), ("all", total)]:
            lines.append(f"| {name} | {sum(counts.values())} | " + " | ".join(f"{counts[end]}" for end in ENDS) + " |")
        return "\n".join(lines)
