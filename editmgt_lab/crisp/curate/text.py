"""Writing in a picture, such as captions, logos and watermarks, found by RapidOCR, whose models come in its wheel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from ...errors import SettingError
from ..engine.operators import Operator, Row
from .decode import opened

LEAST = 2  # letters or digits: a single one is as often a wheel or a window


@dataclass(frozen=True)
class Writing(Operator):
    """The share of the picture that lies in boxes of writing, as far as it could be read.

    sure: what the reader says of a box, of 1, below which it counts as no writing. Raises SettingError where RapidOCR
    is not installed.
    """

    name: ClassVar[str] = "writing"
    takes: ClassVar[tuple[str, ...]] = ("picture",)
    gives: ClassVar[Mapping[str, pa.DataType]] = {"text": pa.float64(), "text_read": pa.string()}
    sure: float = 0.6

    def __post_init__(self) -> None:
        _reader()

    def run(self, row: Row) -> dict[str, Any]:
        picture = opened(row["picture"])
        blue_first = np.asarray(picture)[:, :, ::-1]
        boxes = _reader()(blue_first, use_cls=False)[0] or []
        read = [(corners, text) for corners, text, sure in boxes if sure >= self.sure and _letters(text) >= LEAST]
        sides = [np.ptp(np.array(corners), axis=0) for corners, _ in read]
        share = sum(float(width * height) for width, height in sides) / (picture.width * picture.height)
        return {"text": min(share, 1.0), "text_read": " | ".join(text for _, text in read) or None}


def _letters(text: str) -> int:
    return sum(letter.isalnum() for letter in text)


@lru_cache(maxsize=1)
def _reader() -> Any:
    try:
        from rapidocr_onnxruntime import RapidOCR
    except ImportError as error:
        raise SettingError(
            f"writing is found by RapidOCR, which cannot be imported: {error}",
            expected="the extra [writing] of editmgt-lab",
            fix='pip install "editmgt-lab[writing]", on Python 3.12 or older, or leave --text out',
        ) from error
    return RapidOCR()
