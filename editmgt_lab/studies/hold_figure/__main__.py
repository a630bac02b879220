"""`python -m editmgt_lab.studies.hold_figure`: the λ figure, measured and held against the published one."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from ...editor import load
from ...errors import command
from ...world import CATEGORIES
from ..options import add_decoding, measuring
from .figure import measure, save


@command
def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table and the checks, save."""
    parser = measuring(__doc__, count=200, counted="edits, each under all its holds", output=Path("outputs"), batch=2)
    parser.add_argument("--category", choices=CATEGORIES, help="one only; otherwise in the published proportions")
    parser.add_argument("--random-count", type=int, default=60, help="of them, edits to hold at random as well")
    add_decoding(parser)
    options = vars(parser.parse_args(arguments))
    output, model, began = options.pop("output"), options.pop("model"), time.perf_counter()
    curves, examples = measure(load(model), **options)
    paths = save(curves, examples, output)
    print(curves.table())
    passes, alone = curves.settings["passes"], curves.settings["passes_alone"]
    print(f"\nshared: {passes} passes of an edit through the network instead of {alone}, {1 - passes / alone:.0%} less")
    seconds = time.perf_counter() - began
    print(f"took {seconds:.0f} s with {torch.get_num_threads()} threads, {1000 * seconds / passes:.1f} ms a pass")
    print("saved:", *paths)


if __name__ == "__main__":
    raise SystemExit(main())
