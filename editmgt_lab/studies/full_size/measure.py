"""Time and peak memory of an edit, stage by stage."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch
from PIL import Image

from ... import world
from ...basics.checks import check_number
from ...basics.progress import Tick, show
from ...basics.sizes import bytes_of
from ...decoding import DRAWS, MOST_STEPS, RegionHoldSampler
from ...editor import Editor
from ...errors import SettingError
from ...loading import load
from ...metrics.report import align
from ..bench import computer
from .floor import floors
from .parts import Sizes, parts_of

EVERY = 0.02  # seconds between two looks at the memory
INSTRUCTION = "make the ball blue and change the background to snow"
STAGES = {
    "reading the picture": "picture", "reading the text": "text", "decoding, step by step": "step",
    "painting the picture": "painting",
}  # fmt: skip


@dataclass
class Stage:
    """seconds: it took; peak: most bytes that the process held meanwhile, on a GPU those of its tensors; mapped: how
    many of them were files' pages, which the system takes back when it needs room; flops: its floor, None for none."""

    name: str
    seconds: float = 0.0
    peak: int = 0
    mapped: int = 0
    flops: float | None = None


class Meter:
    """In place of an editor's `watch`: measures every stage, and in the decoding every step."""

    def __init__(self, device: torch.device, *, progress: bool = True):
        self.device, self.progress, self.stages = device, progress, []

    @contextmanager
    def __call__(self, name: str, total: int) -> Iterator[Tick]:
        with show(name, total) if self.progress else _quiet() as advance, self._looking() as newly:
            newly(name if total == 1 else f"step 1 of {total}")
            done = 0

            def tick() -> None:
                nonlocal done
                done += 1
                advance()
                if done < total:
                    newly(f"step {done + 1} of {total}")

            yield tick

    @contextmanager
    def _looking(self) -> Iterator[Any]:
        process, over, gpu = psutil.Process(), threading.Event(), self.device.type == "cuda"
        now: Stage | None = None
        began = 0.0

        def look() -> None:
            memory = process.memory_info()
            if now is not None and not gpu and memory.rss > now.peak:
                now.peak, now.mapped = memory.rss, getattr(memory, "shared", 0)

        def finish() -> None:
            if now is None:
                return
            if gpu:
                torch.cuda.synchronize(self.device)
                now.peak = torch.cuda.max_memory_allocated(self.device)
            look()
            now.seconds = time.perf_counter() - began

        def newly(name: str) -> None:
            nonlocal now, began
            finish()
            if gpu:
                torch.cuda.reset_peak_memory_stats(self.device)
            now, began = Stage(name), time.perf_counter()
            self.stages.append(now)

        def watch() -> None:
            while not over.wait(EVERY):
                look()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield newly
        finally:
            finish()
            over.set()
            thread.join()


@contextmanager
def _quiet() -> Iterator[Tick]:
    yield lambda: None


def measure(
    folder: Path,
    sizes: Sizes,
    *,
    size: int = 1024,
    steps: int = 2,
    device: torch.device,
    dtype: torch.dtype | None = None,
    offload: bool = False,
    held: float = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Load the checkpoint and edit one drawn picture of size² px. Returns computer, settings, weights (bytes of the
    transformer and the VQ model), deciding (of a step, by each of DRAWS) and stages, each as of `Stage`.

    held: share of the picture, in whole rows of positions, that a mask holds for good: after the first step only the
    rest is computed, and these steps have no floor here.
    Raises what `check` raises.
    """
    check(sizes, size, steps, held)
    rows = size // (2 * sizes.vq.factor)
    held = min(round(rows * held), rows - 1) / rows
    meter = Meter(device, progress=progress)
    with meter("loading", 1):
        editor = load(folder, device=device, dtype=dtype, offload=offload)
    last = len(editor.transformer.blocks) - 1
    blocks = tuple(block for block in editor.defaults.blocks if block <= last) or (last,)
    editor = editor.with_defaults(image_size=size, blocks=blocks)
    editor.watch = meter
    hold = {"mask": lower_part(size, 1 - held), "refresh_every": steps} if held else {}
    editor.edit(picture(size), INSTRUCTION, steps=steps, seed=0, **hold)

    deciding = {draw: time_decision(editor, size // editor.vq.config.factor, draw) for draw in DRAWS}
    least = floors(parts_of(sizes), size, passes=2 if editor.defaults.guidance_scale > 1 else 1)
    kinds = STAGES | {f"step {i + 1} of {steps}": "step" for i in range(1 if held else steps)}
    for stage in meter.stages:
        stage.flops = least.get(kinds.get(stage.name, ""))
    return {
        "computer": computer(editor),
        "settings": {
            "size": size, "steps": steps, "blocks": last + 1, "offload": offload, "held": held,
            "dtype": str(editor.transformer.dtype).removeprefix("torch."),
        },
        "weights": bytes_of(editor.transformer, editor.vq),
        "deciding": {"tokens": (size // editor.vq.config.factor) ** 2, "seconds": deciding},
        "stages": [asdict(stage) for stage in meter.stages],
    }  # fmt: skip


def check(sizes: Sizes, size: int, steps: int, held: float) -> None:
    """Raises SettingError for a size that the grid does not have, no steps, and a share that is not in [0, 1)."""
    cell = 2 * sizes.vq.factor
    if size < cell or size % cell:
        raise SettingError(f"size is {size}", expected=f"a multiple of {cell} px", fix="1024 is the released size")
    check_number(steps, "steps", 1, MOST_STEPS, "2 is usual", whole=True)
    if not 0 <= held < 1:
        raise SettingError(f"held is {held}", expected="a share of the picture in [0, 1)", fix="0.7, say")


def time_decision(editor: Editor, side: int, draw: str, repetitions: int = 3) -> float:
    """Median seconds in which a step decides side² masked tokens from random logits; `draw`: a name in DRAWS."""
    codes, device, seconds = editor.transformer.config.codebook_size, editor.device, []
    sampler = RegionHoldSampler(editor.mask_token_id, 2, draw=draw)
    generator = torch.Generator(device).manual_seed(0)
    logits = torch.randn(1, side, side, codes, generator=generator, device=device).permute(0, 3, 1, 2)  # its layout
    masked = torch.full((1, side, side), editor.mask_token_id, device=device)
    for _ in range(repetitions):
        began = time.perf_counter()
        sampler.step(logits, masked, 0, generator=generator).cpu()
        seconds.append(time.perf_counter() - began)
    return median(seconds)


def picture(size: int) -> Image.Image:
    return world.sample_edit(0, split="test", size=min(size, 256)).source.resize((size, size))


def lower_part(size: int, share: float) -> Image.Image:
    """A mask, white in the lowest rows of the picture."""
    mask = Image.new("L", (size, size))
    mask.paste(255, (0, round(size * (1 - share)), size, size))
    return mask


def report(result: dict[str, Any]) -> str:
    """The result of `measure`: a table, and one sentence."""
    lines = [["", "s", "floor, TFLOP", "TFLOP/s", "peak, GiB", "of it mapped", "beside the weights"]]
    for stage in result["stages"]:
        flops, beside = stage["flops"], stage["peak"] - result["weights"]
        rate = ("–", "–") if flops is None else (f"{flops / 1e12:.2f}", f"{flops / 1e12 / stage['seconds']:.3f}")
        memory = [f"{value / 2**30:.2f}" for value in (stage["peak"], stage["mapped"], beside)]
        lines.append([stage["name"], f"{stage['seconds']:.1f}", *rate, *memory])
    about = [", ".join(f"{name} {value}" for name, value in result[part].items()) for part in ("computer", "settings")]
    edit = [stage for stage in result["stages"] if stage["name"] != "loading"]
    peak, chosen = max(stage["peak"] for stage in result["stages"]), result["settings"]
    sentence = (
        f"{chosen['steps']} steps of {chosen['blocks']} blocks at {chosen['size']}² px took "
        f"{sum(stage['seconds'] for stage in edit):.1f} s and {peak / 2**30:.2f} GiB at most, "
        f"{(peak - result['weights']) / 2**30:.2f} GiB beside the weights of transformer and VQ model "
        f"({result['weights'] / 2**30:.2f} GiB)."
    )
    took = ", ".join(f"{seconds:.2f} s drawn by {draw}" for draw, seconds in result["deciding"]["seconds"].items())
    deciding = f"To decide {result['deciding']['tokens']:,} tokens, part of every step, takes {took}."
    return "\n".join([*about, "", align(lines), "", deciding, *_saved(result), sentence])


def _saved(result: dict[str, Any]) -> list[str]:
    whole, *rest = (stage["seconds"] for stage in result["stages"] if stage["name"].startswith("step "))
    held = result["settings"]["held"]
    return (
        [f"A step of which {held:.0%} is held took {median(rest) / whole:.0%} of a whole one."] if held and rest else []
    )
