"""`python -m editmgt_lab.studies.hold_figure`: the λ figure, measured and held against the published one."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from ...checkpoints import data_folder
from ...decoding import HOLDS
from ...errors import command
from ...finetuning import load_adapter
from ...loading import load
from ...world import CATEGORIES
from ..options import add_decoding, measuring
from .figure import measure, save


@command
def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table and the checks, save."""
    parser = measuring(__doc__, count=200, counted="edits, each under all its holds", output=Path("outputs"), batch=2)
    parser.add_argument("--category", choices=CATEGORIES, help="one only; otherwise in the published proportions")
    parser.add_argument("--random-count", type=int, default=60, help="of them, edits to hold at random as well")
    parser.add_argument("--hold", choices=HOLDS, default=HOLDS[0], help="the rule [%(default)s, the paper's]")
    parser.add_argument("--adapter", help="a folder, or one of data_samples/adapters; its name ends the files' names")
    add_decoding(parser)
    options = vars(parser.parse_args(arguments))
    output, model = options.pop("output"), options.pop("model")
    editor, began = load(model), time.perf_counter()
    name = options.pop("adapter")
    if name:
        folder = Path(name) if Path(name).exists() else data_folder() / "adapters" / name
        load_adapter(editor.transformer, folder)
        name = folder.name
    curves, examples = measure(editor, **options)
    curves.settings.update(model=model, adapter=name)
    paths = save(curves, examples, output, f"lambda_figure_{name}" if name else "lambda_figure")
    print(curves.table())
    passes, alone = curves.settings["passes"], curves.settings["passes_alone"]
    print(f"\nshared: {passes} passes of an edit through the network instead of {alone}, {1 - passes / alone:.0%} less")
    seconds = time.perf_counter() - began
    print(f"took {seconds:.0f} s with {torch.get_num_threads()} threads, {1000 * seconds / passes:.1f} ms a pass")
    print("saved:", *paths)


if __name__ == "__main__":
    raise SystemExit(main())
