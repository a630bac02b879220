"""The filter studio: bounds that one moves, and edits that come and go with them, beside what is true of them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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

    bounds: of every category, which keep what they keep until a slider is moved; where categories differ, it stands at
    the widest of their bounds at first. Once moved, it counts for every category with edits that has such a bound.
    seed: of the scores of chance, which keep as many edits. Raises DataError for no edits.
    """
    return FilterStudio(list(edits), bounds, seed)


class FilterStudio(LabWidget):
    """bounds: measure → [low, high], where its sliders were moved to, None where each category has its own bound; off:
    measures whose rule is switched off.

    rows, truths: of every edit its measures, and what is true of it.
    """

    script, title = Path(__file__).with_suffix(".js"), "Filter studio"

    bounds = traitlets.Dict().tag(sync=True, page=True)
    off = traitlets.List().tag(sync=True, page=True)

    def __init__(self, edits: list[tuple[Mapping[str, Any], EditTruth]], bounds: CategoryBounds, seed: int):
        if not edits:
            raise DataError("there are no edits", expected="one or more", fix="run the pipeline up to its last stage")
        self.rows, self.truths = zip(*edits, strict=True)
        self.first = {row["type"]: {} for row in self.rows} | dict(bounds)
        self.seed = seed
        self.measures = [
            name
            for name in MEASURES
            if any(name in self.first[row["type"]] and row.get(name) is not None for row in self.rows)
        ]
        super().__init__(bounds={name: [None, None] for name in self.measures})
        self.begin(self._show)

    @traitlets.validate("off")
    def _known(self, proposal: Mapping[str, Any]) -> list[str]:
        if any(name not in self.measures for name in proposal["value"]):
            raise traitlets.TraitError(f"{proposal['value']} are not all among {', '.join(self.measures)}")
        return proposal["value"]

    @traitlets.validate("bounds")
    def _moved(self, proposal: Mapping[str, Any]) -> dict[str, list[float | None]]:
        """All measures, with a number for sides alone that have a slider, and something within every bound."""
        value = proposal["value"]
        if value.keys() != set(self.measures):
            raise traitlets.TraitError(f"bounds are of {', '.join(self.measures)}, and of all of them")
        try:
            for name, pair in value.items():
                Bounds(*pair)
                sides = zip(pair, self._widest(name), strict=True)
                if any(moved is not None and widest is None for moved, widest in sides):
                    raise traitlets.TraitError(f"{name} has no bound on a side of {pair}")
            self._rules(value)
        except (OverflowError, TypeError, ValueError) as error:  # traitlets takes a value back for its own error alone
            raise traitlets.TraitError(f"bounds that are none: {error}") from error
        return value

    def rules(self) -> dict[str, dict[str, Bounds]]:
        """The bounds of every category as they stand now, without those that are switched off."""
        return {
            category: {name: each for name, each in of.items() if name not in self.off}
            for category, of in self._rules(self.bounds).items()
        }

    def _rules(self, moved: Mapping[str, Sequence[float | None]]) -> dict[str, dict[str, Bounds]]:
        return self.first | {
            category: {name: _moved_to(each, moved.get(name, (None, None))) for name, each in of.items()}
            for category, of in self._of_edits().items()
        }

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
        """float64 [edits, measures], as the rules compare them; NaN where there is nothing to compare (see `asked`), or
        what was measured is none itself, and within nothing."""
        numbers = [[row.get(name) for name in self.measures] for row in self.rows]
        return np.where(self.asked(), np.array(numbers, np.float64), np.nan)

    def asked(self) -> np.ndarray:
        """bool [edits, measures]: an edit was measured so, and its category has such a rule."""
        return np.array(
            [
                [row.get(name) is not None and name in self.first[row["type"]] for name in self.measures]
                for row in self.rows
            ],
            bool,
        )

    def _of_edits(self) -> dict[str, Mapping[str, Bounds]]:
        """The first bounds of the categories that there are edits of."""
        return {category: self.first[category] for category in dict.fromkeys(row["type"] for row in self.rows)}

    def _widest(self, name: str) -> list[float | None]:
        """The widest of the categories' bounds of a measure; None for a side that none of them has."""
        rules = [of[name] for of in self._of_edits().values() if name in of]
        lows, highs = ([each for each in side if each is not None] for side in zip(*map(_sides, rules), strict=True))
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
            "asked": packed(self.asked().astype(np.uint8)),
            "bounds": _plain(self._of_edits()),
            "good": packed(self.good.astype(np.uint8)),
            "chance": packed(self.chance),
            "sources": pictures["picture"],
            "outputs": pictures["output"],
            "instructions": [row["instruction"] for row in self.rows],
            "types": [row["type"] for row in self.rows],
            "first": {name: self._widest(name) for name in self.measures},
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
        """The measures in the order of `values`, every category's bounds as they stand, the counts and the seed of
        chance."""
        told = {"measures": self.measures, "bounds": _plain(self.rules()), "off": list(self.off), "seed": self.seed}
        return told | self.counts()


def _plain(rules: CategoryBounds) -> dict[str, dict[str, list[float | None]]]:
    return {category: {name: _sides(each) for name, each in of.items()} for category, of in rules.items()}


def _sides(bounds: Bounds) -> list[float | None]:
    return [bounds.low, bounds.high]


def _moved_to(bounds: Bounds, moved: Sequence[float | None]) -> Bounds:
    """With the sides that it has where they were moved to."""
    sides = zip(_sides(bounds), moved, strict=True)
    return Bounds(*(mine if mine is None or to is None else to for mine, to in sides))
