"""`python -m tests.long`: a thousand edits, views opened and closed, a notebook run again and again in one kernel.

Memory must not grow: at the end at most 5% over that after the first tenth, and nothing may be left open: threads,
hooks on the network, files, widgets, comms. Prints a line for each, draws memory over time; exits with 1 where
something grew.
"""

from __future__ import annotations

import argparse
import multiprocessing
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure
from tqdm.auto import tqdm

from editmgt_lab.metrics.report import save_figure, save_json
from tests.support import ROOT

from .work import VIEWS, Counts, apart, edits, notebook_runs, openings

GROWTH = 1.05  # memory at the end, over that after the first tenth


def watch(title: str, work: Callable[[], Iterator[Counts]], count: int) -> list[Counts]:
    """What `work` yields, from a process of its own. Raises EOFError where that ended early."""
    mine, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=apart, args=(work, theirs))
    process.start()
    theirs.close()
    with tqdm(total=count, desc=title) as bar:
        seen = []
        for _ in range(count):
            seen.append(mine.recv())
            bar.update()
    process.join()
    return seen


def grown(seen: list[Counts]) -> list[str]:
    """What is more at the end than after the first tenth; memory may be 5% more."""
    first, last = seen[max(len(seen) // 10 - 1, 0)], seen[-1]
    return [
        f"{name} {first[name]:,} → {last[name]:,}"
        for name in first
        if last[name] > first[name] * (GROWTH if name == "memory" else 1)
    ]


def memory_figure(found: dict[str, list[Counts]]) -> Figure:
    """Memory over the repetitions of each kind of work, of that after the first tenth; dashed: the bound."""
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for title, seen in found.items():
        base = seen[max(len(seen) // 10 - 1, 0)]["memory"]
        done = [100 * (i + 1) / len(seen) for i in range(len(seen))]
        label = f"{title} ({len(seen)} times, {base / 2**20:.0f} MiB)"
        axes.plot(done, [each["memory"] / base for each in seen], label=label, linewidth=1.2)
    axes.axhline(GROWTH, color="0.4", linestyle="--", linewidth=1)
    axes.set_xlabel("% of the repetitions done")
    axes.set_ylabel("memory, of that after a tenth")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=9)
    return figure


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.long", description=__doc__.split("\n\n")[0])
    parser.add_argument("--edits", type=int, default=1000)
    parser.add_argument("--openings", type=int, default=200, help="of every view")
    parser.add_argument("--runs", type=int, default=50, help="of the notebook")
    parser.add_argument("--notebook", type=Path, default=ROOT / "notebooks" / "00_quickstart.ipynb")
    parser.add_argument("--output", type=Path, default=Path("outputs") / "long")
    options = parser.parse_args()
    works = {"edits": (partial(edits, options.edits), options.edits)}
    works |= {name: (partial(openings, name, options.openings), options.openings) for name in VIEWS}
    works[options.notebook.stem] = (partial(notebook_runs, options.notebook, options.runs), options.runs)
    found = {title: watch(title, work, count) for title, (work, count) in works.items() if count}
    bad = {title: more for title, seen in found.items() if (more := grown(seen))}
    for title, seen in found.items():
        print(f"{title}: {len(seen)} times, {seen[-1]['memory'] / 2**20:.0f} MiB;", ", ".join(bad.get(title, ["kept"])))
    save_json(found, options.output / "long.json")
    save_figure(memory_figure(found), options.output / "memory.png", dpi=120)
    print("saved:", options.output)
    return int(bool(bad))


if __name__ == "__main__":
    raise SystemExit(main())
