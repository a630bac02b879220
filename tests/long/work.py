"""What is done again and again, and what is in use after each time."""

from __future__ import annotations

import gc
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import comm
import nbformat
import psutil
from ipywidgets.widgets.widget import _instances
from matplotlib import pyplot
from nbclient import NotebookClient

import editmgt_lab as lab
from editmgt_lab import views
from editmgt_lab.finetuning import Finetuner
from tests.support import PATIENCE, ROOT
from tests.support.judged import judged_edits
from tests.support.tiny import save_tiny

INSTRUCTION = "make the ball blue"
# What IPython keeps of every output and the C library of every allocation is not the lab's, and is given back first.
ASK = """
import comm, ctypes, gc, json, os, sys, threading, psutil
from ipywidgets.widgets.widget import _instances
get_ipython().displayhook.flush()
getattr(get_ipython().history_manager, "outputs", {}).clear()  # every picture that a cell has shown
gc.collect()
if sys.platform == "linux":
    ctypes.CDLL("libc.so.6").malloc_trim(0)
print(json.dumps({"memory": psutil.Process().memory_info().rss, "threads": threading.active_count(),
                  "files": len(os.listdir("/proc/self/fd")), "widgets": len(_instances),
                  "comms": len(comm.get_comm_manager().comms)}))
"""
Counts = dict[str, int]


def counts(editor: lab.Editor) -> Counts:
    """What is in use now: memory in bytes, and the numbers of threads, open files, widgets, comms, figures and
    hooks."""
    gc.collect()
    modules = list(editor.transformer.modules())
    return {
        "memory": psutil.Process().memory_info().rss,
        "threads": threading.active_count(),
        "files": psutil.Process().num_fds(),
        "widgets": len(_instances),
        "comms": len(comm.get_comm_manager().comms),
        "figures": len(pyplot.get_fignums()),
        "hooks": sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)
        + sum(len(getattr(module, "recorders", ())) for module in modules),
    }


def edits(count: int) -> Iterator[Counts]:
    """One edit after the other, of changing sizes and settings, every tenth of them left in the middle."""
    editor = tiny()
    pictures = [lab.world.sample_edit(seed, size=size).source for seed in range(4) for size in (32, 48)]
    for number in range(count):
        settings = {"steps": 4, "guidance_scale": 1.0 + number % 2, "hold_threshold": 0.1 * (number % 5)}
        picture = pictures[number % len(pictures)]
        if number % 10 == 9:
            next(editor.steps(picture, INSTRUCTION, **settings))
        else:
            editor.edit(picture, INSTRUCTION, refresh_every=1 + number % 3, **settings)
        yield counts(editor)


def of_a_run(editor: lab.Editor, samples: list[Any]) -> Any:
    run = views.record(editor, samples[0].source, INSTRUCTION, attention=True, steps=3)
    return views.attention_explorer(run)


VIEWS: dict[str, Callable[[lab.Editor, list[Any]], Any]] = {  # name → opened, on an editor and samples of the world
    "attention_explorer": of_a_run,
    "decode_player": lambda editor, samples: views.decode_player(editor, samples[0].source, INSTRUCTION, steps=3),
    "hold_studio": lambda editor, samples: views.hold_studio(editor, samples[0].source, INSTRUCTION, steps=3),
    "injection_dial": lambda editor, samples: views.injection_dial(
        editor, samples[0].source, INSTRUCTION, strengths=(0, 1), steps=3
    ),
    "token_lab": lambda editor, samples: views.token_lab(editor, samples[0].source),
    "playground": lambda editor, samples: views.playground(editor, samples[0].source, INSTRUCTION, steps=3),
    "finetune_dashboard": lambda editor, samples: views.finetune_dashboard(Finetuner(editor, samples), samples[:1]),
    "filter_studio": lambda editor, samples: views.filter_studio(judged_edits(8)),
}


def openings(name: str, count: int) -> Iterator[Counts]:
    """One view opened, its work awaited, and closed, again and again."""
    editor, samples = tiny(), [lab.world.sample_edit(seed, size=32) for seed in range(4)]
    for _ in range(count):
        view = VIEWS[name](editor, samples)
        view.pending.result(timeout=PATIENCE)
        view.close()
        yield counts(editor)


def notebook_runs(path: Path, count: int) -> Iterator[Counts]:
    """All cells of a notebook, run again and again in one kernel, and what its process has in use after each time."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    notebook.cells.append(nbformat.v4.new_code_cell(ASK))
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(ROOT)}})
    with client.setup_kernel():
        for _ in range(count):
            for index, cell in enumerate(notebook.cells):
                client.kc.session.metadata = {"cellId": cell.id}  # as a notebook's page says it
                client.execute_cell(cell, index)
            yield json.loads(cell.outputs[-1]["text"])


def tiny() -> lab.Editor:
    """The tests' own small editor of random weights."""
    with TemporaryDirectory() as folder:
        save_tiny(Path(folder))
        return lab.load(folder, device="cpu")


def apart(work: Callable[[], Iterator[Counts]], line: Any) -> None:
    """In a process of its own, whose memory is its own."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for each in work():
        line.send(each)
    line.close()
