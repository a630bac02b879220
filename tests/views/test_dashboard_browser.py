"""The fine-tuning dashboard driven by hand: in a notebook with a live kernel, across page reloads, and as a page alone.

A tiny editor of random weights is trained: steps are quick, and what is watched is the dashboard.
"""

import re

import numpy as np
import pytest
from playwright.sync_api import expect

import editmgt_lab as lab
from editmgt_lab import views
from editmgt_lab.finetuning import Finetuner, FinetuneSettings, TokenPairs
from tests.support import PATIENCE, until
from tests.support.browser import drawn, opened, point
from tests.support.jupyter import FRONTS, opened_notebook, reloaded, run_cell, save, served, write_notebook

STEPS = 20_000  # more than a test waits for
SETUP = """
import editmgt_lab as lab
from editmgt_lab import views
from editmgt_lab.finetuning import Finetuner, FinetuneSettings, TokenPairs

editor = lab.load({folder!r}, device="cpu")
pairs = [lab.world.sample_edit(seed, category="color", size=32) for seed in range(8)]
tokens = TokenPairs(
    source=editor.tokenize([pair.source for pair in pairs]), target=editor.tokenize([pair.target for pair in pairs]),
    instructions=[pair.instruction for pair in pairs],
)
settings = FinetuneSettings(steps={steps}, batch=2, rank=2, validate_every=5)
finetuner = Finetuner(editor, tokens, settings, validation=tokens)
""".strip()
OPEN = "views.finetune_dashboard(finetuner, pairs[:2])"
CELLS = [SETUP, OPEN, "finetuner.done", OPEN]


@pytest.fixture(scope="module")
def server(browser, tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("jupyter")
    cells = [CELLS[0].format(folder=str(tiny_folder), steps=STEPS), *CELLS[1:]]
    for front in FRONTS:
        write_notebook(folder / "notebooks" / f"{front}.ipynb", cells)
    with served(folder) as address:
        yield address


def done(output):
    """The steps that the page says are done."""
    return int(re.match(r"step (\d+) of", output.locator(".lab-buttons .lab-number").inner_text())[1])


def goes_on(output, since):
    expect(output.locator(".lab-state")).to_have_text("training")
    until(lambda: done(output) > since, "more steps")


def told(output, step):
    """What the chart says of a step, found with the keyboard."""
    chart = output.get_by_role("application", name="loss", exact=False).first
    chart.page.mouse.move(0, 0)  # a pointer that leaves a chart ends what it says
    chart.focus()
    for _ in range(step):
        chart.press("ArrowRight")
    said = output.locator(".lab-say").inner_text()
    chart.blur()
    return said


@pytest.fixture(scope="module")
def dashboard(tiny_folder, picture):
    editor = lab.load(tiny_folder, device="cpu")
    sample = lab.world.sample_edit(1, category="color", size=32)
    pairs = TokenPairs(editor.tokenize([sample.source]), editor.tokenize([sample.target]), [sample.instruction])
    settings = FinetuneSettings(steps=30, batch=2, rank=2, validate_every=10, learning_rate=0.1)
    dashboard = views.finetune_dashboard(
        Finetuner(editor, pairs, settings, validation=pairs), [sample, (picture(64, 24), "make the ball blue")]
    )
    dashboard.start()
    dashboard.wait(PATIENCE)
    return dashboard


@pytest.mark.parametrize("scheme, width", [("light", 1120), ("dark", 1120), ("light", 420)])
def test_an_exported_page_shows_the_whole_training(browser, dashboard, tmp_path, scheme, width):
    with opened(browser, dashboard.export(tmp_path / "page.html"), scheme=scheme, width=width) as page:
        expect(page.locator(".lab-state")).to_have_text("finished")
        expect(page.get_by_role("button", name="Start")).to_have_count(0)
        expect(page.locator("output")).to_have_count(0)  # which would be read aloud with every step
        for step in (1, 20):
            loss, smoothed, _ = dashboard.curves[step - 1]
            assert f"step {step}: loss {loss:.3f}, smoothed {smoothed:.3f}, learning rate" in told(page, step)
        assert f"validation {dashboard.validations[1][1]:.3f}" in told(page, 20)
        chart = page.locator("svg").first
        box = chart.bounding_box()
        chart.hover(position={"x": box["width"] - 1, "y": box["height"] / 2})
        expect(page.locator(".lab-say")).to_contain_text("step 30: loss")

        heat = page.get_by_role("application", name="heat map now")
        word = len(dashboard.samples.words) - 1
        page.locator(".lab-chip").nth(word).click()
        values = dashboard.samples.edits["now"].heats[word]
        brightness = [sum(drawn(heat, cell, values.shape)[:3]) for cell in range(values.size)]
        assert np.argmin(brightness) == values.argmin()
        point(heat, 3, values.shape)
        before, now = (dashboard.samples.edits[name].heats[word, 0, 3] for name in ("before", "now"))
        expect(page.get_by_text(f"row 1, column 4: {before:.2f} before, {now:.2f} now")).to_be_visible()
        assert page.evaluate("document.scrollingElement.scrollWidth <= document.scrollingElement.clientWidth")
        page.screenshot(path=tmp_path / f"page_{scheme}_{width}.png", full_page=True)


def test_without_the_edits_before_the_training_the_heat_map_of_now_is_drawn(browser, dashboard, tmp_path):
    before, dashboard.before = dashboard.before, {}
    file = dashboard.export(tmp_path / "page.html")
    dashboard.before = before
    with opened(browser, file) as page:
        heat, values = page.get_by_role("application", name="heat map"), dashboard.samples.edits["now"].heats[0]
        expect(heat).to_have_count(1)
        point(heat, 3, values.shape)
        expect(page.get_by_text(f"row 1, column 4: {values[0, 3]:.2f} now")).to_be_visible()
        page.screenshot(path=tmp_path / "page.png", full_page=True)


def test_a_validation_that_diverged_is_left_out(browser, dashboard, tmp_path):
    losses = dashboard.validations
    dashboard.validations = [[10, None], *losses[1:]]
    file = dashboard.export(tmp_path / "page.html")
    dashboard.validations = losses
    with opened(browser, file) as page:
        assert "loss" in told(page, 10) and "validation" not in told(page, 10) and "validation" in told(page, 20)
        chart = page.locator("svg").first
        expect(chart.locator("circle.lab-sparse")).to_have_count(2)
        points = chart.locator("polyline.lab-sparse").get_attribute("points")
        assert len(points.split()) == 2 and "NaN" not in chart.inner_html()


@pytest.mark.parametrize("front", FRONTS)
def test_a_training_in_a_notebook(browser, server, front, tmp_path):
    with opened_notebook(browser, server, front, f"{front}.ipynb") as page:
        page.on("dialog", lambda dialog: dialog.accept())  # leave the page though it is not saved
        run_cell(page, 0)
        output = run_cell(page, 1)
        state, button = output.locator(".lab-state"), lambda name: output.get_by_role("button", name=name, exact=True)
        expect(state).to_have_text("ready")
        button("Start").click()
        goes_on(output, 5)
        expect(output.get_by_text(re.compile("now, step [1-9]")).first).to_be_visible()
        output.screenshot(path=tmp_path / f"training_{front}.png")

        button("Pause").click()
        expect(state).to_have_text("paused")
        readings = [done(output)]

        def rests():  # once a step that was under way is told
            page.wait_for_timeout(500)
            readings.append(done(output))
            return readings[-1] == readings[-2]

        until(rests, "no more steps")
        rested = readings[-1]
        page.wait_for_timeout(1000)
        assert done(output) == rested
        button("Resume").click()
        goes_on(output, rested)

        before = output.get_by_role("application", name="heat map now").evaluate("canvas => canvas.toDataURL()")
        output.locator(".lab-chip").last.click()
        expect(output.locator(".lab-chip[aria-pressed=true]")).to_have_count(1)
        until(lambda: output.get_by_role("application", name="heat map now").evaluate("canvas => canvas.toDataURL()")
              != before, "another word's map")  # fmt: skip

        folder = output.get_by_role("textbox", name="folder to save to")
        folder.fill(str(tmp_path / "adapter"))
        button("Save to").click()
        expect(output.get_by_text(re.compile(r"adapter of step \d+ saved, .*B: /"))).to_be_visible()
        assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()
        folder.fill("")
        folder.press_sequentially("/proc/none")  # by keys, of which a notebook has plans of its own
        button("Save to").click()
        expect(output.locator(".lab-wrong")).to_contain_text("cannot save to /proc/none")
        output.screenshot(path=tmp_path / f"saved_{front}.png")

        first = told(output, 3)
        assert re.match(r"step 3: loss [\d.]+, smoothed [\d.]+, learning rate [\d.e-]+$", first)
        run_cell(page, 2)  # other cells run meanwhile
        goes_on(output, done(output))

        # The notebook is saved: after a reload the page finds the running training by itself.
        save(page, 1)
        reached = done(output)
        output = reloaded(page, 1, ".lab-state")
        goes_on(output, reached)
        assert told(output, 3) == first
        expect(output.get_by_role("textbox", name="folder to save to")).to_have_value("/proc/none")
        output.screenshot(path=tmp_path / f"reloaded_{front}.png")

        # It is not: evaluated again, it is the same training.
        page.locator(".jp-Notebook .jp-Cell").nth(3).locator(".cm-content").click()
        reached = done(output)
        again = run_cell(page, 3)
        goes_on(again, reached)
        reloaded(page, 1, ".lab-state")
        again = run_cell(page, 3)
        goes_on(again, reached)
        assert told(again, 3) == first
        again.get_by_role("button", name="Stop").click()
        expect(again.locator(".lab-state")).to_have_text("stopped")
        expect(again.get_by_role("button", name="Go on")).to_be_enabled()
        again.screenshot(path=tmp_path / f"stopped_{front}.png")
