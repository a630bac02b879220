"""Every widget driven by hand in a notebook with a live kernel, in JupyterLab and in Notebook 7, with screenshots.

The reaction times that people feel are measured on the way, printed, and bounded: loosely, since a computer that runs
tests has more to do.
"""

import io
import random
import re
import time

import pytest
from PIL import Image
from playwright.sync_api import expect

import editmgt_lab as lab
from tests.support import SLACK
from tests.support.browser import answer_time, panel, point, slider_time, word_time
from tests.support.jupyter import FRONTS, drag, opened_notebook, round_trip, run_cell, served, write_notebook

SETUP = """
import editmgt_lab as lab
from editmgt_lab import views

editor = lab.load()
sample = lab.world.sample_edit(18, split="test", category="remove")
picture, instruction = sample.source, sample.instruction
""".strip()
CELLS = {
    "setup": SETUP,
    "token_lab": "views.token_lab(editor, picture)",
    "decode_player": "views.decode_player(editor, picture, instruction, seed=0)",
    "attention_explorer": "views.attention_explorer(editor, picture, instruction, seed=0)",
    "injection_dial": "views.injection_dial(editor, picture, instruction)",
    "hold_studio": "views.hold_studio(editor, sample, threshold=0.1)",
    "playground": "views.playground(editor, picture, instruction)",
    "long_run": "views.decode_player(editor, picture, instruction, steps=1000)",
    "long_edit": "views.playground(editor, picture, instruction, steps=1000)",
}
SMALL = lab.load()
SIDE = lab.world.PIXELS // SMALL.vq.config.factor  # tokens
TOKENS, POSITIONS = (SIDE, SIDE), (SIDE // 2, SIDE // 2)  # rows and columns
LIMITS = {"recolour": 0.05, "hover": 0.05, "open": 3, "edit": 1}  # seconds, on two quiet cores


@pytest.fixture(scope="module")
def server(browser, tmp_path_factory):
    folder = tmp_path_factory.mktemp("jupyter")
    for front in FRONTS:
        write_notebook(folder / "notebooks" / f"{front}.ipynb", list(CELLS.values()))
    with served(folder) as address:
        yield address


class Notebook:
    """A notebook whose first cell has run; `open(name)` runs a widget's cell and measures until the widget shows."""

    def __init__(self, page, front, folder):
        self.page, self.front, self.folder = page, front, folder
        run_cell(page, 0)

    def open(self, name, shown=".lab-body > *"):
        began = time.perf_counter()
        output = run_cell(self.page, list(CELLS).index(name), wait=False)
        output.locator(shown).first.wait_for()
        self.measured("open", name, time.perf_counter() - began)
        return output

    def measured(self, what, where, seconds):
        """Print how long it took, and fail where that is beyond the loosest bound that still finds what became slow."""
        print(f"{what:10} {1000 * seconds:8.1f} ms  {self.front}, {where}")
        assert seconds <= SLACK * LIMITS[what], f"{what}, {where}"

    def shoot(self, output, name):
        output.screenshot(path=self.folder / f"{name}_{self.front}.png")


@pytest.fixture(scope="module", params=FRONTS)
def notebook(request, browser, server, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"screenshots_{request.param}")
    with opened_notebook(browser, server, request.param, f"{request.param}.ipynb") as page:
        yield Notebook(page, request.param, folder)


def test_token_lab_another_code_in_a_cell(notebook):
    output = notebook.open("token_lab")
    point(panel(output, "picture"), 6 * SIDE + 4, TOKENS, click=True)
    expect(output.locator(".lab-detail h3")).to_have_text(re.compile(r"code \d+ at row 7, column 5"))
    decoded = output.locator(".lab-body img").nth(2)
    before = decoded.get_attribute("src")
    book = panel(output, "codebook")
    box = book.bounding_box()
    point(book, 40, (round(32 * box["height"] / box["width"]), 32), click=True)
    expect(output.locator(".lab-buttons")).to_contain_text("1 of 1 changes")
    expect(output.locator(".lab-buttons")).to_contain_text("of the change lies within")
    expect(decoded).not_to_have_attribute("src", before)
    notebook.measured("hover", "token lab", answer_time(panel(output, "picture")) / 1000)
    notebook.shoot(output, "token_lab")


def test_decode_player_steps_plays_and_explains_a_cell(notebook):
    output = notebook.open("decode_player")
    step = output.locator(".lab-steps output")
    expect(step).to_have_text("step 1 of 12")
    output.get_by_role("button", name="one step on").click()
    expect(step).to_have_text("step 2 of 12")
    drag(notebook.page, output.get_by_role("slider"), 9 / 11)
    expect(step).to_have_text("step 10 of 12")
    picture = output.locator(".lab-body img").first
    before = picture.get_attribute("src")
    output.get_by_role("button", name="play", exact=True).click()
    expect(step).to_have_text("step 12 of 12")
    expect(picture).not_to_have_attribute("src", before)
    output.get_by_role("button", name="step 6", exact=True).click()
    point(panel(output, "tokens"), 6 * SIDE + 4, TOKENS, click=True)
    expect(output.locator(".lab-candidates > div")).not_to_have_count(0)
    notebook.measured("hover", "decode player", answer_time(panel(output, "tokens")) / 1000)
    point(panel(output, "tokens"), 6 * SIDE + 4, TOKENS)
    notebook.shoot(output, "decode_player")


def test_arrow_keys_move_a_slider(notebook):
    """And not the notebook, which takes them first where no field for text has the focus."""
    output = notebook.open("decode_player")
    slider = output.get_by_role("slider")
    slider.focus()
    notebook.page.keyboard.press("ArrowRight")
    expect(output.locator(".lab-steps output")).to_have_text("step 2 of 12")
    expect(slider).to_be_focused()


def test_attention_explorer_a_word_and_a_patch(notebook):
    output = notebook.open("attention_explorer")
    word, say = output.locator(".lab-chip:not(.lab-special)").last, output.locator(".lab-say")
    expect(say).to_contain_text("Where all words look")
    notebook.measured("hover", "a word", word_time(word, panel(output, "picture")) / 1000)
    notebook.measured("hover", "a patch", answer_time(panel(output, "picture")) / 1000)
    word.hover()
    expect(say).to_contain_text(re.compile("Where “.+” looks"))
    word.click()  # keeps it, wherever the page scrolls to
    notebook.shoot(output, "attention_explorer_word")
    point(panel(output, "picture"), 2 * POSITIONS[1] + 4, POSITIONS)
    expect(say).to_contain_text("Where the patch at row 3, column 5 looks")
    drag(notebook.page, output.get_by_role("slider"), 0.5)
    expect(output.locator(".lab-steps output")).to_have_text(re.compile("step [67] of 12"))
    notebook.shoot(output, "attention_explorer")


def test_injection_dial_turns(notebook):
    output = notebook.open("injection_dial")
    thumbs, dial = output.locator(".lab-thumb"), output.get_by_role("slider")
    expect(thumbs).to_have_count(6)
    expect(output.get_by_role("progressbar")).to_be_hidden()
    edit = output.get_by_role("img", name="edit")
    before = edit.get_attribute("src")
    drag(notebook.page, dial, 1.5 / 3, release=False)
    expect(output.locator(".lab-steps output")).to_contain_text("γ = 1.50, ℰ = log γ = 0.41")
    expect(thumbs).to_have_count(6)
    began = time.perf_counter()
    notebook.page.mouse.up()
    expect(thumbs).to_have_count(7)
    notebook.measured("edit", "injection dial", time.perf_counter() - began)
    expect(output.locator(".lab-thumb[aria-current=step]")).to_have_text("1.5")
    expect(edit).not_to_have_attribute("src", before)
    notebook.shoot(output, "injection_dial")


def test_hold_studio_recolours_and_samples_again(notebook):
    output = notebook.open("hold_studio")
    rows, slider = output.locator(".lab-table tbody tr"), output.get_by_role("slider")
    note = output.locator("figcaption", has_text="in blue")
    expect(rows).to_have_count(2)
    notebook.measured("recolour", "hold studio", slider_time(slider, panel(output, "held")) / 1000)
    before = note.inner_text()
    drag(notebook.page, slider, 0.4, release=False)
    expect(output.locator(".lab-steps output")).to_have_text("λ = 0.40")
    expect(note).not_to_have_text(before)
    expect(rows).to_have_count(2)
    notebook.page.mouse.up()
    expect(rows).to_have_count(3)
    expect(output.locator(".lab-table tr[aria-current=true]")).to_contain_text("0.40")
    expect(output.get_by_role("progressbar")).to_be_hidden()
    notebook.shoot(output, "hold_studio")


def idle(output):
    """Wait until no edit of the playground is under way."""
    expect(output.get_by_role("button", name="Cancel").first).to_be_disabled()


def test_playground_moves_lambda_chooses_scenes_and_opens_every_view(notebook):
    page, output = notebook.page, notebook.open("playground", "img.widget-image")
    source, held = output.locator("img.widget-image").first, output.locator("img.widget-image").nth(2)
    caption = output.locator(".widget-html", has_text=re.compile("held:|below λ:")).last
    idle(output)
    began = time.perf_counter()
    output.get_by_role("button", name="Run").click()
    expect(output.get_by_role("button", name="Cancel").first).to_be_enabled()
    idle(output)
    notebook.measured("edit", "playground", time.perf_counter() - began)

    before, text = held.get_attribute("src"), caption.inner_text()
    drag(page, output.locator(".slider-container").first, (SMALL.defaults.hold_threshold + 0.3) % 1)
    expect(caption).not_to_have_text(text)
    expect(held).not_to_have_attribute("src", before)
    notebook.measured("recolour", "playground", round_trip(output.locator(".slider-container").first, held) / 1000)
    idle(output)
    notebook.shoot(output, "playground")

    for title in ("Token lab", "Decode player", "Attention explorer", "Injection dial", "Hold studio"):
        began = time.perf_counter()
        output.locator(".lm-TabBar-tab", has_text=title).click()
        shown = output.locator(".lab", has=page.get_by_role("heading", name=title))
        shown.locator(".lab-body > *").first.wait_for()
        notebook.measured("open", f"{title} in the playground", time.perf_counter() - began)
        expect(shown.get_by_role("progressbar")).to_be_hidden()
        if title == "Attention explorer":
            notebook.shoot(output, "playground_view")
    output.locator(".lm-TabBar-tab", has_text="Edit").click()

    before, asked = source.get_attribute("src"), output.get_by_role("textbox").first.input_value()
    output.get_by_role("button", name="New scene").click()
    expect(output.get_by_role("textbox").first).not_to_have_value(asked)
    expect(source).not_to_have_attribute("src", before)
    output.get_by_role("button", name="Draw").click()
    before = source.get_attribute("src")
    output.get_by_role("button", name="+").first.click()
    expect(source).not_to_have_attribute("src", before)
    idle(output)
    notebook.shoot(output, "playground_drawn")


def test_playground_takes_an_upload_and_refuses_what_is_no_picture(notebook):
    output = notebook.open("playground", "img.widget-image")
    source = output.locator("img.widget-image").first
    idle(output)
    before = source.get_attribute("src")
    upload = output.get_by_role("button", name="Upload a picture")
    large = noise(2000)
    assert len(large) > 11e6, "more than a Jupyter server takes in one message"
    for content, said in (
        (b"no picture", "cannot be read as a picture"),
        (stripes(), ""),
        (bytes(len(large)), "cannot read it to make it smaller"),
        (large, ""),
    ):
        with notebook.page.expect_file_chooser() as chooser:
            upload.click()
        chooser.value.set_files({"name": "scene.png", "mimeType": "image/png", "buffer": content})
        if said:
            expect(output.get_by_text(said)).to_be_visible()
            expect(source).to_have_attribute("src", before)
        else:
            expect(source).not_to_have_attribute("src", before)
            expect(output.get_by_text("cannot")).to_have_count(0)
            before = source.get_attribute("src")
    idle(output)


def stripes():
    file = io.BytesIO()
    picture = Image.new("RGB", (300, 200), "gold")
    picture.paste("navy", (0, 100, 300, 200))
    picture.save(file, "png")
    return file.getvalue()


def noise(side):
    """A picture that no format makes small."""
    file = io.BytesIO()
    pixels = random.Random(0).randbytes(3 * side * side)
    Image.frombytes("RGB", (side, side), pixels).save(file, "png", compress_level=1)
    return file.getvalue()


@pytest.mark.parametrize("name, shown", [("long_run", ".lab"), ("long_edit", "img.widget-image")])
def test_cancel_while_it_works(notebook, name, shown):
    output = notebook.open(name, shown)
    button = output.get_by_role("button", name="Cancel").first
    button.click()
    expect(output.get_by_text("cancelled")).to_be_visible()
    expect(button).to_be_hidden() if name == "long_run" else expect(button).to_be_disabled()
    notebook.shoot(output, name)
