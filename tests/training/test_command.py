"""`python -m editmgt_lab.training`: what it refuses, and what its stages take from each other."""

import runpy
import sys
from dataclasses import replace

import pytest
import torch

from editmgt_lab import load
from editmgt_lab.errors import CheckpointError
from editmgt_lab.training.__main__ import main, train
from editmgt_lab.training.clip.__main__ import main as clip
from editmgt_lab.training.recipe import RECIPES
from editmgt_lab.training.run import Run
from editmgt_lab.training.samples import fill
from tests.training.test_training import SMALL

SHORT = {
    "image_size": 32, "vq_pictures": 4, "vq_samples": 8, "vq_batch": 4, "decoder_pairs": 2, "decoder_samples": 4,
    "decoder_batch": 2, "pairs": 4, "samples": 4, "text_layers": 1,
}  # fmt: skip
RECIPE = replace(SMALL, **SHORT)


@pytest.fixture(scope="module", autouse=True)
def nothing_is_drawn_beside():
    """The picture beside a run takes longer than these runs; test_windows has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("editmgt_lab.training.__main__.sample_drawer", lambda *_: lambda average, window: None)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with every stage, and the editor of it."""
    folder = tmp_path_factory.mktemp("made")
    train(RECIPE, folder / "run", folder / "editor", "cpu")
    return folder


def options(given, folder):
    return [*given.split(), "--device", "cpu", "--folder", str(folder / "run"), "--output", str(folder / "out")]


@pytest.mark.parametrize(
    "given, said",
    [
        ("--recipe tiny --codes 2000", "--codes is 2000"),
        ("--recipe small --window 8", "--window is 8"),
        ("--recipe small --window 14", "--window is 14"),
        ("--recipe small --samples 1000", "--window-samples is 117000"),
        ("--recipe tiny --hard-share 2", "--hard-share is 2"),
    ],
)
def test_numbers_that_do_not_fit_each_other_are_refused_before_anything_is_trained(tmp_path, capsys, given, said):
    assert main(options(given, tmp_path)) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.parametrize("given", ["--text-length 8", "--image-size 96", "--image-size 256", "--image-size 24"])
def test_sizes_that_no_clip_has_are_refused(tmp_path, capsys, given):
    assert clip([*given.split(), "--folder", str(tmp_path / "run"), "--output", str(tmp_path / "out")]) == 2
    assert "expected" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_the_transformer_has_the_codes_that_the_vq_model_has(tmp_path):
    train(replace(RECIPE, codes=512), tmp_path / "run", tmp_path / "editor", "cpu")
    editor = load(tmp_path / "editor", device="cpu")
    assert editor.vq.config.num_vq_embeddings == editor.transformer.config.codebook_size == 512
    assert editor.mask_token_id == 512 + 63


def test_a_vq_model_is_taken_whatever_its_codebook(tmp_path, made):
    wider = replace(RECIPE, vq=replace(RECIPE.vq, num_vq_embeddings=2048))
    train(wider, tmp_path / "run", tmp_path / "editor", "cpu", tokenizer=str(made / "editor"))
    assert load(tmp_path / "editor", device="cpu").transformer.config.codebook_size == 1024


def test_only_what_belongs_together_is_saved(tmp_path, made):
    run = made / "run"
    train(RECIPE, run, tmp_path / "out", "cpu", only="save")
    saved, whole = load(tmp_path / "out", device="cpu"), load(made / "editor", device="cpu", dtype=torch.float16)
    for name, value in whole.transformer.state_dict().items():
        assert torch.equal(value, saved.transformer.state_dict()[name].to(value)), name
    with pytest.raises(CheckpointError, match="samples"):
        train(replace(RECIPE, samples=8), run, tmp_path / "other", "cpu", only="save")
    assert not (tmp_path / "other").exists()


def test_the_vq_model_goes_on_although_a_decoder_was_made_of_it(made, tmp_path):
    longer = replace(RECIPE, vq_samples=16)
    train(longer, tmp_path / "run", tmp_path / "out", "cpu", only="vq")
    train(longer, tmp_path / "run", tmp_path / "out", "cpu", only="decoder")
    train(longer, tmp_path / "run", tmp_path / "out", "cpu", only="vq", anew=True)
    assert Run(tmp_path / "run" / "vq").load()["done"] == 16


def test_other_words_are_another_run(tmp_path, made, capsys):
    given = {"only": "transformer", "tokenizer": str(made / "editor")}
    train(RECIPE, tmp_path / "run", tmp_path / "out", "cpu", words=str(made / "editor"), **given)
    with pytest.raises(CheckpointError, match="start"):
        train(RECIPE, tmp_path / "run", tmp_path / "out", "cpu", **given)


def test_the_command_hands_on_which_editors_to_begin_with(tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setattr("editmgt_lab.training.__main__.train", lambda *_, **given: asked.update(given))
    for given, expected in (("", (None, None, False)), ("--tokenizer a --words b --compiled", ("a", "b", True))):
        assert main(options(given, tmp_path)) == 0
        assert (asked["tokenizer"], asked["words"], asked["compiled"]) == expected


def test_the_command_records_the_code_of_its_own_room(tmp_path, monkeypatch, made):
    for_both = "--recipe tiny --only vq --vq-samples 16 --vq-pictures 2 --image-size 32".split()
    monkeypatch.setattr(sys, "argv", ["training", *options(" ".join(for_both), tmp_path)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("editmgt_lab.training", run_name="__main__")
    assert ended.value.code == 0
    record, imported = (Run(each / "run" / "vq").load()["made_of"] for each in (tmp_path, made))
    assert record["code"] == imported["code"]


def test_what_is_drawn_beside_a_run_is_drawn_where_its_model_is(made, monkeypatch):
    editor = load(made / "editor", device="cpu", dtype=torch.float32)
    model = torch.nn.ModuleDict({"transformer": editor.transformer, "text_encoder": editor.text_encoder}).to("meta")
    seen, generator = [], torch.Generator()
    monkeypatch.setattr(torch, "Generator", lambda device: seen.append(device.type) or generator)

    def stop(tokens, text, timestep, *, source, micro_conditions, origin):
        seen.extend(each.device.type for each in (tokens, timestep, source, micro_conditions, origin))
        raise InterruptedError

    model["transformer"].forward = stop
    model["text_encoder"].forward = lambda texts: None
    shape, origin = (4, 4), torch.zeros(1, 2, dtype=torch.long)
    with pytest.raises(InterruptedError):
        fill(model, ["make it blue"], torch.zeros(1, *shape, dtype=torch.long), shape, RECIPES["tiny"], origin=origin)
    assert seen == ["meta"] * 6
