"""The measures of an edit, by name: what is compared with what, in which part, by which network.

A measure never stands alone: `Measure` carries its backbone, preprocessing and reference, and every table prints them.
L1, L2, DINO and CLIP-I reward doing nothing, so no table is without a *copy the source* row.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ..basics.fingerprints import fingerprint, function_fingerprint
from ..errors import LabError, SettingError
from ..images import fit_mask, to_tensor
from . import pixels
from .backbones import Backbone, cosine, direction, load_clip, load_dino, load_dinov2
from .lpips import LPIPS
from .viescore import Judge, VIEScore, ask

SOURCE, TARGET = "source", "target"
SOURCE_CAPTION, TARGET_CAPTION, INSTRUCTION = "source caption", "target caption", "instruction"
WHOLE, INSIDE, OUTSIDE = "whole", "inside", "outside"
PIXEL_MEASURES = {  # name → function, and how it is computed where its name does not say
    "L1": (pixels.l1, ""),
    "L2": (pixels.l2, "mean square"),
    "PSNR": (pixels.psnr, "peak 1"),
    "SSIM": (pixels.ssim, "Gaussian windows of 11 px, σ 1.5"),
}
TOOLS = {"LPIPS": "lpips", "CLIP-I": "clip", "CLIP-T": "clip", "CLIP-dir": "clip", "DINO": "dino", "DINOv2": "dinov2"}
JUDGED = {"VIEScore semantic": "semantic", "VIEScore quality": "quality", "VIEScore overall": "overall"}
LOWER_IS_BETTER = ("L1", "L2", "LPIPS")


@dataclass
class Comparison:
    """One output and all that it can be held against. Pictures are RGB and of the source's size, but for the target,
    which sets the size for what is compared with it. mask: "L", white where the edit is."""

    output: Image.Image
    source: Image.Image
    instruction: str
    target: Image.Image | None = None
    mask: Image.Image | None = None
    source_caption: str | None = None
    target_caption: str | None = None
    known: dict[Any, Any] = field(default_factory=dict, repr=False)  # what a network said of it already

    def picture(self, reference: str) -> Image.Image | None:
        return self.source if reference == SOURCE else self.target

    def text(self, reference: str) -> str | None:
        return {SOURCE_CAPTION: self.source_caption, TARGET_CAPTION: self.target_caption}.get(
            reference, self.instruction
        )

    def pair(self, reference: str) -> tuple[Tensor, Tensor] | None:
        """Output, resized to the reference if need be (bicubic, as PIL and so MagicBrush does), and reference."""
        picture = self.picture(reference)
        if picture is None:
            return None
        output = self.output if self.output.size == picture.size else self.output.resize(picture.size)
        both = self._once(("pair", reference), lambda: to_tensor([output, picture]))
        return both[0], both[1]

    def part(self, part: str, size: tuple[int, int]) -> Tensor | None:
        """bool [H, W] of a part, None for the whole. size: (height, width) in px."""
        if part == WHOLE or self.mask is None:
            return None
        inside = to_tensor(fit_mask(self.mask, size[::-1]))[0, 0] > 0.5
        return inside if part == INSIDE else ~inside

    def embedding(self, name: str, backbone: Any, what: str) -> Tensor | None:
        """[D] of the output, of a picture or of a text, computed once."""
        if what in (SOURCE_CAPTION, TARGET_CAPTION, INSTRUCTION):
            text = self.text(what)
            return None if text is None else self._once((name, what), lambda: backbone.embed_texts([text])[0])
        picture = self.output if what == "output" else self.picture(what)
        return None if picture is None else self._once((name, what), lambda: backbone.embed([picture])[0])

    def _once(self, key: Any, compute: Callable[[], Any]) -> Any:
        if key not in self.known:
            try:
                self.known[key] = compute()
            except LabError as error:  # a judge is not asked again until it answers
                self.known[key] = error
        if isinstance(self.known[key], LabError):
            raise self.known[key]
        return self.known[key]


@dataclass(frozen=True)
class Measure:
    """One number of one comparison. compute: NaN where there is nothing to measure, LabError where it fails."""

    name: str
    reference: str
    part: str
    backbone: str
    preprocessing: str
    compute: Callable[[Comparison], float] = field(repr=False)

    @property
    def key(self) -> str:
        return f"{self.name}, {self.reference}" + ("" if self.part == WHOLE else f", {self.part}")

    @property
    def better(self) -> str | None:
        """None for what tells no good from bad: how far an edit's inside is from its source."""
        if (self.reference, self.part) == (SOURCE, INSIDE):
            return None
        return "lower" if self.name in LOWER_IS_BETTER else "higher"

    def describe(self) -> dict[str, str | None]:
        """All but the function, for JSON."""
        return {
            name: getattr(self, name) for name in ("name", "reference", "part", "backbone", "preprocessing", "better")
        }


@dataclass
class Tools:
    """Where the networks come from: a local folder or a hub name each, None for none. judge: see viescore.

    `Tools(**backbones.PUBLISHED)` takes those of the papers from the hub.
    """

    clip: str | os.PathLike[str] | None = None
    dino: str | os.PathLike[str] | None = None
    dinov2: str | os.PathLike[str] | None = None
    lpips: str | os.PathLike[str] | None = None
    judge: Judge | None = None
    judge_name: str = "judge"
    device: torch.device | str = "cpu"

    @cached_property
    def _loaded(self) -> dict[str, Any]:
        return {}

    def get(self, name: str) -> Any:
        """The network, loaded when first asked for. Raises LabError where there is none, every time alike."""
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        if isinstance(self._loaded[name], LabError):
            raise self._loaded[name]
        return self._loaded[name]

    def fingerprints(self) -> dict[str, Any]:
        """Of every network that was loaded, and of the judge: what their numbers depend on."""
        found: dict[str, Any] = {
            name: network.fingerprint if isinstance(network, Backbone) else fingerprint(network)
            for name, network in self._loaded.items()
            if not isinstance(network, LabError)
        }
        return found | ({} if self.judge is None else {"judge": function_fingerprint(self.judge)})

    def _load(self, name: str) -> Any:
        source = getattr(self, name)
        load = {"clip": load_clip, "dino": load_dino, "dinov2": load_dinov2, "lpips": LPIPS.from_pretrained}[name]
        if source is None:
            return SettingError(
                f"no {name} network was given",
                expected="a local folder or a hub name",
                fix=f"pass one: --{name} FOLDER",
            )
        try:
            return load(source, device=self.device)
        except LabError as error:
            return error


Plan = Sequence[tuple[str, str]]  # (name of a measure, what to compare with), in the order of the table


def tools_of(plan: Plan) -> set[str]:
    """Which of the tools some measure of a plan asks: fields of `Tools`."""
    return {"judge" if name in JUDGED else TOOLS[name] for name, _ in plan if name in (*JUDGED, *TOOLS)}


def build_measures(plan: Plan, tools: Tools, *, masks: bool = False) -> tuple[list[Measure], dict[str, str]]:
    """The measures of a plan, and for each that cannot be had its key → why and what to do.

    masks: whether masks are known, so that pixels and LPIPS are measured inside and outside them as well.
    """
    measures: list[Measure] = []
    absent = {}
    for name, reference in plan:
        parts = (WHOLE, INSIDE, OUTSIDE) if masks and name in (*PIXEL_MEASURES, "LPIPS") else (WHOLE,)
        try:
            measures += [_build(name, reference, part, tools) for part in parts]
        except LabError as error:
            absent[f"{name}, {reference}"] = f"{error.problem}; to do: {error.fix}"
    return measures, absent


def evaluate_comparison(measures: Iterable[Measure], comparison: Comparison) -> tuple[dict[str, float], dict[str, str]]:
    """key → value of all measures, and key → what went wrong for those that failed."""
    values, failed = {}, {}
    for measure in measures:
        try:
            values[measure.key] = measure.compute(comparison)
        except LabError as error:
            failed[measure.key] = error.problem
    return values, failed


def _build(name: str, reference: str, part: str, tools: Tools) -> Measure:
    if name in PIXEL_MEASURES:
        function, note = PIXEL_MEASURES[name]
        return Measure(
            name, reference, part, "pixels in [0, 1]", note, lambda case: _pixels(function, case, reference, part)
        )
    if name in JUDGED:
        if tools.judge is None:
            raise SettingError(
                "no judge was given", expected="a vision-language model", fix="pass --judge MODULE:FUNCTION"
            )
        return Measure(
            name, reference, part, tools.judge_name, "512² px", lambda case: getattr(_judge(tools, case), JUDGED[name])
        )
    if name not in TOOLS:
        raise SettingError(
            f"unknown measure {name!r}",
            expected=f"one of {[*PIXEL_MEASURES, *TOOLS, *JUDGED]}",
            fix="name one of these",
        )
    network = tools.get(TOOLS[name])
    if name == "LPIPS":
        return Measure(
            name, reference, part, f"{network.network} (LPIPS 0.1)", "pixels in [-1, 1], as large as they are",
            lambda case: _lpips(network, case, reference, part),
        )  # fmt: skip
    if name == "CLIP-dir":
        compute = lambda case: _direction(network, case)  # noqa: E731
    else:
        tool = TOOLS[name]
        compute = lambda case: _cosine(network, tool, case, reference)  # noqa: E731
    note = str(network.preprocessing)
    if name in ("CLIP-T", "CLIP-dir"):
        note += f"; texts are cut after {network.longest} tokens"
    return Measure(name, reference, part, network.name, note, compute)


def _pixels(function: Callable[..., float], case: Comparison, reference: str, part: str) -> float:
    pair = case.pair(reference)
    if pair is None or (part != WHOLE and case.mask is None):
        return math.nan
    return function(*pair, case.part(part, pair[0].shape[-2:]))


def _lpips(network: LPIPS, case: Comparison, reference: str, part: str) -> float:
    pair = case.pair(reference)
    if pair is None or (part != WHOLE and case.mask is None) or min(pair[0].shape[-2:]) < network.smallest:
        return math.nan
    device = next(network.parameters()).device
    output, other = (picture[None].to(device) for picture in pair)
    if part == WHOLE:
        return network(output, other).item()
    distances = case._once(("lpips", reference), lambda: network.spatial(output, other)[0].cpu())
    return pixels.mean_where(distances, case.part(part, pair[0].shape[-2:]))


def _cosine(network: Any, tool: str, case: Comparison, reference: str) -> float:
    output, other = case.embedding(tool, network, "output"), case.embedding(tool, network, reference)
    return math.nan if other is None else cosine(output, other)


def _direction(network: Any, case: Comparison) -> float:
    before, after = (case.embedding("clip", network, text) for text in (SOURCE_CAPTION, TARGET_CAPTION))
    source, output = (case.embedding("clip", network, picture) for picture in (SOURCE, "output"))
    return math.nan if before is None or after is None else direction(source, output, before, after)


def _judge(tools: Tools, case: Comparison) -> VIEScore:
    def about(image: Image.Image) -> Image.Image:  # 512² px of area, as GEdit's authors show them
        scale = 512 / math.sqrt(image.width * image.height)
        return image.resize((max(1, int(image.width * scale)), max(1, int(image.height * scale))))

    return case._once("judge", lambda: ask(tools.judge, about(case.source), about(case.output), case.instruction))
