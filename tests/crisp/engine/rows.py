"""An input of a stage whose rows are at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from editmgt_lab.crisp.engine.runner import load_daft


@dataclass(frozen=True)
class Rows:
    key: str
    table: pa.Table
    lies: Mapping[str, str] = field(default_factory=dict)

    def frame(self, columns: set[str]) -> Any:
        return load_daft().from_arrow(self.table)
