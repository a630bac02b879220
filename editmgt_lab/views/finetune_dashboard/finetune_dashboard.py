"""The fine-tuning dashboard: a training to watch, pause, stop and save, with its edits of a few samples."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakSet

import numpy as np
import traitlets
from matplotlib.figure import Figure
from safetensors import SafetensorError

from ...basics.folders import files_in
from ...basics.sizes import in_bytes
from ...editor import Editor
from ...errors import LabError, SettingError
from ..export import plain
from ..recording import Progress
from ..widget import LabWidget, asked, heat_colours, told
from .samples import ALL, Edits, Sample, Samples, about, finetune_figure

if TYPE_CHECKING:  # it takes seconds to import, and who has a finetuner has done so
    from ...finetuning import Finetuner

EVERY = 0.2  # seconds between two looks at the training
SMOOTH = 0.9  # of the loss's moving average: over about the last ten steps


def finetune_dashboard(
    finetuner: Finetuner, samples: Sequence[Sample], *, word: str | None = None
) -> FinetuneDashboard:
    """Open the dashboard of a fine-tuning, which begins with the page's button or with `start()`.

    samples: 1 to 6 edits of the drawn world, or pairs of a picture and an instruction, that are edited before the
    training and at every validation; word: of the first one's instruction, whose heat map is shown (None: all).
    A finetuner has one dashboard: opened again, after a page reload say, it is that one, with all that is under way,
    unless it was closed, and has to be asked for with its samples and word. Raises ImageError, TextError, SettingError.
    """
    known = [each for each in FinetuneDashboard.opened if each.finetuner is finetuner and each.comm is not None]
    if known:
        known[0].samples.check(finetuner.editor, samples, word)
    return known[0] if known else FinetuneDashboard(finetuner, samples, word)


class FinetuneDashboard(LabWidget):
    """status: the training's state, steps done and in all, seconds left, and whether the samples are being edited;
    curves: [loss, smoothed loss, learning rate] of every step; validations: [step, loss]; before, now: the samples'
    edits; word: whose heat map is shown; folder: to save to; saved: what was saved where.

    The training runs in a thread of its own, whatever becomes of the cell or the page. Another thread looks at it a few
    times a second and sends the page what is new; a page that missed something asks for it.
    """

    script, title = Path(__file__).with_suffix(".js"), "Fine-tuning"
    opened: ClassVar[WeakSet[FinetuneDashboard]] = WeakSet()
    training, _given, outlives = False, None, True

    status = traitlets.Dict().tag(sync=True)
    curves = traitlets.List().tag(sync=True)
    validations = traitlets.List().tag(sync=True)
    before = traitlets.Dict().tag(sync=True)
    now = traitlets.Dict().tag(sync=True)
    word = traitlets.Unicode(ALL).tag(sync=True, page=True)
    folder = traitlets.Unicode().tag(sync=True)
    saved = traitlets.Unicode().tag(sync=True)

    def __init__(self, finetuner: Finetuner, samples: Sequence[Sample], word: str | None = None):
        check_free(finetuner.editor)
        self.finetuner, self.samples = finetuner, Samples(finetuner.editor, samples, word)
        self.error: Exception | None = None
        self.training = self._stopping = self._ended = self._editing = False
        self._thread: threading.Thread | None = None
        self._edited = threading.Event()
        self._pace = self._mean = 0.0
        self._mine: set[Path] = set()
        self._kind = "adapter" if finetuner.settings.rank else "editor"
        home = finetuner.run_folder.folder if finetuner.run_folder else Path("finetuned")
        super().__init__(word=word or ALL, folder=str(home / self._kind))
        self.data = self.samples.packed() | {"about": about(finetuner), "palette": heat_colours()}
        self.data |= {"checkpoints": finetuner.run_folder is not None}
        self._given, finetuner.show = finetuner.show, self._show
        self.opened.add(self)
        self._tell()
        self.begin(self._edit_before)

    def close(self) -> None:
        """Close the page. A training under way goes on; at its end the finetuner's `show` is again what it was."""
        super().close()
        self._give_back()

    def _give_back(self) -> None:
        if self.comm is None and not self.training and self._given and self.finetuner.show == self._show:
            self.finetuner.show = self._given

    # The training, from any thread but its own

    def start(self) -> None:
        """Begin, or go on: after a stop or an error from the last checkpoint, where there is one. Raises SettingError
        while another dashboard trains this editor."""
        if self.training:
            return
        check_free(self.finetuner.editor)
        if not self.before and (self.ticket.is_set() or self.pending.done()):  # it was cancelled, or went wrong
            self.begin(self._edit_before)
        again, self.training, self._ended, self.error = self._thread is not None, True, False, None
        self._edited.clear()
        self._thread = threading.Thread(target=self._attend, args=(again,), daemon=True)
        self._thread.start()

    def pause(self) -> None:
        self.finetuner.pause()

    def resume(self) -> None:
        self.finetuner.resume()

    def stop(self) -> None:
        """Stop before the next step; what was learned stays, and `start` goes on with it."""
        self._stopping = self.training
        self.finetuner.cancel()

    def wait(self, timeout: float | None = None, *, edits: bool = False) -> None:
        """Wait until the training is over, or for so many seconds; then raise what it failed with, if it did. edits:
        or only until the samples have been edited anew, so that there is something to see."""
        if self._thread is not None:
            self._edited.wait(timeout) if edits else self._thread.join(timeout)
        if self.error is not None:
            raise self.error

    def save(self, folder: str | os.PathLike[str] | None = None) -> Path:
        """Write the adapter, or where all weights are trained the whole editor, with the averaged weights; a training
        under way waits meanwhile. folder: `self.folder` if left out. Returns it. Raises SettingError."""
        folder = Path(self.folder if folder is None else folder)
        try:
            folder = folder.expanduser().absolute()
            if folder not in self._mine and files_in(folder):
                raise SettingError(
                    f"there are files in {folder} already",
                    expected="an empty folder, or one that is not there yet",
                    fix="name another",
                )
            with self.finetuner.between_steps():
                step = self.finetuner.done
                folder.mkdir(parents=True, exist_ok=True)
                self._mine.add(folder)
                self.finetuner.save(folder)
        except (OSError, RuntimeError, SafetensorError, ValueError) as error:  # no such user, a null in the name
            if isinstance(error, LabError):
                raise
            raise SettingError(
                f"cannot save to {folder}: {error}",
                expected="a folder that can be written to, on a disk with room",
                fix="name another, or make room",
            ) from error
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        self.saved = f"{self._kind} of step {step} saved, {in_bytes(size)}: {folder}"
        return folder

    @traitlets.validate("word")
    def _known(self, proposal: Mapping[str, Any]) -> str:
        if proposal["value"] not in self.samples.words:
            raise traitlets.TraitError(f"the first sample has no word {proposal['value']!r}")
        return proposal["value"]

    def receive(self, content: Mapping[str, Any]) -> None:
        super().receive(content)
        kind = content.get("kind")
        if kind in ("start", "pause", "resume", "stop"):
            self.say("")
            getattr(self, kind)()
            self._tell_status()
        elif kind == "save":
            threading.Thread(target=self._save_beside, args=(asked(content, "folder", str),), daemon=True).start()
        elif kind == "since":
            self._send_steps(max(asked(content, "known", int), 0))

    def _save_beside(self, folder: str) -> None:
        self.pending.result()  # its progress would be said over what is said here
        try:
            if not folder.strip():
                raise SettingError("no folder is named", expected="a path", fix="write one beside the button")
            self.folder = folder
            self.say("")
            self.save(folder)
        except Exception as error:  # nobody sees what a worker raises
            self.say(told(error), wrong=True)

    def _attend(self, again: bool) -> None:
        """In a thread: look after a training until it is over."""
        try:
            self.pending.result()  # the edits before it
            with self._saying:  # whoever has cancelled them has said so by now
                if not self.wrong:
                    self.say("")
            if again:
                self.finetuner.restore()
                self._tell()
            training = threading.Thread(target=self._train, daemon=True)
            training.start()
            while training.is_alive():
                training.join(EVERY)
                if self._stopping:
                    self.finetuner.cancel()  # once more, since `run` forgets what came before it
                self._tell()
        except Exception as error:
            self.error = error
        if self.error:
            self.say(told(self.error), wrong=True)
        self._ended = not (self.finetuner.cancelled or self.error)  # from here or from a cell
        self.training = self._stopping = False
        self._give_back()
        self._tell()
        self._edited.set()

    def _train(self) -> None:
        try:
            self.finetuner.run(bar=False)
        except Exception as error:
            self.error = error

    # The samples

    def _edit_before(self, progress: Progress) -> None:
        progress(0, 1, "editing the samples before the training")
        with self.finetuner.between_steps():  # with averaged weights, as all that follow
            edits = self._edit(self.ticket)
        progress(1, 1, "")
        self.samples.edits = {"before": edits, "now": edits}
        self.before = self.now = edits.packed()

    def _show(self, editor: Editor) -> None:
        """In the training's thread, at every validation and at the end."""
        self._given(editor)
        self._editing = True
        try:
            self.samples.edits["now"] = edits = self._edit()
            self.now = edits.packed()
        except Exception as error:  # no reason to lose the training
            self.say(told(error), wrong=True)
        finally:
            self._editing = False
            self._edited.set()

    def _edit(self, ticket: threading.Event | None = None) -> Edits:
        began = time.monotonic()
        edits = self.samples.edit(self.finetuner.editor, self.finetuner.done, ticket)
        self._pace = time.monotonic() - began
        return edits

    # What the page is told

    @property
    def state(self) -> str:
        """ready, training, paused, stopping, stopped, failed or finished."""
        if self.training:
            return "stopping" if self._stopping else "paused" if self.finetuner.paused else "training"
        if self.error:
            return "failed"
        if self._ended or self.finetuner.done == self.finetuner.settings.steps:
            return "finished"
        return "stopped" if self._thread else "ready"

    def _tell(self) -> None:
        """Take over the finetuner's new steps; `curves` grows in place, so that it goes out to new pages alone."""
        history, known = self.finetuner.history, len(self.curves)
        if known > len(history):  # it went back to a checkpoint
            known, self.curves = 0, []
        new = history[known:]
        for entry in new:
            self._mean = SMOOTH * (self._mean if entry["step"] > 1 else 0) + (1 - SMOOTH) * entry["loss"]
            values = entry["loss"], self._mean / (1 - SMOOTH ** entry["step"]), entry["learning_rate"]
            self.curves.append([float(f"{value:.5g}") for value in values])
        # Of all steps: the newest may have been known before it was validated.
        self.validations = plain([[each["step"], each["validation"]] for each in history if "validation" in each])
        if new:
            self._send_steps(known)
        self._tell_status()

    def _send_steps(self, known: int) -> None:
        self.send({"kind": "steps", "known": known, "steps": self.curves[known:]})

    def _tell_status(self) -> None:
        done, settings, left = self.finetuner.done, self.finetuner.settings, self.finetuner.seconds_left
        if left is not None:  # the edits that are still to come take their time too
            edits = -(-settings.steps // settings.validate_every) - done // settings.validate_every
            left = round(left + self._pace * edits)
        self.status = dict(state=self.state, done=done, steps=settings.steps, left=left, editing=self._editing)

    # Export

    def figure(self) -> Figure:
        """The curves; below, each sample before and now, and the word's heat map before and now."""
        curves, validations = np.array(self.curves).reshape(-1, 3), np.array(self.validations, float)
        return finetune_figure(curves, validations, self.samples.rows(self.word))

    def arrays(self) -> dict[str, np.ndarray]:
        """loss, smoothed and learning_rate, [steps]; validation: step and loss, [n, 2]; and those of the samples."""
        curves = np.array(self.curves).reshape(-1, 3)
        found = dict(zip(("loss", "smoothed", "learning_rate"), curves.T, strict=True))
        return found | {"validation": np.array(self.validations, float).reshape(-1, 2)} | self.samples.arrays()

    def described(self) -> dict[str, Any]:
        """The training's settings, the samples' instructions, the words of the heat maps, and the steps done."""
        shown = {"instructions": [sample.instruction for sample in self.samples.shown], "words": self.samples.words}
        return asdict(self.finetuner.settings) | shown | {"done": self.finetuner.done}


def check_free(editor: Editor) -> None:
    """Raise SettingError while a dashboard trains this editor."""
    if any(dashboard.training and dashboard.finetuner.editor is editor for dashboard in FinetuneDashboard.opened):
        raise SettingError(
            "another dashboard is training this editor",
            expected="one training of an editor at a time",
            fix="stop that one, or load the editor once more",
        )
