"""A headless Chromium for tests: pages opened from disk with the network off, and hands to touch them with."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from tests.support import PATIENCE

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync")


@contextmanager
def chromium() -> Iterator[Browser]:
    """The Chromium of this computer, or Playwright's own; the test is skipped where there is neither."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    with sync_playwright() as playwright:
        if found is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip("no Chromium here: install it, or run `playwright install chromium`")
        root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=found, args=[*FLAGS, *root])
        yield browser
        browser.close()


def be_patient(context: BrowserContext) -> None:
    """What is waited for in the pages of this context may take as long as the computer's patience says."""
    context.set_default_timeout(1000 * PATIENCE)
    expect.set_options(timeout=1000 * PATIENCE)


@contextmanager
def opened(browser: Browser, file: Path, *, scheme: str = "light", width: int = 1120) -> Iterator[Page]:
    """A page from disk, offline; its errors fail the test."""
    context = browser.new_context(
        offline=True, color_scheme=scheme, viewport={"width": width, "height": 800}, reduced_motion="reduce"
    )
    be_patient(context)
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(file.as_uri())
    page.wait_for_selector(".lab-body > *")
    yield page
    assert not errors
    context.close()


def panel(page: Page | Locator, title: str) -> Locator:
    """The canvas of the panel with this title."""
    return page.get_by_role("application", name=title, exact=False).first


def point(canvas: Locator, cell: int, grid: tuple[int, int], *, click: bool = False, **keys: list[str]) -> None:
    """Point at, or click, the middle of a cell, numbered row by row."""
    box, (row, column) = canvas.bounding_box(), divmod(cell, grid[1])
    place = {"x": box["width"] * (column + 0.5) / grid[1], "y": box["height"] * (row + 0.5) / grid[0]}
    (canvas.click if click else canvas.hover)(position=place, **keys)


def drawn(canvas: Locator, cell: int, grid: tuple[int, int]) -> list[int]:
    """RGBA of the middle of a cell as the canvas shows it."""
    return canvas.evaluate(
        """(canvas, [share, part]) => [...canvas.getContext("2d").getImageData(
          Math.floor(share * canvas.width), Math.floor(part * canvas.height), 1, 1).data]""",
        [(cell % grid[1] + 0.5) / grid[1], (cell // grid[1] + 0.5) / grid[0]],
    )


def answer_time(canvas: Locator) -> float:
    """Milliseconds from a move of the pointer to the end of all drawing, the fastest of nine."""
    return canvas.evaluate(
        """(canvas) => {
          const box = canvas.getBoundingClientRect();
          const times = [];
          for (let i = 0; i < 9; i++) {
            const clientX = box.left + (box.width * (i + 0.5)) / 9;
            const clientY = box.top + (box.height * (i + 0.5)) / 9;
            const began = performance.now();
            canvas.dispatchEvent(new PointerEvent("pointermove", { clientX, clientY }));
            canvas.getContext("2d").getImageData(0, 0, 1, 1); // waits for what was drawn
            times.push(performance.now() - began);
          }
          canvas.dispatchEvent(new PointerEvent("pointerleave"));
          return Math.min(...times);
        }"""
    )


def word_time(chip: Locator, canvas: Locator) -> float:
    """Milliseconds from the pointer on a word to the end of all drawing, the fastest of nine."""
    return chip.evaluate(
        """(chip, canvas) => {
          const times = [];
          for (let i = 0; i < 9; i++) {
            const began = performance.now();
            chip.dispatchEvent(new PointerEvent("pointerenter"));
            canvas.getContext("2d").getImageData(0, 0, 1, 1); // waits for what was drawn
            times.push(performance.now() - began);
            chip.dispatchEvent(new PointerEvent("pointerleave"));
          }
          return Math.min(...times);
        }""",
        canvas.element_handle(),
    )


def slider_time(slider: Locator, canvas: Locator) -> float:
    """Milliseconds from a move of a range input to the end of all drawing, the fastest of nine; nothing is released."""
    return slider.evaluate(
        """(slider, canvas) => {
          const times = [];
          const before = slider.value;
          for (let i = 1; i < 10; i++) {
            const began = performance.now();
            slider.value = Number(slider.min) + ((slider.max - slider.min) * i) / 10;
            slider.dispatchEvent(new Event("input"));
            canvas.getContext("2d").getImageData(0, 0, 1, 1); // waits for what was drawn
            times.push(performance.now() - began);
          }
          slider.value = before;
          slider.dispatchEvent(new Event("input"));
          return Math.min(...times);
        }""",
        canvas.element_handle(),
    )
