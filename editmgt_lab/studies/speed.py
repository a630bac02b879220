"""`python -m editmgt_lab.studies.speed`: score against time, over unmasking orders, steps, the cache and the hold.

All ways answer the same edits, one after the other within each batch, since a computer's speed wanders. Time is that of
the processor, all of an edit in it: pictures in, text, every step, picture out; on another device it is the clock's.
A way holds as the model does by itself, or by the heat mapped in the source; in some models the two share rule and λ.
The usual way takes 12 steps, whatever the model's own number of them, in the usual order, exactly, drawn by inversion.
The settings of FAST were chosen on the validation split; the test split only says what they do.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from tqdm.auto import tqdm

from ..decoding import DRAWS, ORDERS
from ..editor import Editor
from ..errors import SettingError, command
from ..images import to_tensor
from ..loading import load
from ..metrics.arithmetic import summary
from ..metrics.report import align, cell, save_figure, save_json
from ..metrics.truth import draw_truths
from ..plain_text import literal
from .options import measuring, which_model

STEPS, REFRESH = (4, 6, 8, 12), (1, 2, 3)
DIGITS = (("success", 100, 1), ("score", 1, 2), ("leakage", 1, 4))  # metric, factor, digits
MEASURES = tuple(name for name, *_ in DIGITS)
COLOURS = {"confidence": "#0072b2", "halton": "#d55e00", "random": "0.5", "frontier": "#009e73"}
MARKERS = {4: "v", 6: "o", 8: "s", 12: "D"}
RULE, THRESHOLD = "agree", 0.2  # of the hold by heat from the source, whatever the model's own
HOLD_NAMES = {"default": "the model's own hold", "source": f"heat from the source ({RULE}, λ = {THRESHOLD:g})"}


class Way(NamedTuple):
    """One way to decode; hold: "default", the model's own, or "source": by RULE at λ = THRESHOLD, by the heat mapped in
    the source."""

    steps: int = 12
    order: str = "confidence"
    refresh_every: int = 1
    hold: str = "default"
    draw: str = "inverse"

    def editor(self, editor: Editor) -> Editor:
        return editor if self.hold == "default" else editor.with_defaults(hold=RULE)

    def options(self) -> dict[str, Any]:
        """The keyword arguments of `Editor.edit`, of the `editor` of this way."""
        options = {name: value for name, value in self._asdict().items() if name != "hold"}
        held = {} if self.hold == "default" else {"hold_threshold": THRESHOLD, "heat_from": "source"}
        return options | held

    def __str__(self) -> str:
        cache = "no cache" if self.refresh_every == 1 else f"refreshed every {self.refresh_every}"
        return f"{self.steps} steps, {self.order}, {cache}, {HOLD_NAMES[self.hold]}, draw {self.draw}"


USUAL, FAST = Way(), Way(6, "halton", 3, "source")
# One change at a time from the usual and from the fast way, so that each one's share is seen.
WAYS = tuple(
    dict.fromkeys(
        [
            USUAL,
            FAST,
            *(USUAL._replace(steps=steps) for steps in STEPS),
            *(USUAL._replace(order=order) for order in ORDERS),
            *(FAST._replace(steps=steps) for steps in STEPS),
            *(FAST._replace(order=order) for order in ORDERS),
            *(FAST._replace(refresh_every=refresh) for refresh in REFRESH),
            *(FAST._replace(refresh_every=refresh, hold="default") for refresh in REFRESH),
            *(way._replace(draw=draw) for way in (USUAL, FAST) for draw in DRAWS),
        ]
    )
)


@dataclass(frozen=True)
class Measured:
    """One way's edits. values: metric → one for each edit, NaN where there is none; seconds: an edit."""

    way: Way
    values: dict[str, list[float]]
    seconds: float

    def mean(self, metric: str) -> float:
        """NaN where no edit has a value."""
        known = summary(self.values[metric])
        return known["mean"] if known["count"] else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        means = {metric: summary(values) for metric, values in self.values.items()}
        return {"way": self.way._asdict(), "name": str(self.way), "seconds": self.seconds} | means


def measure(
    editor: Editor,
    ways: Sequence[Way] = WAYS,
    *,
    split: str = "test",
    count: int = 200,
    batch: int = 8,
    seed: int = 0,
    progress: bool = True,
) -> list[Measured]:
    """Every way on the edits 0 … count - 1 of a split; edit i decodes with seed + i. Raises SettingError."""
    if not ways:
        raise SettingError("no way to measure", expected="at least one Way", fix="leave ways out for all of them")
    clock = time.process_time if on_processor(editor) else time.perf_counter
    values = {way: {metric: [] for metric in MEASURES} for way in ways}
    seconds = dict.fromkeys(ways, 0.0)
    with tqdm(total=count * len(ways), desc="speed", unit="edit", disable=not progress) as bar:
        for truth in draw_truths(editor, split=split, count=count, batch=batch):
            for way in ways:
                began = clock()
                result = truth.edit(way.editor(editor), seed, **way.options())
                seconds[way] += clock() - began
                for scores in truth.scores(to_tensor(result.images), result):
                    for metric in MEASURES:
                        values[way][metric].append(getattr(scores, metric))
                bar.update(len(truth.samples))
    return [Measured(way, values[way], seconds[way] / count) for way in ways]


def on_processor(editor: Editor) -> bool:
    """Whether an edit's time is the processor's; it waits for another device, whose time is the clock's."""
    return editor.device.type == "cpu"


def report(measured: Sequence[Measured]) -> str:
    """Plain text: every way with its means, 95% intervals and time, and one sentence on the fast one."""
    by_way = {each.way: each for each in measured}
    usual = by_way.get(USUAL)
    lines = [["", "success %", "edit score", "leakage", "s an edit", "of the usual way's"]]
    for each in sorted(measured, key=lambda each: each.seconds):
        share = f"{each.seconds / usual.seconds:.0%}" if usual else ""
        means = each.to_dict()
        cells = [cell(means[name], factor, digits) for name, factor, digits in DIGITS]
        lines.append([str(each.way), *cells, f"{each.seconds:.3f}", share])
    text = align(lines, left=1)
    if usual and FAST in by_way:
        fast = by_way[FAST]
        success, score = (fast.mean(metric) - usual.mean(metric) for metric in ("success", "score"))
        text += f"\n\n{FAST}: {fast.seconds / usual.seconds:.0%} of the usual way's time, "
        unknown = "success and edit score not measured"
        text += unknown if math.isnan(score) else f"success {100 * success:+.1f} points, edit score {score:+.2f} of 10"
    return text


@literal
def speed_figure(measured: Sequence[Measured], settings: dict[str, Any]) -> Figure:
    """Edit score and success against time: colour is the order, shape the steps, filled the cache, ringed the heat from
    the source. settings: what was measured, with `time`: whose the seconds are."""
    figure = Figure(figsize=(12, 5.6), layout="constrained")
    for axes, (metric, factor, name) in zip(
        figure.subplots(1, 2), (("score", 1, "edit score (0 to 10)"), ("success", 100, "success in %")), strict=True
    ):
        for each in measured:
            way, known = each.way, summary(each.values[metric])
            if not known["count"]:
                continue
            place = (each.seconds, factor * known["mean"])
            colour = COLOURS[way.order]
            face = colour if way.refresh_every > 1 else "white"
            axes.plot(*place, marker=MARKERS.get(way.steps, "P"), color=colour, markerfacecolor=face, markersize=9)
            if way.hold != "default":
                axes.plot(*place, marker="o", color="0.2", markerfacecolor="none", markersize=16)
            for marked, text in ((USUAL, "usual"), (FAST, "fast")):
                if way == marked:
                    axes.annotate(text, place, xytext=(0, 13), textcoords="offset points", ha="center", weight="bold")
                    axes.vlines(place[0], factor * known["low"], factor * known["high"], color=colour, linewidth=1)
        axes.set_xlabel(f"{settings['time']}, s an edit")
        axes.set_ylabel(name)
        axes.margins(x=0.15, y=0.15)
        axes.set_xlim(left=0)
        axes.spines[["top", "right"]].set_visible(False)
    handles = [axes.plot([], [], "o", color=colour, label=order)[0] for order, colour in COLOURS.items()]
    handles += [
        axes.plot([], [], marker, color="0.2", markerfacecolor="white", linestyle="", label=f"{steps} steps")[0]
        for steps, marker in MARKERS.items()
    ]
    handles += [axes.plot([], [], "o", color="0.2", label="filled: cached between refreshes")[0]]
    ring = {"color": "0.2", "markerfacecolor": "none", "markersize": 14, "linestyle": ""}
    handles += [axes.plot([], [], "o", **ring, label="ringed: " + HOLD_NAMES["source"].replace(" (", "\n("))[0]]
    figure.legend(handles=handles, loc="outside right center", frameon=False)
    said = ", ".join(f"{name} {value}" for name, value in settings.items() if name != "time")
    figure.supxlabel(f"{said}; bars: 95% bootstrap intervals", fontsize=9, x=0.01, ha="left")
    return figure


@command
def main(arguments: list[str] | None = None) -> None:
    """Print the report, save it and the figure."""
    counted, output = "edits of every way", Path("outputs") / "speed.json"
    parser = measuring(__doc__, count=200, counted=counted, output=output, batch=8)
    parser.add_argument("--fast-alone", action="store_true", help="only the usual and the fast way")
    options = parser.parse_args(arguments)
    settings = {name: getattr(options, name) for name in ("split", "count", "batch", "seed")}
    editor = load(options.model)
    measured = measure(editor, (USUAL, FAST) if options.fast_alone else WAYS, **settings)
    print(report(measured))
    settings |= {"time": "processor time" if on_processor(editor) else "time by the clock"}
    settings |= which_model(options.model, editor)
    save_json({"settings": settings, "ways": [each.to_dict() for each in measured]}, options.output)
    picture = options.output.with_suffix(".png")
    save_figure(speed_figure(measured, settings), picture, dpi=120)
    print("saved:", options.output, "and", picture.name)


if __name__ == "__main__":
    raise SystemExit(main())
