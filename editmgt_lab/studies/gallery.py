"""`python -m editmgt_lab.studies.gallery`: a page of edits, chosen by rule, failures beside successes.

Of every category the first edits of a split are made without hold and with the model's own. Those that succeed and
those that fail (score ≥ 5 and leakage ≤ 0.02, or not) are each put in order of their score; shown are those at equal
distances in that order, such as the middle one, or those at one and two thirds. So none is picked by hand, and none for
being the best or the worst.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image
from tqdm.auto import tqdm

from .. import world
from ..basics.folders import write_text
from ..editor import Editor
from ..errors import SettingError, command
from ..images import to_images, to_tensor
from ..loading import load
from ..metrics import report
from ..metrics.truth import Scores, draw_truths
from .options import DECODING, add_decoding, measuring, which_model, with_own
from .sweep import HEAT, Hold, sweep

SIDE = 128  # px of a picture on the page


@dataclass(frozen=True)
class Shown:
    """One edit. pictures: source, edit without hold and with the model's own, target; free, held: the edits' scores.

    Source and target are as the tokenizer shows them.
    """

    category: str
    number: int
    instruction: str
    pictures: tuple[Image.Image, ...]
    free: Scores
    held: Scores


@dataclass(frozen=True)
class Gallery:
    """category → all its edits that have a score. settings: what was made and how; lines: how many to show of each."""

    settings: dict[str, Any]
    edits: dict[str, list[Shown]]
    lines: int

    def chosen(self, category: str) -> tuple[list[Shown], list[Shown]]:
        """The successes and the failures to show."""
        ordered = sorted(self.edits[category], key=lambda each: (each.held.rank, -each.number), reverse=True)
        return tuple(
            spread([each for each in ordered if bool(each.held.success) is done], self.lines) for done in (True, False)
        )

    def share(self, category: str) -> str:
        edits = self.edits[category]
        held, free = (sum(getattr(each, way).success for each in edits) for way in ("held", "free"))
        return f"{held:.0f} of {len(edits)} succeed (with λ = 0: {free:.0f})"

    def figure(self) -> Figure:
        """A line for each pair: a success left, a failure right; where there is none of them at all, it says so."""
        pairs = []
        for category in self.edits:
            sides = self.chosen(category)
            none = [f"{category}: none of {len(self.edits[category])} {what}" for what in ("succeeds", "fails")]
            empty = [("", ()) if side else (text, ()) for side, text in zip(sides, none, strict=True)]
            for i in range(max(map(len, sides))):
                row = [row_of(side[i]) if i < len(side) else empty[j] for j, side in enumerate(sides)]
                pairs.append(tuple(row))
                empty = [("", ())] * 2
        return report.gallery(f"{self.title}\nLeft: successes, right: failures", pairs, self.columns)

    @property
    def columns(self) -> tuple[str, ...]:
        return "source", "λ = 0", f"λ = {self.settings['hold_threshold']:g} (default)", "target"

    @property
    def title(self) -> str:
        settings = self.settings
        of = f", by {settings['model']} (weights {settings['weights']})" if "model" in settings else ""
        split, steps, guidance, temperature, seed = (settings[name] for name in ("split", *DECODING, "seed"))
        decoded = f"{steps} steps, guidance scale {guidance:g}, token temperature {temperature:g}, seed {seed}"
        return f"Edits of the small world's {split} split, {decoded}{of}"

    def html(self) -> str:
        """One page that needs no other file."""
        parts = []
        for category in self.edits:
            sides = []
            for name, shown in zip(("successes", "failures"), self.chosen(category), strict=True):
                rows = "".join(map(self.html_row, shown)) or "<p>none</p>"
                sides.append(f"<section><h3>{name}</h3>{rows}</section>")
            parts.append(f"<h2>{category}: {self.share(category)}</h2><div class=pair>{''.join(sides)}</div>")
        rule = escape(" ".join(__doc__.split("\n\n")[1].split()))
        return PAGE.format(title=escape(self.title), rule=rule, body="\n".join(parts))

    def html_row(self, shown: Shown) -> str:
        under = ("", *(in_words(scores).replace(", ", "<br>") for scores in (shown.free, shown.held)), "")
        figures = "".join(
            f'<figure><img src="{data_url(picture)}" width={SIDE} alt="{escape(name)}">'
            f"<figcaption>{escape(name)}<br>{text}</figcaption></figure>"
            for picture, name, text in zip(shown.pictures, self.columns, under, strict=True)
        )
        return f"<p>“{escape(shown.instruction)}” <small>(number {shown.number})</small></p><div>{figures}</div>"


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<title>{title}</title>
<style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #222; }}
.pair {{ display: flex; flex-wrap: wrap; gap: 1rem 3rem; }}
figure {{ display: inline-block; margin: 0 .4rem .4rem 0; vertical-align: top; }}
figcaption {{ font-size: 12px; text-align: center; max-width: 128px; }}
img {{ image-rendering: pixelated; }}
h2 {{ border-top: 1px solid #ccc; padding-top: .6rem; }} h3 {{ margin: 0; font-size: 1rem; color: #666; }}
p {{ margin: .5rem 0 .3rem; }}
</style>
<h1>{title}</h1>
<p>{rule}</p>
{body}
</html>
"""


def collect(
    editor: Editor,
    *,
    split: str = "test",
    count: int = 20,
    lines: int = 2,
    batch: int = 10,
    seed: int = 0,
    progress: bool = True,
    **options: Any,
) -> Gallery:
    """Make the edits 0 … count - 1 of every category; edit i decodes with seed + i. options: as in `Editor.edit`, but
    for λ. lines: successes and failures to show of each category. Raises SettingError.
    """
    if lines < 1:
        raise SettingError(f"lines is {lines}", expected="1 or more", fix="2 are usual")
    holds = [Hold(HEAT, 0.0), Hold(HEAT, editor.defaults.hold_threshold)]
    edits: dict[str, list[Shown]] = {}
    with tqdm(total=count * len(world.CATEGORIES), desc="making edits", unit="edit", disable=not progress) as bar:
        for category in world.CATEGORIES:
            for truth in draw_truths(editor, split=split, count=count, category=category, batch=batch):
                swept = sweep(editor, truth, holds, seed=seed, **options)
                made = [to_tensor(editor.detokenize(tokens)) for tokens in swept.tokens]
                scores = [truth.scores(outputs) for outputs in made]
                columns = zip(*map(to_images, (truth.sources, *made, truth.targets)), strict=True)
                for i, pictures in enumerate(columns):
                    shown = Shown(
                        category, truth.numbers[i], truth.samples[i].instruction, pictures, scores[0][i], scores[1][i]
                    )
                    if not math.isnan(shown.held.score):
                        edits.setdefault(category, []).append(shown)
                bar.update(len(truth.samples))
    settings = {"split": split, "count": count, "seed": seed, "hold_threshold": holds[1].threshold}
    return Gallery(settings | with_own({name: options.get(name) for name in DECODING}, editor), edits, lines)


def spread(ordered: Sequence[Shown], lines: int) -> list[Shown]:
    """At most so many, at equal distances: one is the middle one, two stand at one and two thirds."""
    places = {math.floor((i + 1) * len(ordered) / (lines + 1)) for i in range(lines)}
    return [ordered[place] for place in sorted(places) if place < len(ordered)]


def row_of(shown: Shown) -> report.Row:
    return f"{shown.category} {shown.number}: {shown.instruction}\n{in_words(shown.held)}", shown.pictures


def in_words(scores: Scores) -> str:
    leaked = "" if math.isnan(scores.leakage) else f", leakage {scores.leakage:.3f}"
    return f"score {scores.score:.1f}{leaked}"


def data_url(picture: Image.Image) -> str:
    data = io.BytesIO()
    picture.save(data, format="PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()


@command
def main(arguments: list[str] | None = None) -> None:
    """Write gallery.html and gallery.png."""
    counted = "edits of every category to choose from"
    parser = measuring(__doc__, count=20, counted=counted, output=Path("outputs") / "gallery", batch=10)
    parser.add_argument("--lines", type=int, default=2, help="successes and failures to show of every category")
    add_decoding(parser)
    options = vars(parser.parse_args(arguments))
    output, model = options.pop("output"), options.pop("model")
    editor = load(model)
    gallery = collect(editor, **options)
    gallery.settings.update(which_model(model, editor))
    paths = [output / "gallery.html", output / "gallery.png"]
    write_text(paths[0], gallery.html())
    report.save_figure(gallery.figure(), paths[1], dpi=110)
    for category in gallery.edits:
        print(f"{category}: {gallery.share(category)}")
    print("saved:", *paths)


if __name__ == "__main__":
    raise SystemExit(main())
