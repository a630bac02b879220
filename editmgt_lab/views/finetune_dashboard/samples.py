"""The samples of a fine-tuning dashboard: edited before the training and as it goes on, with every word's heat map."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from ...attention import capture_steps
from ...basics.words import words_of
from ...consolidation import consolidate, over_steps
from ...decoding import map_to_hold_by
from ...editor import Editor
from ...errors import SettingError, TextError
from ...images import Picture, fit_together, load_image
from ...inputs import check_texts, is_list
from ...plain_text import literal
from ...results import DecodeStep
from ...text import find_rows
from ...world import EditSample
from ..figures import title_lines
from ..overlays import heat_overlay
from ..turns import Cancelled
from ..widget import packed, png

if TYPE_CHECKING:  # it takes seconds to import
    from ...finetuning import Finetuner

MOST = 6
ALL = "all words"
SIDE, WIDTH = 1.3, 9  # inches of a picture in the figure, and of the figure
TITLE = 11  # points
LOSS, SMOOTHED, VALIDATION = "0.75", "#0072b2", "#d55e00"

Sample = EditSample | tuple[Picture, str]


class Shown(NamedTuple):
    """A sample: the picture as it was given, and fitted to the model's grid as source; target: None if not known."""

    image: Image.Image
    source: Image.Image
    target: Image.Image | None
    instruction: str


class Edits(NamedTuple):
    """The samples' edits after so many steps; heats: of the first sample, one for each word, float32 [words, h, w]."""

    step: int
    pictures: list[Image.Image]
    heats: np.ndarray

    def packed(self) -> dict[str, Any]:
        """For the page."""
        return {"step": self.step, "pictures": [png(each) for each in self.pictures], "heats": packed(self.heats)}


class Samples:
    """Fitted samples, of which `word` and every word of the first one's instruction can be localised.

    words: their names, `ALL` the first. Raises ImageError, TextError, and SettingError for too few or too many samples.
    """

    def __init__(self, editor: Editor, samples: Sequence[Sample], word: str | None):
        self.shown, self.word = _all_fitted(editor, samples), word or ALL
        self.edits: dict[str, Edits] = {}  # "before", "now"
        instructions = [sample.instruction for sample in self.shown]
        check_texts(instructions)
        spans = editor.text_encoder.tokenize(instructions)[-1]["offset_mapping"]  # of all: refuses one that is too long
        self._rows = {ALL: None}  # bool [1, L]
        for name in words_of(instructions[0]):
            with suppress(TextError):  # nobody asked for this one, and "Lego™" has no Lego of its own
                self._rows[name] = find_rows(name, instructions[:1], spans[:1])
        if word:
            self._rows[word] = find_rows(word, instructions[:1], spans[:1])
        self.words = list(self._rows)

    def check(self, editor: Editor, samples: Sequence[Sample], word: str | None) -> None:
        """Raises SettingError, or ImageError, for others than it was made of."""
        if _all_fitted(editor, samples) != self.shown or (word or ALL) != self.word:
            raise SettingError(
                "this finetuner's dashboard is open with other samples, or another word",
                expected="those that it was opened with",
                fix="close it first: a training under way goes on",
            )

    def edit(self, editor: Editor, step: int, ticket: threading.Event | None = None) -> Edits:
        """Edit all of them, in one batch if they are of one size; with the same seeds every time. Raises Cancelled
        once the ticket is set; it gives no turn away, since a newer work may wait for the weights that these have."""

        def on_step(_: DecodeStep) -> None:
            if ticket is not None and ticket.is_set():
                raise Cancelled

        together = len({sample.source.size for sample in self.shown}) == 1
        pictures, heats = [], []
        for part in [self.shown] if together else [[sample] for sample in self.shown]:
            made_of = editor.defaults
            with capture_steps(editor.transformer, made_of.blocks, made_of.heat_keys, made_of.heat_from) as steps:
                asked = [sample.image for sample in part], [sample.instruction for sample in part]
                pictures += editor.edit(*asked, seed=0, on_step=on_step).images
            if not heats:
                # The first sample's maps; with guidance the second half of a pass has the text.
                first = [step[-len(part) :][:1] for step in steps]
                seen = map_to_hold_by(made_of.hold_by, first[-1], over_steps(first))
                as_held = {"smooth": made_of.smooth, "heat_padding": made_of.heat_padding}
                heats = [
                    consolidate(seen, words=rows, **as_held)[0].float().cpu().numpy() for rows in self._rows.values()
                ]
        return Edits(step, pictures, np.stack(heats))

    def packed(self) -> dict[str, Any]:
        """For the page."""
        return {
            "samples": [
                {"said": each.instruction, "source": png(each.source), "target": each.target and png(each.target)}
                for each in self.shown
            ],
            "words": self.words,
            "ratio": self.shown[0].source.width / self.shown[0].source.height,
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """source_0, target_0, before_0, now_0, …: uint8 [H, W, 3]; heats_before, heats_now: float32 [words, h, w]."""
        arrays = {f"heats_{name}": edits.heats for name, edits in self.edits.items()}
        for place, sample in enumerate(self.shown):
            pictures = {name: edits.pictures[place] for name, edits in self.edits.items()}
            pictures |= {"source": sample.source} | ({"target": sample.target} if sample.target else {})
            arrays |= {f"{name}_{place}": np.asarray(picture) for name, picture in pictures.items()}
        return arrays

    def rows(self, word: str) -> list[tuple[str, list[tuple[Image.Image | np.ndarray, str]]]]:
        """For a figure: each sample's instruction with its pictures and captions; at last the word's heat maps."""
        edits = list(self.edits.values())
        rows = [
            (
                each.instruction,
                [
                    (each.source, "source"),
                    *((edit.pictures[place], f"step {edit.step}") for edit in edits),
                    *([(each.target, "target")] if each.target else []),
                ],
            )
            for place, each in enumerate(self.shown)
        ]
        source, number = self.shown[0].source, self.words.index(word)
        heats = [(heat_overlay(source, edit.heats[number]), f"step {edit.step}") for edit in edits]
        return [*rows, (f"heat map of “{word}”", heats)] if heats else rows


@literal
def finetune_figure(
    curves: np.ndarray, validations: np.ndarray, rows: Sequence[tuple[str, Sequence[tuple[Any, str]]]]
) -> Figure:
    """curves: loss, smoothed loss and learning rate, [steps, 3]; validations: step and loss, [n, 2]; rows: as of
    `Samples.rows`."""
    titles = [title_lines(title, WIDTH, TITLE) for title, _ in rows]
    heights = [2.6, *(SIDE + 0.55 + more for _, more in titles)]
    figure = plt.figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    top, *below = figure.subfigures(len(heights), height_ratios=heights)
    left, right = top.subplots(1, 2)
    steps = np.arange(1, len(curves) + 1)
    left.plot(steps, curves[:, 0], color=LOSS, linewidth=1, label="loss")
    left.plot(steps, curves[:, 1], color=SMOOTHED, label="smoothed")
    if len(validations):
        left.plot(*validations.T, "o-", color=VALIDATION, markersize=4, label="validation")
    left.legend(frameon=False)
    right.plot(steps, curves[:, 2], color=SMOOTHED)
    for axes, name in ((left, "loss (nats)"), (right, "learning rate")):
        axes.set(xlabel="step", ylabel=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
    for part, (title, _), (_, pictures) in zip(below, titles, rows, strict=True):
        part.suptitle(title, fontsize=TITLE, x=0.01, ha="left")
        for axes, shown in zip(part.subplots(1, 4), [*pictures, *[None] * (4 - len(pictures))], strict=True):
            _fill(axes, shown)
    plt.close(figure)
    return figure


def _fill(axes: Axes, shown: tuple[Any, str] | None) -> None:
    axes.set_axis_off()
    if shown:
        picture, caption = shown
        axes.imshow(picture, interpolation="antialiased")
        axes.set_title(caption, fontsize=10)


def _is_pair(sample: Any) -> bool:
    return is_list(sample) and len(sample) == 2


def _all_fitted(editor: Editor, samples: Sequence[Sample]) -> list[Shown]:
    if not is_list(samples) or not all(isinstance(each, EditSample) or _is_pair(each) for each in samples):
        raise SettingError(
            "these are no samples",
            expected="a list of edits of the drawn world, or of pairs of a picture and an instruction",
            fix="pass [(picture, instruction)], or [sample]",
        )
    if not 1 <= len(samples) <= MOST:
        raise SettingError(
            f"{len(samples)} samples",
            expected=f"1 to {MOST}: all of them are edited at every validation",
            fix="choose a few",
        )
    return [_fitted(editor, sample) for sample in samples]


def _fitted(editor: Editor, sample: Sample) -> Shown:
    if isinstance(sample, EditSample):
        source, target, instruction = sample.source, sample.target, sample.instruction
    else:
        (source, instruction), target = sample, None
    image = load_image(source)
    fitted = fit_together(image, target, pixels=editor.defaults.image_size, multiple=editor.multiple)
    return Shown(image, fitted.source, fitted.target, instruction)


def about(finetuner: Finetuner) -> str:
    """What is trained on what, in one sentence."""
    settings = finetuner.settings
    trained = sum(weight.numel() for weight in finetuner.trained)
    where = {"both": "both branches", "source": "the source's branch"}[settings.branch]
    how = f"a LoRA adapter of rank {settings.rank} on {where}" if settings.rank else "all weights of the transformer"
    old = f" and {len(finetuner.replay)} to replay" if finetuner.replay else ""
    return f"{len(finetuner.pairs)} pairs{old}, {settings.batch} in a step. Trained: {how}, {trained:,} numbers."
