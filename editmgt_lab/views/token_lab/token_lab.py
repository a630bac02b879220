"""The token lab: a picture under its token grid; put another code in a cell and see how far the change reaches."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import traitlets
from matplotlib.figure import Figure
from PIL import Image

from ...basics.checks import check_number
from ...editor import Editor
from ...errors import SettingError
from ...images import Picture, fit
from ...results import EditResult
from ..figures import panels_figure
from ..overlays import heat_overlay
from ..recording import Progress, Run, code_colours_8bit, code_patches
from ..widget import LARGEST, LabWidget, asked, heat_colours, packed, png

NEARLY_ALL = 0.95  # of a change, for its reach


def token_lab(editor: Editor, image: Picture | EditResult | Run) -> TokenLab:
    """Open the token lab on a picture, or on what a finished edit made, with that edit's own tokens."""
    return TokenLab(editor, image)


class TokenLab(LabWidget):
    """cell: the chosen cell's number, row by row, -1 for none; states: one for each change, the first without any;
    at: the one on the page, so that undo is a step back."""

    script, title = Path(__file__).with_suffix(".js"), "Token lab"

    cell = traitlets.Int(-1).tag(sync=True, page=True)
    states = traitlets.List().tag(sync=True)
    at = traitlets.Int(0).tag(sync=True, page=True)

    def __init__(self, editor: Editor, image: Picture | EditResult | Run) -> None:
        super().__init__()
        self.editor = editor
        self.tokens: list[np.ndarray] = []  # of each state, int32 [h, w]
        self.decoded: list[Image.Image] = []
        self.swaps: list[tuple[int, int, int]] = []  # of each state but the first: row, column, code
        self._asked: deque[tuple[tuple[int, int, int], Future]] = deque()  # swaps that are still to be made
        self._over: deque[Future] = deque()  # of those that are made, or never will be
        self.begin(lambda progress: self._open(progress, image))

    @traitlets.validate("at")
    def _there(self, proposal: Mapping[str, Any]) -> int:
        if not 0 <= proposal["value"] < max(len(self.states), 1):
            raise traitlets.TraitError(f"there is no state {proposal['value']}, of {len(self.states)}")
        return proposal["value"]

    def swap(self, row: int, column: int, code: int) -> Future:
        """Put another code in a cell of the state on the page, beside the page, after the swaps asked for before it;
        later states are forgotten."""
        rows, columns = self._shape()
        for value, name, count in ((row, "row", rows), (column, "column", columns), (code, "code", len(self.counts))):
            check_number(value, name, 0, count - 1, "count from 0", whole=True)
        done = Future()
        self._asked.append(((int(row), int(column), int(code)), done))
        self.begin(self._swap_all).add_done_callback(lambda _: self._answer())
        return done

    def cancel(self) -> None:
        super().cancel()
        self._forget()
        self._answer()

    def receive(self, content: Mapping[str, Any]) -> None:
        super().receive(content)
        if content.get("kind") == "swap":
            self.swap(*divmod(asked(content, "cell", int), self._shape()[1]), asked(content, "code", int))

    def _shape(self) -> tuple[int, int]:
        if not self.data:
            raise SettingError("the picture is not open yet", expected="its tokens", fix="wait a moment")
        return self.data["grid"]

    def _open(self, progress: Progress, image: Picture | EditResult | Run) -> None:
        editor = self.editor
        if isinstance(image, EditResult):
            picture, tokens = image.images[0], image.tokens[0].int().numpy()
        elif isinstance(image, Run):
            picture, tokens = image.image, image.sampled[-1]
        else:
            picture, _ = fit(image, pixels=editor.defaults.image_size, multiple=editor.multiple)
            tokens = editor.tokenize(picture)[0].int().cpu().numpy()
        codes = editor.vq.config.num_vq_embeddings
        patches = code_patches(editor, np.arange(codes), progress)
        counts = np.bincount(tokens.ravel(), minlength=codes)
        self.tokens, self.decoded, self.picture = [tokens], [self._decode(tokens)], picture
        self.counts, self.patches = counts, patches
        self.states, self.at = [self._state()], 0
        self.data = {
            "grid": tokens.shape,
            "ratio": picture.width / picture.height,
            "picture": png(picture),
            "order": packed(np.argsort(-counts, kind="stable").astype(np.int32)),
            "patches": packed(patches),
            "colours": packed(code_colours_8bit(editor)),
            "palette": heat_colours(),
        }

    def _swap_all(self, progress: Progress) -> None:
        """Make the swaps asked for; those of an older work that gives up for this one are still among them."""
        while self._asked:
            progress(0, 1, "working …")
            change, done = self._asked.popleft()
            try:
                self._swap(*change)
            except Exception:
                self._forget()
                raise
            finally:
                self._over.append(done)

    def _forget(self) -> None:
        with suppress(IndexError):  # a work may take the last one meanwhile
            while True:
                self._over.append(self._asked.popleft()[1])

    def _answer(self) -> None:
        with suppress(IndexError):
            while True:
                self._over.popleft().set_result(None)

    def _swap(self, row: int, column: int, code: int) -> None:
        kept = self.at + 1
        tokens = self.tokens[self.at].copy()
        tokens[row, column] = code
        decoded = self._decode(tokens)
        self.tokens, self.decoded = [*self.tokens[:kept], tokens], [*self.decoded[:kept], decoded]
        self.swaps = [*self.swaps[: kept - 1], (row, column, code)]
        self.states = [*self.states[:kept], self._state()]
        self.at = kept

    def _decode(self, tokens: np.ndarray) -> Image.Image:
        return self.editor.detokenize(torch.from_numpy(tokens)[None].long())[0]

    def difference(self, at: int = -1) -> np.ndarray:
        """How far each pixel of a state is from the unchanged one: uint8 [H, W], the largest of its channels."""
        now, before = (np.asarray(image, np.int16) for image in (self.decoded[at], self.decoded[0]))
        return np.abs(now - before).max(axis=2).astype(np.uint8)

    def _state(self) -> dict[str, Any]:
        """The newest state for the page."""
        difference = Image.fromarray(self.difference())
        difference.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX)
        return {
            "tokens": packed(self.tokens[-1]),
            "decoded": png(self.decoded[-1]),
            "difference": packed(np.asarray(difference)),
            "said": self._reach(),
        }

    def _reach(self) -> str:
        """In words: how far the newest state's change goes, in cells from the nearest changed one."""
        difference, changed = self.difference().astype(np.float64), self.tokens[-1] != self.tokens[0]
        if not changed.any():
            return "nothing is changed"
        if not difference.any():
            return "the pixels stay as they are"
        rows, columns = changed.shape
        by_cell = difference.reshape(rows, difference.shape[0] // rows, columns, -1).sum(axis=(1, 3))
        places = np.argwhere(changed)
        grid = np.indices(changed.shape).transpose(1, 2, 0)
        away = np.abs(grid[:, :, None] - places).max(axis=-1).min(axis=-1)  # [h, w] cells
        shares = np.cumsum([by_cell[away == distance].sum() for distance in range(away.max() + 1)]) / by_cell.sum()
        reach = int(np.argmax(shares >= NEARLY_ALL))
        inside, them = ("the changed cell", "it") if len(places) == 1 else ("the changed cells", "them")
        near = inside if reach == 0 else f"{reach} cell{'s' if reach > 1 else ''} of {inside}"
        return (
            f"{NEARLY_ALL:.0%} of the change lies within {near}, {shares[0]:.0%} in {them}; "
            f"{np.mean(difference > 0):.0%} of all pixels change, at most by {difference.max():.0f} of 255"
        )

    def figure(self) -> Figure:
        """The picture, what its tokens decode to, the same after the changes on the page, and the difference."""
        now, difference = self.decoded[self.at], self.difference(self.at) / max(self.difference(self.at).max(), 1)
        rows, columns = self.tokens[0].shape
        row = [
            (self.picture, f"picture, {rows}×{columns} tokens"),
            (self.decoded[0], "decoded"),
            (now, f"after {self.at} change{'' if self.at == 1 else 's'}"),
            (heat_overlay(now, difference), "difference"),
        ]
        return panels_figure([row])

    def arrays(self) -> dict[str, np.ndarray]:
        """tokens, decoded and difference of every state, the picture, and what each code decodes to."""
        return {
            "tokens": np.stack(self.tokens),
            "decoded": np.stack([np.asarray(image) for image in self.decoded]),
            "difference": np.stack([self.difference(at) for at in range(len(self.decoded))]),
            "picture": np.asarray(self.picture),
            "patches": self.patches,
        }

    def described(self) -> dict[str, Any]:
        """The changes, each as row, column and code; nothing here is drawn at random, so there is no seed."""
        return {"changes": self.swaps}
