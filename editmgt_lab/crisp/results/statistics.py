"""`python -m editmgt_lab.crisp.results.statistics`: the paper's two panels for any data set of edits.

Resolution intervals of the long side, and the categories as a pie. Of pictures only the headers are read.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from tqdm.auto import tqdm

from ...data.pairs import EDITS, SCHEMAS
from ...data.tables import picture_bytes, read_rows
from ...errors import DataError, command
from ...metrics.report import save_figure, save_json
from ...plain_text import literal, say
from ...world import CATEGORIES
from ..curate.decode import header_size

INTERVALS = 8
FIRST_CATEGORIES = {name: i for i, name in enumerate(CATEGORIES)}


@dataclass(frozen=True)
class Statistics:
    """Of a data set. rows: all; unreadable: whose source has no size that can be read; categories: by name, the most
    frequent of other data sets as well; sizes_differ: pairs whose source and target are of two sizes.

    long_sides: of the sources, px → how many.
    """

    rows: int
    unreadable: int
    categories: dict[str, int]
    long_sides: dict[int, int]
    sizes_differ: int = 0

    def intervals(self, count: int = INTERVALS) -> list[tuple[int, int, int]]:
        """(from, to, rows): `count` equally wide intervals of the long side, [from, to) in whole px, first to last."""
        if not self.long_sides:
            return []
        low, high = min(self.long_sides), max(self.long_sides) + 1
        width = max(1, math.ceil((high - low) / count))
        edges = range(low, high, width)
        inside = Counter((side - low) // width for side, n in self.long_sides.items() for _ in range(n))
        return [(edge, edge + width, inside[i]) for i, edge in enumerate(edges)]

    @literal
    def figure(self) -> Figure:
        """The two panels."""
        figure = Figure(figsize=(10, 4), layout="constrained")
        left, right = figure.subplots(1, 2)
        intervals = self.intervals()
        left.bar([f"[{low}, {high})" for low, high, _ in intervals], [n for *_, n in intervals], color="tab:blue")
        left.tick_params(axis="x", rotation=45)
        left.set(xlabel="long side, px", ylabel="pairs", title="resolution")
        right.pie(self.categories.values(), labels=self.categories, autopct="%.0f%%", counterclock=False, startangle=90)
        right.set_title("categories")
        return figure

    def to_dict(self) -> dict[str, Any]:
        told = asdict(self) | {"long_sides": {str(side): n for side, n in sorted(self.long_sides.items())}}
        return told | {"intervals": [list(each) for each in self.intervals()]}


def statistics(source: str | Path, *, limit: int | None = None, progress: bool = True) -> Statistics:
    """Of a data set of edits, in a published schema or a plain folder: a local path or a hub name.

    limit: rows at most (None: all). Raises DataError for what holds no rows of a known schema.
    """
    folder = Path(source).expanduser()
    plain = (folder / EDITS).is_file()
    rows = read_rows(folder / EDITS if plain else source)
    with tqdm(rows, desc="statistics", unit="pair", total=limit, disable=not progress) as bar:
        return _counted(bar, folder if plain else None, limit)


def _counted(rows: Iterable[Any], folder: Path | None, limit: int | None) -> Statistics:
    schema, count, unreadable, differ = None, 0, 0, 0
    categories, sides = Counter(), Counter()
    for row in rows:
        if schema is None:
            schema = next((each for each in SCHEMAS.values() if isinstance(row, dict) and each.fits(list(row))), None)
            if schema is None:
                raise DataError(
                    f"rows with {', '.join(row) if isinstance(row, dict) else row!r} are in no known schema",
                    expected=", ".join(SCHEMAS),
                    fix="see data/pairs.py for their columns",
                )
        count += 1
        sizes = [
            header_size(picture_bytes(row.get(column), folder / part if folder else None))
            for column, part in ((schema.source, "source"), (schema.target, "target"))
        ]
        unreadable += sizes[0] is None
        differ += None not in sizes and sizes[0] != sizes[1]
        if sizes[0]:
            sides[max(sizes[0])] += 1
        categories[str(row.get(schema.category) or "unnamed") if schema.category else "unnamed"] += 1
        if count == limit:
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
    say("  " + ", ".join(f"{name} {n}" for name, n in found.categories.items()))
    for low, high, n in found.intervals():
        say(f"  long side [{low}, {high}) px: {n}")
    save_figure(found.figure(), chosen.output / "statistics.png", dpi=150)
    save_json(found.to_dict(), chosen.output / "statistics.json")
    say("saved:", chosen.output / "statistics.png")


if __name__ == "__main__":
    raise SystemExit(main())
