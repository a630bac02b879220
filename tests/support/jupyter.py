"""A Jupyter server of the tests' own, with JupyterLab and Notebook 7 on it, and hands to run a notebook's cells."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
from playwright.sync_api import Browser, Error, Locator, Page, expect

from tests.support import PATIENCE, ROOT, answers, free_port, until
from tests.support.browser import be_patient

FRONTS = {"lab": "lab/tree", "notebook": "notebooks"}  # the addresses under which one server shows a notebook
NUMBERED, STDERR = re.compile(r"\[\d+\]"), "application/vnd.jupyter.stderr"  # the prompt of a cell that is done
QUIET = (
    "--no-browser", "--IdentityProvider.token=", "--ServerApp.port_retries=0", "--LabApp.extension_manager=readonly",
    "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
    f"--MappingKernelManager.kernel_info_timeout={PATIENCE}",  # else 60 s for a kernel to begin again
)  # fmt: skip
# The offer to fetch news would lie over the notebook.
UNWANTED = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a running server on this folder's notebooks/, whose settings and log lie beside them."""
    (folder / "notebooks").mkdir(exist_ok=True)
    settings = folder / "config" / "labconfig" / "page_config.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(UNWANTED), encoding="utf-8")
    places = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "JUPYTER_RUNTIME_DIR": "runtime"}
    places = {name: str(folder / place) for name, place in (places | {"IPYTHONDIR": "ipython"}).items()}
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    port = free_port()
    root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    where = (f"--ServerApp.root_dir={folder / 'notebooks'}", f"--port={port}")
    address, log = f"http://127.0.0.1:{port}", folder / "server.log"
    with log.open("w") as file:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *QUIET, *root, *where],
            stdout=file, stderr=file, cwd=folder, env=os.environ | places | {"PYTHONPATH": paths},
        )  # fmt: skip
    try:
        until(lambda: answers(server, f"{address}/api/status", log), "the server to answer")
        yield address
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


def write_notebook(path: Path, sources: Sequence[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


@contextmanager
def opened_notebook(browser: Browser, address: str, front: str, name: str) -> Iterator[Page]:
    """A notebook in one of the FRONTS with its kernel ready; its page reaches this server and nothing else."""
    context = browser.new_context(color_scheme="light", viewport={"width": 1400, "height": 1000})
    be_patient(context)
    context.route(re.compile(f"^(?!{re.escape(address)})https?:"), lambda route: route.abort())
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(error.stack or error.message))
    page.goto(f"{address}/{FRONTS[front]}/{name}")
    page.locator(".jp-Cell").first.wait_for()

    def ready() -> bool:
        sessions = page.request.get(f"{address}/api/sessions").json()
        return any(each["path"] == name and each["kernel"]["execution_state"] == "idle" for each in sessions)

    until(ready, "the kernel")
    yield page
    # The widgets' modules are blobs; what goes wrong in the front itself, such as a lost answer, is not theirs.
    assert [stack for stack in errors if "blob:" in stack] == []
    context.close()


def run_cell(page: Page, number: int, *, wait: bool = True) -> Locator:
    """Run a cell as a reader does, with Shift and Enter; its output, once it is done."""
    cell = page.locator(".jp-Notebook .jp-Cell").nth(number)
    prompt, told = cell.locator(".jp-InputArea-prompt"), cell.locator(f"[data-mime-type='{STDERR}']")

    def execute() -> None:
        cell.locator(".cm-content").click()
        page.keyboard.press("Shift+Enter")

    execute()
    if wait:
        expect(prompt).to_have_text(NUMBERED)
        if told.count():  # rarely a kernel says something of pages that are gone, and then not twice
            warnings.warn(f"a cell was run again, which had said {told.all_inner_texts()}", stacklevel=2)
            execute()
            expect(told).to_have_count(0)
            expect(prompt).to_have_text(NUMBERED)
        assert not told.count(), told.all_inner_texts()
    return cell.locator(".jp-Cell-outputArea")


def output_of(page: Page, number: int) -> Locator:
    """What a cell has put out."""
    return page.locator(".jp-Notebook .jp-Cell").nth(number).locator(".jp-Cell-outputArea")


def reloaded(page: Page, number: int, shown: str) -> Locator:
    """Load the page anew; the output of this cell, whose widget has something to be `shown`, a selector. On a busy
    computer a front's own restoring of widgets fails now and then, for widgets of any kind, and a second time does it.
    """
    output = output_of(page, number)
    lost = output.get_by_text("model not found")
    for _ in range(3):
        page.reload()
        output.locator(shown).or_(lost).first.wait_for()
        if not lost.count():
            break
    return output


def save(page: Page, number: int) -> None:
    """The notebook, with the widget that this cell has put out."""

    def saved():
        page.keyboard.press("Control+s")
        try:
            cell = fetch(page, f"/api/contents/{name_of(page)}")["content"]["cells"][number]
        except Error:  # the server may read it while it is written
            return False
        return any("application/vnd.jupyter.widget-view+json" in each.get("data", {}) for each in cell["outputs"])

    until(saved, "the notebook to be saved")


def fetch(page: Page, address: str, method: str = "GET") -> Any:
    """What the server answers to the page, as it answers to its menus."""
    return page.evaluate(
        """async ([address, method]) => {
          const cookie = document.cookie.match(/_xsrf=([^;]*)/);
          const headers = cookie ? { "X-XSRFToken": cookie[1] } : {};
          const answer = await fetch(address, { method, headers });
          if (!answer.ok) throw new Error(await answer.text());
          return await answer.json();
        }""",
        [address, method],
    )


def name_of(page: Page) -> str:
    return page.url.partition("?")[0].rpartition("/")[2]


def drag(page: Page, slider: Locator, share: float, *, release: bool = True) -> None:
    """Take a slider by its handle and draw it to this share of its length: a range input, or a slider of ipywidgets."""
    slider.scroll_into_view_if_needed()
    handle = slider.locator(".noUi-handle")
    if handle.count():
        grip, track = handle.bounding_box(), slider.locator(".noUi-base").bounding_box()
        start = grip["x"] + grip["width"] / 2
        left, width = track["x"], track["width"]
    else:
        track, thumb = slider.bounding_box(), 16
        left, width = track["x"] + thumb / 2, track["width"] - thumb
        low, high, value = (float(slider.evaluate(f"slider => slider.{name}")) for name in ("min", "max", "value"))
        start = left + width * (value - low) / (high - low)
    height = track["y"] + track["height"] / 2
    page.mouse.move(start, height)
    page.mouse.down()
    page.mouse.move(left + width * share, height, steps=8)
    if release:
        page.mouse.up()


def round_trip(slider: Locator, picture: Locator) -> float:
    """Milliseconds from a key on a slider of ipywidgets to the picture that its kernel answers with; fastest of six."""
    return slider.locator(".noUi-handle").evaluate(
        """async (handle, picture) => {
          const times = [];
          for (let i = 0; i < 6; i++) {
            const key = i % 2 ? "PageDown" : "PageUp";
            await new Promise((done) => {
              const began = performance.now();
              const watch = new MutationObserver(() => {
                watch.disconnect();
                times.push(performance.now() - began);
                done();
              });
              watch.observe(picture, { attributeFilter: ["src"] });
              handle.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
            });
          }
          return Math.min(...times);
        }""",
        picture.element_handle(),
    )
