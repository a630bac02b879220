"""Instructions, focus words and negative texts from all of Unicode; settings of every type and size."""

from __future__ import annotations

import math
import random
from numbers import Integral
from typing import Any

import torch

import editmgt_lab as lab
from editmgt_lab.basics.words import occurrences, words_of

from ..bench import INSTRUCTION, Bench
from ..case import Black, Kind, Wrong
from ..values import NUMBERS, anything, number, real, text

# Texts


def make_text(dice: random.Random) -> Any:
    recipe: dict[str, Any] = {"instruction": text(dice)}
    way = dice.random()
    if way < 0.2:
        recipe["focus"] = dice.choice((text(dice), [text(dice)], [text(dice), "ball"], anything(dice)))
    elif way < 0.4:  # a piece of the instruction itself
        recipe["piece"] = [dice.random(), dice.choice((1, 2, 5))]
    elif way < 0.5:
        recipe["negative"] = dice.choice((text(dice), [text(dice), text(dice)], anything(dice)))
    elif way < 0.6:
        recipe["instruction"] = dice.choice((anything(dice), [text(dice), text(dice)]))
    elif way < 0.65:
        recipe["shown"] = True
    return recipe


def run_text(recipe: Any, bench: Bench) -> None:
    instruction, options = real(recipe.get("instruction", INSTRUCTION)), {}
    if "piece" in recipe and isinstance(instruction, str):
        start = int(recipe["piece"][0] * len(instruction))
        options["focus"] = instruction[start : start + recipe["piece"][1]]
    options |= {name: real(recipe[name]) for name in ("focus", "negative") if name in recipe}
    task = bench.editor.prepare(bench.picture(), instruction, **options)
    if not task.text.tokens.isfinite().all() or len(task.instructions) != len(task.start):
        raise Wrong("the text has no numbers")
    if task.words is not None and not task.words.any(dim=-1).all():
        raise Wrong("the focus word has no row")
    for each in task.instructions:
        if any(not occurrences(word, each) for word in words_of(each)[:5]):
            raise Wrong("an error would name a word that cannot be found")
    if recipe.get("shown"):
        from editmgt_lab.views import edit_figure

        edited = bench.editor.edit(bench.picture(), instruction, steps=1, seed=0, **options)
        edit_figure(edited).canvas.draw()


# Settings

ARGUMENTS = (
    "hold_threshold", "strength", "steps", "guidance_scale", "temperature", "token_temperature", "seed", "blocks",
)  # fmt: skip
DEFAULTS = (
    "image_size",
    "hold_threshold",
    "guidance_scale",
    "token_temperature",
    "blocks",
    "hold",
    "bias_text",
    "smooth",
    "hold_by",
)
LOADS = {  # what `load` takes, and what is close to it
    "device": ("cpu", "cpu", "cpu:0", "cpu:1", "CPU", " cpu", "cuda:99", "meta", "xpu"),
    "dtype": ("float16", "half", "bfloat16", "torch.float32", "float64", "int8", "complex64", "float8_e4m3fn"),
    "offload": (True, False, 1), "compiled": (True, False, "no"),
}  # fmt: skip
LONG = {"steps": range(40, 10_001), "image_size": range(129, 8193)}  # what is taken, and takes its time


def make_setting(dice: random.Random) -> Any:
    call = dice.choice(("edit", "edit", "edit", "steps", "generate", "defaults", "load", "sample", "tokens", "batch"))
    names = {
        "generate": ("steps", "guidance_scale", "seed", "token_temperature"), "defaults": DEFAULTS,
        "load": tuple(LOADS), "sample": ("seed", "split", "category", "size"),
        "tokens": ("shape", "fill"),
        "batch": ("pictures", "instructions", "seed"),
    }.get(call, ARGUMENTS)  # fmt: skip
    chosen = {name: setting(dice) for name in dice.sample(names, dice.randint(1, min(3, len(names))))}
    if call == "load":
        chosen = {name: dice.choice((value, *[dice.choice(LOADS[name])] * 3)) for name, value in chosen.items()}
        chosen |= {"source": setting(dice)} if dice.random() < 0.2 else {}
    if call == "tokens":
        sides = [
            dice.choice((*NUMBERS[:9], 2**40)) if dice.random() < 0.2 else dice.choice((0, 1, 2, 8, 32, -1))
            for _ in range(3)
        ]
        chosen = {"shape": sides[: dice.randint(0, 3)], "fill": dice.choice((0, 31, 32, 39, 40, -1, 2**40, 0.5))}
    if call == "batch":
        chosen |= {"pictures": dice.randint(0, 3), "instructions": dice.randint(0, 3)}
    return {"call": call, "settings": chosen}


def setting(dice: random.Random) -> Any:
    if dice.random() < 0.4:
        return dice.choice((0, 0.5, 1, 1.0, 1.5, 2, 3, 10.0, None, [0], [1, 2], [2.0, 0.0], [0, 1, 2]))
    value = dice.choice((number(dice), number(dice), anything(dice)))
    return dice.choice((value, value, [value], [number(dice), number(dice)]))


def run_setting(recipe: Any, bench: Bench) -> None:
    call, settings = recipe.get("call", "edit"), {name: real(each) for name, each in recipe.get("settings", {}).items()}
    editor, picture = bench.editor, bench.picture()
    if call == "load":
        loaded = lab.load(**{"source": bench.tiny} | settings)
        held = {value.dtype for value in loaded.transformer.parameters()}
        kinds = {"half": torch.float16} | {name: getattr(torch, name) for name in ("float16", "bfloat16", "float64")}
        if "source" not in settings and held != {kinds.get(str(settings.get("dtype")), torch.float32)}:
            raise Wrong(f"weights are {held}")
        return
    if call == "sample":
        sample = lab.world.sample_edit(**{"seed": 0, "size": 32} | settings)
        if sample.source.size != sample.target.size or not sample.instruction:
            raise Wrong("a sample that is none")
        return
    if call == "tokens":
        shape, fill = settings.get("shape", []), settings.get("fill", 0)
        shape = [1, 2, 2] if 4096 < math.prod(shape) <= 2**26 else shape  # what is taken, and takes its memory
        pictures = editor.detokenize(torch.tensor(fill).expand(shape) if all(s >= 0 for s in shape) else shape)
        if len(pictures) != shape[0]:
            raise Wrong(f"{len(pictures)} pictures")
        return
    for name, values in LONG.items():
        if isinstance(settings.get(name), Integral) and settings[name] in values:
            settings[name] = 3
    if call == "defaults":
        editor, settings = editor.with_defaults(**settings), {}
    settings = {"steps": 2} | settings
    if call == "generate":
        check(editor.generate(INSTRUCTION, **settings), editor)
    elif call == "steps":
        list(editor.steps(picture, INSTRUCTION, **settings))
    elif call == "batch":
        pictures, texts = settings.pop("pictures", 1), settings.pop("instructions", 1)
        check(editor.edit([picture] * pictures, [INSTRUCTION] * texts, **settings), editor)
    else:
        check(editor.edit(picture, INSTRUCTION, **settings), editor)


def check(result: lab.EditResult, editor: lab.Editor) -> None:
    """Raises for an edit that breaks its promises."""
    if not result.images or result.tokens.max() >= editor.vq.config.num_vq_embeddings or result.tokens.min() < 0:
        raise Wrong("tokens beyond the codebook")
    if not result.heat.isfinite().all() or result.heat.min() < 0 or result.heat.max() > 1:
        raise Wrong("a heat map beyond [0, 1]")
    if any(max(high for _, high in image.getextrema()) <= 2 for image in result.images):
        raise Black("the edit is black")


KINDS = {"texts": Kind(make_text, run_text, 14), "settings": Kind(make_setting, run_setting, 12)}
