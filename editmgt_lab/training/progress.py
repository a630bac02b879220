"""How far an editor in training is: `python -m editmgt_lab.training.progress FOLDER`, on the validation split.

First the tokenizer: how well it rebuilds sources, and what the true targets keep of what an edit leaves alone. Then the
edits, in windows as the first part of training shows them, or in whole pictures; and, in whole pictures, what the
network takes for unchanged.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import world
from ..basics.checks import check_number
from ..decoding.orders import neighbours
from ..editor import Editor
from ..errors import SettingError, command
from ..images import to_tensor
from ..loading import load
from ..metrics.arithmetic import edit_score, leakage, success
from ..metrics.pixels import psnr
from ..vq import VQModel
from .data import tokenize_edits
from .objective import picture_conditions, step_index
from .recipe import SMALL
from .samples import fill
from .tokenizer.local import encode
from .windows import ANYWHERE, NOWHERE, corners, cut, window_of

STEPS = 12


@torch.no_grad()
def rebuilt(vq: VQModel, tokens: Tensor) -> Tensor:
    """Tokens [n, h, w] → pictures [n, 3, H, W] on the CPU, a few at a time."""
    device = vq.quant_conv.weight.device
    return torch.cat([vq.decode(some.to(device)).cpu() for some in tokens.split(2)])


def sharpness(pictures: Tensor) -> Tensor:
    """Mean gradient magnitude: [n, 3, H, W] → [n]."""
    across, down = pictures.diff(dim=-1)[..., 1:, :], pictures.diff(dim=-2)[..., 1:]
    return torch.hypot(across, down).mean(dim=(1, 2, 3))


def tokenizer_figures(vq: VQModel, *, count: int, split: str, size: int) -> dict[str, float]:
    """PSNR in dB and sharpness, against the drawings, of `count` sources; and, of as many new backgrounds and as many
    local edits of all categories in turn, in how many the true target keeps to the limit of leakage, and its mean.
    """
    drawn = [world.sample_edit(seed, split=split, size=size) for seed in range(count)]
    pictures = to_tensor([sample.source for sample in drawn])
    shown = rebuilt(vq, encode(vq, [sample.source for sample in drawn]))
    figures = {
        "psnr": sum(map(psnr, shown, pictures)) / count,
        "sharpness": (sharpness(shown) / sharpness(pictures)).mean().item(),
    }
    categories = {"background": ["background"], "local": ["add", "replace", "remove", "color", "motion"]}
    for name, of in categories.items():
        samples = [
            world.sample_edit(seed, split=split, category=of[seed % len(of)], size=size) for seed in range(count)
        ]
        source, target = (rebuilt(vq, encode(vq, [getattr(s, each) for s in samples])) for each in ("source", "target"))
        masks = to_tensor([sample.mask for sample in samples])[:, 0] > 0.5
        leaks = torch.tensor([leakage(*each) for each in zip(target, source, masks, strict=True)])
        leaks = leaks[~leaks.isnan()]
        figures[f"{name} leakage"] = leaks.mean().item()
        figures[f"{name} within the limit"] = (leaks <= 0.02).float().mean().item()
    return figures


def edit_figures(
    model: nn.ModuleDict,
    vq: VQModel,
    samples: Sequence[world.EditSample],
    *,
    window: int,
    token_temperature: float,
) -> dict[str, list[float]]:
    """Success (1 or 0) of each edit, by category, without those that no window shows, or whose target decodes to the
    source.

    window: tokens along the side of a window, 0 for whole pictures.
    """
    recipe, factor = replace(SMALL, image_size=samples[0].source.width), vq.config.factor
    source, target = (encode(vq, [getattr(s, name) for s in samples]) for name in ("source", "target"))
    masks = to_tensor([sample.mask for sample in samples])[:, 0] > 0.5
    origin, kept = None, list(range(len(samples)))
    if window:
        units = window * factor * 16 // samples[0].source.width
        index = torch.tensor([window_of(sample, units) for sample in samples])
        kept = (index != NOWHERE).nonzero().flatten().tolist()
        if not kept:
            return {}
        index = torch.where(index == ANYWHERE, 4, index)[kept]
        origin = corners(source.shape[-1] // 2, window // 2)[index]
        source, target = cut(source[kept], index, window), cut(target[kept], index, window)
        begins = (corners(masks.shape[-1], window * factor)[index]).tolist()
        masks = torch.stack(
            [
                masks[i, top : top + window * factor, left : left + window * factor]
                for i, (top, left) in zip(kept, begins, strict=True)
            ]
        )
    found: dict[str, list[float]] = {}
    for some in torch.arange(len(kept)).split(8):
        texts = [samples[kept[i]].instruction for i in some.tolist()]
        edited = fill(
            model,
            texts,
            source[some],
            tuple(source.shape[1:]),
            recipe,
            origin=None if origin is None else origin[some],
            token_temperature=token_temperature,
        )
        pictures = [rebuilt(vq, tokens) for tokens in (edited, source[some], target[some])]
        for i, output, before, after in zip(some.tolist(), *pictures, strict=True):
            score, leaked = edit_score(output, before, after, masks[i]), leakage(output, before, masks[i])
            if not math.isnan(score):
                found.setdefault(samples[kept[i]].category, []).append(success(score, leaked))
    return found


@torch.no_grad()
def taken_for_unchanged(model: nn.ModuleDict, vq: VQModel, samples: Sequence[world.EditSample]) -> dict[str, float]:
    """Of the tokens that these edits change, the share that is answered as in the source, a mean over the edits: where
    everything is hidden, as decoding begins, and where their place alone is, in a target that is there already, as it
    ends. See `objective.revealed_late`.
    """
    transformer, text_encoder = model["transformer"], model["text_encoder"]
    data = tokenize_edits(vq, text_encoder, samples)
    device = next(transformer.parameters()).device
    data = {name: tensor.long().to(device) for name, tensor in data.items()}
    micro = picture_conditions(*samples[0].source.size, 1, device)
    found: dict[str, list[float]] = {"everything hidden": [], "the place alone hidden": []}
    for row in range(len(samples)):
        source, target, ids = (data[name][row : row + 1] for name in ("source", "target", "instruction"))
        changed = source != target
        place = neighbours(changed, reach=2)
        text = text_encoder.encode_ids(ids)
        for shares, hidden in zip(found.values(), (torch.ones_like(place), place), strict=True):
            u = hidden.float().mean(dim=(1, 2)).acos() * 2 / math.pi
            tokens = target.masked_fill(hidden, transformer.config.vocab_size - 1)
            step = step_index(u, most=STEPS, least=STEPS)
            logits = transformer(tokens, text, step, source=source, micro_conditions=micro)
            shares.append((logits.argmax(dim=1) == source)[changed].float().mean().item())
    return {name: sum(shares) / len(shares) for name, shares in found.items()}


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Print what is known of the editor in a folder."""
    parser = argparse.ArgumentParser(prog="python -m editmgt_lab.training.progress", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=70, help="edits; 0: the tokenizer alone")
    parser.add_argument("--pictures", type=int, default=40, help="for the tokenizer; 0: leave it out")
    parser.add_argument("--split", default="validation", choices=world.SPLITS)
    parser.add_argument("--window", type=int, default=16, help="tokens along a side; 0: whole pictures")
    parser.add_argument("--token-temperature", type=float, default=0.3)
    options = parser.parse_args(arguments)
    for name in ("count", "pictures"):
        check_number(getattr(options, name), f"--{name}", 0, math.inf, "0 leaves it out", whole=True)
    editor: Editor = load(options.folder, dtype=torch.float32)
    size = editor.defaults.image_size
    if options.count:
        side = size // editor.vq.config.factor
        check_number(options.window, "--window", 0, side, "0 shows whole pictures", whole=True)
        if options.window % 2 or (side - options.window) % 4:  # windows begin at whole positions
            raise SettingError(
                f"--window is {options.window}",
                expected=f"an even number that is {side} less a multiple of 4",
                fix=f"take {side // 2}, half of a picture, or 0",
            )
    if options.pictures:
        for name, value in tokenizer_figures(editor.vq, count=options.pictures, split=options.split, size=size).items():
            print(f"{name}: {value:.4f}")
    if options.count:
        categories = world.CATEGORIES
        samples = [
            world.sample_edit(seed, split=options.split, category=categories[seed % len(categories)], size=size)
            for seed in range(options.count)
        ]
        model = nn.ModuleDict({"transformer": editor.transformer, "text_encoder": editor.text_encoder})
        found = edit_figures(
            model, editor.vq, samples, window=options.window, token_temperature=options.token_temperature
        )
        every = [value for values in found.values() for value in values]
        print(f"success: {sum(every) / len(every):.2f} of {len(every)} edits" if every else "success: no edit is shown")
        for name, values in found.items():
            print(f"  {name}: {sum(values) / len(values):.2f} of {len(values)}")
        if not options.window:
            local = [sample for sample in samples if sample.category not in ("background", "style")]
            for name, share in taken_for_unchanged(model, editor.vq, local).items():
                print(f"taken for unchanged, {name}: {share:.2f} of what local edits change")


if __name__ == "__main__":
    raise SystemExit(main())
