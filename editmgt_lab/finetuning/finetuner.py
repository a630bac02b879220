"""Fine-tuning: an editor learns pairs that it was not trained on, with all weights of its transformer or an adapter.

One CPU, one GPU, or many by `accelerate launch`: every process draws the whole batch of a step, with all its noise,
from one seed, and computes its share, so that the split among processes and micro-batches changes nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm

from ..basics.fingerprints import code_fingerprint, fingerprint, tokenizer_fingerprint
from ..data.tokens import TokenPairs
from ..editor import Editor
from ..errors import SettingError, TrainingError
from ..training.build import save_editor
from ..training.run import Run, copy_into, warm_cosine
from .adapters import add_adapter, save_adapter
from .batch import Batch, draw_batch
from .checks import check_start
from .objective import Objective
from .settings import FinetuneSettings


class Finetuner:
    """Fine-tunes the transformer of an editor in place, in float32; the text encoder and the VQ model stay as they are.

    pairs, replay, validation: tokens of the new pairs, of old ones to mix in against forgetting, and of pairs to
    validate on; folder: for checkpoints, from which an interrupted run goes on exactly, with the same weights,
    settings, pairs and code; other_code: go on although code or libraries changed; show: called with the editor, its
    weights averaged, at every validation and at the end.

    `run` trains, and can be paused, resumed and cancelled from another thread, which gets the editor to save it by
    `between_steps`. `history` has one entry for each step: step, loss, learning_rate, seconds; and validation where one
    was made. Raises SettingError, DataError, ShapeError, CheckpointError.
    """

    def __init__(
        self,
        editor: Editor,
        pairs: TokenPairs,
        settings: FinetuneSettings | None = None,
        *,
        replay: TokenPairs | None = None,
        validation: TokenPairs | None = None,
        folder: str | Path | None = None,
        other_code: bool = False,
        show: Callable[[Editor], None] = lambda editor: None,
    ):
        self.settings, self.show = settings or FinetuneSettings(), show
        self.editor, self.pairs, self.validation = editor, pairs, validation
        self.replay = replay if self.settings.replay_share else None
        self.done, self.history = 0, []
        self._unaveraged: list[torch.Tensor] = []  # weights of a run that ended early, from which the next goes on
        check_start(editor, self.settings, pairs, replay=self.replay, validation=validation)
        self.run_folder = Run(Path(folder), self._made_of(), other_code=other_code) if folder else None
        kept = self._kept()  # what is refused is refused before the editor is touched
        self._going, self.cancelled = threading.Event(), False  # cancelled: of the newest run
        self._going.set()
        self._turn, self._stepping = threading.Lock(), threading.RLock()
        self.accelerator = Accelerator(cpu=editor.device.type == "cpu")
        if self.settings.batch % self.accelerator.num_processes:
            raise SettingError(
                f"a batch of {self.settings.batch} for {self.accelerator.num_processes} processes",
                expected="the same number of pairs for every process",
                fix=f"take a multiple of {self.accelerator.num_processes}",
            )
        for part in (editor.vq, editor.text_encoder, editor.transformer):
            part.to(self.accelerator.device)
        editor.transformer.float()  # small steps are lost in half precision, and float16 overflows
        self.objective = Objective(editor, self.settings, replay=bool(self.replay))
        if self.settings.rank:
            add_adapter(
                editor.transformer, rank=self.settings.rank, branch=self.settings.branch, seed=self.settings.seed
            )
        editor.transformer.checkpointing = self.settings.checkpointing
        self.trained = [p for p in editor.transformer.parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self.trained]
        optimizer = torch.optim.AdamW(self.trained, lr=self.settings.learning_rate, betas=(0.9, 0.98))
        self.model, self.optimizer = self.accelerator.prepare(editor.transformer, optimizer)
        self._go_back_to(kept)

    # From another thread

    def pause(self) -> None:
        """Rest before the next step, until `resume` or `cancel`."""
        self._going.clear()

    def resume(self) -> None:
        self._going.set()

    def cancel(self) -> None:
        """Stop before the next step; what was learned so far is kept, and saved where there is a folder."""
        self.cancelled = True
        self._going.set()

    @contextmanager
    def between_steps(self) -> Iterator[Editor]:
        """Inside the context no step runs, and the editor has its averaged weights; waits for a step under way."""
        with self._turn, self._stepping, self.averaged() as editor:
            yield editor

    @property
    def paused(self) -> bool:
        return not self._going.is_set()

    @property
    def seconds_left(self) -> float | None:
        """At the pace of the last steps; None before the second."""
        recent = self.history[-20:]
        if len(recent) < 2:
            return None
        pace = sum(entry["seconds"] for entry in recent[1:]) / (len(recent) - 1)
        return pace * (self.settings.steps - self.done)

    # Training

    def run(self, *, bar: bool = True) -> Editor:
        """Train until the last step, `cancel`, or no better validation; then the weights are the averaged ones.

        bar: whether to show a progress bar. Raises TrainingError for a loss that is no number, DiskError for a
        checkpoint that cannot be written.
        """
        self.cancelled = False
        with self._alone():
            if self._unaveraged:
                copy_into(self.trained, self._unaveraged)
            self._unaveraged = []
        progress = tqdm(
            total=self.settings.steps, initial=self.done, desc="fine-tuning", unit="step",
            disable=not (bar and self.accelerator.is_main_process),
        )  # fmt: skip
        try:
            while self.done < self.settings.steps and not self._is_over():
                self._going.wait()
                if self.cancelled:
                    break
                with self._alone():  # for the checkpoint too: in between_steps the weights are the averaged ones
                    entry = self._step()
                    if self.done % self.settings.save_every == 0:
                        self._save()
                progress.update()
                progress.set_postfix(loss=f"{entry['loss']:.3f}")
            with self._alone():
                self._save()
        finally:
            progress.close()
            self.model.eval()
        with self._alone():
            early = self.done < self.settings.steps and not self._is_over()
            self._unaveraged = [p.detach().clone() for p in self.trained] if early else []
            copy_into(self.trained, self.average)
            self.show(self.editor)
        return self.editor

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._turn:  # who waits in between_steps comes first: locks alone are not fair
            self._stepping.acquire()
        try:
            yield
        finally:
            self._stepping.release()

    def joint_batch(self, step: int) -> Batch:
        """What all processes together learn from in one step; only the seed and the step decide."""
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + step)
        old = self._replayed(step) if self.replay else 0
        chosen = torch.randint(len(self.pairs), (self.settings.batch - old,), generator=generator)
        batch = draw_batch(self.pairs, chosen, self.settings, generator)
        if old:
            chosen = torch.randint(len(self.replay), (old,), generator=generator)
            batch = batch + draw_batch(self.replay, chosen, self.settings, generator, replayed=True)
        return batch

    def _replayed(self, step: int) -> int:
        """How many pairs of a batch are old ones: ever more, so that what is lost at first is found again at last."""
        batch, share = self.settings.batch, self.settings.replay_share
        return min(round(batch * (share + (1 - share) * step / self.settings.steps)), batch - 1)

    def gradients(self, batch: Batch) -> float:
        """Leave the gradient of the joint batch's mean loss on the weights, each process from its share of the batch.
        Returns that loss. Raises TrainingError if it is no number."""
        processes = self.accelerator.num_processes
        share = batch[self.accelerator.process_index :: processes]
        micro_batches, loss = share.split(self.settings.micro_batch or len(share)), 0.0
        total = batch.total.to(self.accelerator.device)
        for number, part in enumerate(micro_batches, start=1):
            last = number == len(micro_batches)
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                # Processes average their gradients; all together this is the sum over the batch by its total.
                part_loss = processes * self.objective.loss(self.model, part) / total
                self.accelerator.backward(part_loss)
            loss += part_loss.detach()
        loss = self.accelerator.reduce(loss, "mean").item()
        if not torch.isfinite(torch.tensor(loss)):
            raise TrainingError(
                f"the loss of step {self.done} is {loss}",
                expected="a finite number",
                fix="lower the learning rate" + ("; the last checkpoint is whole" if self.run_folder else ""),
            )
        return loss

    def _step(self) -> dict[str, Any]:
        started, settings = time.monotonic(), self.settings
        self.model.train()
        self.optimizer.zero_grad()
        loss = self.gradients(self.joint_batch(self.done))
        self.accelerator.clip_grad_norm_(self.trained, settings.clip)
        rate = settings.learning_rate * warm_cosine(self.done, settings.steps, settings.warm_up)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        done = self.done + 1
        decay = min(settings.average_decay, done / (done + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, [p.detach() for p in self.trained], 1 - decay)
        entry = {"step": done, "loss": loss, "learning_rate": rate, "seconds": time.monotonic() - started}
        self.done = done
        self.history.append(entry)  # before the validation, which may be interrupted
        if done % settings.validate_every == 0 or done == settings.steps:
            entry |= self._validate()
        return entry

    # Validation

    @contextmanager
    def averaged(self) -> Iterator[Editor]:
        """Inside the context the editor has the averaged weights; for the training's own thread, between two steps."""
        weights = [p.data for p in self.trained]
        for parameter, kept in zip(self.trained, self.average, strict=True):
            parameter.data = kept
        self.model.eval()
        try:
            yield self.editor
        finally:
            for parameter, weight in zip(self.trained, weights, strict=True):
                parameter.data = weight

    def _validate(self) -> dict[str, float]:
        with self.averaged() as editor:
            if self.done < self.settings.steps:  # the last one is shown by `run`
                self.show(editor)
            return {"validation": self.validation_loss()} if self.validation else {}

    @torch.no_grad()
    def validation_loss(self) -> float:
        """Mean loss of the validation pairs' hidden tokens, in nats, with the same noise every time."""
        generator = torch.Generator().manual_seed(self.settings.seed)
        settings = replace(self.settings, text_dropout=0.0)
        batch = draw_batch(self.validation, torch.arange(len(self.validation)), settings, generator)
        parts = batch.split(self.settings.micro_batch or self.settings.batch)
        total = sum(self.objective.loss(self.model, part) for part in parts)
        return (total / batch.total.to(total.device)).item()

    def _is_over(self) -> bool:
        """Whether the last `patience` validations were no better than the best one before them."""
        losses = [entry["validation"] for entry in self.history if "validation" in entry]
        patience = self.settings.patience
        return patience is not None and len(losses) > patience and min(losses[-patience:]) >= min(losses[:-patience])

    # Checkpoints

    def save(self, folder: str | Path) -> None:
        """Write what an edit needs: the adapter alone, or where all weights are trained the whole editor."""
        editor = self.editor
        if self.settings.rank:
            save_adapter(editor.transformer, folder)
        else:
            parts = editor.vq, editor.text_encoder, editor.transformer
            save_editor(Path(folder), *parts, editor.defaults.image_size, editor.defaults)

    def _save(self) -> None:
        if self.run_folder is None or not self.accelerator.is_main_process:
            return
        self.run_folder.save(
            {
                "done": self.done,
                "weights": [p.data for p in self.trained],
                "average": self.average,
                "optimizer": self.optimizer.state_dict(),
                "history": self.history,
            }
        )

    def _made_of(self) -> dict[str, Any]:
        """What has to be the same for a run to go on exactly."""
        editor, data = self.editor, {"pairs": self.pairs, "replay": self.replay, "validation": self.validation}
        return {
            "settings": asdict(self.settings),
            "transformer": fingerprint(editor.transformer),
            "text encoder": fingerprint(editor.text_encoder, tokenizer_fingerprint(editor.text_encoder)),
            "codebook": fingerprint(editor.vq.quantize),
            "data": {name: fingerprint(vars(pairs)) if pairs else None for name, pairs in data.items()},
            "code": code_fingerprint(__name__, TokenPairs.__module__, Run.__module__),
        }

    def restore(self) -> None:
        """Go back to the last checkpoint, where there is one, from which `run` goes on. Raises CheckpointError."""
        self._go_back_to(self._kept())

    def _kept(self) -> dict[str, Any] | None:
        return self.run_folder.load() if self.run_folder else None

    def _go_back_to(self, state: dict[str, Any] | None) -> None:
        if state is None:
            return
        self.done, self.history, self._unaveraged = state["done"], state["history"], []
        copy_into(self.trained, state["weights"])
        copy_into(self.average, state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
