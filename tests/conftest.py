"""A tiny editor with random weights, in a folder as the recipe writes it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import _registry
from PIL import Image

from tests.support import network

network.block()  # before anything is imported that could ask

import editmgt_lab as lab  # noqa: E402
from tests.support.tiny import save_tiny  # noqa: E402


@pytest.hookimpl(tryfirst=True)  # a random order shuffles afterwards
def pytest_collection_modifyitems(items):
    """Tests that run beside each other keep to their file, whose fixtures they share; notebooks go their own way. What
    takes longest comes first, so that no process is left alone with it in the end.
    """
    if addresses := [item.nodeid for item in items if " at 0x" in item.nodeid]:
        raise pytest.UsageError(f"every process would name these otherwise; give them ids: {addresses}")
    for item in items:
        file, _, name = item.nodeid.partition("::")
        item.add_marker(pytest.mark.xdist_group(name if file.endswith("test_notebooks.py") else file))
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")
    items.sort(key=lambda item: "notebooks/" not in item.nodeid and item.get_closest_marker("browser") is None)


@pytest.fixture(autouse=True)
def nothing_was_asked_of_the_network():
    """No test reaches beyond this computer, or tries to, even where what it runs makes up for that: nor do the imports,
    fixtures and processes of other files, which the test that comes next tells of."""
    yield
    assert network.asked() == []


@pytest.fixture(scope="session", autouse=True)
def nothing_was_asked_in_the_end():
    """As above, of what ends with the session."""
    yield
    assert network.asked() == []


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    save_tiny(folder)
    return folder


@pytest.fixture(scope="session")
def editor(tiny_folder) -> lab.Editor:
    return lab.load(tiny_folder, device="cpu")


@pytest.fixture(scope="session")
def picture():
    """A picture of coloured noise in blocks, of any size: picture(width, height, seed)."""

    def draw(width: int = 32, height: int = 32, seed: int = 0) -> Image.Image:
        noise = np.random.default_rng(seed).integers(0, 256, (height // 4 or 1, width // 4 or 1, 3), dtype=np.uint8)
        return Image.fromarray(noise).resize((width, height), Image.Resampling.NEAREST)

    return draw


@pytest.fixture
def hub(monkeypatch, tmp_path_factory):
    """A stand-in for the hub's file system: hub(name, folder) makes a folder's content the data set of that name."""
    root = tmp_path_factory.mktemp("hub")

    class Hub(DirFileSystem):
        protocol, cachable = "hf", False

        def __init__(self, **options):
            super().__init__(str(root), LocalFileSystem())

        @classmethod
        def _strip_protocol(cls, path):
            return path.removeprefix("hf://")

        def unstrip_protocol(self, name):
            return f"hf://{name}"

        def find(self, path, **options):
            if not self.exists(path):
                raise OSError("no such repository")
            return super().find(path, **options)

    monkeypatch.setitem(_registry, "hf", Hub)
    return lambda name, folder: shutil.copytree(folder, root / "datasets" / name)
