"""`python -m editmgt_lab.evaluation`: score the edits of a model on the small world."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..crisp import CATEGORIES, SPLITS
from ..editor import load
from ..errors import LabError
from .answers import evaluate


def main(arguments: list[str] | None = None) -> int:
    """Print the score card and save it; returns the exit status, 2 after a LabError."""
    parser = argparse.ArgumentParser(prog="python -m editmgt_lab.evaluation", description=__doc__)
    parser.add_argument("--model", default="tiny", help="a name, folder or hub name as lab.load takes it")
    parser.add_argument("--split", default="test", choices=SPLITS)
    parser.add_argument("--category", choices=CATEGORIES, help="one only; otherwise in the published proportions")
    parser.add_argument("--count", type=int, default=500, help="edits to score")
    parser.add_argument(
        "--hold-threshold", type=float, nargs="+", metavar="λ", help="two rows each; else the model's own"
    )
    parser.add_argument("--other-words", action="store_true", help="ask again in another phrasing: does success agree?")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--guidance-scale", type=float, help="else the model's own")
    parser.add_argument("--strength", type=float, default=1.0, help="γ of the attention injection")
    parser.add_argument("--batch", type=int, default=20, help="edits at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("outputs") / "evaluation", help="folder to save to")
    options = parser.parse_args(arguments)
    try:
        card = evaluate(
            load(options.model),
            split=options.split,
            category=options.category,
            count=options.count,
            hold_thresholds=options.hold_threshold,
            other_words=options.other_words,
            steps=options.steps,
            guidance_scale=options.guidance_scale,
            strength=options.strength,
            batch=options.batch,
            seed=options.seed,
        )
        paths = card.save(options.output)
    except LabError as error:
        print(error, file=sys.stderr)
        return 2
    print(card.table())
    print("saved:", *paths)
    return 0


if __name__ == "__main__":
    sys.exit(main())
