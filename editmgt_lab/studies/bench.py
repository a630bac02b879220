"""`python -m editmgt_lab.studies.bench`: what an edit takes on this computer, with and without capture."""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tqdm.auto import tqdm

from .. import world
from ..attention import capture_attention, capture_memory
from ..consolidation import consolidate
from ..decoding import RegionHoldSampler, guide
from ..editor import Editor
from ..errors import SettingError, command
from ..loading import load
from ..metrics.report import save_json
from ..metrics.truth import picture_size
from ..text import TextCondition
from .speed import FAST, USUAL, Way

GUIDANCE_SCALE = 3.0  # every one above 1 costs the same
EDIT_BAR, CAPTURE_BAR = 2.0, 0.10  # seconds of one edit on two cores; what capture may add to a step
FAST_BAR = 0.5  # the fast way's time over the usual one's, which makes as good edits: see the study of speed
USUAL_EDIT, FAST_EDIT = f"the usual way ({USUAL})", f"the fast way ({FAST})"
PLAIN, CAPTURED, HEAT = "step without capture", "step, all blocks captured", "step, captured and consolidated"


def bench(model: str = "tiny", *, steps: int = 12, repetitions: int = 9, progress: bool = True) -> dict[str, Any]:
    """Time a model on one picture of the small world, on this computer.

    Every measure runs once to warm up, then `repetitions` times in turn with all others, since the computer's speed
    wanders. Steps, and the edit with all blocks captured, are pushed by guidance, in `steps` steps; the ways have steps
    of their own and the model's guidance. Returns computer (what it ran on), settings, seconds (measure → median),
    capture_cost and capture_and_heat_cost (median over the rounds of the step's time with by that without, less 1),
    ways (edit in the usual way, and in the fast one → median), fast_share (the one's time by the other's, median over
    the rounds), and capture_bytes (what the maps of one guided step take).

    Raises SettingError for less than one repetition, CheckpointError for a model that cannot be loaded.
    """
    if repetitions < 1:
        raise SettingError(f"repetitions is {repetitions}", expected="1 or more", fix="9 are usual")
    editor = load(model)
    blocks = range(len(editor.transformer.blocks))
    size = picture_size(editor)
    sample = world.sample_edit(0, split="test", size=size)
    tokens, text = editor.tokenize(sample.source), editor.encode_text(["", sample.instruction])

    def edit() -> None:
        options = {"steps": steps, "guidance_scale": GUIDANCE_SCALE, "blocks": blocks, "seed": 0}
        editor.edit(sample.source, sample.instruction, **options)

    def edit_as(way: Way) -> Callable[[], object]:
        return lambda: way.editor(editor).edit(sample.source, sample.instruction, seed=0, **way.options())

    ways = {USUAL_EDIT: edit_as(USUAL), FAST_EDIT: edit_as(FAST)}
    measures: dict[str, Callable[[], object]] = {
        "load": lambda: load(model),
        "tokenize": lambda: editor.tokenize(sample.source).cpu(),
        "encode the instruction": lambda: editor.encode_text(["", sample.instruction]).pooled.cpu(),
        "decode the picture": lambda: editor.detokenize(tokens),
        PLAIN: lambda: decode(editor, tokens, text, steps),
        CAPTURED: lambda: decode(editor, tokens, text, steps, blocks),
        HEAT: lambda: decode(editor, tokens, text, steps, blocks, heat=True),
        **ways,
        f"edit, {steps} steps, guidance scale {GUIDANCE_SCALE:g}, all blocks captured": edit,
    }
    times = in_turn(measures, repetitions, progress)
    for name in (PLAIN, CAPTURED, HEAT):
        times[name] = [seconds / steps for seconds in times[name]]
    return {
        "computer": computer(editor),
        "settings": {
            "model": model,
            "picture": f"{size}×{size} px",
            "steps": steps,
            "guidance_scale": GUIDANCE_SCALE,
            "guidance_scale_of_the_ways": editor.defaults.guidance_scale,
            "repetitions": repetitions,
        },
        "seconds": {name: median(values) for name, values in times.items() if name not in ways},
        "ways": {name: median(times[name]) for name in ways},
        "capture_cost": cost(times[CAPTURED], times[PLAIN]),
        "capture_and_heat_cost": cost(times[HEAT], times[PLAIN]),
        "fast_share": 1 + cost(times[FAST_EDIT], times[USUAL_EDIT]),
        "capture_bytes": capture_memory(
            editor.transformer, blocks, batch=2, text=text.tokens.shape[1], token_grid=tuple(tokens.shape[1:])
        ),
    }


@torch.no_grad()
def decode(
    editor: Editor,
    source: torch.Tensor,
    text: TextCondition,
    steps: int,
    blocks: Sequence[int] = (),
    *,
    heat: bool = False,
) -> torch.Tensor:
    """The decoding loop of an edit with guidance and without hold, with or without capture.

    source: [1, h, w]; text: two rows, the negative first; blocks: those to capture; heat: also consolidate their maps.
    Returns the tokens [1, h, w] on the CPU, so that nothing is left running.
    """
    sampler = RegionHoldSampler(editor.mask_token_id, steps)
    generator = torch.Generator(editor.device).manual_seed(0)
    tokens = torch.full_like(source, editor.mask_token_id)
    for index in range(steps):
        timestep = torch.full((2,), steps - 1 - index, device=editor.device)
        with capture_attention(editor.transformer, blocks) if blocks else nullcontext() as captured:
            logits = editor.transformer(tokens.repeat(2, 1, 1), text, timestep, source=source.repeat(2, 1, 1))
        if heat:
            consolidate(captured[1:])
        tokens = sampler.step(guide(logits.float(), GUIDANCE_SCALE), tokens, index, generator=generator)
    return tokens.cpu()


def in_turn(
    measures: dict[str, Callable[[], object]], repetitions: int, progress: bool = False
) -> dict[str, list[float]]:
    """Seconds of every measure, repetition by repetition, after one warm-up; every round begins with another one."""
    times: dict[str, list[float]] = {name: [] for name in measures}
    names = list(measures)
    for call in measures.values():
        call()
    for round_number in tqdm(range(repetitions), desc="timing", unit="round", disable=not progress):
        first = round_number % len(names)
        for name in [*names[first:], *names[:first]]:
            began = time.perf_counter()
            measures[name]()
            times[name].append(time.perf_counter() - began)
    return times


def cost(slower: Sequence[float], faster: Sequence[float]) -> float:
    """By how much the one takes longer: the median ratio of measurements made in one round, less 1."""
    return median(a / b for a, b in zip(slower, faster, strict=True)) - 1


def computer(editor: Editor) -> dict[str, Any]:
    """What the measures ran on."""
    device = editor.device
    return {
        "processor": processor(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def processor() -> str:
    """The processor's name where the system tells it, else its architecture."""
    listing = Path("/proc/cpuinfo")
    for line in listing.read_text().splitlines() if listing.exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def report(result: dict[str, Any]) -> str:
    """The result of `bench` as plain text."""
    width = max(map(len, result["seconds"]))
    lines = [", ".join(f"{name} {value}" for name, value in result[part].items()) for part in ("computer", "settings")]
    lines.append(f"capture of all blocks keeps {result['capture_bytes'] / 2**20:.2f} MiB a guided step")
    lines += ["", *(f"{name:<{width}}  {1000 * value:9.1f} ms" for name, value in result["seconds"].items()), ""]
    seconds = list(result["seconds"].values())[-1]
    lines.append(f"one guided edit: {seconds:.2f} s, {against(seconds, EDIT_BAR)} {EDIT_BAR:g} s")
    for what, name in (("capture adds", "capture_cost"), ("capture and heat map add", "capture_and_heat_cost")):
        lines.append(f"{what} {result[name]:.1%} to a step, {against(result[name], CAPTURE_BAR)} {CAPTURE_BAR:.0%}")
    lines += [f"{name}: {1000 * value:.0f} ms" for name, value in result["ways"].items()]
    share = result["fast_share"]
    lines.append(f"the fast way takes {share:.0%} of the usual way's time, {against(share, FAST_BAR)} {FAST_BAR:.0%}")
    return "\n".join(lines)


def against(value: float, bar: float) -> str:
    return "within the bar of" if value <= bar else "over the bar of"


@command
def main(arguments: list[str] | None = None) -> None:
    """Print the report, save it if asked."""
    parser = argparse.ArgumentParser(prog="python -m editmgt_lab.studies.bench", description=__doc__)
    parser.add_argument("--model", default="tiny", help="a name, folder or hub name as lab.load takes it")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--output", type=Path, help="JSON file to save to")
    options = parser.parse_args(arguments)
    result = bench(options.model, steps=options.steps, repetitions=options.repetitions)
    print(report(result))
    if options.output:
        save_json(result, options.output)
        print("saved:", options.output)


if __name__ == "__main__":
    raise SystemExit(main())
