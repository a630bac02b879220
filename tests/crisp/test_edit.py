"""Editors side by side: each is asked as often at once as it can bear, and loaded once."""

import base64
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import SimpleNamespace

import pyarrow as pa
import pytest
from PIL import Image

from editmgt_lab.crisp.curate.decode import opened
from editmgt_lab.crisp.edit import editors
from editmgt_lab.crisp.edit.operators import Candidates, Edit
from editmgt_lab.crisp.engine.operators import _answers
from editmgt_lab.crisp.engine.shards import Store
from editmgt_lab.crisp.engine.stages import Stage
from editmgt_lab.errors import ImageError
from tests.crisp.engine.rows import Rows
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
    answers = _answers(edit, [None] * len(rows), rows)
    assert [each["error"] for each in answers] == [None] * len(rows)
    assert most == [1] * names.count("pipeline")
    assert pickle.loads(pickle.dumps(edit)) == edit, "it travels to other processes"


@pytest.fixture
def pipeline(monkeypatch):
    """Stands for the named pipeline: what it was called with, and its output, of `size` or of the one it is told."""
    asked, size = {}, [(64, 64)]

    def call(**options):
        asked.clear()
        asked.update(options)
        return SimpleNamespace(images=[Image.new("RGB", (options.get("width", size[0][0]), size[0][1]))])

    monkeypatch.setattr(editors, "_pipeline_class", lambda name: None)
    monkeypatch.setattr(editors, "_fetched", lambda folder: folder)
    monkeypatch.setattr(editors, "_pipeline", lambda *_: call)
    return SimpleNamespace(asked=asked, size=size)


def test_kontext_is_told_the_shape_of_the_picture_and_others_find_it(pipeline):
    wide = Image.new("RGB", (96, 64))
    kontext = editors.DiffusersEditor("FluxKontextPipeline", "folder")
    assert kontext.edit(wide, "x", 0).size == wide.size
    assert (pipeline.asked["width"], pipeline.asked["height"]) == wide.size
    own = editors.DiffusersEditor("FluxKontextPipeline", "folder", options={"width": 97, "guidance_scale": 2.5})
    assert own.edit(wide, "x", 0).size == wide.size
    assert [pipeline.asked[name] for name in ("width", "height", "guidance_scale")] == [97, 64, 2.5]
    with pytest.raises(ImageError, match="64×64 px of a picture of 96×64 px"):
        editors.DiffusersEditor("QwenImageEditPipeline", "folder").edit(wide, "x", 0)
    assert "width" not in pipeline.asked and "height" not in pipeline.asked


def served(size):
    return {"image": base64.b64encode(png(Image.new("RGB", size))).decode()}


def test_an_output_of_another_shape_costs_its_candidate_and_is_not_stretched(pipeline, monkeypatch):
    row = {"id": "0", "picture": png(Image.new("RGB", (300, 200))), "instruction": "x", "seed": 0}
    for editor in (editors.DiffusersEditor("QwenImageEditPipeline", "folder"), editors.HttpEditor("http://host/edit")):
        for size, fits in (((300, 200), True), ((1248, 832), True), ((304, 208), True), ((1024, 1024), False)):
            pipeline.size[0] = size
            monkeypatch.setattr(editors, "post", lambda *_, size=size, **__: served(size))
            answer = Edit((editor,)).answer(row | {"editor": editor.name})
            if fits:
                assert opened(answer["values"][0]["output"]).size == (300, 200)
            else:
                assert "1024×1024 px of a picture of 300×200 px" in answer["error"]["problem"]


@dataclass(frozen=True)
class Large:
    """A model of which memory holds one alone."""

    name: str

    def edit(self, image, instruction, seed):
        loaded.append(self.name)
        return Image.new("RGB", (seed + 1 if seed < 3 else 1, 1))


loaded = []


def test_each_editor_is_loaded_once_for_a_shard_and_the_rows_keep_their_order(tmp_path):
    loaded.clear()
    names = [f"{number}" for number in range(5)]
    pictures = [png(Image.new("RGB", (4, 4)))] * len(names)
    columns = {"id": names, "instruction_id": names, "instruction": names, "picture": pictures}
    stage = Stage("edit", (Candidates({"b": 2, "a": 2}), Edit((Large("b"), Large("a")))), pictures=("output",))
    store = Store(tmp_path)
    (shard,) = stage.run([Rows("k", pa.table(columns))], store, progress=False)
    assert loaded == ["a"] * 10 + ["b"] * 10
    rows = [*store.rows(shard, pictures=("output",))]
    assert [(row["id"], row["editor"]) for row in rows] == [(f"{n}/{i}", "bbaa"[i]) for n in names for i in range(4)]
    given = {"picture": pictures[0], "instruction": "x", "editor": "a"}
    answers = _answers(Edit((Large("b"), Large("a"))), [None, {"reason": "x"}, None], [
        given | {"id": "0", "editor": "b", "seed": 0}, dict.fromkeys(given), given | {"id": "2", "seed": 2},
    ])  # fmt: skip
    assert [opened(each["values"][0]["output"]).width for each in (answers[0], answers[2])] == [1, 3]
    assert answers[1] == {"values": None, "error": {"reason": "x"}}


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
