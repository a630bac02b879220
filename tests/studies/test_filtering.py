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
from editmgt_lab.studies import filtering
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
