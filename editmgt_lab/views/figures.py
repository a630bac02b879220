"""Figures of an edit and of its five stages, for a notebook or a slide. Each takes plain results, returns a Figure."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any, TypeAlias

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch, Rectangle
from PIL import Image
from torch import Tensor

from ..attention import CapturedAttention
from ..basics.checks import check_number
from ..consolidation import consolidate
from ..errors import SettingError
from ..plain_text import legend_name, literal, one_line
from ..results import DecodeStep, EditResult
from ..text import TextCondition
from .overlays import HEAT_MAP, HELD, MASKED, heat_overlay, held_overlay

Picture: TypeAlias = Image.Image | np.ndarray

DECIDED = (253, 231, 170)
CURVES, CONTROL = ("#0072b2", "#d55e00", "#009e73", "#cc79a7"), "0.65"  # told apart by colour-blind readers
PANEL = 2.6  # inches along one side of a picture
TITLE = 14  # points
ZOOM = 4  # tokens along one side of the part whose numbers are shown


def edit_figure(result: EditResult) -> Figure:
    """One row for each picture of an edit: source, heat map, held region, edit. Text to image: the pictures alone."""
    if not result.sources:
        return panels_figure([list(zip(result.images, map(_wrapped, result.instructions), strict=True))])
    rows = [
        [
            (source, "source"),
            (heat_overlay(source, heat.numpy()), "heat map"),
            (held_overlay(source, kept.numpy()), f"held: {kept.float().mean():.0%} (blue)"),
            (edited, "edit"),
        ]
        for source, edited, heat, kept in zip(result.sources, result.images, result.heat, result.kept, strict=True)
    ]
    return panels_figure(rows, [f"“{instruction}”" for instruction in result.instructions])


@literal
def panels_figure(rows: Sequence[Sequence[tuple[Picture, str]]], titles: Sequence[str] = ()) -> Figure:
    """Rows of pictures, each under its caption, each row under its title. Raises SettingError for none, and for
    titles that are not one for each row."""
    _check_some(rows, *rows)
    if titles and len(titles) != len(rows):
        raise SettingError(
            f"{len(titles)} titles for {len(rows)} rows",
            expected="one for each row, or none",
            fix='pass "" for no title',
        )
    first = np.asarray(rows[0][0][0])
    figure = _figure(len(rows[0]), len(rows), first.shape[:2], above=0.8 if titles else 0.4)
    above = [title_lines(title, figure.get_figwidth(), TITLE) for title in titles or [""] * len(rows)]
    full = figure.get_figheight() / len(rows)
    heights = [  # the more pictures in a row, the smaller they are
        full * min(len(rows[0]) / len(row), 1) + more for row, (_, more) in zip(rows, above, strict=True)
    ]
    figure.set_figheight(sum(heights))
    parts = figure.subfigures(len(rows), squeeze=False, height_ratios=heights)
    for row, (title, _), part in zip(rows, above, parts.flat, strict=True):
        if title:
            part.suptitle(title, fontsize=TITLE, x=0.01, ha="left")
        for axis, (picture, caption) in zip(part.subplots(1, len(row), squeeze=False).flat, row, strict=True):
            _show(axis, picture, caption)
    return figure


@literal
def tokens_figure(image: Image.Image, tokens: Tensor, codebook: Tensor, decoded: Image.Image) -> Figure:
    """Stage 1: the picture under its token grid, the tokens as colours and as numbers, and the picture they decode to.

    image: as it was fitted to the grid; tokens: [h, w]; codebook: [codes, channels], whose three main directions
    become red, green and blue, so that similar codes have similar colours.
    """
    figure = _figure(4, 1, image.size[::-1])
    axes = figure.subplots(1, 4)
    tokens = tokens.cpu().numpy()
    rows, columns = tokens.shape
    _show(axes[0], image, f"picture, {image.width}×{image.height} px")
    for line, count, along in ((axes[0].axvline, columns, image.width), (axes[0].axhline, rows, image.height)):
        for i in range(1, count):
            line(i * along / count - 0.5, color="white", linewidth=0.5, alpha=0.7)

    colours = code_colours(codebook)[tokens]
    _show(axes[1], colours, f"{rows}×{columns} tokens")
    top, left = busiest(colours, ZOOM)
    part = (slice(top, top + ZOOM), slice(left, left + ZOOM))
    axes[1].add_patch(Rectangle((left - 0.5, top - 0.5), ZOOM, ZOOM, fill=False, edgecolor="black", linewidth=2))

    _show(axes[2], colours[part], "the part in the frame")
    for (row, column), token in np.ndenumerate(tokens[part]):
        ink = "black" if colours[part][row, column].mean() > 0.5 else "white"
        axes[2].text(column, row, token, color=ink, fontsize=11, ha="center", va="center")
    _show(axes[3], decoded, "decoded from the tokens")
    return figure


@literal
def text_figure(text: TextCondition, index: int = 0) -> Figure:
    """Stage 2: every word as a column of numbers, the rows of text that the transformer reads; the padding left out."""
    names = row_names(text, index)
    rows = [row for row, name in enumerate(names) if name]
    vectors = text.tokens[index].float().cpu()[rows]  # (rows, D)
    limit = float(vectors.abs().quantile(0.98))

    figure = _figure(1, 1, (1, 1))
    figure.set_size_inches(max(0.75 * len(rows) + 1.5, 5), 2.9)
    axes = figure.add_subplot()
    axes.imshow(vectors.T.numpy(), cmap="PuOr", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(rows)), [one_line(names[row]) for row in rows], fontsize=12)
    axes.xaxis.tick_top()
    axes.set_ylabel(f"{vectors.shape[1]} numbers", fontsize=11)
    axes.set_yticks([])
    for i in range(1, len(rows)):
        axes.axvline(i - 0.5, color="white", linewidth=4)
    padding = len(names) - len(rows)
    axes.set_xlabel(f"one row of text for each column, then {padding} rows of padding", fontsize=11)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


@literal
def attention_figure(
    image: Image.Image,
    captured: CapturedAttention,
    *,
    words: Tensor | None = None,
    multi_modal: int = 0,
    index: int = 0,
) -> Figure:
    """Stage 3: where the text looks in each captured block, the mean over heads and words, every map from 0 to 1.

    image: as it was fitted; words: the text rows that count (None: all but the padding); multi_modal: how many of the
    blocks are multi-modal; index: which picture of the batch.
    """
    columns = min(len(captured.blocks), 5)
    rows = -(-len(captured.blocks) // columns)
    figure = _figure(columns, rows, image.size[::-1], panel=2.1)
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for block, axis in zip(captured.blocks, axes, strict=False):
        heat = block_heat(captured, block, words)[index]
        kind = "multi-modal" if block < multi_modal else "single-modal"
        _show(axis, heat_overlay(image, heat.cpu().numpy()), f"block {block}, {kind}")
    for axis in axes[len(captured.blocks) :]:
        axis.set_axis_off()
    return figure


@literal
def consolidation_figure(
    image: Image.Image, raw: Tensor, smoothed: Tensor, *, hold_threshold: float | None = None
) -> Figure:
    """Stage 4: the mean of the blocks' maps, the same after the filter, over the picture, and what lies below λ.

    image: as it was fitted; raw, smoothed: [h, w] in [0, 1].
    """
    columns = 4 if hold_threshold else 3
    figure = _figure(columns, 1, image.size[::-1])
    axes = figure.subplots(1, columns)
    for axis, heat, title in ((axes[0], raw, "mean of the blocks"), (axes[1], smoothed, "filtered: the heat map")):
        drawn = _show(axis, heat.cpu().numpy(), title, cmap=HEAT_MAP, vmin=0, vmax=1)
    figure.colorbar(drawn, ax=axes[1], fraction=0.046, ticks=[0, 0.5, 1])
    _show(axes[2], heat_overlay(image, smoothed.cpu().numpy()), "over the picture")
    if hold_threshold:
        below = smoothed.cpu().numpy() < hold_threshold  # of which a hold may take a part, see RegionHoldSampler
        _show(axes[3], held_overlay(image, below), f"below λ = {hold_threshold:g} (blue)")
    return figure


@literal
def steps_figure(steps: Sequence[DecodeStep], *, most: int = 6, index: int = 0) -> Figure:
    """Stage 5 as a film strip: above, what is known after each step (masked, held or decided); below,
    the picture as it stands. At most `most` of the steps, the first and the last among them. Raises SettingError for
    none, and for a `most` below 2.
    """
    _check_some(steps)
    check_number(most, "most", 2, math.inf, "6 fit on a page", whole=True)
    chosen = [steps[i] for i in np.unique(np.linspace(0, len(steps) - 1, min(most, len(steps))).round().astype(int))]
    previews = [_pick(step.preview(), index) for step in chosen]
    figure = _figure(len(chosen), 2, previews[0].size[::-1], panel=2.0, above=0.5)
    axes = figure.subplots(2, len(chosen), squeeze=False)
    for step, preview, above, below in zip(chosen, previews, *axes, strict=True):
        _show(above, state_colours(step, index), f"step {step.index + 1} of {steps[-1].index + 1}")
        _show(below, preview, f"{(~step.masked[index]).float().mean():.0%} known")
    names = {"masked": MASKED, "held: the source’s token": HELD, "decided": DECIDED}
    patches = [Patch(color=np.array(colour) / 255, label=name) for name, colour in names.items()]
    figure.legend(handles=patches, loc="outside lower left", ncols=3, frameon=False, fontsize=11)
    return figure


@literal
def curves_figure(panels: Sequence[tuple[str, str, Mapping[str, tuple[Sequence, Sequence]]]]) -> Figure:
    """Line plots side by side, each (name of x, name of y, curves: name → (x, y)); controls dashed, y from 0. Raises
    SettingError for none, and for a panel without a point."""
    _check_some(panels, *([point for _, y in curves.values() for point in y] for _, _, curves in panels))
    figure = plt.figure(figsize=(max(4.4 * len(panels), 6.5), 3.2), layout="constrained")
    for axes, (across, up, curves) in zip(figure.subplots(1, len(panels), squeeze=False).flat, panels, strict=True):
        colours = cycle(CURVES)
        for name, (x, y) in curves.items():
            control = name.startswith("control")
            colour, line, above = (CONTROL, "--", 3) if control else (next(colours), "-", 2)
            axes.plot(x, y, line, marker="o", markersize=4, color=colour, label=legend_name(name), zorder=above)
        axes.set(xlabel=across, ylabel=up)
        axes.set_ylim(0, 1.06 * axes.dataLim.y1 or 1)
        axes.spines[["top", "right"]].set_visible(False)
        if any(curves):
            axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    plt.close(figure)
    return figure


def code_colours(codebook: Tensor) -> np.ndarray:
    """A colour for each code, [codes, channels] → [codes, 3] in [0, 1]: similar codes, similar colours."""
    centred = (codebook - codebook.mean(dim=0)).detach().float().cpu()
    _, vectors = torch.linalg.eigh(centred.T @ centred)  # ascending
    axes = (centred @ vectors[:, -3:].flip(-1)).argsort(dim=0).argsort(dim=0)  # ranks use the whole range of colours
    return (axes / max(len(axes) - 1, 1)).numpy()


def busiest(colours: np.ndarray, side: int) -> tuple[int, int]:
    """Row and column of the window, side × side cells of [h, w, 3], in which the colours vary most."""
    rows, columns = (max(length - side + 1, 1) for length in colours.shape[:2])
    places = [(row, column) for row in range(rows) for column in range(columns)]
    return max(places, key=lambda place: colours[place[0] :, place[1] :][:side, :side].var(axis=(0, 1)).sum())


def block_heat(captured: CapturedAttention, block: int, words: Tensor | None = None) -> Tensor:
    """One block's map, the mean over heads and words, from 0 to 1: [B, rows, columns] on the position grid."""
    if words is None and captured.padding is not None:
        words = ~captured.padding
    return consolidate(captured.text_to_image(block), words=words, smooth=False, grid=captured.grid)


def row_names(text: TextCondition, index: int = 0) -> list[str]:
    """The word or part of a word of every text row; ‹start› and ‹end› for special tokens, "" for padding."""
    names = []
    for row, (start, end) in enumerate(text.spans[index].tolist()):
        padded = text.padding is not None and bool(text.padding[index, row])
        special = "‹end›" if any(names) else "‹start›"
        names.append("" if padded else text.texts[index][start:end] or special)
    return names


def state_colours(step: DecodeStep, index: int = 0) -> np.ndarray:
    """[h, w, 3] uint8: grey where a token is masked, blue where it is really held, light where it is decided."""
    masked, kept = (each[index].numpy()[..., None] for each in (step.masked, step.kept))
    return np.where(masked, np.uint8(MASKED), np.where(kept, np.uint8(HELD), np.uint8(DECIDED)))


def title_lines(text: str, width: float, size: int) -> tuple[str, float]:
    """A title of this size in points, in lines that a figure of this width in inches has room for; and the inches that
    its further lines take."""
    lines = textwrap.wrap(text, int(100 * width / size))  # capitals are about 0.7 of the size wide
    return "\n".join(lines), 1.3 * size / 72 * max(len(lines) - 1, 0)


def _check_some(*lists: Sequence) -> None:
    """Raises SettingError for one with nothing in it."""
    if not all(map(len, lists)):
        raise SettingError("there is nothing to draw", expected="one or more of each", fix="leave empty rows out")


def _figure(columns: int, rows: int, shape: tuple[int, ...], *, panel: float = PANEL, above: float = 0.4) -> Figure:
    """A figure for columns × rows pictures of this shape [H, W]; a notebook shows it once, as the value of its cell."""
    height, width = (panel * side / max(shape[:2]) for side in shape[:2])
    figure = plt.figure(figsize=(columns * (max(width, 1.6) + 0.15), rows * (height + above)), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.04, h_pad=0.04)
    plt.close(figure)
    return figure


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 28)


def _show(axes: Axes, picture: Picture, title: str, **settings: Any) -> AxesImage:
    """A picture with its title above it and no ticks."""
    axes.set_title(title, fontsize=11)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if isinstance(picture, Image.Image):
        picture = picture.convert("RGB")  # a mask is black and white, not coloured by its values
    return axes.imshow(picture, interpolation="antialiased", **settings)  # squares where enlarged, else smooth


def _pick(pictures: Image.Image | Iterable[Image.Image], index: int) -> Image.Image:
    return pictures if isinstance(pictures, Image.Image) else list(pictures)[index]
