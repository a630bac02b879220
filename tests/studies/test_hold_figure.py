"""The λ figure: the shared sweep is the plain edit of every hold, and its curves and checks by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import editmgt_lab as lab
from editmgt_lab.errors import SettingError
from editmgt_lab.finetuning.adapters import add_adapter, lora_layers, save_adapter
from editmgt_lab.images import to_tensor
from editmgt_lab.metrics.truth import draw_truths
from editmgt_lab.studies.hold_figure import measure, pasted, save
from editmgt_lab.studies.hold_figure.__main__ import main
from editmgt_lab.studies.hold_figure.curves import PUBLISHED, LambdaCurves, spearman
from editmgt_lab.studies.hold_figure.plot import caption, categories_figure, controls_figure
from editmgt_lab.studies.sweep import HEAT, MASK, RANDOM, Hold, distinct, draw_shuffles, sweep

LAMBDAS = (0.0, 0.1, 0.5)
ABOVE = LAMBDAS[1:]
OPTIONS = {"steps": 3, "guidance_scale": 2.0}
CONTRACT = {"lambda", "l1", "l1_outside", "score"}


@pytest.fixture(scope="module")
def truth(editor):
    return next(draw_truths(editor, split="validation", count=3, batch=3))


@pytest.fixture(scope="module", params=[("released", "step"), ("commit", "step"), ("released", "mean")], ids=str)
def swept(editor, truth, request):
    own = editor.with_defaults(hold=request.param[0], hold_by=request.param[1])
    rules = [Hold(HEAT, each) for each in LAMBDAS] + [Hold(rule, each) for rule in (RANDOM, MASK) for each in ABOVE]
    return own, sweep(own, truth, rules, seed=7, **OPTIONS)


@pytest.fixture(scope="module")
def measured(editor):
    return measure(editor.with_defaults(hold="commit"), **run_options())


def run_options():
    return {"split": "validation", "count": 5, "random_count": 2, "thresholds": LAMBDAS, "batch": 2, "seed": 3,
            "progress": False, "steps": 2}  # fmt: skip


def made_up(**curves):
    """Curves of four edits: hold__metric → values over the published λ, the same for each edit."""
    values = {}
    for hold in (HEAT, RANDOM, MASK, "pixel_paste"):
        values[hold] = {}
        for metric in ("l1", "l1_outside", "score"):
            curve = curves.get(f"{hold}__{metric}", curves.get(f"{HEAT}__{metric}"))
            values[hold][metric] = np.repeat(np.array(curve)[:, None], 4, axis=1)
    values[HEAT] |= {"missed": np.zeros((9, 4)), "loose": np.ones((9, 4))}
    settings = {"seed": 0, "count": 4, "split": "made up", "category": "all", "steps": 1, "guidance_scale": 1.0,
                "hold": "commit"}  # fmt: skip
    return LambdaCurves(settings, ("add",) * 4, PUBLISHED["lambda"], values)


def falling():
    return made_up(**{f"heat__{name}": PUBLISHED["l1"] for name in ("l1", "l1_outside", "score")})


def test_every_hold_of_the_sweep_is_the_plain_edit_token_for_token(swept, truth):
    editor, swept = swept
    for place, threshold in enumerate(LAMBDAS):
        plain = truth.edit(editor, 7, hold_threshold=threshold, **OPTIONS)
        assert torch.equal(swept.tokens[place], plain.tokens), threshold
        assert torch.equal(swept.held[place], plain.held), threshold
        assert torch.allclose(swept.heat[place], plain.heat, atol=1e-4)
    assert not torch.equal(swept.tokens[0], swept.tokens[1]), "or the test could not fail"


def test_a_random_hold_holds_as_many_cells_in_every_step_but_others(swept):
    _, swept = swept
    places = {hold: place for place, hold in enumerate(swept.holds)}
    for threshold in ABOVE:
        own, random = places[Hold(HEAT, threshold)], places[Hold(RANDOM, threshold)]
        assert torch.equal(swept.counts[:, own], swept.counts[:, random]) and swept.counts[:, own].any()
        assert (swept.held[own] != swept.held[random]).any()
        assert not torch.equal(swept.tokens[own], swept.tokens[random])
    assert swept.counts.shape == (3, len(swept.holds), 3)


def test_the_true_mask_holds_all_but_the_cells_of_the_edit(swept, truth):
    editor, swept = swept
    edited = truth.edit_cells(editor.vq.config.factor)
    source = editor.tokenize([sample.source for sample in truth.samples])
    for threshold in ABOVE:
        place = swept.holds.index(Hold(MASK, threshold))
        assert torch.equal(swept.held[place], ~edited) and edited.any() and not edited.all()
        if editor.defaults.hold == "commit":
            assert torch.equal(swept.tokens[place][~edited], source[~edited])
    pixels = to_tensor([sample.mask for sample in truth.samples])[:, 0] > 0.5
    height = pixels.shape[1] // edited.shape[1]
    assert not pixels[~edited.repeat_interleave(height, 1).repeat_interleave(height, 2)].any()


def test_what_is_equal_goes_through_the_network_once(editor, truth):
    twice = sweep(editor, truth, [Hold(HEAT, 0.0), Hold(HEAT, 0.3), Hold(MASK, 0.0)], seed=7, **OPTIONS)
    assert (twice.passes, twice.alone) == (3 + 2 * 2 * 3, 3 * 3 * 3)  # one first pass; λ = 0 is the same by any rule
    assert torch.equal(twice.tokens[0], twice.tokens[2])


def test_a_hold_that_has_to_agree_holds_what_the_edit_holds(editor, truth):
    own = editor.with_defaults(hold="agree")
    swept = sweep(own, truth, [Hold(HEAT, 0.0), Hold(HEAT, 0.6)], seed=7, **OPTIONS)
    result = truth.edit(own, 7, hold_threshold=0.6, **OPTIONS)
    assert torch.equal(swept.tokens[1], result.tokens) and torch.equal(swept.held[1], result.held)
    assert (swept.counts[-1, 1] == result.held.flatten(1).sum(1)).all()
    assert result.held.sum() < (swept.heat[1] < 0.6).sum(), "or nothing was to be seen here"


def test_a_sweep_has_no_cache(editor, truth):
    with pytest.raises(SettingError, match="refresh_every"):
        sweep(editor, truth, [Hold(HEAT, 0.0)], seed=7, refresh_every=3)


def test_rows_are_told_apart_by_picture_and_tokens():
    tokens = torch.tensor([[[1, 2]], [[1, 2]], [[1, 3]], [[1, 2]]])
    rows, state = distinct(torch.tensor([0, 1, 0, 0]), tokens)
    assert sorted(rows.tolist()) == [0, 1, 2] and torch.equal(rows[state], torch.tensor([0, 1, 2, 0]))


def test_shuffles_are_orders_of_all_cells():
    shuffles = draw_shuffles(16, [4, 5, 4])
    assert torch.equal(shuffles.sort(dim=1).values, torch.arange(16).expand(3, 16))
    assert torch.equal(shuffles[0], shuffles[2]) and not torch.equal(shuffles[0], shuffles[1])


def test_holds_that_cannot_be_are_refused(editor, truth):
    for holds in ([Hold("nowhere", 0.1)], [Hold(HEAT, 1.5)], [Hold(HEAT, 0.2), Hold(RANDOM, 0.1)]):
        with pytest.raises(SettingError):
            sweep(editor, truth, holds, seed=0)
    for thresholds in ([0.0], [0.1, 0.2], [0.0, 0.2, 0.2], [0.0, 2.0]):
        with pytest.raises(SettingError, match="thresholds"):
            measure(editor, thresholds=thresholds)


def test_pasting_takes_the_cells_from_the_source():
    pictures, sources = torch.zeros(1, 3, 4, 6), torch.ones(1, 3, 4, 6)
    result = pasted(pictures, sources, torch.tensor([[[True, False, False], [False, False, True]]]))
    assert result[0, 0].tolist() == [[1, 1, 0, 0, 0, 0]] * 2 + [[0, 0, 0, 0, 1, 1]] * 2


def test_every_edit_is_measured_against_its_own_truth(measured, editor):
    curves, _ = measured
    own = editor.with_defaults(hold="commit")
    for number in (1, 4):
        sample = lab.world.sample_edit(number, split="validation", size=32)
        assert curves.categories[number] == sample.category
        source = to_tensor(editor.detokenize(editor.tokenize(sample.source)))[0]
        for place, threshold in enumerate(LAMBDAS):
            edit = own.edit(sample.source, sample.instruction, hold_threshold=threshold, steps=2, seed=3 + number)
            assert curves[HEAT, "l1"][place, number] == pytest.approx(
                float((to_tensor(edit.image)[0] - source).abs().mean()), abs=2e-3
            )


def test_one_category_alone(editor):
    curves, _ = measure(editor, **run_options() | {"category": "remove", "count": 2})
    assert curves.categories == ("remove", "remove") and curves.settings["category"] == "remove"
    assert "remove alone" in caption(curves, {}) and "adapter" not in caption(curves, {})


def test_controls_share_the_first_point_and_say_on_how_many_they_were_measured(measured):
    curves, _ = measured
    for control in (MASK, "pixel_paste"):
        assert curves.counted(control) == 5
        for metric in ("l1", "l1_outside", "score"):
            assert np.array_equal(curves[control, metric][0], curves[HEAT, metric][0], equal_nan=True)
    assert curves.counted(RANDOM) == 2 and np.array_equal(curves[RANDOM, "l1"][0, :2], curves[HEAT, "l1"][0, :2])
    assert np.array_equal(curves[MASK, "l1"][1], curves[MASK, "l1"][2])
    assert (curves["pixel_paste", "l1"][2] < curves["pixel_paste", "l1"][0]).all()
    assert curves.settings["passes"] < curves.settings["passes_alone"] == 5 * 2 * (3 + 2) + 2 * 2 * 2


def test_json_has_the_contract_and_the_means(measured):
    curves, _ = measured
    saved = json.loads(json.dumps(curves.to_dict(), allow_nan=False))
    assert saved.keys() >= CONTRACT | {"controls", "bands", "categories", "settings", "seed", "count", "checks"}
    for curve in (saved, *saved["controls"].values(), *saved["categories"].values()):
        assert curve.keys() >= CONTRACT and all(len(curve[name]) == len(LAMBDAS) for name in CONTRACT)
    assert set(saved["controls"]) == {RANDOM, MASK, "pixel_paste"} and saved["lambda"] == list(LAMBDAS)
    assert saved["l1"] == pytest.approx(curves[HEAT, "l1"].mean(axis=1).tolist())
    assert saved["l1_outside"] == pytest.approx(np.nanmean(curves[HEAT, "l1_outside"], axis=1).tolist())
    assert all(low <= mean <= high for low, mean, high in zip(saved["bands"]["l1"]["low"], saved["l1"],
                                                              saved["bands"]["l1"]["high"], strict=True))  # fmt: skip
    assert sum(each["count"] for each in saved["categories"].values()) == saved["count"] == 5


def test_the_same_seed_writes_the_same_files(measured, editor, tmp_path):
    again = measure(editor.with_defaults(hold="commit"), **run_options())
    paths = [save(*each, tmp_path / name) for name, each in (("one", measured), ("two", again))]
    names = ["json", "svg", "png", "png", "png"]
    assert [path.suffix for path in paths[0]] == [f".{name}" for name in names]
    for one, two in zip(*paths, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name
    other = measure(editor.with_defaults(hold="commit"), **run_options() | {"seed": 4})
    assert not np.array_equal(other[0][HEAT, "l1"], measured[0][HEAT, "l1"])


def test_examples_are_those_whose_score_falls_most(editor):
    options = run_options() | {"split": "train", "count": 12, "random_count": 0, "steps": 1}
    curves, examples = measure(editor, **options)
    for category, example in examples.items():
        scores = curves[HEAT, "score"][:, curves.places(category)]
        assert example.fall == pytest.approx((scores[0] - scores[-1]).max()) and len(example.pictures) == len(LAMBDAS)
    assert examples and f"{next(iter(examples.values())).number}" in caption(curves, examples)


def test_spearman_by_hand():
    assert spearman([1, 2, 3], [10, 20, 90]) == pytest.approx(1) and spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))  # ties share 1.5
    assert math.isnan(spearman([1, 1], [1, 2])) and math.isnan(spearman([1, math.nan], [1, 2]))


def test_the_published_shape_passes_and_its_opposite_fails():
    l1, score = PUBLISHED["l1"], PUBLISHED["score"]
    leak = np.linspace(0.05, 0.01, 9)
    leak[2] = 0.02  # at λ = 0.1, which has the best score
    good = made_up(heat__l1=l1, heat__l1_outside=leak, heat__score=score, true_mask__score=[6.0] * 9,
                   random_hold__l1_outside=np.linspace(0.05, 0.04, 9)).checks()  # fmt: skip
    assert all(check["holds"] for check in good.values()), good
    assert good["little_hold"]["value"]["lambda"] == 0.1
    assert good["little_hold"]["value"]["leak_ratio"] == pytest.approx(0.4)
    bad = made_up(heat__l1=l1[::-1], heat__l1_outside=[0.05] * 9, heat__score=score[::-1], true_mask__score=[1.0] * 9,
                  random_hold__score=[5.0] * 9, random_hold__l1_outside=leak).checks()  # fmt: skip
    assert not any(check["holds"] for check in bad.values()), bad


def test_local_edits_are_told_apart():
    mixed = replace(falling(), categories=("add", "style", "color", "background"))
    mixed.values[HEAT]["score"][:, [1, 3]] = 0
    assert mixed.local.categories == ("add", "color")
    assert mixed.to_dict()["local"]["score"] == pytest.approx(PUBLISHED["l1"])
    assert mixed.to_dict()["score"] == pytest.approx([value / 2 for value in PUBLISHED["l1"]])
    assert "The same of the 2 edits" in mixed.table() and mixed.only(mixed.places("style")).local is None


def test_a_control_that_was_not_measured_holds_nothing():
    curves = falling()
    curves.values[RANDOM] = dict.fromkeys(("l1", "l1_outside", "score"), np.full((9, 4), np.nan))
    assert curves.checks()["random_hold"] == {"value": None, "wanted": "the same fails", "holds": None}
    assert curves.to_dict()["local"]["checks"]["random_hold"]["holds"] is None
    json.dumps(curves.to_dict(), allow_nan=False)
    assert curves.table().count("–      random_hold: not measured (wanted: the same fails)") == 2  # all, and local
    assert "Held at random: not measured." in controls_figure(curves).get_supxlabel().replace("\n", " ")
    assert "held at random: not measured." in categories_figure(curves).get_supxlabel()


@pytest.mark.parametrize("missing", ["l1_outside", "score"])
def test_nor_does_one_of_edits_without_an_outside_or_a_score(missing):
    curves, names = falling(), ["little_hold", "random_hold"]
    names = ["spearman_score", *names, "true_mask"] if missing == "score" else names
    for values in curves.values.values():
        values[missing][:] = math.nan
    curves.values[HEAT]["loose"][:] = math.nan  # as of an edit of the whole picture
    assert [name for name, check in curves.checks().items() if [check["holds"], check["value"]] == [None] * 2] == names
    assert "nan" not in curves.table() and "– of all other cells free" in curves.table()


def test_nothing_measured_fails_no_check():
    curves = falling()
    for values in curves.values.values():
        for each in values.values():
            each[:] = math.nan
    assert [check["holds"] for check in curves.checks().values()] == [None] * 6 and "FAILS" not in curves.table()


def test_a_random_hold_that_has_to_agree_is_said_to_hold_fewer_cells():
    said = {}
    for rule in ("released", "agree"):
        curves = replace(falling(), settings=falling().settings | {"hold": rule})
        said[rule] = controls_figure(curves).get_supxlabel().replace("\n", " ")
    assert "the cells that the heat map holds in each step, shuffled. True" in said["released"]
    assert "of the cells that λ offers in each step, shuffled, those where the network agrees" in said["agree"]


def test_a_random_hold_of_edits_that_are_not_local_says_nothing_of_the_local_ones():
    mixed = replace(falling(), categories=("style", "add", "color", "add"))
    for values in mixed.values[RANDOM].values():
        values[:, 1:] = math.nan
    assert mixed.checks()["random_hold"]["holds"] is True and mixed.local.checks()["random_hold"]["holds"] is None
    names = [text.get_text() for text in categories_figure(mixed).legends[0].texts]
    assert "held at random" in names, "whichever category comes first"


def test_nothing_done_and_nothing_leaked_is_no_success(recwarn):
    nothing = made_up(heat__l1=[0.0] * 9, heat__l1_outside=[0.0] * 9, heat__score=[0.0] * 9)
    checks = nothing.checks()
    assert not checks["little_hold"]["holds"] and not checks["l1_ratio"]["holds"] and not recwarn.list
    json.dumps(nothing.to_dict(), allow_nan=False)
    assert "FAILS  little_hold: no λ" in nothing.table()


def test_the_caption_names_the_model_that_was_measured(measured):
    curves, _ = measured
    for model, name in ((None, "The editor"), ("tiny", "The small model"), ("x/y", "The model x/y")):
        settings = curves.settings | ({"model": model} if model else {})
        assert caption(replace(curves, settings=settings), {}).startswith(f"{name} on 5 edits")


def test_command(tiny_folder, tmp_path, capsys):
    arguments = ["--model", str(tiny_folder), "--split", "validation", "--count", "2", "--random-count", "1"]
    arguments += ["--category", "remove", "--token-temperature", "0.25"]
    assert main([*arguments, "--steps", "1", "--batch", "1", "--output", str(tmp_path / "new")]) == 0
    printed = capsys.readouterr().out
    assert "held at random (1 edits)" in printed and "spearman_l1" in printed and "passes" in printed
    saved = json.loads((tmp_path / "new" / "lambda_figure.json").read_text(encoding="utf-8"))
    assert saved["lambda"] == list(PUBLISHED["lambda"]) and saved["settings"]["steps"] == 1
    assert saved["settings"]["model"] == str(tiny_folder) and saved["settings"]["token_temperature"] == 0.25
    assert saved["settings"]["category"] == "remove" and list(saved["categories"]) == ["remove"]
    assert main([*arguments, "--steps", "0"]) == 2 and "steps" in capsys.readouterr().err


def test_the_figure_of_an_adapter_has_its_name(tiny_folder, tmp_path, capsys):
    transformer = lab.load(tiny_folder).transformer
    add_adapter(transformer, rank=2)
    for layer in lora_layers(transformer):
        torch.nn.init.normal_(layer.lora_B["default"].weight)
    save_adapter(transformer, tmp_path / "sloppy")
    arguments = ["--model", str(tiny_folder), "--split", "validation", "--count", "1", "--random-count", "0"]
    arguments += ["--steps", "1", "--batch", "1", "--output", str(tmp_path / "new")]
    assert main(arguments) == 0 and main([*arguments, "--adapter", str(tmp_path / "sloppy")]) == 0
    plain, adapted = (
        json.loads((tmp_path / "new" / f"lambda_figure{ending}.json").read_text(encoding="utf-8"))
        for ending in ("", "_sloppy")
    )
    assert plain.keys() == adapted.keys() and plain["settings"]["weights"] != adapted["settings"]["weights"]
    assert plain["settings"]["adapter"] is None and adapted["settings"]["adapter"] == "sloppy"
    assert (tmp_path / "new" / "lambda_figure_sloppy_controls.png").exists()
    assert main([*arguments, "--adapter", "nowhere"]) == 2 and "nowhere" in capsys.readouterr().err
