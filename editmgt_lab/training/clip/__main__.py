"""`python -m editmgt_lab.training.clip`: the small CLIP of the drawn world, from nothing. Run it again to resume."""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

from ...basics.checks import check_number
from ...basics.fingerprints import code_fingerprint
from ...errors import SettingError, command
from ...metrics.backbones import Preprocessing
from ...world import sample_edit
from ...world.scenes import GRID
from ..run import Run, check_numbers, option
from .build import save_clip
from .recipe import ClipRecipe
from .train import train_clip

LONGEST = 28  # text tokens of a caption: four objects with their sizes and colours, start and end


def check(recipe: ClipRecipe) -> None:
    """Raises SettingError for a number that is out of range, for parts that do not fill their whole, and for patches
    that are no whole units of the world's grid."""
    check_numbers(recipe)
    for whole, part in (("width", "heads"), ("image_size", "patch")):
        if getattr(recipe, whole) % getattr(recipe, part):
            raise SettingError(
                f"{option(whole)} is {getattr(recipe, whole)}, {option(part)} {getattr(recipe, part)}",
                expected="the second to divide the first",
                fix=f"{getattr(ClipRecipe, whole)} and {getattr(ClipRecipe, part)} are usual",
            )
    if GRID % (recipe.image_size // recipe.patch):
        raise SettingError(
            f"{recipe.image_size // recipe.patch} patches along a side",
            expected=f"a number that divides {GRID}, the units along a side of the drawn world",
            fix=f"take an --image-size of {GRID // 2} or {GRID} times --patch",
        )
    check_number(recipe.text_length, "--text-length", LONGEST, math.inf, "captions are so long", whole=True)


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line; every number of the recipe is an option."""
    parser = argparse.ArgumentParser(prog="python -m editmgt_lab.training.clip", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "editmgt-lab" / "clip", help="state")
    parser.add_argument("--output", type=Path, default=Path("runs") / "clip", help="where the CLIP goes [%(default)s]")
    parser.add_argument("--seed", type=int, default=0)
    numbers = [field for field in fields(ClipRecipe) if isinstance(field.default, (int, float))]
    for field in numbers:
        parser.add_argument(option(field.name), type=type(field.default), default=field.default, help="[%(default)s]")
    parser.add_argument("--anew", action="store_true", help="forget what lies in the folder and begin again")
    parser.add_argument("--other-code", action="store_true", help="go on although code or libraries have changed")
    options = parser.parse_args(arguments)
    recipe = replace(ClipRecipe(), **{field.name: getattr(options, field.name) for field in numbers})
    check(recipe)
    made_of = {"recipe": asdict(recipe), "seed": options.seed}
    made_of["code"] = code_fingerprint(train_clip.__module__, sample_edit.__module__, Preprocessing.__module__)
    run = Run(options.folder, made_of, other_code=options.other_code)
    if options.anew:
        run.clear()
    began = time.process_time()
    model, tokenizer = train_clip(recipe, run, seed=options.seed)
    save_clip(options.output, model, tokenizer)
    print(f"The CLIP is in {options.output}, after {time.process_time() - began:.0f} s of one processor.")


if __name__ == "__main__":
    raise SystemExit(main())
