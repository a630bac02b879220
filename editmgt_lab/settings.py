"""The settings of an edit: the model's own defaults, and the checks that come before any network runs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from inspect import signature
from numbers import Integral
from pathlib import Path
from typing import Any

import torch

from .attention import check_mapped
from .basics.checks import check_name, check_number, check_switch, whole_numbers
from .basics.folders import write_text
from .checkpoints import read_json
from .decoding import COLDEST, DRAWS, HOLD_BY, HOLDS, MOST_STEPS, ORDERS, temperatures
from .errors import CheckpointError, SettingError

DEFAULTS_FILE = "lab.json"
LARGEST = 8192  # px, image_size: the side of the largest picture that is taken
MOST_SEED = 2**63 - 1
STRONGEST = 10.0  # γ; log γ is added to the attention, so more drowns everything else


@dataclass(frozen=True)
class Defaults:
    """What a model is used with unless the call says otherwise.

    image_size: side of the model's square in px; hold_threshold: λ; strength: γ of the injection; guidance_scale: of an
    edit, 1 is off; caption_guidance_scale: of text to image; token_temperature: of the draw of tokens; draw: how they
    are drawn, a name in decoding.DRAWS; blocks: those whose attention makes the heat map, multi-modal first; hold: a
    name in decoding.HOLDS (see RegionHoldSampler); hold_by: the heat map to hold by, each "step"'s own, as in the
    released code, or the "mean" of the steps so far; bias_text: whether the injection bias touches text as well (see
    MaskedGenerativeTransformer.forward); smooth: whether the heat map passes the adaptive filter (see consolidate);
    heat_from: the picture in which the text's attention is mapped, "image", "source" or "both"; heat_keys: of the
    attention behind the heat map, as capture_attention takes them; heat_padding: whether, without focus words, padded
    text rows count in it. The released code's own heat map has heat_keys "generated", which allows heat_from "image"
    alone, and heat_padding True; that is not the attention that the model used.

    The other values here are the released model's: its code's inference settings for 1024 px. That code edits alone, so
    that captions have the guidance scale of its edits. A checkpoint folder may hold others, in `lab.json`.
    """

    image_size: int = 1024
    hold_threshold: float = 0.01
    strength: float = 1.1
    steps: int = 36
    guidance_scale: float = 6.0
    caption_guidance_scale: float = 6.0
    token_temperature: float = 1.0
    draw: str = "race"
    blocks: tuple[int, ...] = tuple(range(28, 37))
    hold: str = "released"
    hold_by: str = "step"
    bias_text: bool = True
    smooth: bool = True
    heat_from: str = "image"
    heat_keys: str = "all"
    heat_padding: bool = False

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Defaults:
        """From the folder's lab.json where there is one, else the released model's. Raises CheckpointError."""
        file = Path(folder) / DEFAULTS_FILE
        values = read_json(file) if file.exists() else {}
        unknown = sorted(values.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise CheckpointError(
                f"{file} holds unknown keys {unknown}",
                expected=f"some of {[field.name for field in fields(cls)]}",
                fix="remove them",
            )
        defaults = cls(**values)
        size, blocks = defaults.image_size, defaults.blocks
        if not isinstance(size, int) or size < 1 or not isinstance(blocks, (list, tuple)):
            raise CheckpointError(
                f"{file} holds image_size {size!r} and blocks {blocks!r}",
                expected="a size in px and a list of block numbers",
                fix="correct it, or remove the file to use the released model's defaults",
            )
        return replace(defaults, blocks=tuple(blocks))

    def changed(self, values: Mapping[str, Any]) -> Defaults:
        """These with other values. Raises SettingError for a name that is no field."""
        for name in values:
            check_name(name, "default", [field.name for field in fields(self)])
        return replace(self, **values)

    def without_source(self) -> Defaults:
        """These for text to image."""
        return replace(self, guidance_scale=self.caption_guidance_scale)

    def to_dict(self) -> dict[str, Any]:
        """The content of lab.json."""
        return asdict(self)

    def write(self, folder: Path) -> None:
        """Into the folder's lab.json. Raises DiskError."""
        write_text(folder / DEFAULTS_FILE, json.dumps(self.to_dict(), indent=2) + "\n")


@dataclass(frozen=True)
class Settings:
    """Every setting that one decoding ran with, checked. seeds: one for each picture."""

    hold_threshold: float
    strength: float
    steps: int
    guidance_scale: float
    temperature: tuple[float, float]
    token_temperature: float
    blocks: tuple[int, ...]
    seeds: tuple[int, ...]
    hold: str
    hold_by: str
    bias_text: bool
    smooth: bool
    heat_keys: str
    heat_padding: bool
    heat_from: str
    order: str
    draw: str
    revise: float
    refresh_every: int

    @classmethod
    def choose(
        cls,
        defaults: Defaults,
        pictures: int,
        *,
        hold_threshold: float | None = None,
        strength: float | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        temperature: float | tuple[float, float] = (2.0, 0.0),
        token_temperature: float | None = None,
        blocks: int | Sequence[int] | None = None,
        seed: int | Sequence[int] | None = None,
        order: str = "confidence",
        draw: str | None = None,
        revise: float = 0.0,
        refresh_every: int = 1,
        heat_from: str | None = None,
    ) -> Settings:
        """The settings of a call; None is the model's own default. Raises SettingError for one out of range."""
        hold_threshold = defaults.hold_threshold if hold_threshold is None else hold_threshold
        strength = defaults.strength if strength is None else strength
        steps = defaults.steps if steps is None else steps
        guidance_scale = defaults.guidance_scale if guidance_scale is None else guidance_scale
        token_temperature = defaults.token_temperature if token_temperature is None else token_temperature
        draw = defaults.draw if draw is None else draw
        blocks = defaults.blocks if blocks is None else blocks
        heat_from = defaults.heat_from if heat_from is None else heat_from
        check_number(hold_threshold, "hold_threshold (λ)", 0, 1, "0 holds nothing, 1 nearly everything")
        check_number(strength, "strength (γ)", 0, STRONGEST, "1 is the plain attention, 1.1 closer to the source")
        for name, value in (
            ("guidance_scale", guidance_scale),
            ("caption_guidance_scale", defaults.caption_guidance_scale),
        ):
            check_number(value, name, 1, math.inf, "1 is off; 3 to 9 are usual")
        check_number(token_temperature, "token_temperature", COLDEST, math.inf, "1 as the network says, less is surer")
        check_number(steps, "steps", 1, MOST_STEPS, "12 to 36 are usual", whole=True)
        check_number(defaults.image_size, "image_size", 1, LARGEST, "the side of the model's square in px", whole=True)
        check_number(revise, "revise", 0, 1, "0 revises nothing; 0.01 masks what has become very improbable again")
        check_number(refresh_every, "refresh_every", 1, MOST_STEPS, "1 computes all, always; 3 is faster", whole=True)
        for name in ("bias_text", "smooth", "heat_padding"):
            check_switch(getattr(defaults, name), name)
        for name, value, known in (
            ("hold", defaults.hold, HOLDS),
            ("hold_by", defaults.hold_by, HOLD_BY),
            ("order", order, ORDERS),
            ("draw", draw, DRAWS),
        ):
            check_name(value, name, known)
        check_mapped(heat_from, defaults.heat_keys, names=("heat_from", "heat_keys"))
        return cls(
            hold_threshold=float(hold_threshold),
            strength=float(strength),
            steps=int(steps),
            guidance_scale=float(guidance_scale),
            temperature=temperatures(temperature),
            token_temperature=float(token_temperature),
            blocks=whole_numbers(blocks, "blocks"),
            seeds=_seeds(seed, pictures),
            hold=defaults.hold,
            hold_by=defaults.hold_by,
            bias_text=defaults.bias_text,
            smooth=defaults.smooth,
            heat_keys=defaults.heat_keys,
            heat_padding=defaults.heat_padding,
            heat_from=heat_from,
            order=order,
            draw=draw,
            revise=float(revise),
            refresh_every=int(refresh_every),
        )

    def call(self) -> dict[str, Any]:
        """The keyword arguments of `Editor.edit` that ask for these settings again."""
        of_the_model = {field.name for field in fields(Defaults)} - signature(Settings.choose).parameters.keys()
        mine = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: mine[name] for name in mine if name not in {"seeds", *of_the_model}} | {"seed": self.seeds}


def _seeds(seed: Any, pictures: int) -> tuple[int, ...]:
    if seed is None:
        return tuple(torch.randint(2**31, (pictures,)).tolist())
    seeds = whole_numbers(seed, "seed")
    if isinstance(seed, Integral):
        seeds *= pictures
    if len(seeds) != pictures:
        raise SettingError(
            f"{len(seeds)} seeds for {pictures} pictures", expected="one for each, or one for all", fix="pass one"
        )
    for value in seeds:
        check_number(value, "seed", 0, MOST_SEED, "any number will do: the same one repeats a picture", whole=True)
    return seeds
