"""Run by test_finetuning in processes of its own: gradients of one of two processes, and a run that is killed."""

import hashlib
import json
import os
import random
import signal
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import torch

import editmgt_lab as lab
from editmgt_lab.finetuning import Finetuner, objective
from editmgt_lab.training.run import Run
from tests.finetuning.test_finetuning import QUICK, random_pairs

KILLS = 20
WRITING = ("a write begun", "half written", "written, not in its place")
MOMENTS = ("a step begun", "a step done", *WRITING)
MOST = 5  # steps or writes of a process before it is killed
SETTINGS = {**vars(QUICK), "steps": 12, "save_every": 1}


def gradients(folder: str, output: str) -> None:
    """The joint batch's gradient, as the processes that accelerate has launched find it together."""
    objective.has_bfloat16 = lambda device: False
    editor = lab.load(folder, device="cpu")
    tuner = Finetuner(editor, random_pairs(editor), QUICK)
    loss = tuner.gradients(tuner.joint_batch(0))
    if tuner.accelerator.is_main_process:
        found = {"processes": tuner.accelerator.num_processes, "loss": loss}
        torch.save(found | {"gradients": [p.grad for p in tuner.trained]}, output)


def train(folder: str, run: Path, moment: str = "", number: int = 0) -> None:
    """A run to its end, or to one of its MOMENTS: the `number`-th of this process, which kills itself then."""
    torch.set_num_threads(1)
    write, step, reached = torch.save, Finetuner._step, Counter()

    def at(here):
        reached[here] += 1
        if (here, reached[here]) == (moment, number):
            os.kill(os.getpid(), signal.SIGKILL)

    def save(state, file):
        at("a write begun")
        file.write(b"torn!")
        file.flush()
        at("half written")
        file.seek(0)
        write(state, file)
        file.flush()
        at("written, not in its place")

    def one_step(self):
        at("a step begun")
        entry = step(self)
        at("a step done")
        return entry

    torch.save, Finetuner._step = save, one_step
    editor = lab.load(folder, device="cpu")
    Finetuner(editor, random_pairs(editor), type(QUICK)(**SETTINGS), folder=run).run()


def forked(work) -> int:
    """A child of this process, which has everything imported but no threads of torch's yet."""
    child = os.fork()
    if child:
        return child
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)


def kills(folder: str, output: str) -> None:
    """Train undisturbed, and killed KILLS times; print what came of both."""
    undisturbed, killed = Path(output) / "undisturbed", Path(output) / "killed"
    assert os.waitpid(forked(lambda: train(folder, undisturbed)), 0)[1] == 0
    draw, count, writing = random.Random(0), 0, 0
    while count < KILLS:
        moment, number = draw.choice(MOMENTS), draw.randint(1, MOST)
        status = os.waitpid(forked(partial(train, folder, killed, moment, number)), 0)[1]
        if status == signal.SIGKILL:
            count += 1
            torn = any(killed.glob(".state.pt.*"))  # the next to write removes what a kill has left
            assert torn or moment not in WRITING
            writing += moment in WRITING
        else:  # it had come to its end: another run is killed from its beginning
            assert status == 0 and digest(killed) == digest(undisturbed)
            (killed / "state.pt").unlink()
    assert os.waitpid(forked(lambda: train(folder, killed)), 0)[1] == 0
    told = {"kills": count, "while writing": writing}
    print(json.dumps(told | {"undisturbed": digest(undisturbed), "killed": digest(killed)}))


def digest(run: Path) -> str:
    """Of everything that a finished run has learned."""
    state = Run(run).load()
    assert state["done"] == SETTINGS["steps"]
    tensors = b"".join(tensor.numpy().tobytes() for tensor in state["weights"] + state["average"])
    return hashlib.sha256(tensors).hexdigest()


if __name__ == "__main__":
    {"gradients": gradients, "kills": kills}[sys.argv[1]](*sys.argv[2:])
