"""How time and memory of a pass grow with the picture: one pass of the transformer at ever more tokens."""

from __future__ import annotations

import itertools
import math
import multiprocessing
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from ...errors import SettingError
from ...metrics.report import align
from ...plain_text import literal, say
from ...text import TextCondition
from ...transformer import MaskedGenerativeTransformer, TransformerConfig
from .floor import LANGUAGE_LENGTH, counted
from .measure import Meter

SIDES = (32, 48, 64, 96, 128)
MEASURES = {"seconds": "time", "memory": "memory", "flops": "floor"}


@dataclass(frozen=True)
class Taken:
    """By one pass over side² tokens, a source beside them. seconds: of the processor, all its cores together, on a GPU
    the clock's; memory: most bytes that the process held in the pass, less those before; flops: the pass's floor."""

    side: int
    seconds: float
    memory: int
    flops: float

    @property
    def tokens(self) -> int:
        return self.side**2


def measure(
    config: TransformerConfig,
    sides: Sequence[int] = SIDES,
    *,
    passes: int = 2,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    progress: bool = True,
) -> list[Taken]:
    """Every side in a process of its own, since what a process has held it may not give back.

    passes: of which the fastest counts. Where memory runs out, it is said, and the sides before are returned. Raises
    SettingError for sides that do not rise or that the grid does not have, and where memory lacks for the first one.
    """
    cell = 2 if config.downsample else 1
    if list(sides) != sorted({*sides}) or any(side < cell or side % cell for side in sides) or not sides or passes < 1:
        raise SettingError(
            f"sides are {list(sides)}, passes {passes}",
            expected=f"tokens along a side, rising, multiples of {cell}; 1 pass or more",
            fix="such as 32 64 128",
        )
    taken, fresh = [], multiprocessing.get_context("spawn")
    for side in tqdm(sides, desc="growth", unit="size", disable=not progress):
        with ProcessPoolExecutor(1, mp_context=fresh) as child:
            try:
                taken.append(child.submit(take, config, side, passes, device, dtype).result())
            except (RuntimeError, MemoryError) as error:  # of torch's allocators, or the system ended the process
                failed = SettingError(
                    f"{side}² tokens could not be measured: {str(error) or type(error).__name__}",
                    expected="room in memory for one pass",
                    fix="take fewer --layers, or leave the largest sizes out",
                )
                if not taken:
                    raise failed from error
                say(failed, file=sys.stderr)
                break
    return taken


@torch.no_grad()
def take(config: TransformerConfig, side: int, passes: int, device: torch.device, dtype: torch.dtype) -> Taken:
    """Passes of a fresh network over side² tokens, in this process."""

    def one(transformer: MaskedGenerativeTransformer, side: int) -> None:
        place = transformer.project_to_hidden.weight.device
        tokens = torch.zeros(1, side, side, dtype=torch.long, device=place)
        rows, pooled = (LANGUAGE_LENGTH, config.text_width), (config.pooled_projection_dim,)
        text = TextCondition(*(torch.zeros(1, *shape, dtype=dtype, device=place) for shape in (rows, pooled)))
        transformer(tokens, text, torch.zeros(1, device=place), source=tokens)

    with torch.device("meta"):
        flops = counted(lambda: one(MaskedGenerativeTransformer(config), side))
    torch.manual_seed(0)
    with torch.device(device):
        transformer = MaskedGenerativeTransformer(config).to(dtype).eval()
    clock, seconds = time.process_time if device.type == "cpu" else time.perf_counter, []
    one(transformer, 2)  # what the libraries take once, for any size
    meter = Meter(device, progress=False)
    with meter("before", 1):
        pass
    with meter("passes", passes) as done:
        for _ in range(passes):
            began = clock()
            one(transformer, side)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds.append(clock() - began)
            done()
    before, *stages = meter.stages
    more = max(stage.peak for stage in stages) - before.peak
    return Taken(side, min(seconds), max(more, 1), flops)  # a byte, where no more was seen: powers want a number


def exponents(taken: Sequence[Taken], measure: str) -> list[float]:
    """Between each size and the next: the power of the tokens with which a measure grows; 1 is linear, 2 quadratic."""
    return [
        math.log(getattr(b, measure) / getattr(a, measure)) / math.log(b.tokens / a.tokens)
        for a, b in itertools.pairwise(taken)
    ]


def report(taken: Sequence[Taken]) -> str:
    """A table, each measure with the power by which it has grown since the line before, and one sentence."""
    powers = {name: ["–", *(f"{power:.2f}" for power in exponents(taken, name))] for name in MEASURES}
    lines = [["tokens", "time, s", "power", "memory, MB", "power", "floor, TFLOP", "power"]]
    for i, each in enumerate(taken):
        numbers = (f"{each.seconds:.2f}", f"{each.memory / 1e6:.0f}", f"{each.flops / 1e12:.3f}")
        cells = [cell for pair in zip(numbers, (powers[name][i] for name in MEASURES), strict=True) for cell in pair]
        lines.append([f"{each.side}²", *cells])
    first, last = taken[0], taken[-1]
    return "\n".join([align(lines), "", (
        f"From {first.side}² to {last.side}² tokens, {last.tokens / first.tokens:g} times as many, a pass takes "
        f"{last.seconds / first.seconds:.0f} times the time and {last.memory / first.memory:.0f} times the memory "
        "beside the weights."
    )])  # fmt: skip


def to_dict(taken: Sequence[Taken]) -> dict[str, Any]:
    """Ready for JSON."""
    return {"sizes": [asdict(each) for each in taken], "powers": {name: exponents(taken, name) for name in MEASURES}}


@literal
def growth_figure(taken: Sequence[Taken], about: str) -> Figure:
    """Time and memory over the tokens, both logarithms, each segment with its power; dashed: what is multiplied."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2)
    first = taken[0]
    floor = [first.seconds * each.flops / first.flops for each in taken]
    time_axes.plot([each.tokens for each in taken], floor, "--", color="0.55", label="floor, at the first one's speed")
    draw(time_axes, taken, "seconds", 1, "time of a pass, s")
    time_axes.legend(frameon=False)
    draw(memory_axes, taken, "memory", 1e6, "memory beside the weights, MB")
    figure.supxlabel(f"{about}; numbers: the power of the tokens in each segment", fontsize=9, x=0.01, ha="left")
    return figure


def draw(axes: Axes, taken: Sequence[Taken], measure: str, unit: float, name: str) -> None:
    """One measure, and beside the middle of each segment its power."""
    places = [(each.tokens, getattr(each, measure) / unit) for each in taken]
    axes.plot(*zip(*places, strict=True), "o-", color="#0072b2")
    for (x, y), (x2, y2), power in zip(places, places[1:], exponents(taken, measure), strict=False):
        middle = (math.sqrt(x * x2), math.sqrt(y * y2))
        axes.annotate(f"{power:.2f}", middle, xytext=(9, -13), textcoords="offset points", color="#0072b2")
    axes.set(xscale="log", yscale="log", xlabel="tokens", ylabel=name)
    axes.set_xticks([each.tokens for each in taken], [f"{each.side}²" for each in taken])
    axes.set_yticks([y for _, y in places], [f"{y:.3g}" for _, y in places])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
