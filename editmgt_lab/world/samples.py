"""`python -m editmgt_lab.world.samples`: draw the sample pictures and their edits anew."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ..basics.folders import write_text, written_whole
from ..errors import command
from ..plain_text import say
from .edits import sample_edit

SIZE = 512  # px, for people: more than the small model sees

# One edit of the test split for each category: (file name, category, seed).
SAMPLES = (
    ("fish_and_star", "add", 7),
    ("umbrella_and_heart", "replace", 5),
    ("fish_boat_and_rocket", "remove", 18),
    ("balloon_butterfly_and_snail", "color", 4),
    ("ball_and_flower", "background", 1),
    ("flower_house_butterfly_and_hat", "style", 12),
    ("car_and_heart", "motion", 10),
)


def draw_samples(folder: Path) -> None:
    """Write the pictures as PNG and `edits.json`, which names an instruction for each. Raises DiskError."""
    edits = []
    for name, category, seed in SAMPLES:
        sample = sample_edit(seed, split="test", category=category, size=SIZE)
        with written_whole(folder / f"{name}.png") as unfinished:
            sample.source.save(unfinished, optimize=True)
        edits.append({"picture": f"{name}.png", "instruction": sample.instruction, "category": category, "seed": seed})
    write_text(folder / "edits.json", json.dumps(edits, indent=2) + "\n")


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the sample pictures."""
    parser = argparse.ArgumentParser(prog="python -m editmgt_lab.world.samples", description=__doc__)
    default = Path("data_samples") / "pictures"
    parser.add_argument("folder", nargs="?", type=Path, default=default, help="to write into [%(default)s]")
    chosen = parser.parse_args(arguments)
    draw_samples(chosen.folder)
    say("saved:", chosen.folder)


if __name__ == "__main__":
    raise SystemExit(main())
