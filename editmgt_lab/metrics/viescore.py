"""VIEScore (Ku et al. 2024): a vision-language judge says how well an edit was done and how good it looks.

The judge answers two questions with numbers from 0 to 10. Semantic score (SC): the smaller of "was the instruction
followed?" and "was nothing else changed?", shown source and output. Quality score (PQ): the smaller of "does it look
natural?" and "is it free of artefacts?", shown the output alone. Overall: √(SC · PQ).

The questions below ask for the published parts in our words; a judge that is to be compared with published numbers
must be asked the published questions, which `ask` takes. An answer without scores raises: it is never replaced.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from PIL import Image

from ..errors import JudgeError

Judge: TypeAlias = Callable[[Sequence[Image.Image], str], str]  # pictures and a question → the answer, as text

HIGHEST = 10
OBJECT = re.compile(r'\{\s*"(?:[^"\\]|\\.)*"\s*:')  # how one begins in JSON
FORM = 'Answer with JSON only: {"score": [first, second], "reasoning": "one sentence"}, both numbers from 0 to 10.'
SEMANTIC = (
    "The first picture was to be edited as this instruction says: <instruction>\n"
    "The second picture is what came out; it may be the first one unchanged.\n"
    "First number: how far was the instruction carried out? 0 is not at all, 10 is completely.\n"
    "Second number: how much of everything else was left alone? 0 is another picture, 10 is nothing changed that should"
    f" not have.\n{FORM}"
)
QUALITY = (
    "Judge how this picture looks.\n"
    "First number: how natural is it, in its light, shadows and distances? 0 is not at all, 10 is like a photograph.\n"
    "Second number: how free is it of distortions, scratches, blurred or misshapen parts? 0 is full of them."
    f"\n{FORM}"
)


@dataclass(frozen=True)
class VIEScore:
    """semantic_parts: instruction followed, rest kept; quality_parts: naturalness, no artefacts; all in [0, 10]."""

    semantic_parts: tuple[float, ...]
    quality_parts: tuple[float, ...]

    @property
    def semantic(self) -> float:
        return min(self.semantic_parts)

    @property
    def quality(self) -> float:
        return min(self.quality_parts)

    @property
    def overall(self) -> float:
        return math.sqrt(self.semantic * self.quality)


def ask(
    judge: Judge,
    source: Image.Image,
    output: Image.Image,
    instruction: str,
    *,
    semantic: str = SEMANTIC,
    quality: str = QUALITY,
) -> VIEScore:
    """Ask a judge about one edit. semantic, quality: the questions, with <instruction> in place of the instruction.

    Raises JudgeError for an answer that holds no scores.
    """
    return VIEScore(
        semantic_parts=read_scores(judge([source, output], semantic.replace("<instruction>", instruction))),
        quality_parts=read_scores(judge([output], quality)),
    )


def read_scores(answer: str) -> tuple[float, ...]:
    """The two scores of a judge's answer: "score" of the last JSON object that has it, wherever that stands. Where none
    has, a list that stands alone in the answer, outside of braces.

    A single number counts as both. Raises JudgeError for anything else, and for scores outside [0, 10].
    """
    try:
        values = _said(answer)
    except RecursionError:  # braces in braces in braces
        values = None
    values = values if isinstance(values, list) else [values]
    numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool) and 0 <= v <= HIGHEST]
    if len(numbers) != len(values) or len(numbers) not in (1, 2):
        raise JudgeError(
            f"the judge's answer holds no scores: {answer.strip()[:200]!r}",
            expected='{"score": [first, second]} with numbers from 0 to 10',
            fix="ask again, or take a judge that keeps to the form; no score was made up",
        )
    return tuple(map(float, numbers))


def _said(answer: str) -> Any:
    """What an answer gives as its scores, unchecked; None where it gives nothing, or several lists."""
    scores: list[Any] = []
    decoder = json.JSONDecoder(object_hook=lambda content: scores.append(content.get("score")))  # inner objects first
    outside, place = "", 0  # of the objects
    while found := OBJECT.search(answer, place):
        try:
            end = decoder.raw_decode(answer, found.start())[1]
            outside += answer[place : found.start()]
        except ValueError:
            end = found.start() + 1
            outside += answer[place:end]
        place = end
    outside = re.sub(r"\{[^{}]*\}?", "", outside + answer[place:])
    lists = [_json_or_none(text) for text in re.findall(r"\[[^\[\]]*\]", outside)]
    scores, lists = ([each for each in found if each is not None] for found in (scores, lists))
    return scores[-1] if scores else lists[0] if len(lists) == 1 else None


def _json_or_none(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
