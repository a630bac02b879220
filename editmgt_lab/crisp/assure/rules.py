"""What an edit of each category must measure, with lower and upper bounds, as data; who breaks one is dropped.

The bounds of the drawn world were chosen on edits of its train split. Those for photographs are AnyEdit's for CLIP
and L1 where it has some, which were made for other pictures and CLIP ViT-L/14, and ours against edits that were not
made, which pass all others where no CLIP measures: measure before you believe them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from ...basics.folders import plain, write_text
from ...errors import SettingError
from ...world import CATEGORIES
from ..bounds import Bounds
from ..engine.operators import Drop, Operator, Row, Verdict

# measure → (as reasons say it, unit)
MEASURES = {
    "alignment": ("agreement with the target text", "share of statements"),
    "direction": ("change of what was to change", "share of statements"),
    "clip_alignment": ("CLIP alignment with the target text", "cosine"),
    "clip_direction": ("CLIP direction", "cosine"),
    "inside": ("change inside the edit", "of 1"),
    "outside": ("change outside the edit", "of 1"),
    "worst": ("change in one place outside the edit", "of 1"),
    "whole": ("change of the whole picture", "of 1"),
    "unexplained": ("what cannot be read", "of 1"),
    "success": ("the judge's success", "of 10"),
    "preservation": ("the judge's preservation", "of 10"),
    "quality": ("the judge's quality", "of 10"),
}
CategoryBounds = Mapping[str, Mapping[str, Bounds]]

_LOCAL = {
    "alignment": Bounds(low=0.999), "direction": Bounds(low=0.999), "inside": Bounds(low=0.02),
    "outside": Bounds(high=0.02), "worst": Bounds(high=0.07), "unexplained": Bounds(high=0.03),
}  # fmt: skip
DRAWN: CategoryBounds = {
    "add": _LOCAL, "replace": _LOCAL, "remove": _LOCAL, "color": _LOCAL, "motion": _LOCAL,
    "background": _LOCAL | {"whole": Bounds(0.02, 0.7)},
    "style": {
        "alignment": Bounds(low=0.999), "direction": Bounds(low=0.999), "whole": Bounds(0.02, 0.8),
        "unexplained": Bounds(high=0.03),
    },
}  # fmt: skip
# What an embedding says of the same edits: the small CLIP's, chosen by `crisp.drawn.choose` on 500 scenes of the train
# split. They are held against the truth and drop nothing: the bounds above do without them.
DRAWN_CLIP: CategoryBounds = {
    "add": {"clip_alignment": Bounds(low=0.732), "clip_direction": Bounds(low=0.586)},
    "replace": {"clip_alignment": Bounds(low=0.713), "clip_direction": Bounds(low=0.57)},
    "remove": {"clip_alignment": Bounds(low=0.745), "clip_direction": Bounds(low=0.492)},
    "color": {"clip_alignment": Bounds(low=0.695), "clip_direction": Bounds(low=0.708)},
    "background": {"clip_alignment": Bounds(low=0.709), "clip_direction": Bounds(low=0.756)},
    "style": {"clip_alignment": Bounds(low=0.65), "clip_direction": Bounds(low=0.644)},
    "motion": {"clip_alignment": Bounds(low=0.717), "clip_direction": Bounds(low=0.461)},
}
_DONE = {"success": Bounds(low=5.0)}
_LOCALLY = _DONE | {"inside": Bounds(low=0.01), "outside": Bounds(high=0.1)}
PHOTOGRAPHS: CategoryBounds = {
    "add": _LOCALLY | {"clip_alignment": Bounds(low=0.2)},
    "replace": _LOCALLY | {"clip_alignment": Bounds(low=0.2), "clip_direction": Bounds(low=0.08)},
    "remove": _LOCALLY | {"clip_alignment": Bounds(low=0.15)},
    "color": _LOCALLY | {"clip_alignment": Bounds(low=0.2), "inside": Bounds(low=0.05)},
    "background": _DONE | {"clip_alignment": Bounds(low=0.15), "whole": Bounds(0.2, 0.9)},
    "style": _DONE | {"clip_alignment": Bounds(low=0.25), "whole": Bounds(0.2, 0.8)},
    "motion": _DONE | {"clip_alignment": Bounds(low=0.3), "clip_direction": Bounds(low=0.05)},
}


@dataclass(frozen=True)
class Assure(Operator):
    """Keeps the edits that are within all bounds of their category; the others are told every one that they break.

    columns: the measures that were made, which go with the type. A bound on one that was not made is no rule.
    """

    name: ClassVar[str] = "assure"
    gives: ClassVar[Mapping[str, pa.DataType]] = {"assured": pa.bool_()}
    bounds: CategoryBounds
    columns: tuple[str, ...]

    @property
    def takes(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("type", *self.columns)

    def run(self, row: Row) -> dict[str, Any]:
        if broken := broken_after(row, self.bounds):
            raise Drop(*broken)
        return {"assured": True}


def broken_after(row: Row, bounds: CategoryBounds) -> list[Verdict]:
    """Every bound of its category that a measured edit breaks. A category without bounds has none to break."""
    verdicts = (
        each.broken(MEASURES[name][0], row.get(name), MEASURES[name][1])
        for name, each in bounds.get(row["type"], {}).items()
    )
    return [verdict for verdict in verdicts if verdict]


def save_bounds(bounds: CategoryBounds, path: Path) -> None:
    """As JSON: category → measure → [low, high]."""
    told = {category: {name: [each.low, each.high] for name, each in of.items()} for category, of in bounds.items()}
    write_text(path, json.dumps(told, indent=1) + "\n")


def load_bounds(path: Path) -> dict[str, dict[str, Bounds]]:
    """What save_bounds wrote, or a person. Raises SettingError."""
    try:
        told = json.loads(plain(path).read_text(encoding="utf-8"))
        bounds = {
            category: {name: Bounds(low, high) for name, (low, high) in of.items()} for category, of in told.items()
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise SettingError(
            f"{path} holds no bounds: {error}", expected="{category: {measure: [low, high]}}", fix="see assure/rules.py"
        ) from error
    if not bounds:
        raise SettingError(f"{path} holds no bounds", expected="a category or more", fix="leave it out for the usual")
    unknown = {*bounds} - {*CATEGORIES} | {name for of in bounds.values() for name in of} - {*MEASURES}
    if unknown:
        raise SettingError(
            f"{path} has bounds for {', '.join(sorted(unknown))}",
            expected="categories " + ", ".join(CATEGORIES) + "; measures " + ", ".join(MEASURES),
            fix="correct the names",
        )
    return bounds
