"""Run by test_finetuning in processes of its own: gradients of one of two processes, and a run that is killed."""

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

import editmgt_lab as lab
from editmgt_lab.finetuning import Finetuner, objective
from editmgt_lab.training.run import Run
from tests.finetuning.test_finetuning import QUICK, random_pairs

KILLS = 20
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


def train(folder: str, run: Path) -> None:
    """A run to its end, slowed down where it writes, so that a kill can meet it there."""
    torch.set_num_threads(1)
    write = torch.save

    def slow(state, file):
        write(state, file)
        time.sleep(0.05)
        file.seek(0)
        file.write(b"torn!")
        file.flush()
        time.sleep(0.05)
        file.seek(0)
        write(state, file)

    torch.save = slow
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
    started = time.monotonic()
    assert os.waitpid(forked(lambda: train(folder, undisturbed)), 0)[1] == 0
    whole = time.monotonic() - started
    draw, count, writing = random.Random(0), 0, 0
    while count < KILLS:
        child = forked(lambda: train(folder, killed))
        time.sleep(draw.uniform(0.2, 0.6) * whole)
        writing += any(killed.glob(".state.pt.*"))
        os.kill(child, signal.SIGKILL)
        if os.waitpid(child, 0)[1] == signal.SIGKILL:
            count += 1
        else:  # it had come to its end: another run is killed from its beginning
            assert digest(killed) == digest(undisturbed)
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
