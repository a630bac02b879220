"""Whatever makes a number is known by its fingerprint, and nothing is gone on with by others."""

from __future__ import annotations

import copy
import json
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import editmgt_lab as lab
from editmgt_lab.basics import fingerprints
from editmgt_lab.basics.fingerprints import (
    code_fingerprint,
    differences,
    editor_fingerprint,
    fingerprint,
    function_fingerprint,
)
from editmgt_lab.benchmarks import SmallWorld, editor_answers, run
from editmgt_lab.benchmarks.__main__ import main
from editmgt_lab.errors import CheckpointError, DataError, SettingError
from editmgt_lab.finetuning import Finetuner, FinetuneSettings, TokenPairs, add_adapter
from editmgt_lab.metrics.measures import Tools
from editmgt_lab.studies import training_size
from editmgt_lab.training.data import token_cache
from editmgt_lab.training.run import Run
from tests.support.backbones import save_dino
from tests.support.tiny import RECIPE

NONE = Tools()


def changed(editor, name):
    """A copy of which one thing is another."""
    other = copy.deepcopy(editor)
    with torch.no_grad():
        if name == "adapter":
            add_adapter(other.transformer, rank=1)
        elif name == "defaults":
            other.defaults = replace(other.defaults, token_temperature=0.7)
        else:
            next(getattr(other, name).parameters()).flatten()[-1].add_(0.001)
    return other


@pytest.fixture
def other_code(monkeypatch):
    """A function after which the code is another one."""
    return lambda: monkeypatch.setattr(fingerprints, "_sources", lambda rooms: "another")


@pytest.fixture
def other_file(tmp_path_factory, monkeypatch):
    """A function after which one file of the code is another one, by its place in the package."""
    package = tmp_path_factory.mktemp("code") / "editmgt_lab"
    for file in fingerprints.PACKAGE.rglob("*.py"):
        copied = package / file.relative_to(fingerprints.PACKAGE)
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copied)
    monkeypatch.setattr(fingerprints, "PACKAGE", package)
    fingerprints._sources.cache_clear()

    def change(place):
        with (package / place).open("a") as file:
            file.write("changed = True\n")
        fingerprints._sources.cache_clear()

    yield change
    fingerprints._sources.cache_clear()


# Fingerprints


def test_a_fingerprint_tells_values_apart():
    coloured = Image.new("P", (2, 2))
    coloured.putpalette([255, 0, 0])
    values = [
        torch.zeros(4), torch.zeros(2, 2), torch.zeros(4, dtype=torch.int32), torch.zeros(()), torch.ones(4),
        np.zeros(4), Image.new("RGB", (2, 2)), Image.new("L", (2, 2)), Image.new("RGB", (1, 4)),
        Image.new("P", (2, 2)), coloured,
        b"a", "a", ["a"], [["a"]], ["a", ""], ["", "a"], {"a": 1}, {"a": "1"}, None, 0, False, "half \ud83d",
    ]  # fmt: skip
    found = [fingerprint(value) for value in values]
    assert len(set(found)) == len(found) and all(len(each) == 16 for each in found)
    assert found == [fingerprint(value) for value in values]
    letters = [chr(number) for number in range(97, 117)]
    assert fingerprint(set(letters)) == fingerprint(sorted(letters)), "whatever order they come in"
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1}) and fingerprint("ab") != fingerprint("a", "b")


def test_of_tensors_the_values_count_and_not_how_they_lie(monkeypatch):
    tensor = torch.randn(3, 4, 5)
    assert fingerprint(tensor) == fingerprint(tensor.transpose(0, 2).contiguous().transpose(0, 2))
    whole = fingerprint(tensor)
    monkeypatch.setattr(fingerprints, "_PART", 7)
    assert fingerprint(tensor) == whole
    half = tensor.bfloat16()
    assert fingerprint(tensor, dtype=torch.bfloat16) == fingerprint(half) and fingerprint(half) != whole


def test_of_a_path_the_content_counts(tmp_path):
    file, other = tmp_path / "a", tmp_path / "b"
    missing = fingerprint(file)
    file.write_bytes(b"x")
    other.write_bytes(b"x")
    assert fingerprint(file) == fingerprint(other) != missing
    other.write_bytes(b"y")
    assert fingerprint(file) != fingerprint(other)


@pytest.mark.parametrize("name", ["transformer", "text_encoder", "vq", "adapter", "defaults"])
def test_every_part_of_an_editor_counts(editor, name):
    before = editor_fingerprint(editor)
    editor.text_encoder(["make it blue"])
    editor.text_encoder.clip_tokenizer(["a", "b b"], padding=True, truncation=True, max_length=5)
    assert before == editor_fingerprint(copy.deepcopy(editor)) == json.loads(json.dumps(before))
    assert differences(before, editor_fingerprint(changed(editor, name)))


def test_code_counts_but_not_its_comments(tmp_path, monkeypatch):
    (tmp_path / "room").mkdir()
    (tmp_path / "stage.py").write_text("x = 1\n", encoding="utf-8")
    (tmp_path / "room" / "way.py").write_text("y = 1\n", encoding="utf-8")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(fingerprints, "PACKAGE", tmp_path)

    def now(*modules):
        fingerprints._sources.cache_clear()
        return code_fingerprint(*modules)["editmgt_lab"]

    stages, room = now(), now("editmgt_lab.room.way")
    assert stages != room
    (tmp_path / "room" / "way.py").write_text("# why\n\ny = 1  \n", encoding="utf-8")
    (tmp_path / "elsewhere" / "more.py").write_text("z = 1\n", encoding="utf-8")
    assert (now(), now("editmgt_lab.room.way")) == (stages, room)
    (tmp_path / "room" / "way.py").write_text("y = 2\n", encoding="utf-8")
    assert now() == stages and now("editmgt_lab.room.way") != room
    with pytest.raises(ValueError, match="__main__"):
        now("__main__")  # what __name__ is in a file that is run itself
    fingerprints._sources.cache_clear()


def test_functions():
    def answer():
        pass

    told = function_fingerprint(answer)
    assert told["function"].endswith("answer") and len(told["source"]) == 16
    assert function_fingerprint(print) == {"function": "builtins:print"}
    answer.made_of = {"weights": 1}
    assert function_fingerprint(answer) == {"weights": 1}


def test_differences_name_what_is_other():
    before, now = {"a": {"b": 1, "c": 2}, "d": 3, "e": {"f": 1}}, {"a": {"b": 1, "c": 4}, "d": None, "g": {"h": 1}}
    assert differences(before, now) == ["a.c 2, now 4", "d 3, now None", "e.f 1, now None", "g.h None, now 1"]
    assert differences(before, copy.deepcopy(before)) == []


# A benchmark


@pytest.mark.parametrize("name", ["transformer", "text_encoder", "vq", "adapter", "defaults"])
def test_a_table_is_of_one_model(editor, tmp_path, name):
    def bench(which, count, **options):
        answers = editor_answers(which, hold_threshold=0.3, steps=1)
        return run(SmallWorld(), "3", answers, tmp_path, tools=NONE, count=count, progress=False, **options)

    bench(editor, 1)
    rows = (tmp_path / "rows.jsonl").read_bytes()
    said_of = {"text_encoder": "text encoder", "vq": "VQ model"}.get(name, name)
    with pytest.raises(SettingError, match=f"answers.*editor.{said_of}") as said:
        bench(changed(editor, name), 2)
    assert "--anew" in said.value.fix and (tmp_path / "rows.jsonl").read_bytes() == rows
    with pytest.raises(SettingError):
        bench(changed(editor, name), 2, rescore=True)
    assert len(bench(copy.deepcopy(editor), 2).scored) == 2


def test_anew_takes_nothing_over(editor, tmp_path):
    def bench(which, count, **options):
        answers = editor_answers(which, hold_threshold=0.0, steps=1)
        return run(SmallWorld(), "3", answers, tmp_path, tools=NONE, count=count, progress=False, **options)

    first = bench(editor, 3)
    other = changed(editor, "transformer")
    with torch.no_grad():
        other.transformer.project_from_hidden.weight.mul_(-1)
    second = bench(other, 1, anew=True)
    assert len(second.scored) == 1
    third = bench(other, 3)  # the pictures of the first are still there, and say that they are another model's
    fresh = run(SmallWorld(), "3", editor_answers(other, hold_threshold=0.0, steps=1), tmp_path / "fresh", tools=NONE,
                progress=False)  # fmt: skip
    assert [each["no hold"] for each in third.scored] == [each["no hold"] for each in fresh.scored]
    assert third.scored != first.scored


def test_code_and_networks_count(editor, tmp_path, other_code):
    folder = save_dino(tmp_path / "dino")

    def bench(**options):
        tools = Tools(dino=folder)
        return run(SmallWorld(), "1", {}, tmp_path / "out", tools=tools, progress=False, **options)

    bench()
    assert len(bench().scored) == 1
    weights = {name: 2 * tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SettingError, match="other measures: networks.dino"):
        bench()
    bench(rescore=True)
    other_code()
    with pytest.raises(SettingError, match="code.editmgt_lab"):
        bench()


@pytest.mark.parametrize("place", ["editor.py", "images/fitting.py", "text/encoding.py", "decoding/sampler.py"])
def test_the_code_of_every_stage_counts(editor, tmp_path, other_file, place):
    def bench(**options):
        answers = editor_answers(editor, hold_threshold=0.0, steps=1)
        return run(SmallWorld(), "1", answers, tmp_path, tools=NONE, progress=False, **options)

    bench()
    other_file("views/figures.py")
    bench()
    other_file(place)
    with pytest.raises(SettingError, match="other settings: code.editmgt_lab"):
        bench(rescore=True)


class Changing(SmallWorld):
    """The small world, of which rows can be other than they were."""

    def __init__(self, **others):
        super().__init__()
        self.others = others

    def rows(self, data):
        for row in super().rows(data):
            yield replace(row, **self.others.get(f"row{int(row.key)}", {}))


@pytest.mark.parametrize(
    "other",
    [{"instruction": "else"}, {"target": Image.new("RGB", (64, 64))}, {"mask": None}, {"target_caption": "else"}],
)
def test_a_row_that_is_another_one_now(tmp_path, other):
    run(Changing(), "2", {}, tmp_path, tools=NONE, count=1, progress=False)
    run(Changing(row1=other), "2", {}, tmp_path, tools=NONE, progress=False)
    with pytest.raises(DataError, match="row 00001 is not what was measured"):
        run(Changing(), "2", {}, tmp_path, tools=NONE, progress=False)


def test_a_bad_row_that_was_mended_is_done(tmp_path):
    card = run(Changing(row0={"instruction": ""}), "2", {}, tmp_path, tools=NONE, progress=False)
    assert len(card.scored) == 1
    card = run(Changing(), "2", {}, tmp_path, tools=NONE, progress=False)
    assert len(card.scored) == 2 and "0 of 2 rows were skipped" in card.table()


def test_no_two_answers_or_rows_share_a_picture(tmp_path):
    def same(source, instruction, number):
        return source

    with pytest.raises(SettingError, match="a folder of its own"):
        run(SmallWorld(), "1", {"mine 0.1": same, "mine_0.1": same}, tmp_path, tools=NONE, progress=False)
    card = run(Changing(row1={"file": "00000.png"}), "2", {"mine": same}, tmp_path, tools=NONE, progress=False)
    assert len(card.scored) == 1 and "would lie where that of 00000 lies" in card.table()


def test_the_command_tells_and_begins_anew(tiny_folder, tmp_path, capsys):
    model = shutil.copytree(tiny_folder, tmp_path / "model")
    none = ["--clip", "none"]
    options = ["small-world", "--data", "2", "--model", str(model), "--steps", "1", "--output", str(tmp_path / "out")]
    assert main([*options, *none, "--count", "1"]) == 0
    defaults = json.loads((model / "lab.json").read_text(encoding="utf-8"))
    (model / "lab.json").write_text(json.dumps(defaults | {"token_temperature": 0.9}), encoding="utf-8")
    assert main([*options, *none]) == 2
    said = capsys.readouterr().err
    assert "token_temperature" in said and "--anew" in said
    assert main([*options, *none, "--anew"]) == 0


# Trainings


def test_a_stage_goes_on_with_its_own_state_alone(tmp_path):
    record = {"recipe": {"samples": 8, "sizes": (1, 2)}, "code": {"editmgt_lab": "a"}}
    Run(tmp_path, record).save({"done": 4})
    assert Run(tmp_path, record).load()["done"] == Run(tmp_path).load()["done"] == 4
    with pytest.raises(CheckpointError, match="recipe.samples 8, now 9") as said:
        Run(tmp_path, record | {"recipe": {"samples": 9, "sizes": (1, 2)}}).load()
    assert "--anew" in said.value.fix and "--other-code" not in said.value.fix
    later = record | {"code": {"editmgt_lab": "b"}}
    with pytest.raises(CheckpointError, match="code.editmgt_lab a, now b") as said:
        Run(tmp_path, later).load()
    assert "--other-code" in said.value.fix
    assert Run(tmp_path, later, other_code=True).load()["done"] == 4
    with pytest.raises(CheckpointError, match="samples"):
        Run(tmp_path, later | {"recipe": {"samples": 9}}, other_code=True).load()
    Run(tmp_path).save({"done": 5})  # as it was written before there were records
    with pytest.raises(CheckpointError, match="does not say how it was made"):
        Run(tmp_path, record).load()
    assert Run(tmp_path, record, other_code=True).load()["done"] == 5
    Run(tmp_path).clear()
    assert Run(tmp_path, record).load() is None


def test_tokens_of_another_vq_model_are_not_trained_on(editor, tmp_path, monkeypatch):
    monkeypatch.setattr("editmgt_lab.training.data.SHARD", 2)

    def cache(which):
        return token_cache(tmp_path, which.vq, which.text_encoder, 2, RECIPE.image_size)["source"]

    monkeypatch.setattr(
        "editmgt_lab.training.data.token_shard", lambda vq, text, seeds, size, share: {"source": torch.zeros(2, 8, 8)}
    )
    assert torch.equal(cache(editor), cache(copy.deepcopy(editor)))
    with pytest.raises(CheckpointError, match="VQ model"):
        cache(changed(editor, "vq"))


@pytest.mark.parametrize("name", ["transformer", "text_encoder", "pairs", "validation", "code"])
def test_a_fine_tuning_goes_on_with_the_same_alone(editor, tmp_path, name, other_code):
    def drawn(seed):
        tokens = torch.randint(32, (2, 4, 8, 8), generator=torch.Generator().manual_seed(seed))
        return TokenPairs(*tokens, ["make it blue"] * 4)

    pairs, quick = drawn(0), FinetuneSettings(steps=2, batch=2, replay_share=0.0)

    def tuner(which, pairs=pairs, validation=pairs, **options):
        return Finetuner(copy.deepcopy(which), pairs, quick, validation=validation, folder=tmp_path, **options)

    tuner(editor)._save()
    assert tuner(editor).done == 0
    other = {} if name in ("transformer", "text_encoder", "code") else {name: drawn(1)}
    if name == "code":
        other_code()
    with pytest.raises(CheckpointError, match=name.replace("_", " ")):
        tuner(editor if other or name == "code" else changed(editor, name), **other)
    if name == "code":
        tuner(editor, other_code=True)


@pytest.mark.parametrize(
    "place",
    ["finetuning/batch.py", "training/objective.py", "training/run.py", "data/tokens.py", "text/encoding.py"],
)
def test_all_code_of_a_fine_tuning_counts(editor, tmp_path, other_file, place):
    def tuner():
        pairs = TokenPairs(*torch.zeros(2, 1, 8, 8, dtype=torch.long), ["make it blue"])
        return Finetuner(copy.deepcopy(editor), pairs, FinetuneSettings(batch=1), folder=tmp_path)

    tuner()._save()
    other_file("views/figures.py")
    tuner()
    other_file(place)
    with pytest.raises(CheckpointError, match="code.editmgt_lab"):
        tuner()


def test_training_size_goes_on_with_the_same_alone(tiny_folder, tmp_path, other_code):
    model = shutil.copytree(tiny_folder, tmp_path / "model")
    options = {"sizes": (0,), "count": 2}
    before = training_size.measure(str(model), tmp_path / "out", **options)
    defaults = json.loads((model / "lab.json").read_text(encoding="utf-8"))
    (model / "lab.json").write_text(json.dumps(defaults | {"token_temperature": 0.9}), encoding="utf-8")
    with pytest.raises(SettingError, match="editor.defaults.token_temperature"):
        training_size.measure(str(model), tmp_path / "out", **options)
    training_size.measure(str(model), tmp_path / "out", **options, anew=True)
    (model / "lab.json").write_text(json.dumps(defaults), encoding="utf-8")
    assert training_size.measure(str(model), tmp_path / "out", **options, anew=True) == before
    other_code()
    with pytest.raises(SettingError, match="code.editmgt_lab"):
        training_size.measure(str(model), tmp_path / "out", **options)


def test_the_small_models_fingerprint_takes_no_time():
    editor, began = lab.load(device="cpu"), time.process_time()
    editor_fingerprint(editor)
    assert time.process_time() - began < 2, "0.1 s on a quiet core"
