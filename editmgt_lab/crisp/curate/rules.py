"""The rules of curation: what is measured, in which unit, and within which bounds a picture is good to edit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
from PIL import Image

from ...errors import ImageError
from ...images.opening import MAX_PIXELS
from ..bounds import Bounds
from ..engine.operators import Drop, Operator, Row, Verdict
from . import measures
from .decode import decoded, header_size


@dataclass(frozen=True)
class Rule:
    """name: as reasons and people say it; measure: of a picture (None: another operator gives the column)."""

    name: str
    unit: str
    measure: Callable[[Image.Image, measures.Array], float] | None
    why: str


# column → rule. A picture and its grey values at the working size go into a measure.
RULES: dict[str, Rule] = {
    "short_side": Rule("short side", "px", lambda picture, grey: min(picture.size), "small pictures teach blur"),
    "aspect": Rule(
        "aspect", "long / short side", lambda picture, grey: measures.aspect(*picture.size), "strips lose their ends"
    ),
    "megapixels": Rule(
        "size", "million px", lambda picture, grey: measures.megapixels(*picture.size), "more than any model sees"
    ),
    "entropy": Rule("entropy", "bits", lambda picture, grey: measures.entropy(grey), "monotony: hardly any tones"),
    "edges": Rule(
        "edges", "share of pixels", lambda picture, grey: measures.edges(grey), "nothing there, or only noise"
    ),
    "repetition": Rule(
        "repetition", "correlation", lambda picture, grey: measures.repetition(grey), "stripes, chequers and tiles"
    ),
    "twin_bits": Rule("distance to an earlier picture", "bits of 256", None, "near duplicates"),
    "text": Rule("writing", "share of the picture", None, "captions, logos and watermarks"),
    "aesthetic": Rule("aesthetic score", "of 10", None, "the paper keeps what is above 4.5"),
    "suitable": Rule("suitability", "of 1", None, "a language model's answer, 0 or 1"),
}
MEASURED = tuple(name for name, rule in RULES.items() if rule.measure)

# The paper's thresholds where it names them; the others are ours, wide enough for the photographs in the notebook.
PHOTOGRAPHS = {
    "short_side": Bounds(low=1024),
    "aspect": Bounds(high=3.0),
    "megapixels": Bounds(high=64.0),
    "entropy": Bounds(low=2.5),
    "edges": Bounds(low=0.004, high=0.6),
    "repetition": Bounds(high=0.75),
    "twin_bits": Bounds(low=41),
    "text": Bounds(high=0.01),
    "aesthetic": Bounds(low=4.5),
    "suitable": Bounds(low=1.0),
}
# The drawn world is small and calm, its brick walls repeat: chosen on scenes of the train split, of 64 and of 256 px.
DRAWN = PHOTOGRAPHS | {
    "short_side": Bounds(low=64),
    "entropy": Bounds(low=1.2),
    "edges": Bounds(low=0.006, high=0.6),
    "repetition": Bounds(high=0.95),
}


@dataclass(frozen=True)
class Measure(Operator):
    """Opens the picture, once, and measures all that is measured of its pixels."""

    name: ClassVar[str] = "measure"
    version: ClassVar[int] = 5
    takes: ClassVar[tuple[str, ...]] = ("id", "bytes", "unread", "refused")
    gives: ClassVar[Mapping[str, pa.DataType]] = {
        "picture_id": pa.string(),
        "picture": pa.binary(),
        "bytes": pa.binary(),
        "width": pa.int32(),
        "height": pa.int32(),
        "note": pa.string(),
        "hash": pa.binary(),
    } | {name: pa.float64() for name in MEASURED}

    def run(self, row: Row) -> dict[str, Any]:
        if row.get("unread"):
            raise OSError(row["unread"])
        if row.get("refused"):
            raise Drop(Verdict(f"the picture lies outside of the source: {row['refused']}"))
        if row["bytes"] is None:
            raise Drop(Verdict("there is no picture"))
        if size := header_size(row["bytes"]):  # the largest ones are not decoded
            rule, value = RULES["megapixels"], measures.megapixels(*size)
            if verdict := Bounds(high=MAX_PIXELS / 1e6).broken(rule.name, value, rule.unit):
                raise Drop(verdict)
        try:
            picture, content, note = decoded(row["bytes"])
        except ImageError as error:
            raise Drop(Verdict(f"the picture cannot be opened: {error.problem}")) from error
        grey = measures.working(picture)
        numbers = {name: float(RULES[name].measure(picture, grey)) for name in MEASURED}
        known = {"picture_id": row["id"], "picture": content, "bytes": None, "note": note}
        size = {"width": picture.width, "height": picture.height}
        return known | size | {"hash": measures.perceptual_hash(picture)} | numbers


@dataclass(frozen=True)
class Curate(Operator):
    """Keeps the pictures that are within all bounds; the others break one rule or more.

    bounds: column → Bounds. A column that no operator gave is no rule.
    """

    name: ClassVar[str] = "curate"
    gives: ClassVar[Mapping[str, pa.DataType]] = {"curated": pa.bool_()}
    bounds: Mapping[str, Bounds]
    columns: tuple[str, ...] = MEASURED

    @property
    def takes(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.columns

    def run(self, row: Row) -> dict[str, Any]:
        broken = broken_rules(row, self.bounds)
        if broken:
            raise Drop(*broken)
        return {"curated": True}


def broken_rules(row: Row, bounds: Mapping[str, Bounds]) -> list[Verdict]:
    """Every rule that a row of measures breaks, in the order of the table."""
    verdicts = (
        bounds[name].broken(rule.name, row.get(name), rule.unit) for name, rule in RULES.items() if name in bounds
    )
    return [verdict for verdict in verdicts if verdict]
