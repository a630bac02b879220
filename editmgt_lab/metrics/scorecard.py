"""The score card: how often the edit is done, how much else changes, and whether the heat map finds the place."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from .. import world
from ..basics.folders import write_text
from .arithmetic import ratio_interval, summary
from .report import Row, align, cell, gallery, save_figure, save_json
from .truth import LOCAL_CATEGORIES, Scores

OVERALL, LOCAL, HELD_OUT = "overall", "local", "unseen pairs"
COPY, TARGET, NO_HOLD, OTHER_WORDS = "copy the source", "the target itself", "no hold", "in other words"
METRICS = {  # name → head of the column, factor, digits
    "score": ("edit score", 1, 2),
    "success": ("success %", 100, 0),
    "leakage": ("leakage", 1, 4),
    "best_block": ("best block", 1, 3),
    "mean_block": ("mean of blocks", 1, 3),
    "localisation": ("heat map", 1, 3),
    "last_localisation": ("last step's", 1, 3),
    "clip_image": ("CLIP-I", 1, 3),
    "clip_text": ("CLIP-T", 1, 3),
    "clip_direction": ("CLIP dir.", 1, 3),
}


@dataclass(frozen=True)
class Example:
    """One edit to show: source and target as the tokenizer shows them, and what came out."""

    instruction: str
    scores: Scores
    pictures: tuple[Image.Image, Image.Image, Image.Image]  # source, output, target


@dataclass
class ScoreCard:
    """The scores of `count` edits. Rows are the ways to answer, from doing nothing to the hold.

    settings: what was measured and how; edits: number, category, instruction and whether its (colour, object) pair is
    held out from training, of each; rows: name → one Scores for each edit; seconds: name → seconds an edit; examples:
    (category, "best" or "worst") → that edit of the row that uses the editor's own hold rule at the last λ.
    """

    settings: dict[str, Any]
    edits: list[dict[str, Any]] = field(default_factory=list)
    rows: dict[str, list[Scores]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    examples: dict[tuple[str, str], Example] = field(default_factory=dict)

    @property
    def groups(self) -> dict[str, list[int]]:
        """Which edits are averaged together: all, those of local categories, of held-out pairs, of each category."""
        groups = {
            OVERALL: list(range(len(self.edits))),
            LOCAL: [i for i, edit in enumerate(self.edits) if edit["category"] in LOCAL_CATEGORIES],
            HELD_OUT: [i for i, edit in enumerate(self.edits) if edit["held_out_pair"]],
        }
        for category in world.CATEGORIES:
            groups[category] = [i for i, edit in enumerate(self.edits) if edit["category"] == category]
        return {name: places for name, places in groups.items() if places}

    @property
    def best_block(self) -> int | None:
        """The one block whose heat map localises best over all edits, without hold; None if nothing was localised."""
        blocks = np.array([scores.blocks for scores in self.rows[NO_HOLD]])  # [edits, blocks]
        found = blocks[~np.isnan(blocks).any(axis=1)]
        return int(found.mean(axis=0).argmax()) if found.size else None

    def values(self, row: str, metric: str, group: str = OVERALL) -> list[float]:
        """One metric of one row, edit by edit, without those that have none."""
        chosen = [self.rows[row][i] for i in self.groups[group]]
        if metric == "best_block":
            block = self.best_block
            values = [scores.blocks[block] for scores in chosen if scores.blocks and block is not None]
        else:
            values = [getattr(scores, metric) for scores in chosen]
        return [value for value in values if not math.isnan(value)]

    def summary(self) -> dict[str, dict[str, dict[str, dict[str, float | None]]]]:
        """group → row → metric → mean, low and high (95% bootstrap interval), count (of edits that have it)."""
        seed = self.settings["seed"]
        return {
            group: {row: {name: summary(self.values(row, name, group), seed) for name in METRICS} for row in self.rows}
            for group in self.groups
        }

    def holds(self) -> dict[str, dict[str, Any]]:
        """What each hold did, against no hold: row → leakage_ratio, leakage_edits and success_lost (points), by group.

        leakage_ratio: mean leakage with hold by that without, of the local categories, with low and high; None where
        nothing leaked, or no edit has a leakage; leakage_edits: how many have. success_lost: group → mean, low, high
        and count, of the differences edit by edit.
        """
        seed, without = self.settings["seed"], self.rows[NO_HOLD]
        compared = {}
        for row in (row for row in self.rows if row.startswith("hold ")):
            pairs = list(zip(self.rows[row], without, strict=True))
            local = [pairs[i] for i in self.groups.get(LOCAL, [])]
            known = [(a.leakage, b.leakage) for a, b in local if not math.isnan(a.leakage)]
            above, below = ([pair[i] for pair in known] for i in range(2))
            low, high = ratio_interval(above, below, seed)
            ratio = None if math.isnan(low) else {"mean": sum(above) / sum(below), "low": low, "high": high}
            lost = {
                group: summary([100 * (pairs[i][1].success - pairs[i][0].success) for i in places], seed)
                for group, places in self.groups.items()
            }
            compared[row] = {"leakage_ratio": ratio, "leakage_edits": len(known), "success_lost": lost}
        return compared

    def agreement(self) -> dict[str, dict[str, float | None]]:
        """Share of edits that succeed, or fail, in both phrasings, a summary for each group; empty if not asked."""
        if OTHER_WORDS not in self.rows:
            return {}
        both = list(zip(self.rows[self.settings["shown"]], self.rows[OTHER_WORDS], strict=True))
        agrees = [math.nan if math.isnan(a.success) else float(a.success == b.success) for a, b in both]
        return {
            group: summary([agrees[i] for i in places], self.settings["seed"]) for group, places in self.groups.items()
        }

    def table(self) -> str:
        """Plain text: every group by every row, means with their 95% intervals, and what else is to be said."""
        lines = [["edits", "answer", "number", *(head for head, _, _ in METRICS.values())]]
        groups = self.groups
        for group, rows in self.summary().items():
            for index, (row, metrics) in enumerate(rows.items()):
                cells = [cell(metrics[name], factor, digits) for name, (_, factor, digits) in METRICS.items()]
                lines.append([*([group, row, str(len(groups[group]))] if index == 0 else ["", row, ""]), *cells])
        return align(lines, left=2) + "\n\n" + "\n".join(self.notes())

    def notes(self) -> list[str]:
        """What the table leaves unsaid: how it was measured, the best block, what the hold did, the agreement."""
        settings = dict(self.settings)
        split, count, seed, shown = (settings.pop(name) for name in ("split", "count", "seed", "shown"))
        notes = [f"{count} edits of the {split} split, seed {seed}; in brackets 95% bootstrap intervals of the mean"]
        notes.append(", ".join(f"{name} {value}" for name, value in settings.items()))
        notes.append(
            "localisation, over all steps (of the best block, the mean of blocks, the heat map) and in the last "
            f"step's heat map: AUC on {', '.join(LOCAL_CATEGORIES)}"
        )
        rebuilt = cell(summary([edit["psnr"] for edit in self.edits], seed), 1, 1)
        notes.append(f"the tokenizer rebuilds the sources with a PSNR of {rebuilt} dB")
        if self.best_block is not None:
            notes.append(f"the best single block, of all edits together and without hold, is {self.best_block}")
        for metric, why in (("score", "the tokenizer shows no difference"), ("leakage", "the edit is all the picture")):
            missing = count - len(self.values(COPY, metric))
            if missing:
                notes.append(f"{missing} edits have no {metric}: {why}")
        if self.values(COPY, "clip_image"):
            notes.append(
                "CLIP-I: with the target; CLIP-T: with its caption; CLIP dir.: 0 for a picture that did not change"
            )
        if shown == NO_HOLD:
            notes.append("no row with hold: λ is 0")
        for row, compared in self.holds().items():
            ratio, lost = compared["leakage_ratio"], compared["success_lost"]
            unknown = "nothing leaked" if compared["leakage_edits"] else "leakage not measured"
            text = unknown if ratio is None else "leakage × " + cell(ratio | {"count": 1}, 1, 2)
            losses = [f"{cell(lost[group], 1, 1)} {group}" for group in (OVERALL, LOCAL) if group in lost]
            notes.append(
                f"{row}, against no hold: {text} in local categories; success lost, points: {', '.join(losses)}"
            )
        if agreement := self.agreement():
            shares = ", ".join(f"{group} {cell(share, 100, 0)}" for group, share in agreement.items())
            notes.append(f"{OTHER_WORDS} ({shown}) success stays as it was in % of edits: {shares}")
        return [*notes, *(f"{row}: {seconds:.3f} s an edit" for row, seconds in self.seconds.items())]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, ready for JSON; null where there is nothing to measure."""
        edits = [
            edit | {"rows": {row: scores[index].to_dict() for row, scores in self.rows.items()}}
            for index, edit in enumerate(self.edits)
        ]
        return {
            "settings": self.settings,
            "best_block": self.best_block,
            "summary": self.summary(),
            "holds": self.holds(),
            "agreement": self.agreement(),
            "seconds_per_edit": self.seconds,
            "edits": edits,
        }

    def gallery(self) -> Figure:
        """Per category the worst edit (lowest score, then most leakage) and the best one of the row that is shown."""

        def row(category: str, which: str) -> Row:
            example = self.examples[category, which]
            return f"{category}, {which} ({example.scores.score:.1f}): {example.instruction}", example.pictures

        shown = [category for category in world.CATEGORIES if (category, "best") in self.examples]
        pairs = [(row(category, "worst"), row(category, "best")) for category in shown]
        return gallery(self.settings["shown"], pairs, ("source", "output", "target"))

    def save(self, folder: Path) -> list[Path]:
        """Write scorecard.json, scorecard.txt (the table) and gallery.png; returns their paths."""
        paths = [folder / name for name in ("scorecard.json", "scorecard.txt", "gallery.png")]
        save_json(self.to_dict(), paths[0])
        write_text(paths[1], self.table() + "\n")
        save_figure(self.gallery(), paths[2], dpi=110)
        return paths
