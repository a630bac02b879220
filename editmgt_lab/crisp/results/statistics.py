"""`python -m editmgt_lab.crisp.results.statistics`: the paper's two panels for any data set of edits.

Resolution intervals of the long side, and the categories as a pie. Of pictures only the headers are read.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from ...data.pairs import SCHEMAS, PairReader
from ...errors import DataError, command
from ...metrics.report import save_figure, save_json
from ...plain_text import legend_name, literal, say
from ...world import CATEGORIES
from ..curate.decode import header_size

INTERVALS = 8
FIRST_CATEGORIES = {name: i for i, name in enumerate(CATEGORIES)}
TOLD = 5  # percent of the pie, from which on a slice has room for its share


@dataclass(frozen=True)
class Statistics:
    """Of a data set. rows: all; unreadable: whose source has no size that can be read; categories: by name, the most
    frequent of other data sets as well; sizes_differ: pairs whose source and target are of two sizes.

    long_sides: of the sources, px → how many; lost: files that could not be read to their end.
    """

    rows: int
    unreadable: int
    categories: dict[str, int]
    long_sides: dict[int, int]
    sizes_differ: int = 0
    lost: int = 0

    def intervals(self) -> list[tuple[int, int, int]]:
        """(from, to, rows): INTERVALS equally wide ones of the long side, [from, to) in whole px, first to last."""
        if not self.long_sides:
            return []
        low, high = min(self.long_sides), max(self.long_sides) + 1
        width = max(1, math.ceil((high - low) / INTERVALS))
        edges = range(low, high, width)
        inside = Counter((side - low) // width for side, n in self.long_sides.items() for _ in range(n))
        return [(edge, edge + width, inside[i]) for i, edge in enumerate(edges)]

    @literal
    def figure(self) -> Figure:
        """The two panels."""
        figure = Figure(figsize=(10, 4), layout="constrained")
        left, right = figure.subplots(1, 2)
        self._draw_sizes(left)
        self._draw_categories(right)
        return figure

    def _draw_sizes(self, axes: Axes) -> None:
        axes.set_title("resolution")
        if len(self.long_sides) < 2:  # one bar would say less
            told = [f"all long sides: {side} px\n{n} pairs" for side, n in self.long_sides.items()]
            axes.text(0.5, 0.5, *told or ["no source can be read"], ha="center", va="center")
            axes.set_axis_off()
            return
        intervals = self.intervals()
        axes.bar([f"[{low}, {high})" for low, high, _ in intervals], [n for *_, n in intervals], color="tab:blue")
        axes.tick_params(axis="x", rotation=45)
        axes.set(xlabel="long side, px", ylabel="pairs")

    def _draw_categories(self, axes: Axes) -> None:
        """Names stand beside the pie, where those of thin slices do not touch."""
        count = len(self.categories)
        colours = matplotlib.colormaps["turbo"](np.linspace(0.15, 0.95, count)) if count > 10 else None
        wedges, *_ = axes.pie(
            self.categories.values(), colors=colours, counterclock=False, startangle=90, pctdistance=0.75,
            autopct=lambda share: f"{share:.0f}%" if share >= TOLD else "",
        )  # fmt: skip
        names = [f"{legend_name(name)}: {n}" for name, n in self.categories.items()]
        columns = 1 + count // 14  # more lines are higher than the pie
        axes.legend(
            wedges, names, loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small", frameon=False, ncols=columns
        )
        axes.set_title("categories")

    def to_dict(self) -> dict[str, Any]:
        told = asdict(self) | {"long_sides": {str(side): n for side, n in sorted(self.long_sides.items())}}
        return told | {"intervals": [list(each) for each in self.intervals()]}


def statistics(source: str | Path, *, limit: int | None = None, progress: bool = True) -> Statistics:
    """Of a data set of edits, in a published schema or a plain folder: a local path or a hub name.

    limit: rows at most (None: all). Files that are damaged, and lines of a plain folder that are no rows, are counted.
    Raises DataError for what holds no rows of a known schema, SettingError for a limit that is none.
    """
    reader, lost = PairReader(source, limit=limit, held_out=True), []
    with tqdm(_whole(reader, lost), desc="statistics", unit="pair", total=limit, disable=not progress) as bar:
        told = _counted(reader, bar)
    if not told.rows:
        lost.append(DataError(f"{source} holds no rows", expected="one or more", fix="download the data set again"))
        raise lost[0]
    return replace(told, lost=len(lost))


def _whole(reader: PairReader, lost: list[DataError]) -> Iterator[dict[str, Any]]:
    """The rows of all tables, as far as they can be read; what ends one is put into `lost`."""
    for table in reader.tables:
        try:
            yield from (row or {} for row in reader.rows(table))
        except DataError as error:
            lost.append(error)


def _counted(reader: PairReader, rows: Iterable[dict[str, Any]]) -> Statistics:
    count, unreadable, differ = 0, 0, 0
    categories, sides = Counter(), Counter()
    schema = SCHEMAS[reader.schema]
    for row in rows:
        count += 1
        sizes = [header_size(picture) for picture in reader.pictures(row)]
        unreadable += sizes[0] is None
        differ += None not in sizes and sizes[0] != sizes[1]
        if sizes[0]:
            sides[max(sizes[0])] += 1
        categories[str(row.get(schema.category) or "unnamed") if schema.category else "unnamed"] += 1
        if count == reader.limit:
            break
    order = sorted(categories, key=lambda name: (FIRST_CATEGORIES.get(name, len(FIRST_CATEGORIES)), -categories[name]))
    return Statistics(count, unreadable, {name: categories[name] for name in order}, dict(sides), differ)


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Print the numbers and draw the panels."""
    parser = argparse.ArgumentParser(prog="python -m editmgt_lab.crisp.results.statistics")
    parser.add_argument("source", help="a data set of edits: a folder, or a hub name, which is streamed")
    parser.add_argument("--limit", type=int, help="rows at most")
    parser.add_argument("--output", type=Path, default=Path("outputs"), help="folder [%(default)s]")
    chosen = parser.parse_args(arguments)
    found = statistics(chosen.source, limit=chosen.limit)
    say(f"{found.rows} pairs, {found.unreadable} without a readable source")
    if found.lost:
        say(f"{found.lost} files could not be read to their end")
    say("  " + ", ".join(f"{name} {n}" for name, n in found.categories.items()))
    for low, high, n in found.intervals():
        say(f"  long side [{low}, {high}) px: {n}")
    save_figure(found.figure(), chosen.output / "statistics.png", dpi=150)
    save_json(found.to_dict(), chosen.output / "statistics.json")
    say("saved:", chosen.output / "statistics.png")


if __name__ == "__main__":
    raise SystemExit(main())
