"""What lies in the repository as made by the small model was made by the weights that ship."""

import json

import nbformat
import pytest
from PIL import Image

import editmgt_lab as lab
from editmgt_lab.basics.fingerprints import weights_fingerprint
from editmgt_lab.finetuning import load_adapter
from tests.support import ROOT

SAMPLES = ROOT / "data_samples"


@pytest.fixture(scope="module")
def shipped():
    return weights_fingerprint(lab.load())


@pytest.mark.parametrize(
    ("name", "command"),
    [("edit.png", "make demo; its outputs/stages.png is data_samples/edit.png"), ("lambda_figure.png", "make figure")],
)
def test_pictures_of_the_readme(name, command, shipped):
    with Image.open(SAMPLES / name) as picture:
        assert picture.text.get("weights") == shipped, f"it is of other weights: {command}"


def test_the_figure_of_the_leaky_model():
    editor = lab.load()
    load_adapter(editor.transformer, SAMPLES / "adapters" / "leaky")
    with Image.open(SAMPLES / "lambda_figure_leaky.png") as picture:
        assert picture.text.get("weights") == weights_fingerprint(editor), 'make figure ARGS="--adapter leaky"'


def test_the_drawn_world_draws_what_the_model_sees():
    assert lab.world.PIXELS == lab.load().defaults.image_size, "PIXELS in world/scenes.py"


def test_the_measured_training_sizes(shipped):
    measured = json.loads((SAMPLES / "training_size.json").read_text(encoding="utf-8"))
    assert measured["settings"]["weights"] == shipped, "python -m editmgt_lab.studies.training_size"


def test_the_study_of_filtered_pairs(shipped):
    measured = json.loads((SAMPLES / "filtering.json").read_text(encoding="utf-8"))
    assert measured["weights"] == shipped, 'make filtering ARGS="--adapter data_samples/adapters/leaky"'


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks(path, shipped):
    metadata = nbformat.read(path, as_version=4).metadata
    assert metadata.get("editmgt_lab") == {"weights": shipped}, "make notebooks"


def test_other_weights_or_defaults_are_noticed(editor, shipped):
    assert weights_fingerprint(editor) != shipped
    small = lab.load()
    assert weights_fingerprint(small.with_defaults(hold_threshold=small.defaults.hold_threshold / 2 + 0.01)) != shipped
    small.vq.decoder.conv_out.bias.data[0] += 1e-3
    assert weights_fingerprint(small) != shipped
