"""`python -m editmgt_lab.studies.full_size`: what an edit takes at the released model's size, with random weights."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from ...basics.devices import choose_device
from ...basics.dtypes import choose_dtype
from ...errors import SettingError, command
from ...metrics.report import save_figure, save_json
from ...plain_text import say
from . import growth
from .build import build
from .growth import SIDES
from .measure import check, measure, report
from .parts import Sizes


@command
def main(arguments: list[str] | None = None) -> None:
    """Build the checkpoint once, edit one picture, print the table."""
    name, _, about = __doc__.partition("`: ")
    parser = argparse.ArgumentParser(prog=name.strip("`"), description=about)
    parser.add_argument("--layers", type=int, help="a small one: so many blocks, few words [all, 8.2 GB]")
    parser.add_argument("--size", type=int, default=1024, help="px along a side of the picture [%(default)s]")
    parser.add_argument("--steps", type=int, default=2, help="or passes of each size [%(default)s]")
    parser.add_argument("--device", help="cuda, mps or cpu; else the fastest one here")
    parser.add_argument("--dtype", help="bfloat16, float32, …; else as lab.load chooses")
    parser.add_argument("--offload", action="store_true", help="leave the text encoder's weights in their files")
    parser.add_argument("--held", type=float, default=0, help="share of the picture that a mask holds [%(default)s]")
    parser.add_argument(
        "--growth", type=int, nargs="*", metavar="TOKENS",
        help=f"instead how a pass of the transformer grows with the tokens along a side [{' '.join(map(str, SIDES))}]",
    )  # fmt: skip
    parser.add_argument("--folder", type=Path, help="of the checkpoint [~/.cache/editmgt-lab/full-size]")
    parser.add_argument("--output", type=Path, help="JSON file to save to")
    options = parser.parse_args(arguments)
    device, sizes, dtype = choose_device(options.device), Sizes.released(options.layers), choose_dtype(options.dtype)
    if options.growth is not None:
        for name in ("size", "offload", "held", "folder"):
            if getattr(options, name) != parser.get_default(name):
                told = f"--{name} beside --growth, which makes a network of its own and no edit"
                raise SettingError(told, expected="one of them", fix="leave the other out")
        return grow(sizes, options.growth or SIDES, options.steps, device, dtype, options.output)
    check(sizes, options.size, options.steps, options.held)
    cached = "full-size" if options.layers is None else f"full-size-{options.layers}-layers"
    folder = options.folder or Path.home() / ".cache" / "editmgt-lab" / cached
    build(folder, sizes, own=options.folder is None)
    result = measure(
        folder, sizes, size=options.size, steps=options.steps, device=device, dtype=dtype,
        offload=options.offload, held=options.held,
    )  # fmt: skip
    if options.output:
        save_json(result, options.output)
        say("saved:", options.output)
    say(report(result))


def grow(
    sizes: Sizes,
    sides: Sequence[int],
    passes: int,
    device: torch.device,
    dtype: torch.dtype | None,
    output: Path | None,
) -> None:
    """Measure passes over ever more tokens, print the table, save it and its figure."""
    dtype, output = dtype or torch.float32, output or Path("outputs") / "growth.json"
    taken = growth.measure(sizes.transformer, sides, passes=passes, device=device, dtype=dtype)
    blocks = sizes.transformer.num_layers + sizes.transformer.num_single_layers
    about = f"{blocks} blocks of the released width, {dtype} on {device.type}".replace("torch.", "")
    save_json({"about": about} | growth.to_dict(taken), output)
    save_figure(growth.growth_figure(taken, about), output.with_suffix(".png"), dpi=120)
    say(growth.report(taken))
    say("saved:", output, "and", output.with_suffix(".png").name)


if __name__ == "__main__":
    raise SystemExit(main())
