"""One edit, recorded step by step in plain arrays: what the decode player and the attention explorer show."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ..basics.words import word_spans
from ..decoding import guide
from ..editor import NO_SOURCE, Editor
from ..errors import SettingError
from ..images import Picture, fit_together, square_side
from ..inputs import check_texts, listed
from ..results import DecodeStep, EditResult
from ..settings import Settings
from ..text import Focus
from .figures import code_colours
from .maps import AttentionMaps, Plan, Word, recorded_maps

TOP = 5
STATES = ("masked", "just decided", "held", "kept")
BATCH = 256  # codes decoded at a time

Progress = Callable[[int, int, str], None]  # done, of how many, what


@dataclass(frozen=True)
class Run:
    """A finished edit of one picture with everything that its K steps decided; the arrays are numpy's.

    previews: K pictures, as DecodeStep.preview gives them; source: as it was fitted, None for text to image.
    states: uint8 [K, h, w], an index into STATES, "held" only where a held cell has the source's token; sampled: int32
    [K, h, w], the tokens before the least confident were masked again; confidence: float32 [K, h, w], infinite where a
    token did not compete; candidates: int32 [K, h, w, 5], the most probable tokens, and probabilities: float32
    [K, h, w, 5]; taken: float32 [K, h, w], the probability of the sampled token; heat: float32 [K, h, w]; computed:
    uint8 [K, h, w], 1 where the step's pass computed the token, 0 where it came from the cache; source_tokens: int32
    [h, w] or None.
    focus, negative, reading: the words that were localised by, the text of the unguided half, and how the mask was
    read, None where there was none.
    codes: int32 [n], every token that occurs in these arrays; patches: uint8 [n, f, f, 3], what each decodes to;
    colours: uint8 [n, 3], similar codes in similar colours.
    """

    instruction: str
    settings: Settings
    source: Image.Image | None
    previews: list[Image.Image]
    states: np.ndarray
    sampled: np.ndarray
    confidence: np.ndarray
    candidates: np.ndarray
    probabilities: np.ndarray
    taken: np.ndarray
    heat: np.ndarray
    computed: np.ndarray
    source_tokens: np.ndarray | None
    codes: np.ndarray
    patches: np.ndarray
    colours: np.ndarray
    attention: AttentionMaps | None
    multi_modal: int
    focus: Focus | None = None
    negative: str | None = None
    reading: str | None = None

    @property
    def image(self) -> Image.Image:
        return self.previews[-1]

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything recorded, by name; the maps' names begin with attention_."""
        found = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        found |= {"source": np.asarray(self.source)} if self.source else {}
        found |= {"previews": np.stack([np.asarray(preview) for preview in self.previews])}
        maps = {} if self.attention is None else self.attention.arrays()
        return found | {f"attention_{name}": array for name, array in maps.items()}

    def described(self) -> dict[str, Any]:
        """What was asked for, what the axes of the maps mean, and in which picture the words' maps show where these
        look."""
        about = in_plain_values(self.instruction, self.settings, self.focus, self.negative, self.reading)
        about["states"] = STATES
        if self.attention is not None:
            plan = self.attention.plan
            about |= {"attention_words": [word.name for word in plan.words], "attention_blocks": plan.blocks}
            about |= {"attention_seen_in": {f"attention_{name}": picture for name, picture in plan.seen_in.items()}}
        return about


def in_plain_values(
    instruction: str, settings: Settings, focus: Focus | None, negative: str | None, reading: str | None
) -> dict[str, Any]:
    """What an edit was asked for: its instruction and all its settings, the seeds among them, and, where it had them,
    its focus words, its negative text, and how its mask was read."""
    more = {"focus": focus, "negative": negative, "mask": reading}
    return {"instruction": instruction} | asdict(settings) | {name: value for name, value in more.items() if value}


def asked_of(result: EditResult) -> dict[str, Any]:
    """What a finished edit was asked for, see `in_plain_values`; of a batch, the first."""
    asked, reading = result.call(), next(iter(result.readings), None)
    return in_plain_values(result.instructions[0], result.settings, asked.get("focus"), asked.get("negative"), reading)


def record(
    editor: Editor,
    image: Picture | EditResult | None,
    instruction: str = "",
    *,
    attention: bool | Sequence[int] = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Run:
    """Run an edit and record it; None in place of a picture makes one from the text alone.

    image: a picture, or a finished edit that is then repeated with its instruction and settings. attention: record the
    maps of these blocks, True for all of them; their memory is stated before anything runs. settings: as in
    `Editor.steps`. A picture from the text alone has nothing to hold: λ is 0.

    Raises a LabError for whatever `Editor.steps` refuses, for a mask or a λ above 0 without a picture, for maps that
    are too large, and for a finished edit that another result comes out of.
    """
    result = image if isinstance(image, EditResult) else None
    if result is not None:
        image, instruction, settings = _repeated(result, instruction, settings)
    check_texts([instruction])
    text = {name: settings.pop(name) for name in ("mask", "focus", "negative") if name in settings}
    if image is None and settings.get("hold_threshold") is None:
        settings["hold_threshold"] = 0
    chosen = Settings.choose(editor.defaults.without_source() if image is None else editor.defaults, 1, **settings)
    if image is None:
        _check_nothing_held(chosen, text.get("mask"))
    source = reading = None
    if image is not None:
        mask = next(iter(listed(text.get("mask"))), None)
        fitted = fit_together(image, None, mask, pixels=editor.defaults.image_size, multiple=editor.multiple)
        source, reading = fitted.source, fitted.reading

    plan, listening = None, nullcontext((None, lambda step: None))
    if attention is not False:
        words, length = word_rows(editor, instruction)
        blocks = range(len(editor.transformer.blocks)) if attention is True else attention
        plan = Plan.make(
            editor.transformer, words, blocks=blocks, steps=chosen.steps, token_grid=_token_grid(editor, source),
            text=length, pictures=1 if source is None or chosen.strength == 0 else 2,
        )  # fmt: skip
        listening = recorded_maps(editor.transformer, plan, length)
    title = "decoding" if plan is None else f"attention of {plan}"

    with tqdm(total=chosen.steps) if progress is None else nullcontext() as bar:
        progress = progress or _shown_by(bar)
        progress(0, chosen.steps, title)
        source_tokens = None if image is None else editor.tokenize(image)[0].int().cpu()
        found: list[dict[str, np.ndarray]] = []
        previews = []
        before = None
        with listening as (maps, keep), _listen(editor, chosen) as latest:
            for step in _steps(editor, image, instruction, chosen, text):
                keep(step.index)
                found.append(_taken_down(step, latest(), before))
                previews.append(step.preview() if step.single else step.preview()[0])
                before = step
                progress(step.index + 1, chosen.steps, title)
    arrays = {name: np.stack([each[name] for each in found]) for name in found[0]}
    if result is not None and not np.array_equal(arrays["sampled"][-1], result.tokens[0].numpy()):
        raise SettingError(
            "repeating this edit gave another picture",
            expected="the settings that it had, and the same model",
            fix="pass the picture and the instruction in place of the edit",
        )
    source_tokens = None if source_tokens is None else source_tokens.numpy()
    occurring = [arrays["candidates"], arrays["sampled"], *([] if source_tokens is None else [source_tokens])]
    codes = np.unique(np.concatenate([each.ravel() for each in occurring]))
    return Run(
        instruction=instruction, settings=chosen, source=source, previews=previews, source_tokens=source_tokens,
        codes=codes, patches=code_patches(editor, codes), colours=code_colours_8bit(editor)[codes],
        attention=maps, multi_modal=editor.transformer.config.num_layers, focus=text.get("focus"),
        negative=text.get("negative"), reading=reading, **arrays,
    )  # fmt: skip


@torch.no_grad()
def code_patches(editor: Editor, codes: np.ndarray, progress: Progress = lambda *_: None) -> np.ndarray:
    """What each code decodes to, uint8 [n, f, f, 3]: the middle of a 3×3 field of that code alone."""
    side, patches = editor.vq.config.factor, []
    for part in torch.from_numpy(codes).long().split(BATCH):
        progress(len(patches), len(codes), "decoding the codes")
        fields = part[:, None, None].expand(-1, 3, 3)
        patches += [np.asarray(image)[side : 2 * side, side : 2 * side] for image in editor.detokenize(fields)]
    return np.stack(patches)


def code_colours_8bit(editor: Editor) -> np.ndarray:
    """A colour for each code, uint8 [codes, 3]: similar codes, similar colours."""
    return np.rint(code_colours(editor.vq.quantize.embedding.weight) * 255).astype(np.uint8)


def word_rows(editor: Editor, instruction: str) -> tuple[list[Word], int]:
    """The words of an instruction with all their text rows, special tokens among them; and L, padding included. Every
    row belongs to one word: characters that a token covers together are one."""
    rows = editor.text_encoder.tokenize([instruction])[-1]
    offsets, mask = rows["offset_mapping"][0].tolist(), rows["attention_mask"][0].tolist()
    words: dict[tuple[int, int], Word] = {}
    spans = _joined(word_spans(instruction), offsets)
    for row, ((start, end), real) in enumerate(zip(offsets, mask, strict=True)):
        if not real:
            continue
        if start == end:
            words[-1, row] = Word("‹end›" if words else "‹start›", (row,), special=True)
            continue
        for span in spans:
            if start < span[1] and end > span[0]:
                known = words.get(span, Word(instruction[slice(*span)], ()))
                words[span] = Word(known.name, (*known.rows, row))
    return list(words.values()), len(mask)


def _joined(spans: list[tuple[int, int]], offsets: list[list[int]]) -> list[tuple[int, int]]:
    """The spans of words, those that a token covers together as one, or its attention would count for each of them."""
    for start, end in offsets:
        covered = [span for span in spans if start < span[1] and end > span[0]]
        if len(covered) > 1:
            both = (min(covered)[0], max(covered)[1])
            spans = [*(span for span in spans if span not in covered), both]
    return spans


def _repeated(result: EditResult, instruction: str, settings: dict) -> tuple[Image.Image | None, str, dict]:
    """The picture, instruction and settings of a finished edit; of a batch, the first."""
    return (result.sources or [None])[0], instruction or result.instructions[0], result.call() | settings


def _check_nothing_held(chosen: Settings, mask: Any) -> None:
    if chosen.hold_threshold > 0 or mask is not None:
        asked = f"hold_threshold is {chosen.hold_threshold:g}" if mask is None else "there is a mask"
        raise SettingError(
            f"{asked}, and no picture of which anything could be held",
            expected="a picture to edit, or a text alone",
            fix="pass the picture, or leave out hold_threshold and mask",
        )


def _steps(
    editor: Editor, image: Picture | None, instruction: str, chosen: Settings, text: dict[str, Any]
) -> Iterator[DecodeStep]:
    if image is None:
        return editor.decode(editor.prepare(NO_SOURCE, instruction, **chosen.call(), **text))
    return editor.steps(image, instruction, **chosen.call(), **text)


@contextmanager
def _listen(editor: Editor, chosen: Settings) -> Iterator[Callable[[], Tensor]]:
    """Inside the context, the call gives what this thread's newest step drew from: probabilities [h, w, codebook]."""
    thread, newest = threading.get_ident(), []

    def hear(module: torch.nn.Module, inputs: tuple, logits: Tensor) -> None:
        if threading.get_ident() == thread:
            newest[:] = [logits]

    def latest() -> Tensor:
        logits = newest[0].float()  # [1 or 2, codebook, h, w]
        logits = guide(logits, chosen.guidance_scale) if len(logits) == 2 else logits
        return (logits[0].movedim(0, -1) / chosen.token_temperature).softmax(dim=-1)

    hook = editor.transformer.register_forward_hook(hear)
    try:
        yield latest
    finally:
        hook.remove()


def _taken_down(step: DecodeStep, probabilities: Tensor, before: DecodeStep | None) -> dict[str, np.ndarray]:
    """One step's arrays, each with the shape that Run states, without K."""
    masked, kept, sampled = step.masked[0], step.kept[0], step.sampled[0]
    known = torch.zeros_like(masked) if before is None else ~before.masked[0]
    states = torch.where(known, 3, 1).where(~kept, 2).where(~masked, 0)
    top = probabilities.topk(min(TOP, probabilities.shape[-1]), dim=-1)
    taken = probabilities.gather(-1, sampled.to(probabilities.device)[..., None])[..., 0]
    fields = {
        "states": states.byte(), "sampled": sampled.int(), "confidence": step.confidence[0].float(),
        "candidates": top.indices.int(), "probabilities": top.values, "taken": taken, "heat": step.heat[0].float(),
        "computed": step.computed[0].byte(),
    }  # fmt: skip
    return {name: field.cpu().numpy() for name, field in fields.items()}


def _token_grid(editor: Editor, source: Image.Image | None) -> tuple[int, int]:
    side = square_side(editor.defaults.image_size, editor.multiple)
    width, height = (side, side) if source is None else source.size
    return height // editor.vq.config.factor, width // editor.vq.config.factor


def _shown_by(bar: tqdm) -> Progress:
    def show(done: int, total: int, title: str) -> None:
        bar.set_description(title)
        bar.update(done - bar.n)

    return show
