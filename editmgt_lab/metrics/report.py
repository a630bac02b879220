"""How results are written: cells with their intervals, aligned columns, a page of pictures, JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from ..basics.folders import write_text, written_whole
from ..plain_text import literal, one_line

Row = tuple[str, Sequence[Image.Image]]  # a caption and the pictures beside each other


def cell(metric: Mapping[str, float | None], factor: float, digits: int) -> str:
    """mean (low–high) of a `arithmetic.summary`, times a factor."""
    if not metric["count"]:
        return "–"
    mean, low, high = (factor * metric[name] for name in ("mean", "low", "high"))
    between = "–" if low >= 0 else " to "
    return f"{mean:.{digits}f} ({low:.{digits}f}{between}{high:.{digits}f})"


def save_json(value: Any, path: Path) -> None:
    """Write a result, whole or not at all; NaN is refused, which JSON does not have, and folders are made.

    Raises DiskError.
    """
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    write_text(path, text)


def save_figure(figure: Figure, path: Path, **options: Any) -> None:
    """Write a figure in the form that the name ends in, whole or not at all. options: of `Figure.savefig`. Raises
    DiskError."""
    with written_whole(path) as unfinished:
        figure.savefig(unfinished, **options)


def align(lines: Sequence[Sequence[str]], left: int = 1) -> str:
    """Columns as wide as their widest cell, the first `left` of them to the left, with a rule under the head; every
    cell is made one line."""
    lines = [[one_line(text) for text in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = []
    for line in lines:
        cells = zip(line, widths, strict=True)
        rows.append("  ".join(f"{text:{'<' if i < left else '>'}{width}}" for i, (text, width) in enumerate(cells)))
    return "\n".join([rows[0].rstrip(), "─" * len(rows[0]), *rows[1:]])


@literal
def gallery(title: str, pairs: Sequence[Sequence[Row]], names: Sequence[str]) -> Figure:
    """Two rows of pictures beside each other on every line, or one, each under its caption; a row without pictures has
    that alone. names: of the pictures of every row."""
    figure = Figure(figsize=(12, (6 / len(names) + 0.6) * len(pairs) + 0.5), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03)
    figure.suptitle(title)
    lines = figure.subfigures(max(len(pairs), 1), 2, squeeze=False)
    for line, pair in zip(lines, pairs, strict=False):
        for part, (caption, pictures) in zip(line, pair, strict=False):
            part.suptitle(caption, fontsize="small")
            if not pictures:
                continue
            panels = part.subplots(1, len(names), squeeze=False).flat
            for axes, picture, name in zip(panels, pictures, names, strict=True):
                axes.imshow(picture)
                axes.set_title(name, fontsize="small", color="0.4")
                axes.axis("off")
    return figure
