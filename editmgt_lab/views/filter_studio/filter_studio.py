"""The filter studio: bounds that one moves, and edits that come and go with them, beside what is true of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
from matplotlib.figure import Figure
from PIL import Image

from ...crisp.assure.rules import DRAWN, MEASURES, CategoryBounds, broken_after
from ...crisp.bounds import Bounds
from ...crisp.curate.decode import opened
from ...crisp.drawn.truth import EditTruth
from ...errors import DataError
from ..figures import panels_figure
from ..recording import Progress
from ..widget import LabWidget, packed, png

SHOWN = 7  # pictures in a row of the figure


def filter_studio(
    edits: Iterable[tuple[Mapping[str, Any], EditTruth]], bounds: CategoryBounds = DRAWN, *, seed: int = 0
) -> FilterStudio:
    """Open the studio on edits with their measures and their truth, as `crisp.drawn.judged` gives them.

    bounds: where the sliders stand at first; a slider moves the bound of every category that has such a rule. seed: of
    the scores of chance, which keep as many edits. Raises DataError for no edits.
    """
    return FilterStudio(list(edits), bounds, seed)


class FilterStudio(LabWidget):
    """bounds: measure → [low, high], None for a side without bound; off: measures whose rule is switched off.

    rows, truths: of every edit its measures, and what is true of it.
    """

    script, title = Path(__file__).with_suffix(".js"), "Filter studio"

    bounds = traitlets.Dict().tag(sync=True, page=True)
    off = traitlets.List().tag(sync=True, page=True)

    def __init__(self, edits: list[tuple[Mapping[str, Any], EditTruth]], bounds: CategoryBounds, seed: int):
        if not edits:
            raise DataError("there are no edits", expected="one or more", fix="run the pipeline up to its last stage")
        self.rows, self.truths = zip(*edits, strict=True)
        self.first, self.seed = bounds, seed
        self.measures = [
            name
            for name in MEASURES
            if any(name in bounds.get(r["type"], {}) and r.get(name) is not None for r in self.rows)
        ]
        super().__init__(bounds={name: self._widest(name) for name in self.measures})
        self.begin(self._show)

    @traitlets.validate("bounds", "off")
    def _known(self, proposal: Mapping[str, Any]) -> Any:
        """What a page sends: known measures alone, and pairs of numbers."""
        value = proposal["value"]
        if any(name not in self.measures for name in value):
            raise traitlets.TraitError(f"{sorted(map(str, value))} are not all among {', '.join(self.measures)}")
        try:
            for low, high in value.values() if isinstance(value, Mapping) else ():
                Bounds(*(None if each is None else float(each) for each in (low, high)))
        except (OverflowError, TypeError, ValueError) as error:  # traitlets takes a value back for its own error alone
            raise traitlets.TraitError(f"bounds that are none: {error}") from error
        return value

    def rules(self) -> dict[str, dict[str, Bounds]]:
        """The bounds of every category as they stand now."""
        return {
            category: {
                name: Bounds(*(moved if mine is not None else None for moved, mine in
                               zip(self.bounds[name], (of.low, of.high), strict=True)))
                for name, of in rules.items() if name in self.bounds and name not in self.off
            }
            for category, rules in self.first.items()
        }  # fmt: skip

    @property
    def kept(self) -> np.ndarray:
        """bool [edits]: within all bounds."""
        rules = self.rules()
        return np.array([not broken_after(row, rules) for row in self.rows])

    @property
    def good(self) -> np.ndarray:
        """bool [edits]."""
        return np.array([truth.good for truth in self.truths])

    @property
    def chance(self) -> np.ndarray:
        """float [edits]: scores that know nothing of the edit."""
        dice = random.Random(f"filter studio {self.seed}")
        return np.array([dice.random() for _ in self.rows], np.float32)

    @property
    def kept_by_chance(self) -> np.ndarray:
        """bool [edits]: as many as are kept, those of the highest scores of chance."""
        order = np.argsort(-self.chance)
        chosen = np.zeros(len(order), bool)
        chosen[order[: self.kept.sum()]] = True
        return chosen

    def counts(self) -> dict[str, Any]:
        """good, bad: edits; kept_good, kept_bad, chance_good, chance_bad: of these, what the bounds and chance keep."""
        good, told = self.good, {"good": int(self.good.sum()), "bad": int((~self.good).sum())}
        for name, kept in (("kept", self.kept), ("chance", self.kept_by_chance)):
            told |= {f"{name}_good": int((kept & good).sum()), f"{name}_bad": int((kept & ~good).sum())}
        return told

    def values(self) -> np.ndarray:
        """float64 [edits, measures], as the rules compare them; NaN where an edit was not measured or its category has
        no such rule."""
        return np.array(
            [
                [
                    np.nan if row.get(name) is None or name not in self.first.get(row["type"], {}) else row[name]
                    for name in self.measures
                ]
                for row in self.rows
            ],
            np.float64,
        )

    def _widest(self, name: str) -> list[float | None]:
        """The bounds of a measure that all categories have in common, or the widest of them."""
        rules = [of[name] for of in self.first.values() if name in of]
        lows, highs = (
            [each for each in side if each is not None] for side in zip(*((r.low, r.high) for r in rules), strict=True)
        )
        return [min(lows, default=None), max(highs, default=None)]

    def _show(self, progress: Progress) -> None:
        pictures: dict[str, list[bytes]] = {"picture": [], "output": []}
        for number, row in enumerate(self.rows):
            progress(number, len(self.rows), "pictures")
            for name, known in pictures.items():
                known.append(png(opened(row[name])))
        first = opened(self.rows[0]["picture"])
        self.data = {
            "measures": [
                {"name": name, "title": title, "unit": unit}
                for name, (title, unit) in MEASURES.items()
                if name in self.measures
            ],
            "values": packed(self.values()),
            "good": packed(self.good.astype(np.uint8)),
            "chance": packed(self.chance),
            "sources": pictures["picture"],
            "outputs": pictures["output"],
            "instructions": [row["instruction"] for row in self.rows],
            "types": [row["type"] for row in self.rows],
            "first": self.bounds,
            "ratio": first.width / first.height,
        }  # fmt: skip

    def figure(self) -> Figure:
        """The first edits that are kept and the first that are dropped, each with what is true of it."""
        kept, good, rules = self.kept, self.good, self.rules()
        reasons = Counter(broken_after(self.rows[i], rules)[0].rule for i in np.flatnonzero(~kept))
        why = {"kept": "", "dropped": ": " + ", ".join(f"{rule} {n}" for rule, n in reasons.most_common(3))}
        rows, titles = [], []
        for which, chosen in (("kept", kept), ("dropped", ~kept)):
            if chosen.any():
                titles.append(f"{which}: {(chosen & good).sum()} good, {(chosen & ~good).sum()} bad{why[which]}")
                shown = [self._captioned(i) for i in np.flatnonzero(chosen)[:SHOWN]]
                blank = Image.new("RGB", shown[0][0].size, "white")
                rows.append(shown + [(blank, "")] * (SHOWN - len(shown)))
        return panels_figure(rows, titles)

    def _captioned(self, i: int) -> tuple[Image.Image, str]:
        return opened(self.rows[i]["output"]), ("good" if self.truths[i].good else "bad") + f", {self.rows[i]['type']}"

    def arrays(self) -> dict[str, np.ndarray]:
        """values [edits, measures], good, kept, chance, and the pictures."""
        pictures = {
            name: np.stack([np.asarray(opened(row[column])) for row in self.rows])
            for name, column in (("sources", "picture"), ("outputs", "output"))
        }
        return {"values": self.values(), "good": self.good, "kept": self.kept, "chance": self.chance} | pictures

    def described(self) -> dict[str, Any]:
        """The measures in the order of `values`, the bounds as they stand, the counts and the seed of chance."""
        told = {"measures": self.measures, "bounds": dict(self.bounds), "off": list(self.off), "seed": self.seed}
        return told | self.counts()
