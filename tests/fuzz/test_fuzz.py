"""The fuzzer's first cases, with every test run; and the fuzzer itself: it finds what hangs, grows, dies, is black and
is silently another result."""

import json
import os
import time

import numpy as np
import pytest
from PIL import Image

from editmgt_lab.editor import Editor
from editmgt_lab.errors import ImageError
from editmgt_lab.images import Mask
from editmgt_lab.views.widget import LabWidget, RunWidget
from tests.fuzz import watch
from tests.fuzz.bench import Bench
from tests.fuzz.case import GOOD, Black, Kind, Outcome, attempt, recipe_of
from tests.fuzz.fuzz import KINDS, Report, fuzz, plan
from tests.fuzz.kinds import adapters, checkpoints, masks, pictures, widgets
from tests.fuzz.shrink import smallest
from tests.fuzz.values import damaged
from tests.fuzz.watch import Watched

COUNT, SEED = 500, 2026


def test_bad_input_ends_in_a_right_result_or_in_a_lab_error(tmp_path):
    report, failed = Report(), []
    for name, number, outcome in fuzz(COUNT, SEED, output=tmp_path):
        report.add(name, outcome)
        if outcome.end not in GOOD:
            failed.append(f"{name} {number}: {outcome.end} {outcome.where}\n{outcome.told}")
    assert not failed, "\n".join(failed)
    assert report.cases().keys() == KINDS.keys() and sum(report.cases().values()) == COUNT
    assert all(counts["right"] for counts in report.counts.values()), report.table()
    assert sum(counts["LabError"] for counts in report.counts.values()) > COUNT / 3, report.table()


def test_a_case_is_told_by_seed_kind_and_number_alone():
    for name, kind in KINDS.items():
        recipes = [recipe_of(kind, name, SEED, number) for number in range(20)]
        assert recipes == [recipe_of(kind, name, SEED, number) for number in range(20)]
        assert len({json.dumps(recipe) for recipe in recipes}) > 5


def test_every_kind_has_its_share():
    planned = list(plan(1000, list(KINDS)))
    few = [number for name, number in plan(COUNT, list(KINDS)) if name == "widgets"]
    assert {recipe_of(KINDS["widgets"], "widgets", SEED, number)["widget"] for number in few} == widgets.TRAITS.keys()
    assert len(set(planned)) == len(planned) and abs(len(planned) - 1000) < len(KINDS)
    assert {name for name, _ in plan(1, list(KINDS))} == KINDS.keys()


@pytest.mark.parametrize(
    ("raised", "end"),
    [
        (None, "right"), (ImageError("a", expected="b", fix="c"), "LabError"), (KeyError("x"), "foreign"),
        (RecursionError(), "foreign"), (MemoryError(), "foreign"), (Black(), "black"),
        (ImageError("a", expected=" ", fix="c"), "wrong"),
    ],
)  # fmt: skip
def test_how_a_case_ends(raised, end):
    def run(recipe, bench):
        if raised:
            raise raised

    assert attempt(Kind(None, run, 1), {}, None).end == end


def behave():
    """In the watched process: what one is told to do."""

    def answer(told):
        if told == "work":
            while True:
                pass
        if told == "wait":
            time.sleep(60)
        if told == "grow":
            held = [np.ones(2**20) for _ in range(40)]  # 8 MiB each
            time.sleep(5)
            del held
        if told == "die":
            os._exit(3)
        return Outcome("right", told)

    return answer


@pytest.fixture
def watched(tmp_path, monkeypatch):
    for name, value in (("SECONDS", 0.3), ("IDLE", 3.0), ("MEMORY", 100 * 2**20)):
        monkeypatch.setattr(watch, name, value)
    watched = Watched(behave, tmp_path / "log")
    yield watched
    watched.close()


def test_what_hangs_grows_or_dies_is_found_and_costs_no_other_case(watched):
    for told, end in (("work", "hang"), ("wait", "hang"), ("grow", "memory"), ("die", "died")):
        assert watched.ask(told).end == end
        assert watched.ask("nothing") == Outcome("right", "nothing")


def test_the_smallest_recipe_that_fails_is_found():
    drawn = {"a": [1, 2, {"text": "long enough", "bad": 700}], "b": {"c": "x y"}, "d": 5}

    def fails(recipe):
        return any(isinstance(each, dict) and each.get("bad", 0) > 10 for each in recipe.get("a", []))

    assert fails(drawn) and smallest(drawn, fails) == {"a": [{"bad": 21}]}


def test_damages_fit_any_file():
    operations = [
        ["flip", 1.0, 3],
        ["cut", 0.5, 4],
        ["insert", 0.0, "ff"],
        ["copy", 0.2, 3],
        ["number", 0.9, 2**31, True],
    ]
    for length in (0, 1, 5, 1000):
        assert damaged(bytes(length), operations) == damaged(bytes(length), operations)
    assert damaged(b"abc", [["set", 0.0, "7a"], ["drop", 0.5, 1]]) == b"zc"


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("bench"))


def opens_as(colour):
    return lambda content: Image.new("RGB", (32, 32), colour)


def loads_another(*asked, load=checkpoints.lab.load, **options):
    editor = load(*asked, **options)
    editor.transformer.project_to_hidden.weight.data[0, 0] += 1
    return editor


def reads_all_free(*asked, prepare=Editor.prepare, **options):
    task = prepare(*asked, **options)
    task.fixed[:] = False
    return task


HALF = {"pattern": "half", "mode": "L", "size": [32, 32], "source": [32, 32]}
OTHERWISE = (  # what is put in a function's place, a case that notices, and how it ends then
    (pictures, "load_image", opens_as("black"), "pictures", {"format": "PNG"}, "black"),
    (pictures, "load_image", opens_as("white"), "pictures", {"format": "PNG"}, "wrong"),
    (pictures, "load_image", opens_as("white"), "pictures", {"format": "BMP", "damages": [["flip", 0.5, 7]]}, "wrong"),
    (Editor, "prepare", reads_all_free, "masks", HALF, "wrong"),
    (masks, "read_mask", lambda mask, *_, reading: Mask(mask, reading), "masks", HALF | {"reading": "black"}, "wrong"),
    (adapters.adapters, "load_adapter", lambda *_: None, "adapters", [], "wrong"),
    (checkpoints.lab, "load", loads_another, "checkpoints", [], "wrong"),
)


@pytest.mark.parametrize(("owner", "name", "other", "kind", "recipe", "end"), OTHERWISE)
def test_a_result_that_is_silently_another_is_found(owner, name, other, kind, recipe, end, bench, monkeypatch):
    assert attempt(KINDS[kind], recipe, bench).end == "right"
    monkeypatch.setattr(owner, name, other)
    assert attempt(KINDS[kind], recipe, bench).end == end


def fails_at_step(widget, change):
    LabWidget.notify_change(widget, change)
    if change["name"] == "step":
        raise KeyError("step")


def test_what_a_widget_hides_is_heard(bench, monkeypatch):
    recipe = {"widget": "decode_player", "messages": [{"state": {"step": 1}}, {"content": {"kind": "again"}}]}
    assert attempt(KINDS["widgets"], recipe, bench).end == "right"
    with monkeypatch.context() as patched:
        patched.setattr(RunWidget, "notify_change", fails_at_step, raising=False)
        assert attempt(KINDS["widgets"], recipe, bench).end == "foreign"
    monkeypatch.setattr(LabWidget, "receive", lambda self, content: {}["nothing"])
    assert attempt(KINDS["widgets"], recipe, bench).end == "wrong"
