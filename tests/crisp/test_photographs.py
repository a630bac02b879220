"""Stage 1 on real pictures: the samples that come with scikit-image, which are photographs and others."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from editmgt_lab.crisp.__main__ import main
from editmgt_lab.crisp.curate.rules import PHOTOGRAPHS, broken_rules
from editmgt_lab.crisp.curate.text import Writing
from editmgt_lab.crisp.engine.shards import Store
from editmgt_lab.crisp.engine.stages import Shard

FOUND = importlib.util.find_spec("skimage")
if FOUND is None:
    pytest.skip("scikit-image is not installed", allow_module_level=True)
SAMPLES = Path(FOUND.origin).parent / "data"

# picture → the rules that it breaks, where its short side may be 256 px; the paper's 1024 are more than most have.
VERDICTS = {
    "astronaut.png": [], "camera.png": [], "chelsea.png": [], "coffee.png": [], "coins.png": [], "retina.jpg": [],
    "motorcycle_left.png": [], "rocket.jpg": [],
    "grass.png": ["edges too high"],  # textures
    "gravel.png": ["edges too high"],
    "chessboard_RGB.png": ["short side too low", "entropy too low", "repetition too high"],
    "horse.png": ["entropy too low"],  # a silhouette
    "phantom.png": ["entropy too low"],  # a few flat ellipses
    "page.png": ["short side too low"],  # that it is writing, only a text detector says
    "multipage_rgb.tif": ["the picture cannot be opened"],  # in a form that Pillow does not read
    "no_time_for_that_tiny.gif": ["short side too low", "edges too high"],
    "zz_astronaut_again.jpg": ["distance to an earlier picture too low"],
}  # fmt: skip


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    pictures = folder / "pictures"
    pictures.mkdir()
    for name in VERDICTS:
        if (SAMPLES / name).exists():
            shutil.copy(SAMPLES / name, pictures)
    with Image.open(SAMPLES / "astronaut.png") as picture:
        picture.convert("RGB").resize((300, 300)).save(pictures / "zz_astronaut_again.jpg", quality=70)
    arguments = [str(pictures), "--until", "curate", "--rule", "short_side=256:", "--output", str(folder)]
    assert main(arguments) == 0
    return folder


def rows(folder, *, dropped):
    store = Store(folder / "shards")
    for stage in json.loads((folder / "shards" / "manifest.json").read_text()):
        for shard in stage["shards"]:
            yield from ((stage["stage"], row) for row in store.rows(Shard(**shard), dropped=dropped))


def test_real_photographs_pass_and_others_are_dropped_with_every_reason(output):
    found = {row["origin"]: [] for stage, row in rows(output, dropped=False) if stage == "curate"}
    for _, row in rows(output, dropped=True):
        found[row["origin"]] = [verdict["rule"].partition(": ")[0] for verdict in json.loads(row["verdicts"])]
    assert found == VERDICTS


def test_what_had_to_be_converted_is_noted(output):
    notes = {row["origin"]: row["note"] for stage, row in rows(output, dropped=False) if stage == "measure"}
    assert notes["camera.png"] == "L → RGB" and notes["horse.png"] == "RGBA → RGB" and notes["retina.jpg"] is None
    assert notes["astronaut.png"] == "metadata removed"
    assert notes["no_time_for_that_tiny.gif"].endswith("first of 24 frames")


def test_a_page_is_found_by_its_writing_and_a_cat_has_none():
    pytest.importorskip("rapidocr_onnxruntime", reason="the extra [writing] is not installed")
    page, cat = (
        Writing().answer({"picture": (SAMPLES / name).read_bytes()})["values"][0]
        for name in ("page.png", "chelsea.png")
    )
    assert "writing too high" in [each.rule for each in broken_rules(page, PHOTOGRAPHS)]
    assert cat["text"] <= PHOTOGRAPHS["text"].high
