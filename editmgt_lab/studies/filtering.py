"""`python -m editmgt_lab.studies.filtering`: what a model learns from filtered pairs, and from unfiltered ones.

The pipeline edits drawn scenes by a sloppy editor, of whose edits four in five have a fault. The model that ships is
fine-tuned on the first edit of every instruction as it came, on those edits that passed the judge and stage 4, and on
the true ones, always for as many steps and from as many pairs. All are tried on scenes that were in no training,
without hold, which shows what the network has learned, and with little of the paper's hold. Nothing is chosen by the
test split.

It explains the paper's λ figure: a model that was trained on imperfect pairs leaks, and the hold stops it. The adapter
of the unfiltered pairs is kept, so that `hold_figure --adapter` can draw that figure once more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image
from tqdm.auto import tqdm

from ..basics.checks import check_counts
from ..crisp.curate.decode import opened
from ..crisp.curate.sources import Source
from ..crisp.drawn.editors import redrawn
from ..crisp.drawn.grammar import understand
from ..crisp.drawn.pictures import draw, read_truth
from ..crisp.drawn.truth import instruction_is_valid
from ..crisp.engine.runner import start
from ..crisp.options import parser, plan_of
from ..crisp.pipeline import Run, run
from ..data.pairs import Pair
from ..data.tokens import token_pairs
from ..editor import Editor
from ..errors import DataError, command
from ..finetuning import FinetuneSettings, save_adapter
from ..loading import load
from ..metrics.arithmetic import ratio_interval, summary
from ..metrics.report import align, cell, gallery, save_figure, save_json
from ..metrics.truth import picture_size
from ..world import EditSample, sample_edit
from .options import OF_NO_MATTER, measuring, which_model
from .skills import answers, measured_in_all, teach

SETTINGS = FinetuneSettings(rank=7, learning_rate=5e-3, steps=60)
SCENES = 500
HOLDS = (0.0, 0.2)  # λ
SHIPPED, TRUE, FILTERED, UNFILTERED = "as shipped", "true", "filtered", "unfiltered"
METRICS = {"success": ("success %", 100, 0), "leakage": ("leakage", 1, 4), "score": ("edit score", 1, 2)}
SHOWN = 6  # edits in the picture


@dataclass(frozen=True)
class Taught:
    """What one model does under one hold. way: what it was fine-tuned on; values: metric → one for each edit, NaN
    where there is nothing to measure; pictures: of the first edits."""

    way: str
    hold: float
    values: dict[str, list[float]]
    pictures: list[Image.Image]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: means with their 95% intervals."""
        return {"way": self.way, "hold": self.hold} | {name: summary(self.values[name]) for name in METRICS}


def pipeline(folder: Path, scenes: int, size: int) -> tuple[Run, dict[str, Any]]:
    """The pipeline with the sloppy editor over `scenes` pictures of the train split, and their truth; resumable.

    Of a folder that has more pictures the first ones are taken.
    """
    start()
    place = draw(folder / "scenes", scenes, size=size)
    plan = plan_of(parser().parse_args(["--editor", "sloppy", "--size", str(size)]))
    return run(Source(str(place), scenes), plan, folder / "shards"), read_truth(folder / "scenes")


def pairs_of(made: Run, truths: Mapping[str, Any]) -> dict[str, list[Pair]]:
    """way → pairs, as many of each. Unfiltered: the first candidate of every instruction that came to an edit, whoever
    would have been picked; true: of these instructions, those that make sense, what should have come of them. Of each
    the first ones, so that the true ones may be of instructions further on.

    Raises DataError where no edit passed.
    """
    pictures = ("picture", "output")
    found: dict[str, list[Pair]] = {UNFILTERED: [], FILTERED: [], TRUE: []}
    found[FILTERED] = [_pair(row) for row in made.rows("assure", pictures=pictures)]
    known = set()
    for row in made.rows("edit", pictures=pictures):
        if row["instruction_id"] in known:
            continue
        known.add(row["instruction_id"])
        found[UNFILTERED].append(_pair(row))
        scene = truths[Path(row["origin"]).name]["scene"]
        if instruction_is_valid(row["instruction"], scene):
            source = opened(row["picture"])
            target = redrawn(source, scene, understand(row["instruction"], scene).after)
            found[TRUE].append(Pair(source, target, row["instruction"], row["type"]))
    count = min(map(len, found.values()))
    if not count:
        raise DataError("no edit passed the filters", expected="one or more", fix="make more scenes")
    return {way: pairs[:count] for way, pairs in found.items()}


def measure_filtering(
    editor: Editor,
    pairs: Mapping[str, Sequence[Pair]],
    *,
    split: str = "test",
    count: int = 200,
    batch: int = 20,
    seed: int = 0,
    settings: FinetuneSettings = SETTINGS,
    adapter: Path | None = None,
) -> Iterator[Taught]:
    """The editor as it is and after each way's pairs, under each of HOLDS, on `count` edits of a split.

    adapter: a folder for the adapter that the unfiltered pairs leave. Raises SettingError for a count or batch below 1.
    """
    check_counts(count=count, batch=batch)
    size = picture_size(editor)
    samples = [sample_edit(i, split=split, size=size) for i in range(count)]

    def tried(way: str, asked: Editor) -> Iterator[Taught]:
        paper = asked.with_defaults(hold="released")
        for hold in HOLDS:
            scores, pictures = answers(paper, samples, hold=hold, seed=seed, batch=batch)
            values = {name: [getattr(each, name) for each in scores] for name in METRICS}
            yield Taught(way, hold, values, pictures[:SHOWN])

    yield from tried(SHIPPED, editor)
    for way, each in tqdm(pairs.items(), desc="ways", unit="way"):
        tokens = token_pairs(editor, each, progress=False)
        taught, _ = teach(editor, tokens, replace(settings, seed=seed))
        if adapter and way == UNFILTERED:
            save_adapter(taught.transformer, adapter)
        yield from tried(way, taught)


def table(results: Sequence[Taught]) -> str:
    """Plain text: every model under every hold, means with their 95% intervals."""
    lines = [["pairs", "hold", *(head for head, _, _ in METRICS.values())]]
    for each in results:
        told = each.to_dict()
        cells = [cell(told[name], factor, digits) for name, (_, factor, digits) in METRICS.items()]
        lines.append([each.way, f"λ = {each.hold:g}" if each.hold else "no hold", *cells])
    return align(lines, left=2)


def verdict(results: Sequence[Taught]) -> dict[str, Any]:
    """Without hold: leakage of the filtered model by that of the unfiltered one, with its 95% interval; by how much it
    succeeds more often; and whether leakage is halved at no less success. Each over the edits that both have a value
    of; None where there is none, of leakage also where the unfiltered model leaks nothing. Ready for JSON."""
    free = {each.way: each.values for each in results if not each.hold}
    leaks, successes = (
        measured_in_all(free[FILTERED][name], free[UNFILTERED][name]) for name in ("leakage", "success")
    )
    low, high = ratio_interval(*leaks.tolist(), 0)
    ratio = None if math.isnan(low) else float(leaks[0].mean() / leaks[1].mean())
    more = float(successes[0].mean() - successes[1].mean()) if successes.size else None
    return {
        "ratio": ratio,
        "interval": None if ratio is None else [low, high],
        "more_success": more,
        "holds": None if ratio is None or more is None else ratio <= 0.5 and more >= 0,
    }


def verdict_in_words(told: Mapping[str, Any]) -> str:
    """What `verdict` found, in one sentence."""
    leaked = more = "not measured"
    if told["ratio"] is not None:
        low, high = told["interval"]
        leaked = f"× {told['ratio']:.2f} ({low:.2f}–{high:.2f})"
    if told["more_success"] is not None:
        more = f"{100 * told['more_success']:+.1f} points"
    met = {True: "yes", False: "NO", None: "not measured"}[told["holds"]]
    return (
        f"filtered by unfiltered, without hold: leakage {leaked}, success {more}; "
        f"leakage at least halved at no less success: {met}"
    )


def picture(results: Sequence[Taught], samples: Sequence[EditSample]) -> Figure:
    """Of the first edits: source, every model's answer without hold, and the target."""
    free = [each for each in results if not each.hold]
    rows = [
        (sample.instruction, [sample.source, *(each.pictures[i] for each in free), sample.target])
        for i, sample in enumerate(samples[: len(free[0].pictures)])
    ]
    rows += [("", [])] * (len(rows) % 2)
    pairs = list(zip(rows[::2], rows[1::2], strict=True))
    return gallery(
        "Taught by pairs as they came, and by filtered ones; no hold",
        pairs,
        ("source", *(each.way for each in free), "target"),
    )


@command
def main(arguments: list[str] | None = None) -> None:
    """Print the table and the verdict, save JSON and picture."""
    output = Path("outputs") / "filtering.json"
    options = measuring(__doc__, count=200, counted="edits that each model is tried on", output=output)
    options.add_argument("--scenes", type=int, default=SCENES, help="pictures that enter the pipeline [%(default)s]")
    options.add_argument(
        "--folder", type=Path, default=Path("outputs") / "filtering", help="of its shards [%(default)s]"
    )
    options.add_argument("--adapter", type=Path, help="folder to keep the adapter of the unfiltered pairs in")
    for name in ("steps", "learning_rate"):
        kind, usual = type(getattr(SETTINGS, name)), getattr(SETTINGS, name)
        options.add_argument(
            "--" + name.replace("_", "-"), type=kind, default=usual, help="of the fine-tuning [%(default)s]"
        )
    chosen = options.parse_args(arguments)
    check_counts(count=chosen.count, batch=chosen.batch, scenes=chosen.scenes)  # before the pipeline's hours
    settings = replace(SETTINGS, steps=chosen.steps, learning_rate=chosen.learning_rate, seed=chosen.seed)
    editor = load(chosen.model)
    size = picture_size(editor)
    pairs = pairs_of(*pipeline(chosen.folder, chosen.scenes, size))
    measured = {name: getattr(chosen, name) for name in ("split", "count", "seed")}
    results = list(
        measure_filtering(editor, pairs, batch=chosen.batch, settings=settings, adapter=chosen.adapter, **measured)
    )
    told, number = verdict(results), len(pairs[UNFILTERED])
    print(f"{number} pairs of each kind, from {chosen.scenes} scenes\n", table(results), sep="\n")
    print("", verdict_in_words(told), sep="\n")
    saved = measured | which_model(chosen.model, editor, without=OF_NO_MATTER)
    saved |= {"scenes": chosen.scenes, "pairs": number}
    saved |= {"settings": asdict(settings), "results": [each.to_dict() for each in results], "verdict": told}
    save_json(saved, chosen.output)
    shown = [sample_edit(i, split=chosen.split, size=size) for i in range(SHOWN)]
    save_figure(picture(results, shown), chosen.output.with_suffix(".png"), dpi=100)
    print("saved:", chosen.output, "and", chosen.output.with_suffix(".png"))


def _pair(row: Mapping[str, Any]) -> Pair:
    return Pair(opened(row["picture"]), opened(row["output"]), row["instruction"], row["type"])


if __name__ == "__main__":
    raise SystemExit(main())
