"""Editors side by side: each is asked as often at once as it can bear, and loaded once."""

import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from PIL import Image

from editmgt_lab.crisp.edit import editors
from editmgt_lab.crisp.edit.operators import Edit
from editmgt_lab.crisp.engine.operators import _answers
from tests.support import PATIENCE
from tests.support.parquet import png

LONG_ENOUGH = 0.05  # s, in which other threads would come in if they could
inside, most, meeting = [], [], threading.Barrier(2)


@dataclass(frozen=True)
class Pipeline:
    """One object that must not be called from two threads."""

    name: str = "pipeline"

    def edit(self, image, instruction, seed):
        inside.append(seed)
        time.sleep(LONG_ENOUGH)
        most.append(len(inside))
        inside.remove(seed)
        return image


@dataclass(frozen=True)
class Endpoint:
    """One that answers nobody who asks alone."""

    name: str = "endpoint"
    at_once: int = 4

    def edit(self, image, instruction, seed):
        meeting.wait(PATIENCE)
        return image


def test_an_editor_beside_one_that_is_asked_often_at_once_keeps_its_own_number():
    most.clear()
    edit, picture = Edit((Endpoint(), Pipeline())), png(Image.new("RGB", (4, 4)))
    names = ["pipeline", "pipeline", "endpoint"] * 4
    rows = [
        {"id": str(i), "picture": picture, "instruction": "x", "editor": name, "seed": i}
        for i, name in enumerate(names)
    ]
    assert edit.at_once == 4
    answers = list(_answers(edit, [None] * len(rows), rows))
    assert [each["error"] for each in answers] == [None] * len(rows)
    assert most == [1] * names.count("pipeline")
    assert pickle.loads(pickle.dumps(edit)) == edit, "it travels to other processes"


class Loaded:
    """Stands for a pipeline of diffusers."""

    def set_progress_bar_config(self, **_):
        pass

    def to(self, device):
        return self


@pytest.mark.parametrize("asked", [("_lab", "counted"), ("_pipeline", "Counted", "folder", "cpu")])
def test_threads_that_ask_at_once_load_a_model_once(monkeypatch, asked):
    loads, loader = [], getattr(editors, asked[0])
    loader.__wrapped__.cache_clear()

    def load(*_, **__):
        loads.append(None)
        time.sleep(LONG_ENOUGH)
        return Loaded()

    monkeypatch.setattr(editors, "load", load)
    monkeypatch.setattr(editors, "_pipeline_class", lambda name: SimpleNamespace(from_pretrained=load))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: loader(*asked[1:]), range(4)))
    assert len(loads) == 1 and all(each is found[0] for each in found)
