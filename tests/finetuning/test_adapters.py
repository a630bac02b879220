"""An adapter is loaded whole, on the very weights that it was made for, or not at all."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import editmgt_lab as lab
from editmgt_lab.checkpoints import data_folder
from editmgt_lab.errors import CheckpointError, LabError, SettingError
from editmgt_lab.finetuning import (
    Finetuner,
    FinetuneSettings,
    TokenPairs,
    adapters,
    add_adapter,
    load_adapter,
    remove_adapter,
    save_adapter,
    stamp_adapter,
)
from editmgt_lab.finetuning.adapters import WEIGHTS, adapter_shapes, base_fingerprint, lora_layers
from editmgt_lab.training.build import save_editor
from editmgt_lab.world import SKILLS


@pytest.fixture
def own(editor):
    return copy.deepcopy(editor)


@pytest.fixture(params=["both", "source"])
def saved(editor, tmp_path, request):
    """The folder of an adapter that does something."""
    teacher = copy.deepcopy(editor)
    add_adapter(teacher.transformer, rank=2, branch=request.param)
    with torch.no_grad():
        for name, parameter in teacher.transformer.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    save_adapter(teacher.transformer, tmp_path / "adapter")
    return tmp_path / "adapter"


def rewrite(folder, change=lambda tensors: tensors, **about):
    """Change an adapter's file: its tensors, and its metadata (None takes a name out)."""
    with safe_open(folder / WEIGHTS, "pt") as opened:
        metadata = opened.metadata() | about
    tensors = {name: tensor.contiguous() for name, tensor in change(load_file(folder / WEIGHTS)).items()}
    save_file(tensors, folder / WEIGHTS, {name: value for name, value in metadata.items() if value is not None})


def condition(transformer):
    """All that an adapter could leave behind."""
    learned = {name: (id(parameter), parameter.requires_grad) for name, parameter in transformer.named_parameters()}
    hooks = sum(len(module._forward_pre_hooks) for module in transformer.modules())
    return learned, hooks, set(vars(transformer)), len(lora_layers(transformer))


def first(tensors, kind):
    return next(name for name in tensors if kind in name)


BROKEN = {
    "some are missing": (lambda t: dict(list(t.items())[:-3]), {}, "missing"),
    "one is missing": (lambda t: {n: x for n, x in t.items() if n != first(t, "lora_B")}, {}, "1 missing"),
    "every lora_B is missing": (lambda t: {n: x for n, x in t.items() if "lora_A" in n}, {}, "missing"),
    "the names of DDP": (lambda t: {f"module.{n}": x for n, x in t.items()}, {}, "unexpected: module."),
    "one too many": (lambda t: t | {"more": torch.zeros(1)}, {}, "1 unexpected: more"),
    "nothing of it": (lambda t: {"x": torch.zeros(1)}, {}, "missing"),
    "another rank": (lambda t: t, {"rank": "4"}, "of another shape"),
    "turned": (lambda t: {n: x.T for n, x in t.items()}, {}, "of another shape"),
    "the other branch": (lambda t: {n: x for n, x in t.items() if "add_" not in n}, {"branch": "both"}, "missing"),
    "whole numbers": (lambda t: t | {first(t, "lora_A"): t[first(t, "lora_A")].int()}, {}, "of whole numbers"),
    "not a number": (lambda t: t | {first(t, "lora_A"): t[first(t, "lora_A")] * torch.nan}, {}, "no numbers"),
    "no branch": (lambda t: t, {"branch": "middle"}, "is no adapter"),
    "no rank": (lambda t: t, {"rank": "0"}, "is no adapter"),
    "no words for its base": (lambda t: t, {name: None for name in adapters.PRECISIONS}, "does not say which weights"),
    "another base": (lambda t: t, {"base_weights": "0" * 16}, "another model"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_not_whole_is_refused_and_changes_nothing(own, saved, name):
    change, about, said = BROKEN[name]
    rewrite(saved, change, **about)
    before = condition(own.transformer)
    with pytest.raises(CheckpointError, match=said):
        load_adapter(own.transformer, saved)
    assert condition(own.transformer) == before


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_a_load_that_fails_half_way_leaves_no_half(own, saved, error, picture, monkeypatch):
    own.transformer.requires_grad_(False)
    own.transformer.project_to_hidden.weight.requires_grad_(True)
    before, tokens = condition(own.transformer), own.edit(picture(), "make it blue", seed=0).tokens

    def fails(*given):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(adapters, "set_peft_model_state_dict", fails)
        with pytest.raises(CheckpointError if isinstance(error, Exception) else KeyboardInterrupt):
            load_adapter(own.transformer, saved)
    assert condition(own.transformer) == before
    assert torch.equal(own.edit(picture(), "make it blue", seed=0).tokens, tokens)
    load_adapter(own.transformer, saved)


def test_any_weight_of_the_base_counts(editor, saved):
    for name in [name for name, _ in editor.transformer.named_parameters()][::5]:
        other = copy.deepcopy(editor)
        with torch.no_grad():
            other.transformer.get_parameter(name).mul_(1.01).add_(0.01)
        with pytest.raises(CheckpointError, match="another model"):
            load_adapter(other.transformer, saved)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_base_may_be_loaded_in_another_precision(editor, saved, dtype):
    other = copy.deepcopy(editor.transformer).to(dtype)
    load_adapter(other, saved)
    assert lora_layers(other)


def test_an_adapter_taken_off_leaves_the_editor_as_it_was(own, saved, picture):
    before, tokens = condition(own.transformer), own.edit(picture(), "make it blue", seed=0).tokens
    fingerprint = base_fingerprint(own.transformer)
    load_adapter(own.transformer, saved)
    assert base_fingerprint(own.transformer) == fingerprint
    assert not torch.equal(own.edit(picture(), "make it blue", seed=0).tokens, tokens)
    remove_adapter(own.transformer)
    remove_adapter(own.transformer)
    assert condition(own.transformer) == before
    assert torch.equal(own.edit(picture(), "make it blue", seed=0).tokens, tokens)
    load_adapter(own.transformer, saved)


@pytest.mark.parametrize("rank", [0, 2])
def test_nothing_is_trained_on_top_of_an_adapter(own, saved, rank):
    load_adapter(own.transformer, saved)
    before, tokens = condition(own.transformer), torch.zeros(2, 8, 8, dtype=torch.long)
    pairs = TokenPairs(tokens, tokens, ["a", "b"])
    with pytest.raises(SettingError, match="has an adapter already"):
        Finetuner(own, pairs, FinetuneSettings(steps=1, batch=2, rank=rank))
    assert condition(own.transformer) == before
    with pytest.raises(SettingError, match="already"):
        load_adapter(own.transformer, saved)
    remove_adapter(own.transformer)
    tuner = Finetuner(own, pairs, FinetuneSettings(steps=1, batch=2, rank=0))
    assert len(tuner.trained) == len(list(own.transformer.parameters()))


def test_an_editor_with_an_adapter_is_not_saved_as_one_that_nobody_can_load(own, saved, tmp_path):
    load_adapter(own.transformer, saved)
    parts = own.vq, own.text_encoder, own.transformer
    with pytest.raises(SettingError, match="other parts than its configuration says"):
        save_editor(tmp_path / "editor", *parts, 32, own.defaults)
    assert not (tmp_path / "editor").exists()
    remove_adapter(own.transformer)
    save_editor(tmp_path / "editor", *parts, 32, own.defaults)
    lab.load(tmp_path / "editor", device="cpu")


def test_an_older_adapter_is_stamped_once(own, saved):
    before = copy.deepcopy(load_file(saved / WEIGHTS))  # what is loaded may be the file's own bytes
    rewrite(saved, base_weights=None, base_weights_float16=None, base="an older fingerprint")
    stamp_adapter(own.transformer, saved)
    after = load_file(saved / WEIGHTS)
    assert all(torch.equal(before[name], after[name]) for name in before) and before.keys() == after.keys()
    load_adapter(own.transformer, saved)
    rewrite(saved, lambda tensors: dict(list(tensors.items())[:-1]))
    with pytest.raises(CheckpointError, match="1 missing"):
        stamp_adapter(copy.deepcopy(own).transformer, saved)


def test_the_adapters_that_come_along():
    folders = [each for each in (data_folder() / "adapters").iterdir() if each.is_dir()]
    assert {each.name for each in folders} == {*SKILLS, "leaky"}
    for folder in folders:
        editor = lab.load(device="cpu")
        load_adapter(editor.transformer, folder)
        learned = {name: each for name, each in editor.transformer.state_dict().items() if "lora_B" in name}
        assert sum(float(each.abs().sum()) for each in learned.values()) > 100


def test_a_folder_that_is_none_is_still_the_labs_own_error(own, tmp_path):
    with pytest.raises(LabError, match="is no adapter"):
        load_adapter(own.transformer, tmp_path)
    assert adapter_shapes(own.transformer, 2, "source").keys() < adapter_shapes(own.transformer, 2, "both").keys()
