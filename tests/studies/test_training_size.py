"""Score against the number of training pairs: what is taught, that every size does the same work, and resuming."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from editmgt_lab import world
from editmgt_lab.errors import SettingError
from editmgt_lab.studies import training_size
from editmgt_lab.studies.training_size import GROUPS, main, measure, picture, sample_resize
from editmgt_lab.training.build import build_text_encoder, save_editor
from editmgt_lab.transformer import MaskedGenerativeTransformer
from editmgt_lab.vq import VQModel
from tests.support import tiny

RECIPE = replace(tiny.RECIPE, text_length=32)  # captions are longer than instructions
RUN = {"sizes": (0, 16, 32), "samples": 64, "count": 2, "seed": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An untrained editor."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("editor")
    transformer, vq = MaskedGenerativeTransformer(RECIPE.transformer), VQModel(RECIPE.vq)
    tiny.enliven(vq.quantize)  # or it would show all pictures alike
    save_editor(path, vq, build_text_encoder(RECIPE), transformer, RECIPE.image_size)
    return path


@pytest.fixture
def trainings(monkeypatch):
    """Instead of training: what each size was to be trained on. The second of them is killed."""
    calls = []

    def train(transformer, text_encoder, data, codes, run, recipe, *, seed):
        calls.append((data, recipe, seed))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return nn.ModuleDict({"transformer": transformer, "text_encoder": text_encoder}).eval()

    monkeypatch.setattr(training_size, "train_transformer", train)
    return calls


@pytest.mark.parametrize("number", range(6))
def test_the_new_kind_changes_one_objects_size_and_nothing_else(number):
    sample = sample_resize(number)
    before, after = set(sample.source_scene.items), set(sample.target_scene.items)
    (old,), (new,) = before - after, after - before
    assert (old.kind, old.colour, old.place) == (new.kind, new.colour, new.place) and old.size != new.size
    assert old.kind in sample.instruction and sample.instruction.endswith(new.size)
    known = {word for sentence in world.phrases() for word in sentence.replace(",", " ").split()}
    assert set(sample.instruction.split()) <= known, "or it would be a matter of words"
    same = np.asarray(sample.mask) == 0
    assert same.any() and not same.all()
    assert (np.asarray(sample.source)[same] == np.asarray(sample.target)[same]).mean() > 0.99
    assert sample.instruction not in [s.instruction for s in (world.sample_edit(i, size=64) for i in range(50))]


def test_splits_never_meet():
    seen = [sample_resize(number, split="train", size=64).source_scene for number in range(40)]
    assert not [n for n in range(40) if sample_resize(n, split="validation", size=64).source_scene in seen]


def test_sizes_are_nested_do_the_same_work_and_a_killed_run_goes_on(folder, tmp_path, trainings):
    with pytest.raises(KeyboardInterrupt):
        measure(str(folder), tmp_path, **RUN)
    rows = measure(str(folder), tmp_path, **RUN)
    assert [len(data["source"]) for data, *_ in trainings] == [16, 32, 32], "what was done is not done again"
    (small, recipe, seed), (large, *_), (again, *others) = trainings
    assert all(torch.equal(small[name], large[name][:16]) and torch.equal(large[name], again[name]) for name in small)
    assert others == [recipe, seed] and (recipe.samples, recipe.caption_share, seed) == (64, 0, 3)
    assert [row["pairs"] for row in rows] == [0, 16, 32] and not list(tmp_path.glob("*_pairs"))
    assert [row["own"]["score"]["count"] for row in rows] == [0, 2, 2]
    assert rows[0]["old"] == rows[1]["old"], "the untrained editor is the editor"
    assert measure(str(folder), tmp_path, **RUN) == rows and len(trainings) == 3
    with pytest.raises(SettingError, match="begun with other settings"):
        measure(str(folder), tmp_path, **RUN | {"samples": 65})
    axes = picture(rows).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "16", "32"]
    assert [len(line.get_xdata()) for line in axes.get_lines()] == [3, 2, 3], "0 pairs have none of their own"


def test_other_code_of_the_metrics_is_not_gone_on_with(folder, tmp_path, monkeypatch):
    named = []
    monkeypatch.setattr(training_size, "code_fingerprint", lambda *modules: named.extend(modules) or {})
    measure(str(folder), tmp_path, sizes=(0,), count=1)
    assert {name.split(".")[1] for name in named} == {"studies", "training", "metrics", "world", "data"}


def test_command(folder, tmp_path, capsys):
    options = ["--model", str(folder), "--count", "2", "--output", str(tmp_path / "new")]
    assert main([*options, "--sizes", "0"]) == 0
    assert "unseen: success %" in capsys.readouterr().out
    saved = json.loads((tmp_path / "new" / "training_size.json").read_text(encoding="utf-8"))
    assert set(saved["rows"][0]) == {"key", "pairs", *GROUPS} and len(saved["settings"]["weights"]) == 16
    assert saved["computer"]["torch"] == torch.__version__ and (tmp_path / "new" / "training_size.png").exists()
    for sizes in (["32", "16"], ["4"]):
        assert main([*options, "--sizes", *sizes]) == 2 and "sizes" in capsys.readouterr().err
