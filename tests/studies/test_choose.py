"""The choice of settings: its arithmetic by hand, and the command end to end on a random editor with short lists."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file

import editmgt_lab as lab
from editmgt_lab.attention import MAPPED
from editmgt_lab.basics.fingerprints import weights_fingerprint
from editmgt_lab.metrics.truth import LOCAL_CATEGORIES, draw_truths
from editmgt_lab.studies import choose
from editmgt_lab.studies.choose import Trial, best, choose_settings, least_leakage, main, try_blocks, try_out


@pytest.fixture
def short_lists(monkeypatch):
    monkeypatch.setattr(choose, "SWEEPS", {"guidance_scale": (1.0, 3.0)})
    monkeypatch.setattr(choose, "CALLS", {"steps": (1, 2), "strength": (1.0, 1.25)})
    monkeypatch.setattr(choose, "HOLD_THRESHOLDS", (0.5,))


def trial(success, leaked=()):
    return Trial("hold", None, {"success": list(success), "leakage": list(leaked)}, 0.1)


def test_the_best_is_taken_and_a_tie_goes_to_the_simpler():
    half, more = [0.0, 1.0] * 50, [0.0, 1.0] * 49 + [1.0, 1.0]
    assert best([trial(half), trial(more)], "success") == 1  # by a point
    assert best([trial(more), trial(half)], "success") == 0
    assert best([trial(half), trial(half[::-1])], "success") == 0
    assert best([trial([0.0, 1.0] * 200), trial([0.0, 1.0] * 199 + [1.0, 1.0])], "success") == 0  # by a quarter
    assert best([trial([], [0.04, 0.02]), trial([], [0.03, 0.01])], "leakage", sign=-1) == 1


def test_edits_without_a_value_do_not_choose():
    nan = math.nan
    assert best([trial([0.0, nan, 0.0]), trial([1.0, nan, 1.0])], "success") == 1
    assert best([trial([nan]), trial([nan])], "success") == 0


def test_the_hold_that_costs_little_and_leaks_least_is_taken():
    done, lost = [1.0] * 100, [0.0] * 3 + [1.0] * 97

    def hold(threshold, success, leaked):
        return Trial("hold", (threshold, "commit"), {"success": success, "leakage": [leaked] * 100}, 0.1)

    trials = [hold(0.0, done, 0.04), hold(0.1, done[:99] + [0.0], 0.02), hold(0.2, lost, 0.0)]
    assert least_leakage(trials) == 1, "the last loses three points"
    assert least_leakage([trials[0], trials[2]]) == 0
    assert least_leakage([*trials[:2], hold(0.05, done, 0.01)]) == 2, "the one that leaks less"
    assert least_leakage([*trials[:2], hold(0.3, done, 0.02)]) == 1, "of two alike, the smaller λ"


def test_a_trial_is_that_of_the_editor_with_its_option(editor):
    truths = list(draw_truths(editor, split="validation", count=3, batch=2))
    run = {"truths": truths, "seed": 4, "progress": False, "hold_threshold": 0.0}
    tried = try_out(editor, "steps", 2, **run, steps=2)
    last = lab.world.sample_edit(2, split="validation", size=32)
    result = editor.edit(last.source, last.instruction, steps=2, hold_threshold=0, seed=6)
    expected = truths[1].scores(lab.images.to_tensor(result.images), result)[0]
    assert tried.values["score"][2] == pytest.approx(expected.score, rel=1e-3, nan_ok=True)
    local = [sample.category in LOCAL_CATEGORIES for truth in truths for sample in truth.samples]
    assert [not math.isnan(leaked) for leaked in tried.values["leakage"]] == local
    assert tried.seconds > 0


def test_sets_of_blocks_are_measured_as_if_captured_alone(editor):
    truths = list(draw_truths(editor, split="validation", count=3, batch=2))
    run = {"hold_threshold": 0.0, "steps": 2}
    trials = try_blocks(editor, truths=truths, seed=4, progress=False, heat_from="both", **run)
    assert [each.option for each in trials[:3]] == [("both", (0,)), ("both", (1,)), ("both", (2,))]
    for trial in (trials[1], trials[-1]):
        sample = truths[1].samples[0]
        heat_from, blocks = trial.option
        result = editor.edit(sample.source, sample.instruction, seed=6, heat_from=heat_from, blocks=blocks, **run)
        alone = truths[1].localisation(result.mean_heat, 0)
        assert trial.values["localisation"][2] == pytest.approx(alone, abs=1e-3, nan_ok=True)
    assert any(not math.isnan(value) for value in trials[-1].values["localisation"]), "the test would say nothing"


def test_blocks_are_left_out_one_by_one(editor, monkeypatch):
    worth = {(0,): 0.6, (1,): 0.7, (2,): 0.5, (0, 1): 0.65, (0, 2): 0.8, (1, 2): 0.75, (0, 1, 2): 0.801}
    monkeypatch.setattr(choose, "heat_of", lambda editor, maps, blocks: blocks)
    monkeypatch.setattr(choose.Truth, "localisation", lambda truth, heat, i: worth[heat])
    truths = list(draw_truths(editor, split="validation", count=2, batch=2))
    trials = try_blocks(editor, truths=truths, seed=0, progress=False, heat_from="image", steps=1)
    assert [each.option[1] for each in trials] == [(0,), (1,), (2,), (1, 2), (0, 2), (0, 1), (0, 1, 2)]
    assert [each.values["localisation"][0] for each in trials] == [worth[each.option[1]] for each in trials]
    assert trials[best(trials, "localisation")].option == ("image", (0, 2)), "the third block adds less than a tie"


def test_every_choice_is_in_force_for_the_next(editor, short_lists, monkeypatch):
    passed = []
    monkeypatch.setattr(choose, "best", lambda trials, *_, **__: len(trials) - 1)
    original = choose.try_out
    monkeypatch.setattr(
        choose, "try_out", lambda *args, **options: passed.append(options) or original(*args, **options)
    )
    chosen, table = choose_settings(editor, count=2, calls=True, progress=False)
    swept = {"guidance_scale": 3.0, "heat_from": MAPPED[-1], "blocks": chosen["blocks"]}
    assert {name: chosen[name] for name in swept} == swept
    assert list(chosen) == [*swept, "hold_threshold", "hold", "hold_by"]
    assert all(options.items() >= swept.items() for options in passed[-9:])
    assert [options["hold_threshold"] for options in passed[:6]] == [0, 0, 0, 0.5, 0.5, 0.5]
    assert {options["hold_threshold"] for options in passed[-3:]} == {chosen["hold_threshold"]}
    assert [trial.option for trial in table if trial.chosen][:2] == [3.0, (MAPPED[-1], chosen["blocks"])]
    assert not any(trial.chosen for trial in table if trial.setting in ("steps", "strength"))


def test_command(tiny_folder, short_lists, tmp_path, capsys):
    folder, output = tmp_path / "editor", tmp_path / "new" / "choices.json"
    shutil.copytree(tiny_folder, folder)
    before = lab.load(folder).defaults
    asked = ["--model", str(folder), "--count", "2", "--calls", "--output", str(output), "--write", str(folder)]
    assert main(asked) == 0
    printed = capsys.readouterr().out
    assert printed.count("←") == 4
    saved = json.loads(output.read_text(encoding="utf-8"))
    tried = [trial["setting"] for trial in saved["trials"]]
    assert tried.count("guidance_scale") == 2 and tried.count("heat from, blocks") == 21 and tried.count("hold") == 4
    assert tried.count("steps") == tried.count("strength") == 2
    assert saved["settings"]["split"] == "validation"
    after = lab.load(folder).defaults
    for name in ("guidance_scale", "heat_from", "hold_threshold", "hold", "hold_by"):
        assert getattr(after, name) == saved["chosen"][name]
    assert list(after.blocks) == saved["chosen"]["blocks"] and after.image_size == before.image_size


def test_the_hold_alone_leaves_all_else_as_the_model_has_it(editor, short_lists):
    chosen, table = choose_settings(editor, count=2, parts=("hold",), rules=("agree",), progress=False)
    assert list(chosen) == ["hold_threshold", "hold", "hold_by"] and chosen["hold"] == "agree"
    assert [trial.option for trial in table] == [(0.0, "agree"), (0.5, "agree"), "mean", "step"]
    truths = list(draw_truths(editor, split="validation", count=2, batch=20))
    held = try_out(
        editor.with_defaults(hold="agree", hold_by="mean"), "", None, truths=truths, seed=0, progress=False,
        hold_threshold=0.5,
    )  # fmt: skip
    assert table[1].values["score"] == pytest.approx(held.values["score"], nan_ok=True)


def test_the_heat_map_alone_is_chosen_with_the_models_own_sampling(editor, short_lists):
    chosen, table = choose_settings(editor, count=2, parts=("heat",), calls=True, progress=False)
    assert list(chosen) == ["heat_from", "blocks"]
    truths = list(draw_truths(editor, split="validation", count=2, batch=20))
    run = {"truths": truths, "seed": 0, "progress": False}
    alone = try_blocks(editor, **run, heat_from=MAPPED[0], hold_threshold=0.0)
    assert table[0].values["localisation"] == pytest.approx(alone[0].values["localisation"], nan_ok=True)
    assert [trial.setting for trial in table[-4:]] == ["steps", "steps", "strength", "strength"]
    called = try_out(editor, "steps", 1, **run, steps=1, **chosen)
    assert table[-4].values["score"] == pytest.approx(called.values["score"], nan_ok=True), "held as the model holds"


def test_a_folder_that_is_no_editor_is_refused_before_anything_is_measured(tmp_path, capsys):
    assert main(["--model", "nothing either", "--write", str(tmp_path)]) == 2
    assert "no editor's folder" in capsys.readouterr().err


@pytest.fixture
def not_measured(monkeypatch):
    monkeypatch.setattr(choose, "choose_settings", lambda *_, **__: pytest.fail("it was measured"))


@pytest.mark.parametrize("only", ["sampling", "heat"])
def test_a_rule_of_the_hold_beside_a_part_without_one_is_refused(not_measured, capsys, only):
    assert main(["--only", only, "--hold", "agree"]) == 2
    assert f"--hold agree beside --only {only}" in capsys.readouterr().err


@pytest.mark.parametrize("only", [[], ["--only", "hold"]], ids=["all", "hold"])
def test_another_models_folder_is_refused_before_anything_is_measured(
    tiny_folder, tmp_path, not_measured, capsys, only
):
    other = tmp_path / "other"
    shutil.copytree(tiny_folder, other)
    weights = other / "editmgt" / "diffusion_pytorch_model.safetensors"
    save_file({name: 1.01 * tensor for name, tensor in load_file(weights).items()}, weights)
    written = (other / "lab.json").read_text(encoding="utf-8")
    assert main(["--model", str(tiny_folder), "--write", str(other), *only]) == 2
    assert f"{other} holds other weights" in capsys.readouterr().err
    assert (other / "lab.json").read_text(encoding="utf-8") == written


def test_a_copy_with_other_defaults_is_refused_where_these_are_not_chosen(tiny_folder, tmp_path, not_measured, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_folder, copy)
    defaults = lab.load(copy).defaults
    for changed, only in (({"strength": 1.2}, []), ({"guidance_scale": 2.0}, ["--only", "hold"])):
        replace(defaults, **changed).write(copy)
        assert main(["--model", str(tiny_folder), "--write", str(copy), *only]) == 2
        assert "other weights or defaults" in capsys.readouterr().err


def test_a_copy_is_written_to_and_once_more(tiny_folder, short_lists, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_folder, copy)
    arguments = ["--model", str(tiny_folder), "--count", "1", "--output", str(tmp_path / "choices.json")]
    for _ in range(2):
        assert main([*arguments, "--write", str(copy)]) == 0
    saved = json.loads((tmp_path / "choices.json").read_text(encoding="utf-8"))
    assert saved["settings"]["weights"] == weights_fingerprint(lab.load(tiny_folder))
    assert lab.load(copy).defaults != lab.load(tiny_folder).defaults
