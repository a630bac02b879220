"""The study of filtered pairs: where its pairs come from, what is taught, and how it judges."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

import editmgt_lab as lab
from editmgt_lab.crisp.drawn.editors import DrawnEditor
from editmgt_lab.finetuning.adapters import WEIGHTS, lora_layers
from editmgt_lab.studies import captions, filtering, skills, training_size
from editmgt_lab.studies.filtering import FILTERED, SHIPPED, TRUE, UNFILTERED, Taught, verdict

pytest.importorskip("daft", reason="the extra [crisp] is not installed")
FAST = replace(filtering.SETTINGS, steps=2, batch=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("filtering")


@pytest.fixture(scope="module")
def pairs(folder):
    return filtering.pairs_of(*filtering.pipeline(folder, 20, 64))


def test_fewer_scenes_in_the_same_folder_are_the_first_of_them(folder, pairs):
    made, truths = filtering.pipeline(folder, 12, 64)
    assert made.counts()["measure"]["came"] == len(truths) == 12
    fewer = filtering.pairs_of(made, truths)
    assert 0 < len(fewer[TRUE]) < len(pairs[TRUE])


def test_the_pairs_are_as_many_of_each_and_the_true_ones_have_no_fault(pairs):
    assert set(pairs) == {TRUE, FILTERED, UNFILTERED} and len({len(each) for each in pairs.values()}) == 1

    def far(way):
        """Mean distance of the targets to what an editor without faults makes, of 255."""
        made = [(DrawnEditor().edit(each.source, each.instruction, 0), each.target) for each in pairs[way]]
        return np.mean([np.abs(np.asarray(a, float) - np.asarray(b, float)).mean() for a, b in made])

    assert far(TRUE) == 0
    assert far(UNFILTERED) > 5
    assert far(FILTERED) < 0.5 * far(UNFILTERED)


def test_nothing_passed_is_an_error():
    class Empty:
        def rows(self, stage, pictures=()):
            return iter(())

    with pytest.raises(lab.LabError, match="no edit passed"):
        filtering.pairs_of(Empty(), {})


def test_every_way_is_tried_under_every_hold_and_the_adapter_is_kept(editor, pairs, tmp_path):
    few = {way: each[:3] for way, each in pairs.items()}
    options = {"split": "validation", "count": 3, "settings": FAST, "adapter": tmp_path}
    results = list(filtering.measure_filtering(editor, few, **options))
    assert [(each.way, each.hold) for each in results] == [
        (way, hold) for way in (SHIPPED, UNFILTERED, FILTERED, TRUE) for hold in filtering.HOLDS
    ]
    assert all(len(each.values["score"]) == 3 and len(each.pictures) == 3 for each in results)
    assert (tmp_path / WEIGHTS).exists() and not lora_layers(editor.transformer), "the editor stays as it was"
    assert "no hold" in filtering.table(results)
    figure = filtering.picture(results, [lab.world.sample_edit(i, split="validation") for i in range(3)])
    figure.savefig(tmp_path / "picture.png")
    json.dumps([each.to_dict() for each in results], allow_nan=False)


def result(way, leakage, success):
    return Taught(way, 0.0, {"success": success, "leakage": leakage, "score": [5.0] * len(success)}, [])


@pytest.mark.parametrize(
    ("leakage", "success", "holds"),
    [
        ([0.01, 0.01, math.nan], [1, 1, 0], True),
        ([0.03, 0.03, math.nan], [1, 1, 1], False),
        ([0.01, 0.01, math.nan], [1, 0, 0], False),
    ],
)
def test_the_verdict_wants_half_the_leakage_at_no_less_success(leakage, success, holds):
    found = verdict([result(FILTERED, leakage, success), result(UNFILTERED, [0.04, 0.04, math.nan], [1, 1, 0])])
    assert found["holds"] is holds and found["ratio"] == pytest.approx(leakage[0] / 0.04)


def test_edits_without_a_value_are_left_out_of_the_verdict():
    """A tokenizer that shows no change leaves an edit without success."""
    nan = math.nan
    filtered, unfiltered = result(FILTERED, [0.01, 0.9], [1, nan, 1]), result(UNFILTERED, [0.04, nan], [1, 1, 0])
    found = verdict([filtered, unfiltered])
    assert found["more_success"] == 0.5 and found["ratio"] == pytest.approx(0.25) and found["holds"] is True
    assert "success +50.0 points" in filtering.verdict_in_words(found)


@pytest.mark.parametrize(
    ("leakage", "success"), [([math.nan], [1.0]), ([0.0], [1.0]), ([0.1], [math.nan])], ids=["none", "0", "no success"]
)
def test_what_was_not_measured_has_no_verdict_and_can_be_saved(leakage, success):
    found = verdict([result(way, leakage, success) for way in (FILTERED, UNFILTERED)])
    assert found["holds"] is None and None in (found["ratio"], found["more_success"])
    json.dumps(found, allow_nan=False)
    assert filtering.verdict_in_words(found).endswith("no less success: not measured")


def lesson(way, after, old_after=(1.0, 1.0)):
    return skills.Lesson("wrap", way, 0.0, [0.0] * len(after), after, [1.0, math.nan], list(old_after), 60.0, 0.04, ())


def test_the_verdicts_on_skills_leave_out_edits_without_a_success():
    nan = math.nan
    lines = skills.verdicts([lesson("all weights", [1.0, nan, 1.0]), lesson("LoRA", [1.0, nan, 1.0])])
    assert "NO" not in lines and "nan" not in lines and lines.count("100% ≥ 80%: yes") == 2
    assert "+0.0 points lost ≤ 3: yes" in lines and "+0 points below all weights ≤ 5: yes" in lines
    nothing = skills.verdicts([lesson("all weights", [nan]), lesson("LoRA", [nan], [nan, 1.0])]).splitlines()
    assert nothing[0].count("not measured") == 1 and nothing[1].count("not measured") == 3
    assert "NO" not in "".join(nothing) and "nan" not in "".join(nothing)


COUNTS = {
    skills: ("count", "old-count", "batch"),
    filtering: ("count", "batch", "scenes"),
    training_size: ("count", "batch", "samples"),
    captions: ("count", "batch"),
}


@pytest.mark.parametrize(
    ("study", "name"),
    [(study, name) for study, names in COUNTS.items() for name in names],
    ids=lambda each: getattr(each, "__name__", each),
)
def test_counts_and_batches_below_one_are_refused(study, name, tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for value in ("0", "-1"):
        assert study.main(["--model", str(tiny_folder), f"--{name}", value]) == 2
        assert f"{name.replace('-', '_')} is {value}" in capsys.readouterr().err
    assert not list(tmp_path.iterdir()), "before anything is made"


def test_answers_refuse_a_batch_of_none(editor):
    with pytest.raises(lab.LabError, match="batch is 0"):
        skills.answers(editor, [], batch=0)
