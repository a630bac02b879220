"""What the commands of this folder are all asked with."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..basics.fingerprints import weights_fingerprint
from ..editor import Editor
from ..world import SPLITS

DECODING = ("steps", "guidance_scale", "token_temperature")
OF_NO_MATTER = ("hold_threshold", "caption_guidance_scale")  # to studies that set λ, and make nothing from captions


def measuring(
    doc: str, *, count: int, counted: str, output: Path, split: str = "test", batch: int = 20
) -> argparse.ArgumentParser:
    """A parser for a command that measures a model on the small world: model, split, count, batch, seed and output.

    doc: the module's docstring, which begins with "`the command`: what it does"; counted: what the count is of; split,
    batch and output: where they are not given.
    """
    name, _, about = doc.split("\n\n")[0].partition("`: ")
    parser = argparse.ArgumentParser(prog=name.strip("`"), description=about)
    parser.add_argument("--model", default="tiny", help="a name, folder or hub name as lab.load takes it [tiny]")
    parser.add_argument("--split", default=split, choices=SPLITS, help="[%(default)s]")
    parser.add_argument("--count", type=int, default=count, help=f"{counted} [%(default)s]")
    parser.add_argument("--batch", type=int, default=batch, help="edits at a time [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="edit i decodes with seed + i; also of the intervals")
    parser.add_argument("--output", type=Path, default=output, help="where to save to [%(default)s]")
    return parser


def add_decoding(parser: argparse.ArgumentParser) -> None:
    """How a command decodes, where it is not part of what it measures."""
    parser.add_argument("--steps", type=int, help="else the model's own")
    parser.add_argument("--guidance-scale", type=float, help="else the model's own")
    parser.add_argument("--token-temperature", type=float, help="else the model's own")


def with_own(options: Mapping[str, Any], editor: Editor) -> dict[str, Any]:
    """The options, with the model's own default for each that is left to it (None)."""
    own = editor.defaults
    return {name: getattr(own, name) if value is None else value for name, value in options.items()}


def which_model(name: str, editor: Editor, *, without: Sequence[str] = ()) -> dict[str, str]:
    """Which model a result is of: as it was asked for, and its `weights_fingerprint`. Ready for JSON."""
    return {"model": name, "weights": weights_fingerprint(editor, without=without)}
