"""`python -m editmgt_lab.studies.skills`: what fine-tuning teaches a model in some minutes, and what it forgets.

Each of the world's SKILLS is learned from the model as it ships, with all weights and with a LoRA adapter, and tried on
scenes that were in no training; so are the old categories, before and after. All of them are tried without hold, which
shows what the network has learned, and with the model's default hold, whose λ was chosen for what it knew before.
Nothing is chosen by the test split.
"""

from __future__ import annotations

import copy
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from tqdm.auto import tqdm

from ..basics.checks import check_counts
from ..data.tokens import TokenPairs
from ..editor import Editor
from ..errors import command
from ..finetuning import Finetuner, FinetuneSettings, save_adapter
from ..finetuning.drawn import old_pairs, skill_pairs
from ..images import to_tensor
from ..loading import load
from ..metrics.arithmetic import summary
from ..metrics.report import align, cell, gallery, save_figure, save_json
from ..metrics.truth import Scores, Truth, picture_size
from ..world import SKILLS, EditSample, sample_edit, sample_skill
from .options import measuring, which_model

WAYS = {"all weights": FinetuneSettings(), "LoRA": FinetuneSettings(rank=7, learning_rate=5e-3)}
REPLAY = 256  # old edits of the training split that are mixed in
PASSED, LOST, ALIKE, SHARE = 0.8, 0.03, 0.05, 0.05  # what is asked for: see `verdicts`


@dataclass(frozen=True)
class Lesson:
    """One skill learned in one way, and tried under one hold.

    hold: λ, 0 for none; before, after: success of each unseen edit of the skill; old_before, old_after: of the old
    categories' edits; seconds: of training; share: of the transformer's weights that learned; example: source, edit
    before, edit after and target of the first edit.
    """

    skill: str
    way: str
    hold: float
    before: list[float]
    after: list[float]
    old_before: list[float]
    old_after: list[float]
    seconds: float
    share: float
    example: tuple[Image.Image, ...]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: means with their 95% intervals in place of single edits, and no pictures."""
        figures = {name: summary(getattr(self, name)) for name in ("before", "after", "old_before", "old_after")}
        named = {name: getattr(self, name) for name in ("skill", "way", "hold", "seconds", "share")}
        return named | figures


def answers(
    editor: Editor, samples: Sequence[EditSample], *, hold: float = 0.0, seed: int = 0, batch: int = 20
) -> tuple[list[Scores], list[Image.Image]]:
    """Scores and pictures of the editor's answers; edit i decodes with seed + i. hold: λ. Raises SettingError."""
    check_counts(batch=batch)
    scores, pictures = [], []
    for start in range(0, len(samples), batch):
        part = list(samples[start : start + batch])
        truth = Truth.of(editor, range(start, start + len(part)), part)
        result = truth.edit(editor, seed, hold_threshold=hold)
        scores += truth.scores(to_tensor(result.images))
        pictures += result.images
    return scores, pictures


def teach(
    editor: Editor, pairs: TokenPairs, settings: FinetuneSettings, *, replay: TokenPairs | None = None
) -> tuple[Editor, float]:
    """A copy of the editor that has learned these pairs, and the seconds that the training took."""
    taught = copy.deepcopy(editor)
    tuner = Finetuner(taught, pairs, settings, replay=replay)
    started = time.monotonic()
    tuner.run()
    return taught, time.monotonic() - started


def measure_skills(
    editor: Editor,
    *,
    skills: Sequence[str] = tuple(SKILLS),
    ways: Sequence[str] = tuple(WAYS),
    split: str = "test",
    count: int = 50,
    old_count: int = 200,
    batch: int = 20,
    seed: int = 0,
    steps: int = FinetuneSettings().steps,
    adapters: Path | None = None,
) -> Iterator[Lesson]:
    """Every skill in each of these WAYS, on `count` unseen edits of the skill and `old_count` of the old categories,
    with no hold and with the editor's own: two lessons for one training.

    steps: of every training. adapters: a folder to keep the adapters in, by skill. Raises SettingError for a count or
    batch below 1.
    """
    check_counts(count=count, old_count=old_count, batch=batch)
    size, holds = picture_size(editor), sorted({0.0, editor.defaults.hold_threshold})
    old = [sample_edit(i, split=split, size=size) for i in range(old_count)]
    tried = {skill: [sample_skill(i, skill, split=split, size=size) for i in range(count)] for skill in skills}

    def ask(asked: Editor, samples: Sequence[EditSample]) -> dict[float, tuple[list[float], Image.Image]]:
        """Under every hold: the successes, and the first picture."""
        found = {}
        for hold in holds:
            scores, pictures = answers(asked, samples, hold=hold, seed=seed, batch=batch)
            found[hold] = [each.success for each in scores], pictures[0]
        return found

    old_before, replay = ask(editor, old), old_pairs(editor, REPLAY)
    for skill in tqdm(skills, desc="skills", unit="skill"):
        before = ask(editor, tried[skill])
        for way in ways:
            settings = replace(WAYS[way], steps=steps, seed=seed)
            taught, seconds = teach(editor, skill_pairs(editor, skill), settings, replay=replay)
            if adapters and settings.rank:
                save_adapter(taught.transformer, adapters / skill)
            after, old_after = ask(taught, tried[skill]), ask(taught, old)
            learned = sum(p.numel() for p in taught.transformer.parameters() if p.requires_grad)
            share = learned / sum(p.numel() for p in editor.transformer.parameters())
            for hold in holds:
                (successes, first), (later, last) = before[hold], after[hold]
                example = (tried[skill][0].source, first, last, tried[skill][0].target)
                olds = old_before[hold][0], old_after[hold][0]
                yield Lesson(skill, way, hold, successes, later, *olds, seconds, share, example)


def table(lessons: Sequence[Lesson]) -> str:
    """Plain text: every lesson, success in % with its 95% interval."""
    lines = [["skill", "way", "hold", "before", "after", "old before", "old after", "weights", "seconds"]]
    for lesson in lessons:
        figures = lesson.to_dict()
        cells = [cell(figures[name], 100, 0) for name in ("before", "after", "old_before", "old_after")]
        lines.append([lesson.skill, lesson.way, held(lesson), *cells, f"{lesson.share:.1%}", f"{lesson.seconds:.0f}"])
    return align(lines, left=2)


def held(lesson: Lesson) -> str:
    return f"λ = {lesson.hold:g}" if lesson.hold else "no hold"


def measured_in_all(*values: Sequence[float]) -> np.ndarray:
    """Values of the same edits in several ways, [ways, edits], of those edits that have one in every way."""
    known = np.array(values, float)
    return known[:, np.isfinite(known).all(axis=0)]


def verdicts(lessons: Sequence[Lesson]) -> str:
    """What is asked of a lesson, and by which it is met: from nothing to most, little lost, LoRA about as good.

    Edits without a success are left out of every comparison.
    """

    def points(*values: Sequence[float]) -> float:
        """The mean in %, or of two ways its difference; NaN where no edit is left."""
        known = measured_in_all(*values)
        if not known.size:
            return float("nan")
        first, *other = (100 * known.mean(axis=1)).tolist()
        return round(first - sum(other), 7)  # 90 - 87 may be a little more than 3

    def told(value: float, form: str, wanted: str, holds: bool) -> str:
        if np.isnan(value):
            return f"–{wanted}: not measured"
        return f"{value:{form}}{wanted}: {'yes' if holds else 'NO'}"

    full = {(lesson.skill, lesson.hold): lesson.after for lesson in lessons if lesson.way == "all weights"}
    lines = []
    for lesson in lessons:
        after, lost = points(lesson.after), points(lesson.old_before, lesson.old_after)
        checks = [told(after, ".0f", f"% ≥ {PASSED:.0%}", after >= 100 * PASSED)]
        checks += [told(lost, "+.1f", " points lost ≤ 3", lost <= 100 * LOST)]
        if lesson.way != "all weights" and (lesson.skill, lesson.hold) in full:
            below = points(full[lesson.skill, lesson.hold], lesson.after)
            checks += [told(below, "+.0f", " points below all weights ≤ 5", below <= 100 * ALIKE)]
            checks += [told(lesson.share, ".1%", " of the weights ≤ 5%", lesson.share <= SHARE)]
        lines.append(f"{lesson.skill}, {lesson.way}, {held(lesson)}: {'; '.join(checks)}")
    return "\n".join(lines)


def picture(lessons: Sequence[Lesson]) -> Figure:
    """One line for each skill and hold: the first unseen edit before and after, beside its target, in both ways."""
    lines = defaultdict(list)
    for each in lessons:
        lines[each.skill, each.hold].append((f"{each.skill}, {each.way}, {held(each)}", each.example))
    return gallery("What fine-tuning taught", list(lines.values()), ("source", "before", "after", "target"))


@command
def main(arguments: list[str] | None = None) -> None:
    """Print the table and what is met, save JSON and picture."""
    output = Path("outputs") / "skills.json"
    parser = measuring(__doc__, count=50, counted="unseen edits of each skill", output=output)
    parser.add_argument("--old-count", type=int, default=200, help="edits of the old categories [%(default)s]")
    parser.add_argument("--skills", nargs="+", default=list(SKILLS), choices=list(SKILLS))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    steps = FinetuneSettings().steps
    parser.add_argument("--steps", type=int, default=steps, help="of every training [%(default)s]")
    parser.add_argument("--adapters", type=Path, help="folder to keep the adapters in")
    options = parser.parse_args(arguments)
    measured = {
        name: getattr(options, name) for name in ("skills", "ways", "steps", "split", "count", "old_count", "seed")
    }
    lessons, editor = [], load(options.model)
    for lesson in measure_skills(editor, batch=options.batch, adapters=options.adapters, **measured):
        lessons.append(lesson)
        tqdm.write(verdicts(lessons).splitlines()[-1])
    print(table(lessons), verdicts(lessons), sep="\n\n")
    ways = {way: asdict(replace(WAYS[way], steps=options.steps)) for way in options.ways}
    saved = {"settings": measured | which_model(options.model, editor) | {"ways": ways, "replay": REPLAY}}
    saved |= {"lessons": [lesson.to_dict() for lesson in lessons]}
    save_json(saved, options.output)
    save_figure(picture(lessons), options.output.with_suffix(".png"), dpi=100)
    print("saved:", options.output, "and", options.output.with_suffix(".png"))


if __name__ == "__main__":
    raise SystemExit(main())
