"""`python -m editmgt_lab.studies.ablations`: the editor with one part of the method changed at a time.

Every trial decodes the same edits with the same seeds as the editor as it ships, which stands first under every part:

- hold: none; the model's own rule at its λ; the other rule
- blocks: every block alone, all multi-modal, all single-modal ones, all
- consolidation: the single-modal blocks together, or one of them alone (the mean over them, as if chosen blindly)
- filter: the adaptive filter of the heat map on, or off
- words: the attention of all words, or of those that name what the edit is about
- injection: γ, with the bias of the paper (image ↔ source) and that of the released code (text ↔ source as well)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..basics.folders import write_text
from ..decoding import HOLDS
from ..editor import Editor
from ..errors import command
from ..loading import load
from ..metrics.report import save_figure, save_json
from ..metrics.truth import draw_truths
from ..plain_text import literal
from ..world import EditSample
from .choose import COLUMNS, Trial, report, try_out
from .options import add_decoding, measuring, which_model, with_own

STRENGTHS = (0.5, 0.9, 1.1, 1.5, 2.0)  # γ; at 1 there is no bias
BIASES = {"paper's bias": False, "released bias": True}
OWN = "as it ships"
TITLES = {
    "hold": "the hold",
    "blocks": "which blocks make the heat map",
    "consolidation": "averaging blocks into one heat map",
    "filter": "the heat map's filter",
    "words": "whose attention: all words, or the object's",
    "injection": "strength γ of the injection, and its bias",
}


def ablate(
    editor: Editor,
    *,
    split: str = "test",
    count: int = 100,
    batch: int = 20,
    seed: int = 0,
    hold_threshold: float | None = None,
    strengths: Sequence[float] = STRENGTHS,
    progress: bool = True,
    **options: Any,
) -> list[Trial]:
    """Every trial on the edits 0 … count - 1 of a split, part by part; `chosen` marks the editor as it ships.

    Edit i decodes with seed + i. hold_threshold: λ of all trials but the one without hold, None is the model's own;
    strengths: every γ to try besides 1 and the editor's own; options: as in `Editor.edit`, for all trials. Raises
    SettingError.
    """
    truths = list(draw_truths(editor, split=split, count=count, batch=batch))
    threshold = editor.defaults.hold_threshold if hold_threshold is None else hold_threshold
    run = {"truths": truths, "seed": seed, "progress": progress, **options}
    held = run | {"hold_threshold": threshold}
    own = try_out(editor, OWN, "", **held)

    def as_shipped(setting: str, option: str) -> Trial:
        return Trial(setting, option, own.values, own.seconds, chosen=True)

    rule = editor.defaults.hold
    trials = [
        as_shipped("hold", f"{rule}, λ = {threshold:g}"),
        try_out(editor, "hold", "none", **run, hold_threshold=0.0),
        *(
            try_out(editor.with_defaults(hold=other), "hold", f"{other}, λ = {threshold:g}", **held)
            for other in HOLDS
            if other != rule
        ),
    ]
    named = groups_of_blocks(editor)
    by_blocks = {name: try_out(editor, "blocks", name, **held, blocks=blocks) for name, blocks in named.items()}
    shipped = ", ".join(map(str, editor.defaults.blocks))
    trials += [as_shipped("blocks", f"{shipped} ({OWN})"), *by_blocks.values()]
    trials += consolidated_or_not(editor, by_blocks)
    smooth = editor.defaults.smooth
    trials.append(as_shipped("filter", "on" if smooth else "off"))
    trials.append(try_out(editor.with_defaults(smooth=not smooth), "filter", "off" if smooth else "on", **held))
    trials += [as_shipped("words", "all"), try_out(editor, "words", "the object's", **held, focus=object_words)]
    usual = editor.defaults.strength if options.get("strength") is None else options["strength"]
    if usual == 1:
        trials.append(as_shipped("injection", "γ = 1"))
    else:
        bias = next(name for name, bias_text in BIASES.items() if bias_text == editor.defaults.bias_text)
        trials.append(as_shipped("injection", f"γ = {usual:g}, {bias} ({OWN})"))
        trials.append(try_out(editor, "injection", "γ = 1", **held | {"strength": 1.0}))
    for name, bias_text in BIASES.items():
        biased = editor.with_defaults(bias_text=bias_text)
        trials += [
            try_out(biased, "injection", f"γ = {strength:g}, {name}", **held | {"strength": strength})
            for strength in strengths
        ]
    return trials


def groups_of_blocks(editor: Editor) -> dict[str, list[int]]:
    """Name → blocks: every one alone, both kinds, all."""
    total, first = len(editor.transformer.blocks), len(editor.transformer.transformer_blocks)
    groups = {f"{block} alone": [block] for block in range(total)}
    kinds = {"multi-modal": range(first), "single-modal": range(first, total), "all": range(total)}
    return groups | {name: list(blocks) for name, blocks in kinds.items() if blocks}


def consolidated_or_not(editor: Editor, by_blocks: dict[str, Trial]) -> list[Trial]:
    """The single-modal blocks together, and, edit by edit, the mean of what each of them alone comes to; nothing where
    there are none."""
    first, total = len(editor.transformer.transformer_blocks), len(editor.transformer.blocks)
    if first == total:
        return []
    together, alone = by_blocks["single-modal"], [by_blocks[f"{block} alone"] for block in range(first, total)]
    means = {name: np.mean([each.values[name] for each in alone], axis=0).tolist() for name in COLUMNS}
    seconds = sum(each.seconds for each in alone) / len(alone)
    return [
        Trial("consolidation", f"blocks {first} … {total - 1} together", together.values, together.seconds),
        Trial("consolidation", "one of them alone, in the mean", means, seconds),
    ]


def object_words(sample: EditSample) -> list[str]:
    """The words of the instruction that name what the edit is about: the objects it changes, the scene or the style."""
    before, after = sample.source_scene, sample.target_scene
    changed = {*before.items} ^ {*after.items}
    names = [item.kind for item in before.items + after.items if item in changed]
    names += [after.background] if after.background != before.background else []
    names += [after.style] if after.style != before.style else []
    return [name for name in dict.fromkeys(names) if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", sample.instruction)]


@literal
def picture(trials: Sequence[Trial]) -> Figure:
    """The trials of one part: a dot with its 95% interval for each, score, leakage and localisation side by side.

    Score and localisation have the same scale in every part.
    """
    metrics = ("score", "leakage", "localisation")
    figure = Figure(figsize=(11, 1.5 + 0.34 * len(trials)), layout="constrained")
    figure.get_layout_engine().set(wspace=0.07)  # or the ends of two scales meet
    figure.suptitle(TITLES[trials[0].setting], fontsize=15, x=0.01, ha="left")
    rows = range(len(trials))
    for axes, metric in zip(figure.subplots(1, len(metrics), sharey=True), metrics, strict=True):
        for row, trial in zip(rows, trials, strict=True):
            found = trial.to_dict()[metric]
            if not found["count"]:
                continue
            colour = "#d55e00" if trial.chosen else "#0072b2"
            axes.plot([found["low"], found["high"]], [row, row], color=colour, linewidth=2, alpha=0.5)
            axes.plot(found["mean"], row, "D" if trial.chosen else "o", color=colour, markersize=7)
            if trial.chosen:
                axes.axvline(found["mean"], color=colour, linewidth=0.8, linestyle=":")
        axes.set_xlabel({"leakage": "leakage, local edits"}.get(metric, COLUMNS[metric][0]), fontsize=13)
        axes.tick_params(labelsize=12)
        axes.locator_params(axis="x", nbins=3 if metric == "leakage" else 5)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.92")
    figure.axes[0].set_yticks(rows, [str(trial.option) for trial in trials])
    figure.axes[0].set_ylim(len(trials) - 0.5, -0.5)
    for axes, end in zip(figure.axes, (10, None, 1), strict=True):
        axes.set_xlim(0, end)
    figure.axes[2].axvline(0.5, color="0.6", linewidth=1, linestyle="--", zorder=0)
    figure.axes[2].annotate("chance", (0.5, 1), (-4, 0), xycoords=("data", "axes fraction"),
                            textcoords="offset points", ha="right", va="top", color="0.45", fontsize=10)  # fmt: skip
    return figure


def save(trials: Sequence[Trial], settings: dict[str, Any], folder: Path) -> list[Path]:
    """Write ablations.json, ablations.txt and a picture for each part; returns their paths."""
    paths = [folder / "ablations.json", folder / "ablations.txt"]
    saved = {"settings": settings, "trials": [trial.to_dict() for trial in trials]}
    save_json(saved, paths[0])
    write_text(paths[1], report(trials) + "\n")
    for setting in dict.fromkeys(trial.setting for trial in trials):
        paths.append(folder / f"{setting}.png")
        save_figure(picture([trial for trial in trials if trial.setting == setting]), paths[-1], dpi=130)
    return paths


@command
def main(arguments: list[str] | None = None) -> None:
    """Print the table and save it with its pictures."""
    counted = "edits of every trial; there are about thirty trials"
    parser = measuring(__doc__, count=100, counted=counted, output=Path("outputs") / "ablations")
    parser.add_argument("--hold-threshold", type=float, metavar="λ", help="of all trials; else the model's own")
    add_decoding(parser)
    options = vars(parser.parse_args(arguments))
    output, model = options.pop("output"), options.pop("model")
    editor = load(model)
    options = with_own(options, editor)
    trials = ablate(editor, **options)
    print(report(trials))
    print("←: as it ships;", ", ".join(f"{name} {value}" for name, value in options.items()))
    print("saved:", *save(trials, options | which_model(model, editor), output))


if __name__ == "__main__":
    raise SystemExit(main())
