"""Every candidate that the editors made, measured as stage 4 measures it, beside the truth of the drawn world."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..curate.decode import opened
from ..pipeline import Run
from .pictures import read_truth
from .truth import EditTruth, truth_of


def judged(run: Run, folder: Path) -> Iterator[tuple[dict[str, Any], EditTruth]]:
    """(row, truth) of all candidates, also of those that the judge did not pick.

    row: a candidate's columns with all measures of stage 4 (None where one was not measured), picture and output as
    bytes; folder: where `drawn.pictures.draw` has written the truth.
    """
    truths, compare = read_truth(folder), run.plan.stages()["assure"].operators[:-1]
    for dropped in (False, True):
        for row in run.rows("pick", dropped=dropped, pictures=("picture", "output")):
            for operator in compare:
                row |= (operator.answer(row)["values"] or [{}])[0]
            scene = truths[Path(row["origin"]).name]["scene"]
            yield row, truth_of(row["instruction"], scene, opened(row["picture"]), opened(row["output"]))
