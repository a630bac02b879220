"""Every command that writes, asked for so little that a run takes seconds."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from editmgt_lab import world
from tests.support import tiny

RECIPE = replace(
    tiny.RECIPE, vq=replace(tiny.RECIPE.vq, norm_num_groups=1), text_length=32, vq_pictures=8, vq_samples=88,
    vq_batch=4, vq_crop=16, decoder_pairs=4, decoder_samples=12, decoder_batch=4, pairs=16, samples=24, batch=8,
)  # fmt: skip
ALWAYS = {"editmgt_lab.training.run:CHECKPOINT_SECONDS": 0.0}  # a state after every step


@dataclass(frozen=True)
class Command:
    """module: of its `main`, which is called with these arguments in an empty folder, where it writes.

    constants: "module:NAME" → what it is here; timed: files that show how long something took;
    changes_editor: whether it finds an editor's folder `editor` there, which it writes to.
    """

    module: str
    arguments: str
    constants: Mapping[str, Any] = field(default_factory=dict)
    timed: tuple[str, ...] = ()
    changes_editor: bool = False

    @property
    def main(self) -> Callable[[list[str]], int]:
        return self.imported().main

    def imported(self) -> ModuleType:
        return importlib.import_module(self.module)

    def settle(self) -> None:
        """Put the constants in place, for good."""
        for name, value in self.constants.items():
            module, _, constant = name.partition(":")
            assert hasattr(importlib.import_module(module), constant), name
            setattr(importlib.import_module(module), constant, value)


# What they read lies in ../given: see `give`.
MODEL = "--model ../given/tiny"
COMMANDS = {
    "train": Command(
        "editmgt_lab.training.__main__",
        "--folder state --output editor --device cpu",
        {
            **ALWAYS,
            "editmgt_lab.training.__main__:RECIPES": {"small": RECIPE},
            "editmgt_lab.training.data:SHARD": 8,
            "editmgt_lab.training.samples:EVERY": 0.0,  # the last one is then of the last state
        },
    ),
    "clip": Command(
        "editmgt_lab.training.clip.__main__", "--folder state --output clip --edits 32 --batch 8", ALWAYS
    ),
    "finetune": Command(
        "editmgt_lab.finetuning.__main__",
        f"../given/pairs {MODEL} --device cpu --folder state --output out --steps 6 --batch 2 --rank 2 --save-every 1",
        {"editmgt_lab.data.tokens:SHARD": 2},
    ),
    "finetune all weights": Command(
        "editmgt_lab.finetuning.__main__",
        f"cactus --limit 8 {MODEL} --device cpu --folder state --output out --steps 4 --batch 2 --save-every 1",
    ),
    "benchmark": Command(
        "editmgt_lab.benchmarks.__main__",
        f"small-world --data 4 {MODEL} --steps 2 --clip none --dino none --dinov2 none --output out",
    ),
    "figure": Command(
        "editmgt_lab.studies.hold_figure.__main__", f"{MODEL} --count 2 --random-count 2 --steps 2 --output out"
    ),
    "training_size": Command(
        "editmgt_lab.studies.training_size",
        f"{MODEL} --count 2 --sizes 0 16 --samples 32 --output out",
        ALWAYS,
    ),
    "crisp": Command("editmgt_lab.crisp.__main__", "--count 10 --shard 5 --clip none --output out"),
    "choose": Command(
        "editmgt_lab.studies.choose",
        f"{MODEL} --count 1 --batch 1 --output out/choices.json --write editor",
        {
            "editmgt_lab.studies.choose:SWEEPS": {"token_temperature": (1.0, 0.5), "guidance_scale": (1.0, 2.0)},
            "editmgt_lab.studies.choose:HOLD_THRESHOLDS": (0.1, 0.4),
        },
        changes_editor=True,
    ),
    "speed": Command(
        "editmgt_lab.studies.speed", f"{MODEL} --count 1 --batch 1 --output out/speed.json", timed=("speed.png",)
    ),  # its figure has seconds on an axis
    "evaluate": Command("editmgt_lab.studies.evaluate", f"{MODEL} --count 4 --steps 2 --clip none --output out"),
    "filtering": Command(
        "editmgt_lab.studies.filtering",
        "--model ../given/larger --scenes 12 --count 2 --steps 2 --folder shards "
        "--output out/filtering.json --adapter adapter",
    ),
    "ablations": Command(
        "editmgt_lab.studies.ablations",
        f"{MODEL} --count 1 --steps 1 --output out",
        timed=("ablations.txt",),  # a column has seconds; all else in it is in ablations.json
    ),
    "gallery": Command("editmgt_lab.studies.gallery", f"{MODEL} --count 1 --steps 1 --lines 1 --output out"),
    "skills": Command(
        "editmgt_lab.studies.skills",
        f"{MODEL} --skills blueprint --count 1 --old-count 1 --steps 2 --output out/skills.json --adapters adapters",
        {"editmgt_lab.studies.skills:REPLAY": 2},
    ),
    "captions": Command("editmgt_lab.studies.captions", f"{MODEL} --count 1 --steps 1 --output out/captions.json"),
    "study of clip": Command(
        "editmgt_lab.studies.clip", "--count 24 --sizes 32 --output out", {"editmgt_lab.studies.clip:POOL": 12}
    ),
}  # fmt: skip


def give(folder: Path) -> None:
    """What the commands read: an editor of random weights, and a folder of pairs."""
    tiny.save_tiny(folder / "tiny", RECIPE)
    tiny.save_tiny(folder / "larger", replace(RECIPE, image_size=64))  # the pipeline drops smaller pictures
    lines = []
    for number in range(5):
        sample = world.sample_edit(number, size=32)
        for part in ("source", "target"):
            (folder / "pairs" / part).mkdir(parents=True, exist_ok=True)
            getattr(sample, part).save(folder / "pairs" / part / f"{number}.png")
        lines.append({"source": f"{number}.png", "target": f"{number}.png", "instruction": sample.instruction})
    (folder / "pairs" / "edits.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
