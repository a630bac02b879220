"""The ablations: every trial is the editor with one thing changed, and nothing else is."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import editmgt_lab as lab
from editmgt_lab.basics.fingerprints import weights_fingerprint
from editmgt_lab.images import to_tensor
from editmgt_lab.metrics import edit_score, leakage
from editmgt_lab.studies import ablations
from editmgt_lab.studies.ablations import ablate, groups_of_blocks, main, object_words
from editmgt_lab.studies.choose import COLUMNS

RUN = {"split": "validation", "count": 3, "batch": 3, "seed": 2, "hold_threshold": 0.5, "progress": False, "steps": 2}


@pytest.fixture(scope="module")
def trials(editor):
    return ablate(editor, strengths=(2.0,), **RUN)


def values_of(editor, **options):
    """Edit scores and leakage of the three edits by plain calls, one at a time."""
    values = {"score": [], "leakage": []}
    for number in range(3):
        sample = lab.world.sample_edit(number, split="validation", size=32)
        result = editor.edit(sample.source, sample.instruction, seed=2 + number, steps=2, **options)
        source, target = to_tensor(editor.detokenize(editor.tokenize([sample.source, sample.target])))
        mask = torch.from_numpy(np.array(sample.mask)) > 127
        output = to_tensor(result.images)[0]
        values["score"].append(edit_score(output, source, target, mask))
        values["leakage"].append(leakage(output, source, mask))
    return values


def agree(values, expected):
    return all(values[name] == pytest.approx(expected[name], abs=2e-3, nan_ok=True) for name in expected)


def test_every_part_begins_with_the_editor_as_it_ships(trials, editor):
    parts = {trial.setting: [each for each in trials if each.setting == trial.setting] for trial in trials}
    assert list(parts) == list(ablations.TITLES)
    own = values_of(editor, hold_threshold=0.5)
    for name, part in parts.items():
        shipped = [trial.chosen for trial in part]
        assert shipped == ([False, False] if name == "consolidation" else [True] + [False] * (len(part) - 1))
        if name != "consolidation":
            assert agree(part[0].values, own)
    assert len(set(own["leakage"])) > 1, "or the test could not fail"


def test_trials_change_what_they_say(trials, editor):
    found = {(trial.setting, trial.option): trial.values for trial in trials}
    rule = editor.defaults.hold
    other = {"commit": "released", "released": "commit"}[rule]
    own = values_of(editor, hold_threshold=0.5)
    for key, changed, options in (
        (("hold", "none"), editor, {"hold_threshold": 0.0}),
        (("hold", f"{other}, λ = 0.5"), editor.with_defaults(hold=other), {}),
        (("blocks", "0 alone"), editor, {"blocks": 0}),
        (("blocks", "single-modal"), editor, {"blocks": (1, 2)}),
        (("filter", "off"), editor.with_defaults(smooth=False), {}),
        (("injection", "γ = 2, paper's bias"), editor.with_defaults(bias_text=False), {"strength": 2.0}),
        (("injection", "γ = 2, released bias"), editor.with_defaults(bias_text=True), {"strength": 2.0}),
    ):
        assert agree(found[key], values_of(changed, **{"hold_threshold": 0.5} | options)), key
        assert not agree(found[key], own), f"{key}: or the test could not fail"


def test_the_editors_own_strength_and_filter_are_called_what_they_are(editor):
    own = editor.with_defaults(strength=5.0, bias_text=True, smooth=False, steps=2)
    part = [each for each in ablate(own, **RUN | {"steps": None}, strengths=(0.5,)) if each.setting == "injection"]
    assert [(each.option, each.chosen) for each in part] == [
        ("γ = 5, released bias (as it ships)", True), ("γ = 1", False),
        ("γ = 0.5, paper's bias", False), ("γ = 0.5, released bias", False),
    ]  # fmt: skip
    plain = editor.with_defaults(strength=1.0, smooth=False)
    assert agree(part[1].values, values_of(plain, hold_threshold=0.5))
    assert not agree(part[0].values, part[1].values), "or the test could not fail"
    said = ablate(editor.with_defaults(bias_text=False, smooth=False), **RUN, strengths=(), strength=0.5)
    found = [(each.setting, each.option, each.chosen) for each in said if each.setting in ("filter", "injection")]
    assert found == [
        ("filter", "off", True), ("filter", "on", False),
        ("injection", "γ = 0.5, paper's bias (as it ships)", True), ("injection", "γ = 1", False),
    ]  # fmt: skip


def test_without_filter_the_map_is_the_raw_one(editor, picture):
    source = picture(seed=1)
    options = {"seed": 0, "steps": 1, "hold_threshold": 0.0}
    on, off = (each.edit(source, "add a cat", **options) for each in (editor, editor.with_defaults(smooth=False)))
    assert torch.equal(on.tokens, off.tokens) and not torch.allclose(on.heat, off.heat)
    assert editor.defaults.smooth, "the editor itself is as it was"


def test_one_block_alone_is_the_mean_over_the_single_modal_ones(trials):
    by_option = {trial.option: trial.values for trial in trials if trial.setting in ("blocks", "consolidation")}
    together, alone = (by_option[each] for each in ("blocks 1 … 2 together", "one of them alone, in the mean"))
    for name in COLUMNS:
        expected = np.mean([by_option["1 alone"][name], by_option["2 alone"][name]], axis=0)
        assert alone[name] == pytest.approx(expected.tolist(), nan_ok=True)
    assert together == by_option["single-modal"]


def test_groups_of_blocks(editor):
    groups = groups_of_blocks(editor)
    assert groups == {
        "0 alone": [0], "1 alone": [1], "2 alone": [2], "multi-modal": [0], "single-modal": [1, 2], "all": [0, 1, 2],
    }  # fmt: skip


def test_a_model_without_single_modal_blocks_has_none_to_consolidate(editor, tmp_path):
    few = SimpleNamespace(transformer=SimpleNamespace(blocks=[0, 1], transformer_blocks=[0, 1]))
    groups = groups_of_blocks(few)
    assert "single-modal" not in groups and ablations.consolidated_or_not(few, dict.fromkeys(groups)) == []


def test_only_the_parts_that_were_tried_are_drawn(trials, tmp_path):
    paths = ablations.save([each for each in trials if each.setting != "consolidation"], {}, tmp_path)
    names = {path.stem for path in paths if path.suffix == ".png"}
    assert names == {*ablations.TITLES} - {"consolidation"}


@pytest.mark.parametrize("category", lab.world.CATEGORIES)
def test_the_words_of_the_object_are_in_every_instruction(category):
    for number in range(40):
        sample = lab.world.sample_edit(number, split="test", category=category, size=32)
        words = object_words(sample)
        assert words and all(word in sample.instruction for word in words), sample.instruction
        kinds = {item.kind for item in sample.source_scene.items + sample.target_scene.items}
        assert len(words) == (2 if category == "replace" and len(set(words)) == 2 else 1)
        assert set(words) <= kinds | {sample.target_scene.background, sample.target_scene.style}


def test_a_picture_has_every_trial_with_its_interval(trials):
    part = [trial for trial in trials if trial.setting == "hold"]
    figure = ablations.picture(part)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [trial.option for trial in part]
    assert [axes.get_xlabel() for axes in figure.axes] == ["edit score", "leakage, local edits", "localisation"]
    score = part[0].to_dict()["score"]
    drawn = [line.get_xdata() for line in figure.axes[0].get_lines()]
    assert [score["low"], score["high"]] in [list(x) for x in drawn]


def test_command(tiny_folder, tmp_path, capsys):
    own = lab.load(tiny_folder)
    arguments = ["--model", str(tiny_folder), "--split", "validation", "--count", "2", "--steps", "1"]
    assert main([*arguments, "--output", str(tmp_path / "new")]) == 0
    assert capsys.readouterr().out.count("released bias") == 5
    saved = json.loads((tmp_path / "new" / "ablations.json").read_text(encoding="utf-8"))
    assert len(saved["trials"]) == 4 + 7 + 2 + 2 + 2 + 11 and saved["settings"]["count"] == 2
    assert saved["settings"]["weights"] == weights_fingerprint(own) and saved["settings"]["steps"] == 1
    assert saved["settings"]["hold_threshold"] == own.defaults.hold_threshold, "what was left to the model"
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert names == {"ablations.json", "ablations.txt", *(f"{part}.png" for part in ablations.TITLES)}
    assert main([*arguments, "--hold-threshold", "2"]) == 2 and "hold_threshold" in capsys.readouterr().err
