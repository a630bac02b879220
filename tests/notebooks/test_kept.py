"""What lies in the repository as made by the small model was made by the weights that ship."""

import json

import nbformat
import pytest
from PIL import Image

import editmgt_lab as lab
from editmgt_lab.basics.fingerprints import weights_fingerprint
from editmgt_lab.finetuning import load_adapter
from editmgt_lab.studies.options import OF_NO_MATTER
from tests.support import ROOT

SAMPLES = ROOT / "data_samples"


@pytest.fixture(scope="module")
def shipped():
    return weights_fingerprint(lab.load())


def whatever_its_threshold(adapter=None):
    """The fingerprint for studies that set λ themselves."""
    editor = lab.load()
    if adapter:
        load_adapter(editor.transformer, SAMPLES / "adapters" / adapter)
    return weights_fingerprint(editor, without=OF_NO_MATTER)


def weights_of(name):
    with Image.open(SAMPLES / name) as picture:
        return picture.text.get("weights")


def test_pictures_of_the_readme(shipped):
    assert weights_of("edit.png") == shipped, "make demo; its outputs/stages.png is data_samples/edit.png"
    assert weights_of("lambda_figure.png") == whatever_its_threshold(), "make figure"
    assert weights_of("lambda_figure_leaky.png") == whatever_its_threshold("leaky"), "make figure, --adapter leaky"


def test_the_drawn_world_draws_what_the_model_sees():
    assert lab.world.PIXELS == lab.load().defaults.image_size, "PIXELS in world/scenes.py"


def test_the_measured_training_sizes():
    measured = json.loads((SAMPLES / "training_size.json").read_text(encoding="utf-8"))
    assert measured["settings"]["weights"] == whatever_its_threshold(), "python -m editmgt_lab.studies.training_size"
    shown = nbformat.read(ROOT / "notebooks" / "09_evaluation.ipynb", as_version=4)
    told = "".join(output.get("text", "") for cell in shown.cells for output in cell.get("outputs", []))
    assert measured["settings"]["weights"] in told, "make notebooks"


def test_the_study_of_filtered_pairs():
    measured = json.loads((SAMPLES / "filtering.json").read_text(encoding="utf-8"))
    assert measured["weights"] == whatever_its_threshold(), "make filtering, --adapter data_samples/adapters/leaky"


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks(path, shipped):
    metadata = nbformat.read(path, as_version=4).metadata
    assert metadata.get("editmgt_lab") == {"weights": shipped}, "make notebooks"


def test_other_weights_or_defaults_are_noticed(editor, shipped):
    assert weights_fingerprint(editor) != shipped
    small = lab.load()
    held = small.with_defaults(hold_threshold=small.defaults.hold_threshold / 2 + 0.01)
    assert weights_fingerprint(held) != shipped
    assert weights_fingerprint(held, without=OF_NO_MATTER) == whatever_its_threshold() != shipped
    small.vq.decoder.conv_out.bias.data[0] += 1e-3
    assert weights_fingerprint(small) != shipped
