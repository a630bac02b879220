"""The filter studio keeps and drops by the pipeline's own rule, in Python and on the page alike."""

import json
import random

import numpy as np
import pytest
import traitlets
from PIL import Image
from playwright.sync_api import expect

import editmgt_lab as lab
from editmgt_lab import views
from editmgt_lab.crisp.assure.rules import DRAWN, DRAWN_CLIP, MEASURES, broken_after
from editmgt_lab.crisp.bounds import Bounds
from tests.support import PATIENCE
from tests.support.browser import opened
from tests.support.judged import judged_edits

COUNT = 24


@pytest.fixture(scope="module")
def edits():
    return judged_edits(COUNT)


@pytest.fixture
def studio(edits):
    studio = views.filter_studio(edits)
    studio.pending.result(timeout=PATIENCE)
    assert not studio.message
    return studio


def test_it_begins_with_the_pipelines_own_verdicts(studio, edits):
    kept = [not broken_after(row, DRAWN) for row, _ in edits]
    assert studio.kept.tolist() == kept and 0 < sum(kept) < COUNT
    told = studio.counts()
    assert told["good"] == told["bad"] == COUNT // 2
    assert told["kept_good"] == sum(kept[: COUNT // 2]) and told["kept_good"] + told["kept_bad"] == sum(kept)


MIXED = {
    "color": {"whole": Bounds(high=0.7)},
    "style": {"whole": Bounds(low=0.5)},
    "motion": {"inside": Bounds(0.1, 0.6)},
}


def measured(bounds):
    """Edits of all categories, near and beyond their bounds; some measures were not made, and some are no number."""
    dice, rows = random.Random(0), judged_edits(70)
    for (row, _), category in zip(rows, lab.world.CATEGORIES * 10, strict=True):
        row["type"] = category
        for name, each in bounds.get(category, {}).items():
            ends = [end for end in (each.low, each.high) if end is not None]
            near = dice.choice(ends) + dice.choice((0, 0, 0.02, -0.02, 0.06, -0.06))
            row[name] = dice.choice((near,) * 8 + (None, float("nan")))
    return rows


@pytest.mark.parametrize("bounds", [DRAWN, DRAWN_CLIP, MIXED], ids=["drawn", "clip", "mixed"])
def test_as_it_opens_it_keeps_what_the_bounds_keep(browser, bounds, tmp_path):
    edits = measured(bounds)
    studio = views.filter_studio(edits, bounds)
    kept = [not broken_after(row, bounds) for row, _ in edits]
    assert studio.kept.tolist() == kept and 0 < sum(kept) < len(kept)
    with opened(browser, studio.export(tmp_path / "page.html")) as page:
        assert kept_on(page) == kept_by(studio)


def kept_by(studio):
    return {row["instruction"] for row, kept in zip(studio.rows, studio.kept, strict=True) if kept}


def kept_on(page):
    tiles = page.locator(".lab-tiles").first.locator(".lab-tile")
    return set(tiles.evaluate_all("tiles => tiles.map((tile) => tile.title)"))


def test_a_side_that_was_moved_counts_for_all_that_have_it_and_the_other_stays_their_own(browser, tmp_path):
    studio = views.filter_studio(measured(DRAWN))
    with opened(browser, studio.export(tmp_path / "page.html")) as page:
        rule = page.locator(".lab-rule", has_text="change of the whole picture")
        expect(rule).to_contain_text("≥ 0.02, ≤ 0.7 to 0.8")
        slider = page.get_by_label("change of the whole picture, at least")
        slider.fill("0.75")
        assert float(slider.input_value()) == 0.7, "what a background may have at most"
        studio.bounds = studio.bounds | {"whole": [0.7, None]}
        assert kept_on(page) == kept_by(studio)
        expect(rule).to_contain_text("≥ 0.7, ≤ 0.7 to 0.8")
        page.get_by_label("change of the whole picture, at most").fill("0.75")
        to = float(page.get_by_label("change of the whole picture, at most").input_value())
        studio.bounds = studio.bounds | {"whole": [0.7, to]}
        assert kept_on(page) == kept_by(studio)
    rules = studio.rules()
    assert rules["style"]["whole"] == rules["background"]["whole"] == Bounds(0.7, to) and "whole" not in rules["add"]


def test_a_bound_that_moves_and_a_rule_that_is_off_change_what_is_kept(studio, edits):
    before = studio.kept.sum()
    studio.bounds = studio.bounds | {"outside": [None, 0.0]}
    strict = studio.kept
    assert strict.sum() < before
    assert strict.tolist() == [bool(row["alignment"] == 1.0 and not row["outside"]) for row, _ in edits]
    studio.off = ["alignment", "direction", "outside"]
    assert studio.kept.all()


def test_chance_keeps_as_many_and_no_better(studio):
    for high in (0.005, 0.02):
        studio.bounds = studio.bounds | {"outside": [None, high]}
        assert studio.kept_by_chance.sum() == studio.kept.sum()
    again = views.filter_studio(list(zip(studio.rows, studio.truths, strict=True)))
    np.testing.assert_array_equal(again.chance, studio.chance)


def test_what_a_page_may_not_send_changes_nothing(studio):
    before = dict(studio.bounds)
    lacks_a_side = before | {"outside": [0.0, None]}
    beyond_the_other = before | {"whole": [0.9, None]}  # of a style, which may have 0.8 at most
    for wrong in ({}, {"nonsense": [0, 1]}, before | {"nonsense": [0, 1]}, lacks_a_side, beyond_the_other,
                  *(before | {"outside": each} for each in ("no", None, [0.1], [None, "0.1"], [None, float("nan")],
                                                            [None, 10**400], [None, 0.1, None]))):  # fmt: skip
        with pytest.raises(traitlets.TraitError):
            studio.bounds = wrong
        studio.set_state({"bounds": wrong})
        assert studio.bounds == before and studio.wrong and "bounds cannot be so" in studio.message
    for wrong in (["nonsense"], [[]], [None]):
        with pytest.raises(traitlets.TraitError):
            studio.off = wrong
        assert studio.off == []


def test_without_edits_it_says_so():
    with pytest.raises(lab.LabError, match="no edits"):
        views.filter_studio([])


def test_it_can_be_saved(studio, tmp_path):
    assert Image.open(studio.save_figure(tmp_path / "figure.png")).width > 250
    with np.load(studio.save_arrays(tmp_path / "arrays.npz")) as saved:
        settings = json.loads(str(saved["settings"]))
        np.testing.assert_array_equal(saved["kept"], studio.kept)
        assert saved["values"].shape == (COUNT, len(settings["measures"]))
        assert settings["kept_good"] == studio.counts()["kept_good"] and settings["bounds"]["color"]["outside"] == [
            None,
            0.02,
        ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_keeps_what_python_keeps(browser, studio, tmp_path, scheme):
    with opened(browser, studio.export(tmp_path / "page.html"), scheme=scheme) as page:
        kept = page.locator(".lab-tiles").first.locator(".lab-tile")
        expect(kept).to_have_count(int(studio.kept.sum()))
        told, whole = studio.counts(), page.locator("table").first.locator("tbody tr")
        expect(whole.first).to_contain_text(f"{told['kept_good']} of {told['good']}")
        expect(whole.last).to_contain_text(f"{told['chance_good']} of {told['good']}")

        page.get_by_label("change outside the edit, at most").fill("0.009")
        studio.bounds = studio.bounds | {"outside": [None, 0.009]}
        expect(kept).to_have_count(int(studio.kept.sum()))
        for name in ("agreement with the target text", "change of what was to change", "change outside the edit"):
            page.get_by_role("button", name=name, exact=True).click()
        expect(kept).to_have_count(COUNT)
        expect(page.get_by_label("change outside the edit, at most")).to_be_disabled()
        page.get_by_role("button", name="bad: edit 23", exact=True).click()
        expect(page.locator(".lab-picked")).to_contain_text("“edit 23”")
        page.screenshot(path=tmp_path / f"filter_studio_{scheme}.png", full_page=True)


def test_page_and_python_agree_at_the_ends_of_every_slider(browser, studio, tmp_path):
    """There a bound is one of the values, to the last digit."""
    names = {title: name for name, (title, _) in MEASURES.items()}
    slide = "(slider, end) => (slider.value = slider[end], slider.dispatchEvent(new Event('input')), +slider.value)"
    with opened(browser, studio.export(tmp_path / "page.html")) as page:
        kept = page.locator(".lab-tiles").first.locator(".lab-tile")
        sliders = page.get_by_role("slider").all()
        assert len(sliders) == sum(bound is not None for pair in studio.data["first"].values() for bound in pair)
        for slider in sliders:
            title, _, side = slider.get_attribute("aria-label").rpartition(", ")
            name, which = names[title], ("at least", "at most").index(side)
            for end in ("max", "min") if which == 0 else ("min", "max"):  # the strictest, then the widest
                pair = list(studio.bounds[name])
                pair[which] = slider.evaluate(slide, end)
                studio.bounds = studio.bounds | {name: pair}
                expect(kept).to_have_count(int(studio.kept.sum()))
        assert studio.kept.all()


def test_a_slider_stays_where_its_bound_is(browser, edits, tmp_path):
    """Dragged on beyond the other bound, in a notebook, whose model knows equal bounds as no change."""
    rules = {"outside": Bounds(0.0, 0.01)}
    studio = views.filter_studio(edits, {row["type"]: rules for row, _ in edits})
    file = studio.export(tmp_path / "page.html")
    page, alone = file.read_text(encoding="utf-8"), "state[name] === value"
    assert alone in page
    file.write_text(page.replace(alone, "JSON.stringify(state[name]) === JSON.stringify(value)"), encoding="utf-8")
    with opened(browser, file) as page:
        low = page.get_by_label("change outside the edit, at least")
        most = float(low.get_attribute("max"))
        assert most > 0.01
        for to in (most, 0.9 * most + 0.1 * 0.01):
            low.fill(str(to))
            assert float(low.input_value()) == 0.01


def test_the_page_fits_a_narrow_window(browser, studio, tmp_path):
    with opened(browser, studio.export(tmp_path / "page.html"), width=420) as page:
        assert page.evaluate("document.scrollingElement.scrollWidth <= document.scrollingElement.clientWidth")
        page.screenshot(path=tmp_path / "filter_studio_narrow.png", full_page=True)


def test_categories_without_edits_keep_their_bounds(edits):
    studio = views.filter_studio([each for each in edits if each[0]["type"] == edits[0][0]["type"]])
    studio.pending.result(timeout=PATIENCE)
    assert len({row["type"] for row in studio.rows}) == 1 and studio.rules() == DRAWN
