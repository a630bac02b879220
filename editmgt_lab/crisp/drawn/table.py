"""How good each filter is: what it keeps of the good and of the bad rows, against the truth of the drawn world.

Beside every filter stands its control, which keeps as many rows by random scores: a filter that is worth its work keeps
more of the good ones and fewer of the bad ones than that.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ...metrics.report import align
from ..assure.rules import MEASURES, CategoryBounds, broken_after
from ..curate.rules import RULES, broken_rules
from ..pipeline import Run
from .editors import fault_of
from .judged import judged
from .pictures import GOOD, read_truth
from .truth import EditTruth, instruction_is_valid

WATCHED = "only watched"  # stage of the rules that drop nothing
CLEARLY = 0.5  # of 10 in merit, by which one candidate is better than another
KEPT = (*MEASURES, "type", "instruction_id", "instruction", "seed", "editor", "overall")  # of all candidates at once


@dataclass(frozen=True)
class Filter:
    """One filter. good, bad: rows that came; kept_good, kept_bad: that it kept; control_…: that chance kept."""

    stage: str
    name: str
    good: int
    bad: int
    kept_good: int
    kept_bad: int
    control_good: int
    control_bad: int

    @property
    def precision(self) -> float:
        """Good rows among those that it kept."""
        return _share(self.kept_good, self.kept_good + self.kept_bad)

    @property
    def recall(self) -> float:
        """Of the good rows, those that it kept."""
        return _share(self.kept_good, self.good)

    @property
    def bad_kept(self) -> float:
        return _share(self.kept_bad, self.bad)

    def to_dict(self) -> dict[str, Any]:
        shares = {name: getattr(self, name) for name in ("precision", "recall", "bad_kept")}
        return asdict(self) | {name: None if math.isnan(value) else value for name, value in shares.items()}


@dataclass(frozen=True)
class Findings:
    """filters: in the order of the stages; picks: pairs of candidates of which one is truly better, and of these those
    where the judge gave the better one the higher score; faults: fault → candidates, and of these the good ones."""

    filters: list[Filter]
    picks: tuple[int, int]
    faults: dict[str, tuple[int, int]]

    def table(self) -> str:
        head = [
            "stage",
            "filter",
            "good",
            "bad",
            "keeps of good",
            "of bad",
            "precision",
            "by chance: of good",
            "of bad",
        ]
        lines = [head]
        for each in self.filters:
            chance = _share(each.control_good, each.good), _share(each.control_bad, each.bad)
            shares = (each.recall, each.bad_kept, each.precision, *chance)
            lines.append([each.stage, each.name, str(each.good), str(each.bad), *map(_percent, shares)])
        better, right = self.picks
        faults = ", ".join(f"{name} {good} of {count}" for name, (count, good) in self.faults.items())
        share = _percent(_share(right, better))
        picked = f"the judge prefers the truly better of two candidates in {right} of {better} ({share})"
        return "\n".join([align(lines, 2), "", picked, f"good edits by fault: {faults}"])

    def to_dict(self) -> dict[str, Any]:
        return {
            "filters": [each.to_dict() for each in self.filters],
            "picks": {"pairs": self.picks[0], "right": self.picks[1]},
            "faults": {name: {"candidates": count, "good": good} for name, (count, good) in self.faults.items()},
        }


def hold_against_truth(run: Run, folder: Path, *, seed: int = 0, progress: bool = True) -> Findings:
    """Every filter of a run over pictures of `drawn.pictures.draw`, whose truth is in the folder. seed: of chance.

    Stage 4's rules are asked about all candidates, also those that the judge did not pick. Rules that are only watched
    stand behind all that drop.
    """
    truths = read_truth(folder)
    filters = [*_curation(run, truths, seed), _before(run, truths, seed)]
    total = sum(shard.came for shard in run.shards["pick"])
    with tqdm(judged(run, folder), desc="truth", unit="edit", total=total, disable=not progress) as bar:
        candidates = [({name: row.get(name) for name in KEPT}, truth) for row, truth in bar]

    def single(bounds: CategoryBounds, stage: str) -> Iterator[Filter]:
        for name in MEASURES:
            rules = {of: {name: each[name]} for of, each in bounds.items() if name in each}
            if any(row.get(name) is not None for row, _ in candidates) and rules:
                yield _filter(stage, name, [(not broken_after(r, rules), t.good) for r, t in candidates], seed)

    filters += single(run.plan.bounds, "assure")
    kept = [(not broken_after(row, run.plan.bounds), truth.good) for row, truth in candidates]
    filters.append(_filter("assure", "all", kept, seed))
    filters += single(run.plan.watched, WATCHED)
    return Findings(filters, _picks(candidates), _faults(run, candidates))


def _curation(run: Run, truths: Mapping[str, Any], seed: int) -> list[Filter]:
    measured = [
        row for dropped in (False, True) for row in run.rows("curate", dropped=dropped, columns=("origin", *RULES))
    ]
    good = [truths[Path(row["origin"]).name]["kind"] == GOOD for row in measured]
    found = []
    for name in [*RULES, "all"]:
        bounds = run.plan.curation if name == "all" else {name: run.plan.curation.get(name)}
        if None in bounds.values() or (name != "all" and all(row.get(name) is None for row in measured)):
            continue
        found.append(
            _filter(
                "curate", name, [(not broken_rules(r, bounds), g) for r, g in zip(measured, good, strict=True)], seed
            )
        )
    return found


def _before(run: Run, truths: Mapping[str, Any], seed: int) -> Filter:
    verdicts = [
        (not dropped, instruction_is_valid(row["instruction"], truths[Path(row["origin"]).name]["scene"]))
        for dropped in (False, True)
        for row in run.rows("instruct", dropped=dropped, columns=("instruction", "origin"))
        if row["instruction"] is not None
    ]
    return _filter("instruct", "all", verdicts, seed)


def _picks(candidates: Sequence[tuple[dict[str, Any], EditTruth]]) -> tuple[int, int]:
    groups: dict[str, list[tuple[float, float]]] = {}
    for row, truth in candidates:
        if row.get("overall") is not None and truth.valid:
            groups.setdefault(row["instruction_id"], []).append((truth.merit, row["overall"]))
    pairs = [(a, b) for group in groups.values() for i, a in enumerate(group) for b in group[:i]]
    clear = [(a, b) for a, b in pairs if abs(a[0] - b[0]) > CLEARLY]
    return len(clear), sum((a[0] > b[0]) == (a[1] > b[1]) and a[1] != b[1] for a, b in clear)


def _faults(run: Run, candidates: Sequence[tuple[dict[str, Any], EditTruth]]) -> dict[str, tuple[int, int]]:
    editors = {editor.name: editor for editor, _ in run.plan.editors}
    found: dict[str, tuple[int, int]] = {}
    for row, truth in candidates:
        name = fault_of(editors[row["editor"]], row["instruction"], row["seed"])
        count, good = found.get(name, (0, 0))
        found[name] = count + 1, good + truth.good
    return dict(sorted(found.items()))


def _filter(stage: str, name: str, verdicts: Sequence[tuple[bool, bool]], seed: int) -> Filter:
    """verdicts: whether each row was kept, and whether it is good."""
    kept = sum(each for each, _ in verdicts)
    chance = set(random.Random(f"{seed} {stage} {name}").sample(range(len(verdicts)), kept))
    good = [i for i, (_, well) in enumerate(verdicts) if well]
    return Filter(
        stage, name, len(good), len(verdicts) - len(good),
        sum(verdicts[i][0] for i in good), kept - sum(verdicts[i][0] for i in good),
        len(chance & {*good}), kept - len(chance & {*good}),
    )  # fmt: skip


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else f"{100 * share:.0f}%"
