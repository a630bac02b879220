"""Score against time: every way is the plain edit with its options; report and figure show what was found."""

import json
import math

import pytest

from editmgt_lab.decoding import DRAWS, ORDERS
from editmgt_lab.errors import SettingError
from editmgt_lab.images import to_tensor
from editmgt_lab.metrics.truth import draw_truths
from editmgt_lab.studies import speed
from editmgt_lab.studies.speed import DEFAULT, FAST, WAYS, Measured, Way, measure, report, speed_figure

FEW = [DEFAULT, FAST, Way(4, "halton", 3, "agree", "inverse")]


@pytest.fixture(scope="module")
def measured(editor):
    return measure(editor, FEW, count=3, batch=2, seed=1, progress=False)


def test_the_ways_cover_orders_steps_cache_and_hold_once_each():
    assert len(set(WAYS)) == len(WAYS) and {DEFAULT, FAST} < set(WAYS)
    assert {way.draw for way in WAYS if way._replace(draw="race") == DEFAULT} == set(DRAWS)
    assert {way.order for way in WAYS} == set(ORDERS) and {way.steps for way in WAYS} == set(speed.STEPS)
    assert {way.refresh_every for way in WAYS} == set(speed.REFRESH) and len({way.hold for way in WAYS}) == 2
    assert (DEFAULT.order, DEFAULT.refresh_every, DEFAULT.steps) == ("confidence", 1, 12)


def test_every_way_is_the_plain_edit_with_its_options(editor, measured):
    scores = []
    for truth in draw_truths(editor, split="test", count=3, batch=3):
        decoded = {"steps": 4, "order": "halton", "refresh_every": 3, "draw": "inverse"}
        result = truth.edit(editor.with_defaults(hold="agree"), 1, **decoded, hold_threshold=0.2, heat_from="source")
        scores = truth.scores(to_tensor(result.images), result)
    found = measured[2].values
    for metric in speed.MEASURES:
        assert found[metric] == pytest.approx([getattr(each, metric) for each in scores], rel=1e-3, nan_ok=True)
    assert all(each.seconds > 0 for each in measured)


def test_the_report_compares_the_fast_way_with_the_default():
    values = {"success": [1.0, 0.0], "score": [8.0, 4.0], "leakage": [0.01, math.nan]}
    better = {"success": [1.0, 1.0], "score": [8.0, 5.0], "leakage": [0.01, math.nan]}
    text = report([Measured(DEFAULT, values, 0.5), Measured(FAST, better, 0.2)])
    assert "40% of the default's time, success +50.0 points, edit score +0.50 of 10" in text
    assert text.index(str(FAST)) < text.index(str(DEFAULT))  # the fastest first


def test_the_figure_marks_the_default(measured):
    figure = speed_figure(measured, {"split": "test", "count": 3})
    for axes in figure.axes:
        assert [text.get_text() for text in axes.texts] == ["default", "fast"]
        points = [line for line in axes.lines if len(line.get_xdata()) == 1]
        assert len(points) >= len(measured)


def test_the_command_saves_table_and_figure(editor, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(speed, "load", lambda model: editor)
    monkeypatch.setattr(speed, "WAYS", FEW)
    speed.main(["--count", "2", "--output", str(tmp_path / "speed.json")])
    saved = json.loads((tmp_path / "speed.json").read_text())
    assert [Way(**way["way"]) for way in saved["ways"]] == FEW and (tmp_path / "speed.png").stat().st_size > 10_000
    assert "of the default's time" in capsys.readouterr().out


def test_the_fast_way_alone(editor, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(speed, "load", lambda model: editor)
    speed.main(["--fast-alone", "--count", "2", "--output", str(tmp_path / "speed.json")])
    saved = json.loads((tmp_path / "speed.json").read_text())
    assert [Way(**way["way"]) for way in saved["ways"]] == [DEFAULT, FAST]


def test_no_way_is_refused(editor):
    with pytest.raises(SettingError, match="no way"):
        measure(editor, [], count=1)
