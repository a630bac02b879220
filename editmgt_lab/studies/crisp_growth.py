"""`python -m editmgt_lab.studies.crisp_growth`: what does the data pipeline take, in time and memory, as its rows grow?

`make crisp` is run on ever more drawn scenes, from nothing, each time in a process of its own. Its processor time is
that of all its threads and processes, which other programs on the computer change less than the clock's; its peak
memory is the largest sum of what it and its children hold (resident), looked at twice a second. Growth is the slope
of time over rows where both are logarithms: 1 is linear, 2 quadratic; starting up, the same for all, makes it smaller.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from ..basics.folders import make_folder
from ..crisp.pipeline import STAGES
from ..errors import DataError, SettingError, command
from ..metrics.report import align, save_figure, save_json
from ..plain_text import literal
from ..world import PIXELS
from .bench import processor

COUNTS = (200, 1000, 2000)
MOST_GROWTH = 1.3  # of the peak memory, at ten times the rows
EVERY = 0.5  # s
MB = 1e6


@dataclass(frozen=True)
class Taken:
    """By one run. scenes: pictures that went in; rows: that all stages made; peak: bytes.

    seconds: by the clock; processor: s of all cores together.
    """

    scenes: int
    rows: int
    seconds: float
    processor: float
    peak: int


def take(count: int, folder: Path, arguments: Sequence[str] = ()) -> Taken:
    """Run the pipeline on `count` scenes in a new folder. Raises DataError where it fails, with what it said."""
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)
    asked = ["--count", str(count), "--output", str(folder), *arguments]
    with open(folder / "said.txt", "w", encoding="utf-8") as said:
        began = time.perf_counter()
        process = psutil.Popen([sys.executable, "-m", "editmgt_lab.crisp", *asked], stdout=said, stderr=said)
        used = _Used()
        while process.poll() is None:
            used.look(process)
            time.sleep(EVERY)
        seconds = time.perf_counter() - began
    if process.returncode:
        raise DataError(
            f"the pipeline ended with {process.returncode} at {count} scenes: {_end(folder / 'said.txt')}",
            expected="a run that finishes",
            fix=f"see {folder / 'said.txt'}",
        )
    shards = json.loads((folder / "shards" / "manifest.json").read_text(encoding="utf-8"))
    rows = sum(shard["kept"] + shard["dropped"] for stage in shards for shard in stage["shards"])
    return Taken(count, rows, seconds, used.processor, used.peak)


class _Used:
    """The most memory that a process and its children held at once, and the processor time that they took."""

    def __init__(self) -> None:
        self.peak, self._times = 0, {}

    @property
    def processor(self) -> float:
        return sum(self._times.values())

    def look(self, process: psutil.Process) -> None:
        held = 0
        with suppress(psutil.Error):  # one may end while it is looked at
            for each in (process, *process.children(recursive=True)):
                times = each.cpu_times()
                self._times[each.pid] = times.user + times.system
                held += each.memory_info().rss
        self.peak = max(self.peak, held)


def growth(taken: Sequence[Taken]) -> float:
    """The exponent of processor time over scenes, by least squares of the logarithms; NaN for less than two."""
    if len(taken) < 2:
        return float("nan")
    scenes, seconds = (np.log([getattr(each, name) for each in taken]) for name in ("scenes", "processor"))
    return float(np.polyfit(scenes, seconds, 1)[0])


def memory_growth(taken: Sequence[Taken]) -> tuple[float, float] | None:
    """(times the scenes, times the peak) of the largest two runs ten times apart, or nearly so; None for one run."""
    pairs = [(a, b) for a in taken for b in taken if b.scenes > a.scenes]
    if not pairs:
        return None
    first, second = min(pairs, key=lambda pair: (abs(np.log10(pair[1].scenes / pair[0].scenes) - 1), -pair[1].scenes))
    return second.scenes / first.scenes, second.peak / first.peak


def table(taken: Sequence[Taken]) -> str:
    lines = [["scenes", "rows", "processor s", "ms each further scene", "clock s", "peak MB"]]
    before = None
    for each in taken:
        further = before and 1000 * (each.processor - before.processor) / (each.scenes - before.scenes)
        numbers = (each.processor, further, each.seconds, each.peak / MB)
        cells = ("–" if number is None else f"{number:.0f}" for number in numbers)
        lines.append([str(each.scenes), str(each.rows), *cells])
        before = each
    return align(lines, 0)


def told(taken: Sequence[Taken]) -> str:
    """What the numbers say, in words."""
    if len(taken) < 2:
        return "one run says nothing about growth"
    times, peak = memory_growth(taken)
    first, last = taken[0].scenes, taken[-1].scenes
    return (
        f"from {first} to {last} scenes processor time grows with the power {growth(taken):.2f} of their number; "
        f"{times:g} times the scenes take {peak:.2f} times the peak memory"
    )


@literal
def picture(taken: Sequence[Taken]) -> Figure:
    """Processor time over scenes beside a line of slope 1, and peak memory over scenes beside the bar."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    scenes = [each.scenes for each in taken]
    linear = [taken[-1].processor * each / scenes[-1] for each in scenes]
    left.plot(scenes, linear, color="0.6", linestyle="--", label="as many times as the scenes")
    left.plot(scenes, [each.processor for each in taken], "o-", color="tab:blue", label="measured")
    left.set(xscale="log", yscale="log", xlabel="scenes", ylabel="processor time, s", title="time")
    left.set_yticks([each.processor for each in taken], [f"{each.processor:.0f}" for each in taken])
    left.legend(frameon=False)
    peaks = [each.peak / MB for each in taken]
    right.axhline(MOST_GROWTH * peaks[0], color="0.6", linestyle="--", label=f"{MOST_GROWTH:g} × the smallest run")
    right.plot(scenes, peaks, "o-", color="tab:blue", label="measured")
    right.set(xscale="log", xlabel="scenes", ylabel="peak memory, MB", title="memory", ylim=(0, None))
    right.legend(frameon=False, loc="lower right")
    for axes in (left, right):
        axes.set_xticks(scenes, [f"{each:,}" for each in scenes])
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def measure(counts: Sequence[int], folder: Path, arguments: Sequence[str] = ()) -> list[Taken]:
    """A run for each count, smallest first; growth.json, growth.png and growth.svg hold all that are done so far.

    arguments: more of the pipeline's command line. Raises SettingError for counts that do not rise, DataError.
    """
    if not counts or list(counts) != sorted({*counts}) or counts[0] < 1:
        raise SettingError(f"counts are {list(counts)}", expected="numbers of scenes that rise", fix="such as 200 2000")
    taken: list[Taken] = []
    for count in tqdm(counts, desc="growth", unit="run"):
        taken.append(take(count, folder / str(count), arguments))
        save(taken, folder, arguments)
        shutil.rmtree(folder / str(count))
    return taken


def save(taken: Sequence[Taken], folder: Path, arguments: Sequence[str]) -> dict[str, Any]:
    """Write numbers and figure; what was written."""
    times_and_peak = memory_growth(taken)
    result = {
        "processor": processor(),
        "arguments": list(arguments),
        "runs": [asdict(each) for each in taken],
        "exponent": growth(taken) if len(taken) > 1 else None,
        "memory": times_and_peak and dict(zip(("times_scenes", "times_peak"), times_and_peak, strict=True)),
    }
    save_json(result, folder / "growth.json")
    for ending in ("png", "svg"):
        save_figure(picture(taken), folder / f"growth.{ending}", dpi=110)
    return result


@command
def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table and what it says."""
    parser = argparse.ArgumentParser(prog="python -m editmgt_lab.studies.crisp_growth", description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="of scenes, rising %(default)s")
    parser.add_argument("--until", default=STAGES[-1], choices=STAGES, help="the last stage to run [%(default)s]")
    parser.add_argument("--size", type=int, default=PIXELS, help="px of the drawn pictures [%(default)s]")
    parser.add_argument("--output", type=Path, default=Path("outputs") / "crisp_growth", help="folder [%(default)s]")
    chosen = parser.parse_args(arguments)
    taken = measure(chosen.counts, chosen.output, ["--until", chosen.until, "--size", str(chosen.size)])
    print(table(taken), "", told(taken), f"saved: {chosen.output / 'growth.png'}", sep="\n")


def _end(path: Path) -> str:
    return " ".join(path.read_text(encoding="utf-8", errors="replace").split()[-20:])


if __name__ == "__main__":
    raise SystemExit(main())
