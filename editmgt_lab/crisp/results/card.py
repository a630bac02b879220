"""The data card of a run, and the funnel: how many pictures, instructions and edits are left after every stage."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from ...metrics.backbones import TINY, load_clip
from ...metrics.report import align
from ...plain_text import literal
from ..bounds import Bounds
from ..curate.rules import RULES
from ..engine.keys import described
from ..instruct.operators import rounds_of
from ..instruct.variety import variety
from ..pipeline import Run
from .statistics import Statistics

COUNTED = {
    "measure": "pictures", "curate": "pictures", "describe": "pictures", "instruct": "instructions",
    "edit": "candidates", "pick": "edits", "assure": "edits",
}  # fmt: skip


def funnel(run: Run) -> list[dict[str, Any]]:
    """For every stage: what is counted, how many came, were kept and dropped, and reason → rows, most first."""
    counts = run.counts()
    return [
        {
            "stage": stage,
            "of": COUNTED[stage],
            **counts[stage],
            "reasons": dict(
                Counter(row["reason"] for row in run.rows(stage, dropped=True, columns=("reason",))).most_common()
            ),
        }
        for stage in run.shards
    ]


def funnel_table(run: Run) -> str:
    lines = [["stage", "of", "came", "kept", "dropped", "most frequent reasons"]]
    for each in funnel(run):
        reasons = ", ".join(f"{reason} {n}" for reason, n in [*each["reasons"].items()][:3])
        lines.append([each["stage"], each["of"], *(str(each[name]) for name in ("came", "kept", "dropped")), reasons])
    return align(lines, 2)


@literal
def funnel_figure(run: Run) -> Figure:
    """Bars of what is left after every stage, and beside them what was lost there and why."""
    stages = funnel(run)[::-1]
    figure = Figure(figsize=(9, 0.6 * len(stages) + 1), layout="constrained")
    axes = figure.subplots()
    names = [f"{each['stage']} ({each['of']})" for each in stages]
    axes.barh(names, [each["kept"] for each in stages], color="tab:blue", label="kept")
    axes.barh(
        names,
        [each["dropped"] for each in stages],
        left=[each["kept"] for each in stages],
        color="0.8",
        label="dropped",
    )
    for place, each in enumerate(stages):
        reason = next(iter(each["reasons"]), "")
        axes.text(each["kept"] + each["dropped"], place, f"  {each['kept']}  {reason}", va="center", fontsize="small")
    axes.set_xlim(0, 1.5 * max(each["kept"] + each["dropped"] for each in stages))
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(xlabel="rows", title="What is left after each stage")
    figure.legend(loc="outside lower center", ncols=2, fontsize="small", frameon=False)
    return figure


def refinement(run: Run) -> list[dict[str, float]]:
    """The measures of `variety` for every round of the instructions that passed; spread by the plan's CLIP, unless that
    is the small one, which has read captions alone."""
    network = load_clip(run.plan.clip) if run.plan.clip not in (None, TINY) else None
    embed = (lambda texts: network.embed_texts(texts).numpy()) if network else None
    return [variety(texts, embed) for texts in rounds_of([*run.rows("instruct", columns=("rounds",))])]


def refinement_table(run: Run) -> str:
    rounds = refinement(run)
    names = list(rounds[0]) if rounds else []
    lines = [["round", *names]]
    lines += [[str(i), *(f"{each[name]:.3g}" for name in names)] for i, each in enumerate(rounds)]
    return align(lines)


def card(run: Run, statistics: Statistics, *, findings: str | None = None) -> str:
    """A data card in Markdown. findings: a table of the filters against the truth, where that is known."""
    plan = run.plan
    published = {row["picture_id"]: row["note"] for row in run.rows("assure", columns=("picture_id", "note"))}
    notes = Counter(note for note in published.values() if note)
    shares = "\n".join(f"| {name} | {n} | {n / statistics.rows:.1%} |" for name, n in statistics.categories.items())
    sides = "\n".join(f"| [{low}, {high}) px | {n} |" for low, high, n in statistics.intervals())
    rules = "\n".join(
        f"| {RULES[name].name} | {bounds} | {RULES[name].unit} | {RULES[name].why} |"
        for name, bounds in plan.curation.items()
        if name in {*plan.measured(), "twin_bits"} and bounds != Bounds()
    )
    editors = "\n".join(f"- {editor.name}, {count} candidates an instruction" for editor, count in plan.editors)
    models = {"describer": plan.describer, "writer": plan.writer, "judge": plan.judge}
    told = "\n".join(f"- {role}: `{json.dumps(described(model))}`" for role, model in models.items())
    parts = [
        "---\ntask_categories:\n- image-to-image\n---",
        f"# {statistics.rows} edits by instruction",
        "Made by the pipeline of EditMGT Lab (`make crisp`): pictures are curated, described, given instructions, "
        "edited, and checked. Columns: `input_img`, `output_img` (bytes of a picture each), `instruction`, `type`.",
        f"## Categories\n\n| type | pairs | share |\n| --- | --- | --- |\n{shares}",
        f"## Long side of the source\n\n| interval | pairs |\n| --- | --- |\n{sides}",
        f"## What was left after each stage\n\n```\n{funnel_table(run)}\n```",
        f"## Rules of curation\n\n| rule | within | unit | why |\n| --- | --- | --- | --- |\n{rules}",
        f"## Who did what\n\n{told}\n\nEditors:\n\n{editors}",
        f"## Instructions, round by round\n\n```\n{refinement_table(run)}\n```",
    ]
    if notes:
        parts.append("## Pictures that were converted\n\n" + "\n".join(f"- {n} × {note}" for note, n in notes.items()))
    if findings:
        parts.append(f"## The filters against the truth\n\n```\n{findings}\n```")
    return "\n\n".join(parts) + "\n"


def summary(run: Run, statistics: Statistics, findings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All of it, ready for JSON: None for NaN."""
    rounds = [{name: None if math.isnan(n) else n for name, n in each.items()} for each in refinement(run)]
    told = {"statistics": statistics.to_dict(), "funnel": funnel(run), "rounds": rounds}
    return told | {"seconds": run.seconds()} | ({"truth": findings} if findings else {})
