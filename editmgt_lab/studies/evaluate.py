"""`python -m editmgt_lab.studies.evaluate`: score the edits of a model on the small world, answered in every way."""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from tqdm.auto import tqdm

from ..editor import Editor
from ..errors import command
from ..images import to_images, to_tensor
from ..loading import load
from ..metrics.backbones import TINY, load_clip
from ..metrics.clip import ClipTruth
from ..metrics.scorecard import COPY, NO_HOLD, OTHER_WORDS, TARGET, Example, ScoreCard
from ..metrics.truth import Scores, Truth, draw_truths, heat_of
from ..results import EditResult
from ..world import CATEGORIES, EditSample
from ..world.edits import paraphrases
from ..world.scenes import held_out
from .options import add_decoding, measuring, which_model

TIMED = {NO_HOLD: f"{NO_HOLD}, all blocks captured"}  # row → what its seconds are of, where that is more than an edit


class Way(NamedTuple):
    """One way to answer: by which editor, at which λ, and whether asked in other words."""

    editor: Editor
    hold_threshold: float
    other_words: bool = False


def evaluate(
    editor: Editor,
    *,
    split: str = "test",
    count: int = 500,
    category: str | None = None,
    hold_thresholds: Sequence[float] | None = None,
    other_words: bool = False,
    steps: int | None = None,
    guidance_scale: float | None = None,
    token_temperature: float | None = None,
    strength: float | None = None,
    clip: str | None = TINY,
    batch: int = 20,
    seed: int = 0,
    progress: bool = True,
) -> ScoreCard:
    """Score the editor on the small world's edits 0 … count - 1 of a split (design: edit scores on the small world).

    category: one, or None for all in the published proportions. Rows: copy the source; the target itself, which shows
    how much the tokenizer's bleeding alone leaks; no hold (λ = 0), the only row for which every block's own heat map is
    localised, so that its time is that of an edit with all blocks captured; a hold by the model's own rule for every λ
    of hold_thresholds (None: the model's own). Other rules are for `choose` and `ablations` to try.
    other_words: a row more, in which the last way is asked in another phrasing of the same edit.
    steps, guidance_scale, token_temperature, strength: None is the model's own. clip: as load_clip takes it, None for
    none. batch: edits at a time, of no influence on their results but rounding.
    seed: edit i decodes with seed + i; also of the intervals.

    Raises SettingError for a setting out of range, CheckpointError for a CLIP that cannot be loaded.
    """
    network = None if clip is None else load_clip(clip, editor.device)
    ways = ways_to_answer(editor, hold_thresholds, other_words)
    shown = [row for row in ways if row != OTHER_WORDS][-1]
    card = ScoreCard(
        {"split": split, "count": count, "seed": seed, "category": category or "all", "shown": shown},
        rows={row: [] for row in (COPY, TARGET, *ways)},
        seconds={TIMED.get(row, row): 0.0 for row in ways},
    )
    if network:
        card.settings["clip"] = f"{network.name} ({network.fingerprint})"
    options = {"steps": steps, "guidance_scale": guidance_scale, "token_temperature": token_temperature}
    options["strength"] = strength
    blocks = range(len(editor.transformer.blocks))
    with tqdm(total=count * len(ways), desc="evaluating", unit="edit", disable=not progress) as bar:
        for truth in draw_truths(editor, split=split, count=count, category=category, batch=batch):
            card.edits += map(describe, truth.numbers, truth.samples, truth.fidelity)
            seen = network and ClipTruth.of(network, truth)
            for row, outputs in ((COPY, truth.sources), (TARGET, truth.targets)):
                scores = truth.scores(outputs)
                card.rows[row] += seen.scored(scores, outputs) if seen else scores
            for row, way in ways.items():
                asked = options | {"hold_threshold": way.hold_threshold}
                if way.other_words:
                    asked["instructions"] = rephrased(truth, split)
                began, maps = time.perf_counter(), None
                if row == NO_HOLD:
                    result, maps = truth.edit_with_maps(way.editor, seed, **asked)
                else:
                    result = truth.edit(way.editor, seed, **asked)
                card.seconds[TIMED.get(row, row)] += (time.perf_counter() - began) / count
                heats = [heat_of(way.editor, maps, [block]) for block in blocks] if maps else []
                outputs = to_tensor(result.images)
                scores = truth.scores(outputs, result, heats)
                scores = seen.scored(scores, outputs) if seen else scores
                card.rows[row] += scores
                if row == shown:
                    keep_extremes(card.examples, truth, result, scores)
                bar.update(len(scores))
    card.settings |= shared_settings(result)
    return card


def ways_to_answer(editor: Editor, hold_thresholds: Sequence[float] | None, other_words: bool) -> dict[str, Way]:
    """Row → way, for all rows that decode."""
    thresholds = [editor.defaults.hold_threshold] if hold_thresholds is None else hold_thresholds
    ways = {NO_HOLD: Way(editor, 0.0)}
    for threshold in thresholds:
        if threshold != 0:
            ways[f"hold {threshold:g}, {editor.defaults.hold}"] = Way(editor, threshold)
    last = list(ways.values())[-1]
    return ways | ({OTHER_WORDS: last._replace(other_words=True)} if other_words else {})


def describe(number: int, sample: EditSample, fidelity: float) -> dict[str, Any]:
    """What the score card keeps of an edit besides its scores."""
    items = {*sample.source_scene.items, *sample.target_scene.items}
    return {
        "edit": number,
        "category": sample.category,
        "instruction": sample.instruction,
        "psnr": fidelity,
        "held_out_pair": any(held_out(item.kind, item.colour) for item in items),
    }


def rephrased(truth: Truth, split: str) -> list[str]:
    """Every edit of the batch in another phrasing; on the test split that may be one that training never shows."""
    others = [paraphrases(sample, unseen=split == "test") for sample in truth.samples]
    return [phrasings[number % len(phrasings)] for number, phrasings in zip(truth.numbers, others, strict=True)]


def keep_extremes(
    examples: dict[tuple[str, str], Example], truth: Truth, result: EditResult, scores: Sequence[Scores]
) -> None:
    """Take the batch's worst and best edits into `examples` where they go beyond what is there; the first one stays."""
    shown = zip(to_images(truth.sources), result.images, to_images(truth.targets), strict=True)
    for sample, pictures, each in zip(truth.samples, shown, scores, strict=True):
        if math.isnan(each.score):
            continue
        for which, beyond in (("worst", operator.lt), ("best", operator.gt)):
            place = (sample.category, which)
            if place not in examples or beyond(each.rank, examples[place].scores.rank):
                examples[place] = Example(sample.instruction, each, pictures)


def shared_settings(result: EditResult) -> dict[str, Any]:
    """What all edits were decoded with, whatever the row."""
    settings = asdict(result.settings)
    return {name: value for name, value in settings.items() if name not in ("hold_threshold", "hold", "seeds")}


@command
def main(arguments: list[str] | None = None) -> None:
    """Print the score card and save it."""
    parser = measuring(__doc__, count=500, counted="edits to score", output=Path("outputs") / "evaluation")
    parser.add_argument("--category", choices=CATEGORIES, help="one only; otherwise in the published proportions")
    parser.add_argument(
        "--hold-threshold", dest="hold_thresholds", type=float, nargs="+", metavar="λ",
        help="a row each; else the model's own",
    )  # fmt: skip
    parser.add_argument("--other-words", action="store_true", help="ask again in another phrasing: does success agree?")
    parser.add_argument("--strength", type=float, help="γ of the attention injection; else the model's own")
    parser.add_argument(
        "--clip", default=TINY, help="a folder, a hub name, tiny (of the drawn world) or none [%(default)s]"
    )
    add_decoding(parser)
    options = vars(parser.parse_args(arguments))
    output, model = options.pop("output"), options.pop("model")
    options["clip"] = None if options["clip"] == "none" else options["clip"]
    editor = load(model)
    card = evaluate(editor, **options)
    card.settings |= which_model(model, editor)
    paths = card.save(output)
    print(card.table())
    print("saved:", *paths)


if __name__ == "__main__":
    raise SystemExit(main())
