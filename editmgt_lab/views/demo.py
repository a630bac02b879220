"""`python -m editmgt_lab.views.demo`: one edit from the command line, and its pictures in a folder."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from PIL import Image

from ..basics.fingerprints import weights_fingerprint
from ..basics.folders import written_whole
from ..checkpoints import data_folder
from ..errors import command
from ..loading import load
from ..metrics.report import save_figure
from ..plain_text import say
from ..results import EditResult
from .figures import edit_figure
from .overlays import heat_overlay

PICTURE, INSTRUCTION = "umbrella_and_heart.png", "replace the umbrella with an orange mushroom"
ANY_PICTURE = "draw the picture in pastel"  # an instruction that fits whatever picture one brings


def save_pictures(result: EditResult, folder: Path, weights: str) -> list[Path]:
    """Write source.png, result.png, heat.png (over the source) and stages.png, the figure of the edit, which says by
    what `weights` (their fingerprint) it was made."""
    heat = Image.fromarray(heat_overlay(result.source, result.heat[0].numpy()))
    files = [folder / f"{name}.png" for name in ("source", "result", "heat", "stages")]
    for file, image in zip(files, (result.source, result.image, heat), strict=False):
        with written_whole(file) as unfinished:
            image.save(unfinished)
    save_figure(edit_figure(result), files[-1], dpi=150, metadata={"weights": weights})
    return files


@command
def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m editmgt_lab.views.demo", description="Edit one picture.")
    parser.add_argument("--model", default="tiny", help='"tiny", a folder, or a hub name (default: tiny)')
    parser.add_argument("--image", help="the picture to edit (default: one that comes along)")
    parser.add_argument("--instruction", help=f'what to change (default: "{INSTRUCTION}", or "{ANY_PICTURE}")')
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="folder for the pictures")
    parser.add_argument("--hold-threshold", type=float, help="λ: hold the source where the heat map is lower")
    parser.add_argument("--steps", type=int, help="decoding steps (default: the model's own)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same picture (default: 0)")
    chosen = parser.parse_args(arguments)
    mine = chosen.image is not None
    image = chosen.image if mine else data_folder() / "pictures" / PICTURE
    instruction = (ANY_PICTURE if mine else INSTRUCTION) if chosen.instruction is None else chosen.instruction
    began = time.perf_counter()
    editor = load(chosen.model)
    loaded = time.perf_counter()
    result = editor.edit(
        image,
        instruction,
        hold_threshold=chosen.hold_threshold,
        steps=chosen.steps,
        seed=chosen.seed,
    )
    edited = time.perf_counter()
    files = save_pictures(result, chosen.output, weights_fingerprint(editor))
    say(f'"{instruction}": loaded in {loaded - began:.1f} s, {result.settings.steps} steps in {edited - loaded:.1f} s')
    for file in files:
        say(f"  {file}")


if __name__ == "__main__":
    raise SystemExit(main())
