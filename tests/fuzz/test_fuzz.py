"""The fuzzer's first cases, with every test run; and the fuzzer itself: it finds what hangs, grows,
dies and is black."""

import json
import os
import time

import numpy as np
import pytest
from PIL import Image

from editmgt_lab.errors import ImageError
from tests.fuzz import watch
from tests.fuzz.case import GOOD, Black, Kind, Outcome, attempt, recipe_of
from tests.fuzz.fuzz import KINDS, Report, fuzz, plan
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


def test_a_black_picture_that_was_none_is_found(monkeypatch):
    from tests.fuzz import pictures

    monkeypatch.setattr(pictures, "load_image", lambda content: Image.new("RGB", (8, 8)))
    recipe = {"format": "PNG", "mode": "RGB", "size": [32, 32]}
    assert attempt(KINDS["pictures"], recipe, None).end == "black"
