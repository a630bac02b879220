"""Edits as the pipeline's last stage hands them on, for the filter studio."""

from typing import Any

from PIL import Image

from editmgt_lab.crisp.curate.decode import encoded
from editmgt_lab.crisp.drawn.truth import EditTruth


def judged_edits(count: int) -> list[tuple[dict[str, Any], EditTruth]]:
    """Of two categories, worse and worse outside the edit, every third one bad inside it; half are good."""
    found = []
    for i in range(count):
        picture = encoded(Image.new("RGB", (32, 32), (10 * i, 120, 90)))
        done = i % 3 != 0
        row = {
            "type": "color" if i % 2 else "style", "instruction": f"edit {i}", "picture": picture, "output": picture,
            "alignment": 1.0 if done else 0.7, "direction": 1.0 if done else 0.0, "inside": 0.2, "whole": 0.1,
            "outside": 0.002 * i if i % 2 else None, "worst": 0.001 * i if i % 2 else None, "unexplained": 0.01,
        }  # fmt: skip
        found.append((row, EditTruth(True, 9.0 if i < count / 2 else 1.0, 0.0, 0.0)))
    return found
