"""What every stage of training shares: a folder with one resumable state, a log, and the learning-rate law."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..errors import TrainingError

CHECKPOINT_SECONDS = 120.0  # at most this much work is lost when a run is killed


def learning_rate_scale(done: int, total: int, *, warm_up: float = 0.02, cool_down: float = 0.8) -> float:
    """Warm up linearly, hold, then cool down linearly to zero; `done` and `total` count samples."""
    return max(0.0, min(1.0, (done + 1) / (warm_up * total), (total - done) / (cool_down * total)))


def warm_cosine(done: int, total: int, warm_up: float) -> float:
    """Warm up linearly over a share of the steps, then fall to zero along half a cosine."""
    first = warm_up * total
    if done < first:
        return (done + 1) / (first + 1)
    return 0.5 * (1 + math.cos(math.pi * (done - first) / (total - first)))


class Run:
    """The folder of one stage: `state.pt`, written whole or not at all, and `log.jsonl`."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._saved_at = time.monotonic()

    def load(self) -> dict | None:
        """The last state, or None for a new run."""
        path = self.folder / "state.pt"
        return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None

    def save(self, state: dict) -> None:
        """Write to a temporary name, then rename: a kill in between leaves the old state. Raises TrainingError."""
        part = self.folder / "state.pt.part"
        try:
            torch.save(state, part)
            os.replace(part, self.folder / "state.pt")
        except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
            part.unlink(missing_ok=True)
            raise TrainingError(
                f"the state could not be written to {self.folder}: {error}",
                expected="a folder that can be written to, with room on its disk",
                fix="make room, then run the same again: it goes on from the state before, which is whole",
            ) from error
        self._saved_at = time.monotonic()

    def is_due(self) -> bool:
        """Whether the last state is old enough to be written again."""
        return time.monotonic() - self._saved_at > CHECKPOINT_SECONDS

    def repeat(
        self,
        step: Callable[[int], dict[str, Tensor]],
        state: Callable[[], dict],
        *,
        done: int,
        samples: int,
        batch: int,
        title: str,
        unit: str,
    ) -> None:
        """`step(done)`, which learns a batch and returns figures, until all samples are done: with a bar, the figures
        of every twentieth step in the log, and `state()` saved whenever it is due and at the end.
        """
        if done >= samples:
            return
        with tqdm(total=samples, initial=done, desc=title, unit=unit) as bar:
            while done < samples:
                figures = step(done)
                done += batch
                bar.update(batch)
                if (done // batch) % 20 == 0:
                    known = {name: figure.item() for name, figure in figures.items()}
                    self.log(done=done, **known)
                    bar.set_postfix({name: f"{value:.4g}" for name, value in known.items()})
                if self.is_due() or done >= samples:
                    self.save(state() | {"done": done})

    def log(self, **figures: float) -> None:
        """Append one line of figures to the log."""
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in figures.items()}) + "\n")
