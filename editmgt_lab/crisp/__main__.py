"""`python -m editmgt_lab.crisp`: the pipeline from pictures to checked edits, its data set, its losers and its card."""

from __future__ import annotations

import faulthandler
import os
import time
from collections.abc import Sequence
from pathlib import Path

from ..basics.folders import write_text
from ..errors import SettingError, command
from ..metrics.report import save_figure, save_json
from .drawn.table import Findings, hold_against_truth
from .options import parser, plan_of, run_asked
from .pipeline import STAGES, Run
from .results.card import card, funnel_figure, funnel_table, refinement_table, summary
from .results.publish import publish
from .results.statistics import statistics

WRITTEN = ("answers", "dataset", "losers", "shards")  # folders of the output


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Run the pipeline and write all that comes of it."""
    chosen = parser().parse_args(arguments)
    _check_apart(chosen.source, chosen.output)
    plan, began = plan_of(chosen), time.perf_counter()
    found, world = run_asked(chosen, plan, until=chosen.until or STAGES[-1])
    print(funnel_table(found))
    if STAGES[-1] in found.shards:
        _finish(found, chosen.output, hold_against_truth(found, world) if world else None)
    print(f"{time.perf_counter() - began:.0f} s, of which not all may have been needed again")


def _check_apart(source: str | None, output: Path) -> None:
    """Raises SettingError for an output in the source's folder, since the next run would take its tables for the
    source, and for a source in one of the folders that this run writes, which may replace it."""
    if source is None or not os.path.exists(place := os.path.expanduser(source)):
        return
    place, told = Path(os.path.realpath(place)), None
    for folder in (output, *(output / name for name in WRITTEN)):
        real = Path(os.path.realpath(folder))
        if real.is_relative_to(place):
            told = f"the output {folder} lies in the source {source}, which the next run would read again"
        elif folder != output and place.is_relative_to(real):
            told = f"the source {source} lies in {folder}, which this run writes anew"
    if told:
        raise SettingError(
            told,
            expected="a source without this command's own files",
            fix="name another folder by --output, or the folder with the pictures alone as the source",
        )


def _finish(found: Run, folder: Path, findings: Findings | None) -> None:
    """Data set, losers, card, figures and numbers."""
    print("", refinement_table(found), sep="\n")
    if findings:
        print("", findings.table(), sep="\n")
    if client := getattr(found.plan.describer, "client", None):
        cost = client.cost()
        print(f"\nanswers: {cost.calls}, of {cost.prompt_tokens} tokens asked and {cost.completion_tokens} answered")
    dataset, losers = publish(found, folder)
    told = statistics(dataset)
    write_text(dataset / "README.md", card(found, told, findings=findings and findings.table()))
    save_json(summary(found, told, findings and findings.to_dict()), folder / "crisp.json")
    for name, figure in (("funnel", funnel_figure(found)), ("statistics", told.figure())):
        save_figure(figure, folder / f"{name}.png", dpi=150)
    print(
        "",
        f"data set: {dataset} ({told.rows} pairs)",
        f"losers:   {losers}",
        f"card:     {dataset}/README.md",
        sep="\n",
    )


if __name__ == "__main__":
    faulthandler.enable()  # networks and servers' clients are native code: a crash there says where it was
    raise SystemExit(main())
