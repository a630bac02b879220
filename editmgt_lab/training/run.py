"""What every stage of training shares: a folder with one resumable state, a log, and the learning-rate law."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..basics.checks import check_number
from ..basics.fingerprints import differences
from ..basics.folders import append_line, make_folder, remove, write_text, written_whole
from ..errors import CheckpointError

CHECKPOINT_SECONDS = 120.0  # at most this much work is lost when a run is killed
# Numbers of a recipe that are shares of 1, and those by which something is divided.
SHARES = ("asked_share", "average_decay", "caption_share", "cool_down", "hard_share", "late_share", "text_dropout")
SHARES += ("warm_up", "without_sizes")
DIVISORS, LEAST = ("asked_share", "cool_down", "look_reach", "warm_up"), 1e-6


def option(name: str) -> str:
    """How a number of a recipe is named on the command line."""
    return "--" + name.replace("_", "-")


def check_numbers(recipe: Any) -> None:
    """Raises SettingError for a number of a recipe, a dataclass, that is out of range: 0 only where 0 turns something
    off."""
    for field in fields(recipe):
        kind, value, fix = type(field.default), getattr(recipe, field.name), f"{field.default} has been tried"
        if kind is int:
            check_number(value, option(field.name), min(field.default, 1), math.inf, fix, whole=True)
        elif kind is float:
            low, high = LEAST if field.name in DIVISORS else 0, 1 if field.name in SHARES else math.inf
            check_number(value, option(field.name), low, high, fix)


def learning_rate_scale(done: int, total: int, *, warm_up: float = 0.02, cool_down: float = 0.8) -> float:
    """Warm up linearly, hold, then cool down linearly to zero; `done` and `total` count samples."""
    return max(0.0, min(1.0, (done + 1) / (warm_up * total), (total - done) / (cool_down * total)))


def warm_cosine(done: int, total: int, warm_up: float) -> float:
    """Warm up linearly over a share of the steps, then fall to zero along half a cosine."""
    first = warm_up * total
    if done < first:
        return (done + 1) / (first + 1)
    return 0.5 * (1 + math.cos(math.pi * (done - first) / (total - first)))


def copy_into(weights: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Give every weight its value, whatever device that is on."""
    for weight, value in zip(weights, values, strict=True):
        weight.data.copy_(value)


def check_same(
    place: Path, before: Mapping[str, Any] | None, now: Mapping[str, Any], *, other_code: bool = False
) -> None:
    """Refuse to go on with what was begun otherwise: CheckpointError says where the two records differ.

    before: the record that lies in `place`, None where it has none; other_code: only what is not code has to agree, and
    no record is taken for the same.
    """
    if before is None and other_code:
        return
    changed = differences(before or {}, now) if before is not None else ["it does not say how it was made"]
    if other_code:
        changed = [each for each in changed if not each.startswith("code.")]
    if not changed:
        return
    fix = "take the same again, or another folder, or begin anew in this one, as --anew does"
    if all(each.startswith("code.") for each in changed) or before is None:
        fix += "; if the difference is known to change nothing: --other-code"
    raise CheckpointError(
        f"{place} holds another run: {'; '.join(changed)}",
        expected="the same weights, settings, data and code, with which a run goes on exactly",
        fix=fix,
    )


class Run:
    """The folder of one stage: `state.pt`, written whole or not at all, and `log.jsonl`.

    made_of: what the stage's result depends on, ready for JSON: weights, settings, data, code. It is kept with the
    state, and a state that was made of something else is not gone on with (None: whatever lies there is). other_code:
    see check_same.
    """

    def __init__(self, folder: Path, made_of: Mapping[str, Any] | None = None, *, other_code: bool = False):
        self.folder, self.other_code = folder, other_code
        self.made_of = None if made_of is None else json.loads(json.dumps(made_of))
        make_folder(folder)
        self._saved_at, self._logs = time.monotonic(), False

    def load(self) -> dict | None:
        """The last state, or None for a new run. Raises CheckpointError for the state of another run."""
        path = self.folder / "state.pt"
        try:
            state = torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None
            if not isinstance(state, dict | None):
                raise TypeError(f"a {type(state).__name__}")
        except Exception as error:  # a pickle that is refused, and files that are none, fail in many ways
            raise CheckpointError(
                f"{path} cannot be read: {str(error).partition(chr(10))[0]}",
                expected="the state that a training wrote there",
                fix="remove it to begin anew, or take another folder",
            ) from error
        if state is not None and self.made_of is not None:
            check_same(self.folder, state.get("made_of"), self.made_of, other_code=self.other_code)
        return state

    def clear(self) -> None:
        """Forget the state and the log that lie there."""
        for name in ("state.pt", "log.jsonl"):
            remove(self.folder / name)

    def save(self, state: dict) -> None:
        """Write the state, whole or not at all: a kill leaves the one before. Raises DiskError."""
        if self.made_of is not None:
            state = state | {"made_of": self.made_of}
        with written_whole(self.folder / "state.pt") as unfinished, unfinished.open("wb") as file:
            try:
                torch.save(state, file)
            except RuntimeError as error:  # what torch's writer makes of a full disk
                raise OSError(str(error.__context__ or error)) from error
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
        """Add one line of figures, `done` among them, to the log; what a killed run logged of the same samples goes."""
        file, line = (
            self.folder / "log.jsonl",
            {k: round(v, 5) if isinstance(v, float) else v for k, v in figures.items()},
        )
        if not self._logs:
            write_text(file, "".join(_before(figures["done"], file)))
            self._logs = True
        append_line(file, json.dumps(line))


def _before(done: float, log: Path) -> Iterator[str]:
    """The lines of a log, with their ends, up to the first of so many samples or more, or one that is torn."""
    for line in log.read_text(encoding="utf-8").splitlines(keepends=True) if log.exists() else ():
        try:
            if json.loads(line)["done"] >= done:
                return
        except (ValueError, TypeError, KeyError):
            return
        yield line
