"""`python -m editmgt_lab.evaluation`: score the edits of a model on the small world."""

from __future__ import annotations

from pathlib import Path

from ..crisp import CATEGORIES
from ..editor import load
from ..errors import command
from .answers import evaluate
from .options import add_decoding, measuring


@command
def main(arguments: list[str] | None = None) -> None:
    """Print the score card and save it."""
    parser = measuring(__doc__, count=500, counted="edits to score", output=Path("outputs") / "evaluation")
    parser.add_argument("--category", choices=CATEGORIES, help="one only; otherwise in the published proportions")
    parser.add_argument(
        "--hold-threshold", dest="hold_thresholds", type=float, nargs="+", metavar="λ",
        help="two rows each; else the model's own",
    )  # fmt: skip
    parser.add_argument("--other-words", action="store_true", help="ask again in another phrasing: does success agree?")
    parser.add_argument("--strength", type=float, default=1.0, help="γ of the attention injection [%(default)s]")
    add_decoding(parser)
    options = vars(parser.parse_args(arguments))
    output, model = options.pop("output"), options.pop("model")
    card = evaluate(load(model), **options)
    paths = card.save(output)
    print(card.table())
    print("saved:", *paths)


if __name__ == "__main__":
    raise SystemExit(main())
