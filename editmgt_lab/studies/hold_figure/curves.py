"""What λ does: L1 to the source and the edit score as curves over λ, held against the published ones and the controls.

L1 is counted against the source as the tokenizer shows it, so that the tokenizer's loss counts for nobody.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ... import world
from ...metrics.arithmetic import ratio_interval, summary
from ...metrics.report import align, cell
from ...metrics.truth import LOCAL_CATEGORIES
from ..sweep import HEAT, MASK, RANDOM

# EditMGT (Chow et al., 2025), the figure of region hold, digitised: L1 to the source, and GEdit's semantic score, which
# a judge gives (0 … 10; an unchanged picture does not get 0). Other pictures and another score than ours.
PUBLISHED = {
    "lambda": (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
    "l1": (0.0901, 0.0750, 0.0700, 0.0570, 0.0520, 0.0417, 0.0201, 0.0081, 0.0049),
    "score": (5.71, 5.83, 5.91, 5.30, 4.33, 2.99, 2.71, 2.72, 2.67),
}
PASTE = "pixel_paste"
CONTROLS = {RANDOM: "held at random", MASK: "true mask", PASTE: "pixels pasted"}
METRICS = {"l1": ("L1", 4), "l1_outside": ("L1 outside", 4), "score": ("score", 2)}  # head of the column, digits
CELLS = ("missed", "loose")
MAX_L1_RATIO, MIN_KEPT, MAX_LEAK_RATIO = 0.2, 0.98, 0.5
MIN_SPEARMAN = {"l1": 0.95, "score": 0.85}
VERDICTS = {True: "holds", False: "FAILS", None: "–"}


@dataclass(frozen=True)
class LambdaCurves:
    """Every measured value. settings: what was measured and how; categories: of each edit; thresholds: λ, from 0 up.

    values: hold → metric → [λ, edits], NaN where there is nothing to measure (an edit of the whole picture has no
    outside) or was not measured. l1: |O−S| of the whole picture; l1_outside: outside the true edit; score: the edit
    score. For the hold by heat also, of the cells in the last step, missed: the share of the true edit that is held,
    and loose: the share of all else that is not.
    """

    settings: dict[str, Any]
    categories: tuple[str, ...]
    thresholds: tuple[float, ...]
    values: dict[str, dict[str, np.ndarray]]

    def __getitem__(self, key: tuple[str, str]) -> np.ndarray:
        hold, metric = key
        return self.values[hold][metric]

    def means(self, hold: str, metric: str, category: str | None = None) -> np.ndarray:
        """[λ]: the mean over the edits (of a category) that have a value; NaN where none has."""
        return np.array([math.nan if each is None else each for each in self.summaries(hold, metric, category)["mean"]])

    def summaries(self, hold: str, metric: str, category: str | None = None) -> dict[str, list[float | None]]:
        """mean, low and high (95% bootstrap interval) and count, each a list over λ; None where there is nothing."""
        return over(self[hold, metric][:, self.places(category)], self.settings["seed"])

    def only(self, places: np.ndarray) -> LambdaCurves:
        """The curves of some of the edits, bool [edits]."""
        values = {
            hold: {metric: each[:, places] for metric, each in known.items()} for hold, known in self.values.items()
        }
        categories = tuple(np.array(self.categories)[places].tolist())
        return replace(self, categories=categories, values=values)

    @property
    def local(self) -> LambdaCurves | None:
        """The curves of the local categories alone, in which there is a place to find; None if there is no such edit.

        A hold by heat can only stop an edit that is the whole picture, so the mean over all edits falls the sooner.
        """
        places = np.array([category in LOCAL_CATEGORIES for category in self.categories])
        return self.only(places) if places.any() else None

    def places(self, category: str | None) -> np.ndarray:
        """bool [edits]: those of a category; None is all."""
        return np.array([category in (None, each) for each in self.categories])

    def counted(self, hold: str, category: str | None = None) -> int:
        """How many edits the hold was measured on."""
        return int((~np.isnan(self[hold, "l1"][0]) & self.places(category)).sum())

    def curve(self, hold: str, category: str | None = None) -> dict[str, Any]:
        """Ready for JSON: lambda, and for every metric a list of means; bands: its low and high; count of edits."""
        known = {metric: self.summaries(hold, metric, category) for metric in METRICS}
        return {
            "lambda": list(self.thresholds),
            **{metric: lists["mean"] for metric, lists in known.items()},
            "bands": {metric: {side: lists[side] for side in ("low", "high")} for metric, lists in known.items()},
            "count": self.counted(hold, category),
        }

    def little_hold(self, hold: str) -> dict[str, Any] | None:
        """The λ > 0 that leaks least while it keeps 98% of the hold's best score; is its leakage halved?

        score_kept: its score by the best one; leak_ratio: L1 outside by that of λ = 0, with a 95% interval; None for
        lambda if no λ > 0 keeps as much score. None for all of it where no score was measured, or no L1
        outside.
        """
        scores, leaks = self.means(hold, "score"), self.means(hold, "l1_outside")
        if np.isnan([scores, leaks]).any():
            return None
        with np.errstate(invalid="ignore", divide="ignore"):  # nothing done, or nothing leaked: no λ is then able
            kept, ratios = scores / scores.max(), leaks / leaks[0]
        able = [i for i in range(1, len(scores)) if kept[i] >= MIN_KEPT]
        if not able or not np.isfinite(ratios[able]).all():
            return {"lambda": None, "score_kept": None, "leak_ratio": None, "interval": None, "holds": False}
        i = min(able, key=lambda i: ratios[i])
        known = ~np.isnan(self[hold, "l1_outside"]).any(axis=0)
        pair = (self[hold, "l1_outside"][j, known].tolist() for j in (i, 0))
        return {
            "lambda": self.thresholds[i],
            "score_kept": float(kept[i]),
            "leak_ratio": float(ratios[i]),
            "interval": list(ratio_interval(*pair, self.settings["seed"])),
            "holds": bool(ratios[i] <= MAX_LEAK_RATIO),
        }

    def gap(self) -> dict[str, list[float | None]]:
        """Edit score of the true mask less that of the hold by heat, edit by edit: lists over λ as in `summaries`."""
        return over(self[MASK, "score"] - self[HEAT, "score"], self.settings["seed"])

    def checks(self) -> dict[str, dict[str, Any]]:
        """What the figure must show; each with its value, what is wanted of it, and whether it holds: True, False, or
        None where nothing was measured of a hold, which then has no value either."""
        shared = [(i, PUBLISHED["lambda"].index(x)) for i, x in enumerate(self.thresholds) if x in PUBLISHED["lambda"]]
        checks = {}
        for metric, least in MIN_SPEARMAN.items():
            ours = self.means(HEAT, metric)[[i for i, _ in shared]]
            value = spearman(ours, [PUBLISHED[metric][j] for _, j in shared])
            checks[f"spearman_{metric}"] = verdict(value, f"≥ {least}", value >= least, ours)
        l1 = self.means(HEAT, "l1")
        ratio = float(l1[-1] / l1[0]) if l1[0] else math.nan
        checks["l1_ratio"] = verdict(ratio, f"≤ {MAX_L1_RATIO}", ratio <= MAX_L1_RATIO, l1)
        wanted = f"some λ > 0 with ≥ {MIN_KEPT:.0%} of the best score and ≤ {MAX_LEAK_RATIO:.0%} of the L1 outside"
        ours, random = self.little_hold(HEAT), self.little_hold(RANDOM)
        checks["little_hold"] = {"value": ours, "wanted": wanted, "holds": None if ours is None else ours["holds"]}
        fails = None if random is None else not random["holds"]
        checks["random_hold"] = {"value": random, "wanted": "the same fails", "holds": fails}
        gap = self.gap()
        known = [high for high in gap["high"] if high is not None]
        wanted = "the true mask's score nowhere below ours by more than its 95% interval"
        nowhere = all(high >= 0 for high in known) if known else None
        checks["true_mask"] = {"value": gap if known else None, "wanted": wanted, "holds": nowhere}
        return checks

    def to_dict(self) -> dict[str, Any]:
        """All curves, bands, controls, categories and checks, and the published curve; ready for JSON."""
        present = [category for category in world.CATEGORIES if category in self.categories]
        return self.curve(HEAT) | {
            "cells": {name: self.summaries(HEAT, name)["mean"] for name in CELLS},
            "controls": {control: self.curve(control) for control in CONTROLS},
            "categories": {
                category: self.curve(HEAT, category)
                | {"controls": {control: self.curve(control, category) for control in CONTROLS}}
                for category in present
            },
            "checks": self.checks(),
            "local": None if (local := self.local) is None else local.curve(HEAT) | {"checks": local.checks()},
            "published": {name: list(values) for name, values in PUBLISHED.items()},
            "seed": self.settings["seed"],
            "settings": self.settings,
        }

    def table(self) -> str:
        """Plain text: every hold at every λ, means with their 95% intervals; then the checks and the gap in words."""
        lines = [["hold", "λ", *(head for head, _ in METRICS.values())]]
        for hold, name in {HEAT: "held by heat", **CONTROLS}.items():
            known = {metric: self.summaries(hold, metric) for metric in METRICS}
            for i, threshold in enumerate(self.thresholds):
                row = [{field: values[i] for field, values in lists.items()} for lists in known.values()]
                cells = [cell(each, 1, digits) for each, (_, digits) in zip(row, METRICS.values(), strict=True)]
                named = f"{name} ({self.counted(hold)} edits)" if i == 0 else ""
                lines.append([named, f"{threshold:g}", *cells])
        return align(lines) + "\n\n" + "\n".join(self.notes())

    def notes(self) -> list[str]:
        """What stands under the table: the checks, the same of the local categories alone, and the gap in words."""
        notes = self.verdicts()
        if (local := self.local) is not None:
            title = (
                f"The same of the {len(local.categories)} edits of local categories ({', '.join(LOCAL_CATEGORIES)}):"
            )
            notes += ["", title, *local.verdicts()]
        return [*notes, "", *self.gap_in_words()]

    def verdicts(self) -> list[str]:
        """A line for every check."""
        lines = []
        for name, check in self.checks().items():
            value = check["value"]
            if check["holds"] is None:
                shown = "not measured"
            elif name == "true_mask":
                gaps = [each for each in value["mean"][1:] if each is not None]
                shown = "smallest gap " + (f"{min(gaps):+.2f}" if gaps else "–")
            elif isinstance(value, dict):
                shown = little_hold_in_words(value)
            else:
                shown = "–" if value is None else f"{value:.3f}"
            lines.append(f"{VERDICTS[check['holds']]:6} {name}: {shown} (wanted: {check['wanted']})")
        return lines

    def gap_in_words(self) -> list[str]:
        """The gap between the true mask and the heat map, and what explains it."""
        gap, missed, loose = self.gap(), self.means(HEAT, "missed"), self.means(HEAT, "loose")
        lines = ["The gap: edit score of the true mask less that of the heat map, edit by edit. The heat map loses"]
        lines.append(
            "score where it is cold inside the edit (held, so not done), and leaks where it is warm elsewhere."
        )
        for i, threshold in enumerate(self.thresholds[1:], start=1):
            difference = cell({field: values[i] for field, values in gap.items()}, 1, 2)
            held, free = ("–" if math.isnan(share) else f"{share:.0%}" for share in (missed[i], loose[i]))
            parts = f"{held} of the edit's cells held, {free} of all other cells free"
            lines.append(f"  λ = {threshold:g}: {difference}; {parts}")
        return lines


def over(values: np.ndarray, seed: int) -> dict[str, list[float | None]]:
    """mean, low, high and count of every row of [λ, edits], NaN left out, as lists over λ."""
    rows = [summary(row.tolist(), seed) for row in values]
    return {name: [row[name] for row in rows] for name in ("mean", "low", "high", "count")}


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation of two curves, ties with the mean of their ranks; NaN if one does not vary or has a NaN."""
    if len(a) < 2 or np.isnan([*a, *b]).any():
        return math.nan
    a, b = ranks(a), ranks(b)
    return math.nan if a.std() == 0 or b.std() == 0 else float(np.corrcoef(a, b)[0, 1])


def ranks(values: Sequence[float]) -> np.ndarray:
    """From 0; equal values share the mean of their ranks."""
    _, place, counts = np.unique(np.asarray(values, float), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[place]


def verdict(value: float, wanted: str, holds: bool, known: np.ndarray) -> dict[str, Any]:
    """A check as `LambdaCurves.checks` has it. known: the curve that the value is of."""
    holds = None if np.isnan(known).all() else bool(holds)
    return {"value": None if math.isnan(value) else value, "wanted": wanted, "holds": holds}


def little_hold_in_words(found: dict[str, Any]) -> str:
    if found["lambda"] is None:
        return f"no λ > 0 keeps {MIN_KEPT:.0%} of the best score"
    low, high = found["interval"]
    ratio = f"{found['leak_ratio']:.2f} ({low:.2f}–{high:.2f})"
    return f"λ = {found['lambda']:g} keeps {found['score_kept']:.0%} of the best score, L1 outside × {ratio}"
