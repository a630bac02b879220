"""Score against time: every way is the plain edit with its options; report and figure show what was found."""

import json
import math
from types import SimpleNamespace

import pytest

from editmgt_lab.decoding import DRAWS, ORDERS
from editmgt_lab.errors import SettingError
from editmgt_lab.images import to_tensor
from editmgt_lab.metrics.truth import draw_truths
from editmgt_lab.studies import speed
from editmgt_lab.studies.speed import FAST, USUAL, WAYS, Measured, Way, measure, report, speed_figure

FEW = [USUAL, FAST, Way(4, "halton", 3, "source")]
SETTINGS = {"split": "test", "count": 3, "time": "processor time"}


@pytest.fixture(scope="module")
def measured(editor):
    return measure(editor, FEW, count=3, batch=2, seed=1, progress=False)


def test_the_ways_cover_orders_steps_cache_and_hold_once_each():
    assert len(set(WAYS)) == len(WAYS) and {USUAL, FAST} < set(WAYS)
    assert {way.draw for way in WAYS if way._replace(draw="inverse") == USUAL} == set(DRAWS)
    assert {way.order for way in WAYS} == set(ORDERS) and {way.steps for way in WAYS} == set(speed.STEPS)
    assert {way.refresh_every for way in WAYS} == set(speed.REFRESH) and len({way.hold for way in WAYS}) == 2
    assert (USUAL.order, USUAL.refresh_every, USUAL.steps) == ("confidence", 1, 12)


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


def test_the_report_compares_the_fast_way_with_the_usual_one():
    values = {"success": [1.0, 0.0], "score": [8.0, 4.0], "leakage": [0.01, math.nan]}
    better = {"success": [1.0, 1.0], "score": [8.0, 5.0], "leakage": [0.01, math.nan]}
    text = report([Measured(USUAL, values, 0.5), Measured(FAST, better, 0.2)])
    assert "40% of the usual way's time, success +50.0 points, edit score +0.50 of 10" in text
    assert text.index(str(FAST)) < text.index(str(USUAL))  # the fastest first


def test_edits_without_a_score_are_reported_as_such():
    nothing = {metric: [math.nan] for metric in speed.MEASURES}
    measured = [Measured(way, nothing, 1.0) for way in (USUAL, FAST)]
    assert report(measured).endswith("100% of the usual way's time, success and edit score not measured")
    assert not speed_figure(measured, SETTINGS).axes[0].texts


def test_the_usual_way_is_no_models_default(editor):
    own = editor.with_defaults(steps=36)
    text = report([Measured(way, {metric: [1.0] for metric in speed.MEASURES}, 1.0) for way in (USUAL, FAST)])
    assert USUAL.options()["steps"] == 12 != own.defaults.steps and "default" not in text


def test_the_hold_is_called_what_it_is():
    """A model's own hold may be where the network agrees too: what the fast way changes there is the heat's picture."""
    assert "heat from the source (agree, λ = 0.2)" in str(FAST) and "the model's own hold" in str(USUAL)
    assert "agree" not in str(USUAL)
    figure = speed_figure([], SETTINGS)
    assert [text.get_text() for text in figure.legends[0].texts][-1] == "ringed: heat from the source\n(agree, λ = 0.2)"


@pytest.mark.parametrize("own", [{"hold": "agree", "hold_threshold": 0.2}, {"hold": "released", "hold_threshold": 0.7}])
def test_the_fast_way_states_its_own_hold_and_the_usual_one_none(editor, own):
    model = editor.with_defaults(**own, heat_from="both")
    asked = {"hold_threshold": 0.2, "heat_from": "source"}
    assert FAST.editor(model).defaults.hold == "agree" and FAST.options().items() >= asked.items()
    assert USUAL.editor(model) is model and not USUAL.options().keys() & asked.keys()


def test_time_is_called_after_the_clock_that_took_it(measured):
    for device, ours in (("cpu", True), ("cuda", False), ("mps", False)):
        assert speed.on_processor(SimpleNamespace(device=SimpleNamespace(type=device))) is ours
    figure = speed_figure(measured, SETTINGS | {"time": "time by the clock"})
    assert {axes.get_xlabel() for axes in figure.axes} == {"time by the clock, s an edit"}


def test_the_figure_marks_the_usual_way_and_the_fast_one(measured):
    figure = speed_figure(measured, SETTINGS)
    for axes in figure.axes:
        assert [text.get_text() for text in axes.texts] == ["usual", "fast"]
        points = [line for line in axes.lines if len(line.get_xdata()) == 1]
        assert len(points) >= len(measured)


def test_the_command_saves_table_and_figure(editor, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(speed, "load", lambda model: editor)
    monkeypatch.setattr(speed, "WAYS", FEW)
    speed.main(["--count", "2", "--output", str(tmp_path / "speed.json")])
    saved = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    assert saved["settings"]["time"] == "processor time" and len(saved["settings"]["weights"]) == 16
    assert [Way(**way["way"]) for way in saved["ways"]] == FEW and (tmp_path / "speed.png").stat().st_size > 10_000
    assert "of the usual way's time" in capsys.readouterr().out


def test_the_fast_way_alone(editor, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(speed, "load", lambda model: editor)
    speed.main(["--fast-alone", "--count", "2", "--output", str(tmp_path / "speed.json")])
    saved = json.loads((tmp_path / "speed.json").read_text(encoding="utf-8"))
    assert [Way(**way["way"]) for way in saved["ways"]] == [USUAL, FAST]


def test_no_way_is_refused(editor):
    with pytest.raises(SettingError, match="no way"):
        measure(editor, [], count=1)
