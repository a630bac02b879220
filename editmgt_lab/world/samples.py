"""Draw the sample pictures and their edits anew: `python -m editmgt_lab.world.samples data_samples/pictures`."""

import json
import sys
from pathlib import Path

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
    """Write the pictures as PNG and `edits.json`, which names an instruction for each."""
    folder.mkdir(parents=True, exist_ok=True)
    edits = []
    for name, category, seed in SAMPLES:
        sample = sample_edit(seed, split="test", category=category, size=SIZE)
        sample.source.save(folder / f"{name}.png", optimize=True)
        edits.append({"picture": f"{name}.png", "instruction": sample.instruction, "category": category, "seed": seed})
    (folder / "edits.json").write_text(json.dumps(edits, indent=2) + "\n")


if __name__ == "__main__":
    draw_samples(Path(sys.argv[1] if len(sys.argv) > 1 else "data_samples/pictures"))
