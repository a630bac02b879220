"""The λ figure as published (pictures beside curves), and two more: its controls, and its categories."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from ... import world
from ...plain_text import literal
from .curves import CONTROLS, HEAT, MASK, MAX_LEAK_RATIO, MIN_KEPT, PASTE, PUBLISHED, RANDOM, LambdaCurves

L1_COLOUR, SCORE_COLOUR = "#0072b2", "#d55e00"  # told apart by colour-blind readers, as all others here
STYLES = {  # hold → how its curve is drawn; the marker tells it apart without colour
    HEAT: {"color": "#d55e00", "marker": "o", "linewidth": 2.4, "zorder": 4},
    RANDOM: {"color": "0.55", "marker": "x", "linewidth": 1.6},
    MASK: {"color": "#009e73", "marker": "D", "linewidth": 1.6},
    PASTE: {"color": "#0072b2", "marker": "^", "linewidth": 1.6, "linestyle": "--"},
}
NAMES = {HEAT: "held by the heat map", **CONTROLS}
AXES = {"l1": 0.1, "score": 7.5}  # where the published axes end
PICTURES = 4  # rising λ in a row of pictures


@literal
def lambda_figure(curves: LambdaCurves, examples: Mapping[str, Any]) -> Figure:
    """Left a row of pictures for each example: source and four rising λ. Right L1 and score over λ, and the published.

    examples: category → Example; with none the curves stand alone.
    """
    figure = Figure(figsize=(15, 5.9) if examples else (7, 6), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.04, h_pad=0.05)
    right: Figure | SubFigure = figure
    if examples:
        left, right = figure.subfigures(1, 2, width_ratios=(1.35, 1))
        draw_examples(left, curves, examples)
    axes = right.add_subplot()
    twin = axes.twinx()
    for metric, on, colour, marker in (("l1", axes, L1_COLOUR, "o"), ("score", twin, SCORE_COLOUR, "s")):
        draw_with_published(on, curves, metric, colour, marker)
    axes.set_xlabel("hold threshold λ", fontsize=14)
    axes.set_ylabel("L1 to the source", fontsize=14, color=L1_COLOUR)
    twin.set_ylabel("edit score", fontsize=14, color=SCORE_COLOUR)
    lines = [*axes.get_lines(), *twin.get_lines()]
    twin.legend(handles=lines, loc="upper right", frameon=False, fontsize=12)
    for each in (axes, twin):
        each.spines["top"].set_visible(False)
        each.tick_params(labelsize=12)
    figure.supxlabel(
        textwrap.fill(caption(curves, examples), 184 if examples else 84), fontsize=10.5, x=0.01, ha="left"
    )
    return figure


def draw_examples(part: SubFigure, curves: LambdaCurves, examples: Mapping[str, Any]) -> None:
    places = np.linspace(0, len(curves.thresholds) - 1, PICTURES).round().astype(int)
    for row, example in zip(np.atleast_1d(part.subfigures(len(examples), 1)), examples.values(), strict=True):
        row.suptitle(f"“{example.instruction}”", fontsize=15, x=0.01, ha="left")
        panels = [("source", example.source)]
        panels += [(f"λ = {curves.thresholds[i]:g}", example.pictures[i]) for i in places]
        for axes, (name, picture) in zip(row.subplots(1, len(panels)), panels, strict=True):
            axes.imshow(picture, interpolation="antialiased")
            axes.set_title(name, fontsize=13)
            axes.axis("off")
            axes.set_anchor("N" if len(examples) == 1 else "C")  # alone it has room to lose its title in


def draw_with_published(axes: Axes, curves: LambdaCurves, metric: str, colour: str, marker: str) -> None:
    """Ours with its band; the published curve thin, in axes of its own that are scaled to begin where ours begins."""
    known = curves.summaries(HEAT, metric)
    mean, low, high = (np.array(known[name], float) for name in ("mean", "low", "high"))
    name = {"l1": "L1", "score": "score"}[metric]
    axes.fill_between(curves.thresholds, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(curves.thresholds, mean, marker=marker, color=colour, linewidth=2.4, markersize=7, label=f"{name}, ours")
    scale = mean[0] / PUBLISHED[metric][0]
    published = scale * np.array(PUBLISHED[metric])
    axes.plot(
        PUBLISHED["lambda"], published, linestyle=(0, (5, 3)), marker=marker, color=colour, alpha=0.75, linewidth=1,
        markersize=3.5, markerfacecolor="white", label=f"{name}, published, scaled",
    )  # fmt: skip
    top = np.nanmax([scale * AXES[metric], *(1.04 * high)])
    axes.set_ylim(0, top if top > 0 else 1)


def named(settings: Mapping[str, Any]) -> str:
    """Whose curves they are. settings: with `model`, as `lab.load` takes it, where that is known."""
    model = settings.get("model")
    return {"tiny": "The small model", None: "The editor"}.get(model, f"The model {model}")


def caption(curves: LambdaCurves, examples: Mapping[str, Any]) -> str:
    """What was measured on what."""
    settings, checks = curves.settings, curves.checks()
    rho = {
        metric: "–" if (value := checks[f"spearman_{metric}"]["value"]) is None else f"{value:.2f}"
        for metric in ("l1", "score")
    }
    of_what = "all categories" if settings["category"] == "all" else f"{settings['category']} alone"
    adapted = f", with the adapter {settings['adapter']}," if settings.get("adapter") else ""
    text = (
        f"{named(settings)}{adapted} on {settings['count']} edits of the drawn world "
        f"({settings['split']} split, {of_what}, {settings['steps']} steps, guidance scale "
        f"{settings['guidance_scale']:g}, {settings['hold']} hold): mean L1 "
        "to the source as the tokenizer shows it, in pictures of 0 … 1, and mean edit score (0: nothing done, 10: the "
        "target); bands are 95% bootstrap intervals. "
        "Dashed: the published curves of the 1B model (GEdit semantic score, where an unchanged picture still gets "
        "2.7), other pictures and another score, each scaled to begin where ours begins: only the shapes compare. "
        f"Rank correlation with them: L1 {rho['l1']}, score {rho['score']}."
    )
    if examples:
        which = " and ".join(f"{category} (number {each.number})" for category, each in examples.items())
        text += f" Pictures: of each category the edit whose score falls most from λ = 0 to the last λ: {which}."
    return text


@literal
def controls_figure(curves: LambdaCurves) -> Figure:
    """Score and L1 outside of every hold over λ, and one against the other, all on the same edits."""
    measured = ~np.isnan(curves[RANDOM, "l1"][0])
    shown = curves.only(measured) if measured.any() else curves
    figure = Figure(figsize=(15, 5.4), layout="constrained")
    over_score, over_leak, trade = figure.subplots(1, 3)
    for hold, style in STYLES.items():
        score, leak = (shown.means(hold, metric) for metric in ("score", "l1_outside"))
        if np.isnan(score).all():
            continue
        for axes, metric in ((over_score, "score"), (over_leak, "l1_outside")):
            draw_band(axes, shown, hold, metric)
        trade.plot(leak, score, label=NAMES[hold], **style)
    best, free = shown.means(HEAT, "score").max(), shown.means(HEAT, "l1_outside")[0]
    top = trade.get_ylim()[1]
    corner = [(0, MIN_KEPT * best), (MAX_LEAK_RATIO * free, MIN_KEPT * best), (MAX_LEAK_RATIO * free, top), (0, top)]
    trade.fill(*zip(*corner, strict=True), color="#f0e442", alpha=0.35, linewidth=0, zorder=0)
    trade.annotate("goal", corner[0], (6, -4), textcoords="offset points", va="top", fontsize=12)
    for axes, across, up in (
        (over_score, "hold threshold λ", "edit score"),
        (over_leak, "hold threshold λ", "L1 outside the true edit"),
        (trade, "L1 outside the true edit", "edit score"),
    ):
        finish(axes, across, up, size=13)
    trade.set_ylim(top=top)
    over_leak.legend(frameon=False, fontsize=12)
    shuffled = "the cells that the heat map holds in each step, shuffled" if measured.any() else "not measured"
    if measured.any() and curves.settings["hold"] == "agree":
        shuffled = "of the cells that λ offers in each step, shuffled, those where the network agrees, maybe fewer"
    text = (
        f"The same {shown.counted(HEAT)} edits ({curves.settings['split']} split) under every hold, with 95% bands. "
        f"Held at random: {shuffled}. True mask: the cells of the true "
        "edit are free, the best that any map could do. Pasted: source pixels over the edit of λ = 0 wherever its heat "
        "is below λ. Right: each hold's path from λ = 0, where all begin, to the last λ; up and to the left is better. "
        f"Goal: {MIN_KEPT:.0%} of the best score at {MAX_LEAK_RATIO:.0%} of the L1 outside that λ = 0 has."
    )
    figure.supxlabel(textwrap.fill(text, 184), fontsize=10.5, x=0.01, ha="left")
    return figure


@literal
def categories_figure(curves: LambdaCurves) -> Figure:
    """One column for each category: edit score above, L1 to the source below; ours, the true mask and random."""
    present = [category for category in world.CATEGORIES if category in curves.categories]
    figure = Figure(figsize=(2.15 * len(present) + 0.8, 5.6), layout="constrained")
    grid = figure.subplots(2, len(present), sharex=True, squeeze=False)
    for column, category in zip(grid.T, present, strict=True):
        part = curves.only(curves.places(category))
        for axes, metric in zip(column, ("score", "l1"), strict=True):
            for hold in (HEAT, RANDOM, MASK):
                if not np.isnan(part.means(hold, metric)).all():
                    draw_band(axes, part, hold, metric, markersize=4)
        column[0].set_title(f"{category} ({part.counted(HEAT)})", fontsize=13)
    for row, across, up in zip(grid, ("", "λ"), ("edit score", "L1 to the source"), strict=True):
        for axes in row:
            finish(axes, across, up if axes is row[0] else "", size=12)
    for axes in grid[0]:
        axes.set_ylim(0, 10.2)
    drawn = {name: line for axes in grid[0] for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(drawn.values(), drawn, loc="outside upper left", ncols=len(drawn), frameon=False, fontsize=12)
    count = curves.counted(RANDOM)
    text = f"In brackets: edits of the category ({curves.settings['split']} split), with 95% bands; held at random: "
    text += f"the first {count} edits of all. " if count else "not measured. "
    text += "L1 has a scale of its own in every column."
    figure.supxlabel(text, fontsize=10.5, x=0.01, ha="left")
    return figure


def draw_band(axes: Axes, curves: LambdaCurves, hold: str, metric: str, **style: Any) -> None:
    known = curves.summaries(hold, metric)
    mean, low, high = (np.array(known[name], float) for name in ("mean", "low", "high"))
    style = STYLES[hold] | style
    axes.fill_between(curves.thresholds, low, high, color=style["color"], alpha=0.15, linewidth=0)
    axes.plot(curves.thresholds, mean, label=NAMES[hold], **style)


def finish(axes: Axes, across: str, up: str, *, size: int) -> None:
    axes.set_xlabel(across, fontsize=size)
    axes.set_ylabel(up, fontsize=size)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.locator_params(axis="x", nbins=6)
    axes.tick_params(labelsize=size - 2)
    axes.spines[["top", "right"]].set_visible(False)
