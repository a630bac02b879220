"""A page is reloaded while its kernel works, two browsers look at one kernel, a kernel is restarted under a page.

A tiny editor of random weights works, slowly: what is watched is the pages.
"""

from contextlib import suppress

import pytest
from playwright.sync_api import TimeoutError, expect

from tests.support import until
from tests.support.jupyter import (
    FRONTS,
    fetch,
    name_of,
    opened_notebook,
    output_of,
    reloaded,
    run_cell,
    save,
    served,
    write_notebook,
)

SETUP = """
import time
import editmgt_lab as lab
from editmgt_lab import views

editor = lab.load({folder!r}, device="cpu")
editor.transformer.register_forward_pre_hook(lambda *_: time.sleep(0.1))  # as long as an edit takes, and no load
sample = lab.world.sample_edit(18, split="test", category="remove", size=32)
picture, instruction = sample.source, sample.instruction
""".strip()
OPEN = (
    "views.decode_player(editor, picture, instruction, steps=12, seed=0)",
    "views.decode_player(editor, picture, instruction, steps=10_000)",
)
STEPS, LONG = 1, 2  # cells


@pytest.fixture(scope="module")
def server(browser, tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for front in FRONTS:
        write_notebook(folder / "notebooks" / f"{front}.ipynb", [SETUP.format(folder=str(tiny_folder)), *OPEN])
    with served(folder) as address:
        yield address


@pytest.fixture(params=FRONTS)
def notebook(request, browser, server):
    """Opens a page on the notebook, in a browser window of its own."""

    def opened():
        return opened_notebook(browser, server, request.param, f"{request.param}.ipynb")

    return opened


def restart(page):
    """The page's kernel."""
    sessions = fetch(page, "/api/sessions")
    kernel = next(each["kernel"]["id"] for each in sessions if each["path"] == name_of(page))
    fetch(page, f"/api/kernels/{kernel}/restart", "POST")


def widget(output):
    output.locator(".lab-body > *").first.wait_for()
    return output.locator(".lab-steps output")


def cancelled(output):
    """Whether Cancel has been heard, after one more click: a page that is still being connected may lose the first."""
    with suppress(TimeoutError):  # the button goes once it is heard
        output.get_by_role("button", name="Cancel").click(timeout=2000)
    return output.get_by_text("cancelled").is_visible()


def follow(clicked, step, other):
    """Whether two pages come to the same other step by a click on one; one still being connected may miss the first."""
    before = step.text_content()
    clicked.get_by_role("button", name="one step on").click()
    with suppress(AssertionError):
        expect(step).not_to_have_text(before, timeout=5000)
        expect(other).to_have_text(step.text_content(), timeout=5000)
        return True
    return False


def test_two_browsers_on_one_kernel(notebook):
    with notebook() as page:
        run_cell(page, 0)
        step = widget(run_cell(page, STEPS))
        expect(step).to_have_text("step 1 of 12")
        save(page, STEPS)
        with notebook() as other:
            seen = widget(output_of(other, STEPS))
            until(lambda: follow(output_of(page, STEPS), step, seen), "the other page to follow")
            until(lambda: follow(output_of(other, STEPS), seen, step), "the first page to follow")
        before = step.text_content()
        output_of(page, STEPS).get_by_role("button", name="one step on").click()
        expect(step).not_to_have_text(before)


def test_a_page_is_reloaded_while_the_kernel_works(notebook, tmp_path):
    with notebook() as page:
        run_cell(page, 0)
        output = run_cell(page, LONG, wait=False)
        expect(output.get_by_role("button", name="Cancel")).to_be_visible()
        save(page, LONG)
        output = reloaded(page, LONG, "progress")
        expect(output.get_by_role("progressbar")).to_be_visible()
        until(lambda: cancelled(output), "the work to be cancelled")
        output.get_by_role("button", name="Begin again").click()
        expect(output.get_by_role("progressbar")).to_be_visible()
        expect(output.get_by_role("button", name="Begin again")).to_be_hidden()
        until(lambda: cancelled(output), "the work to be cancelled")
        output.screenshot(path=tmp_path / "cancelled.png")
        step = widget(run_cell(page, STEPS))
        expect(step).to_have_text("step 1 of 12")


def test_a_kernel_is_restarted_under_an_open_page(notebook):
    with notebook() as page:
        run_cell(page, 0)
        widget(run_cell(page, STEPS))
        restart(page)
        button = output_of(page, STEPS).get_by_role("button", name="one step on")
        if button.count():  # of a widget whose kernel is gone
            button.click()
        run_cell(page, 0)
        step = widget(run_cell(page, STEPS))
        output_of(page, STEPS).get_by_role("button", name="one step on").click()
        expect(step).to_have_text("step 2 of 12")
