"""Who picks among candidates: a judge's scores for success, preservation and quality, and the choice by them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from PIL import Image

from ..engine.operators import Verdict
from ..instruct.captions import Caption, Request

HIGHEST = 10.0
TIE = "another candidate is as good"  # the rule of those that lose nothing but the draw: nobody prefers the other


@dataclass(frozen=True)
class Scores:
    """0 … 10 each. reading: what the judge sees in the output, where it says so; unexplained: 0 … 1, of a drawing."""

    success: float
    preservation: float
    quality: float
    reading: Caption | None = None
    unexplained: float | None = None

    @property
    def overall(self) -> float:
        """The root of the smaller of success and preservation, times quality, as VIEScore joins its parts."""
        return (min(self.success, self.preservation) * self.quality) ** 0.5


class Judge(Protocol):
    """A frozen dataclass, part of the key of what it scored."""

    def judge(self, source: Image.Image, output: Image.Image, caption: Caption, request: Request) -> Scores:
        """source, output: RGB, of one size; caption: of the source. Raises LabError."""


@dataclass(frozen=True)
class Pick:
    """Of the candidates for an instruction the best is kept: by overall score, then success, then the first.

    The others are dropped with what they lack, which of a `TIE` is nothing.
    """

    version: ClassVar[int] = 2

    def choose(self, rows: Sequence[dict[str, Any]]) -> Iterable[tuple[dict[str, Any], dict[str, str] | None]]:
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            groups.setdefault(row["instruction_id"], []).append(row)
        for group in groups.values():
            best = max(group, key=lambda row: (row["overall"], row["success"]))
            for row in group:
                yield row, None if row is best else _lost(_worse(row, best))


def _worse(row: Mapping[str, Any], best: Mapping[str, Any]) -> Verdict:
    for score, unit in (("overall", "of 10"), ("success", "of 10 for success")):
        if row[score] != best[score]:
            return Verdict("another candidate is better", row[score], best[score], unit)
    return Verdict(TIE)


def _lost(verdict: Verdict) -> dict[str, str]:
    told = json.dumps([verdict.to_dict()])
    return {"operator": "pick", "reason": verdict.rule, "problem": str(verdict), "verdicts": told}
