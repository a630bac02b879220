"""The score card end to end on a random editor, and its arithmetic on made-up scores."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import editmgt_lab as lab
from editmgt_lab.basics.fingerprints import weights_fingerprint
from editmgt_lab.errors import CheckpointError, SettingError
from editmgt_lab.images import to_images, to_tensor
from editmgt_lab.metrics import ScoreCard, Scores, leakage, roc_auc
from editmgt_lab.metrics.backbones import cosine, direction, load_clip
from editmgt_lab.metrics.report import align, cell
from editmgt_lab.metrics.scorecard import COPY, HELD_OUT, LOCAL, NO_HOLD, OTHER_WORDS, OVERALL, TARGET
from editmgt_lab.metrics.truth import LOCAL_CATEGORIES, Truth
from editmgt_lab.studies import evaluate as study
from editmgt_lab.studies.evaluate import evaluate, keep_extremes, main, rephrased
from editmgt_lab.world.edits import paraphrases

COUNT = 7


@pytest.fixture(scope="module")
def card(editor):
    own = editor.with_defaults(hold="commit")
    options = {"hold_thresholds": [0.0, 0.3], "other_words": True, "batch": 3, "seed": 5, "progress": False}
    return evaluate(own, count=COUNT, steps=2, **options)


@pytest.fixture(scope="module")
def number(card):
    """An edit of a local category whose place can be measured."""
    return next(i for i in range(COUNT) if not math.isnan(card.rows[NO_HOLD][i].localisation))


def test_rows_of_the_score_card(card):
    holds = ["hold 0.3, commit"]  # by the editor's own rule; λ = 0 is "no hold", once
    assert list(card.rows) == [COPY, TARGET, NO_HOLD, *holds, OTHER_WORDS] and card.settings["shown"] == holds[-1]
    assert all(len(row) == len(card.edits) == COUNT for row in card.rows.values())
    scored = card.values(COPY, "score")
    assert len(scored) > 0 and set(scored) == {0} and set(card.values(COPY, "leakage")) == {0}
    assert set(card.values(COPY, "success")) == {0}
    assert set(card.values(TARGET, "score")) == {10}
    assert not card.values(COPY, "localisation")


def test_clip_is_asked_of_every_row_and_says_which_it_is(card, editor):
    clip = load_clip("tiny")
    assert clip.fingerprint in card.settings["clip"] and clip.fingerprint in card.table() and "CLIP-T" in card.table()
    assert set(card.values(COPY, "clip_direction")) == {0}, "a copy goes nowhere"
    assert card.values(TARGET, "clip_image") == pytest.approx([1] * COUNT)
    assert all(len(card.values(row, name)) == COUNT for row in card.rows for name in ("clip_image", "clip_text"))
    sample = lab.world.sample_edit(2, split="test", size=32)
    source, target = clip.embed(editor.detokenize(editor.tokenize([sample.source, sample.target])))
    before, after = clip.embed_texts([sample.source_caption, sample.target_caption])
    found = card.rows[TARGET][2]
    assert found.clip_text == pytest.approx(cosine(target, after), abs=1e-4)
    assert found.clip_direction == pytest.approx(direction(source, target, before, after), abs=1e-4)
    assert card.rows[COPY][2].clip_text == pytest.approx(cosine(source, after), abs=1e-4)
    assert card.to_dict()["edits"][2]["rows"][COPY]["clip_direction"] == 0


def test_without_clip_there_is_none(editor):
    card = evaluate(editor, count=1, steps=1, hold_thresholds=[0], clip=None, progress=False)
    assert "clip" not in card.settings and not card.values(COPY, "clip_image")
    assert "clip_image" not in card.to_dict()["edits"][0]["rows"][COPY]
    with pytest.raises(CheckpointError, match="CLIP could not be loaded"):
        evaluate(editor, count=1, clip="no/such folder", progress=False)


def test_an_edit_is_scored_against_the_truth_of_its_own_number(card, editor, number):
    sample = lab.world.sample_edit(number, split="test", size=32)
    described = {name: card.edits[number][name] for name in ("edit", "category", "instruction")}
    assert described == {"edit": number, "category": sample.category, "instruction": sample.instruction}
    source = to_tensor(editor.detokenize(editor.tokenize(sample.source)))[0]
    mask = torch.from_numpy(np.array(sample.mask)) > 127
    others = paraphrases(sample, unseen=True)
    for row, threshold, rule, instruction in (
        (NO_HOLD, 0, "commit", sample.instruction),
        ("hold 0.3, commit", 0.3, "commit", sample.instruction),
        (OTHER_WORDS, 0.3, "commit", others[number % len(others)]),
    ):
        options = {"steps": 2, "hold_threshold": threshold, "seed": 5 + number}
        result = editor.with_defaults(hold=rule).edit(sample.source, instruction, **options)
        leaked = leakage(to_tensor(result.image)[0], source, mask)
        assert card.rows[row][number].leakage == pytest.approx(leaked, rel=1e-3, abs=1e-5)
        scores = card.rows[row][number]
        assert scores.localisation == pytest.approx(roc_auc(result.mean_heat[0], mask), abs=1e-3)
        assert scores.last_localisation == pytest.approx(roc_auc(result.last_heat[0], mask), abs=1e-3)
    decoded = [repr(card.rows[row]) for row in list(card.rows)[3:]]
    assert len(set(decoded)) == 2, "other words make a difference"


def test_blocks_are_localised_as_if_each_were_captured_alone(card, editor, number):
    sample = lab.world.sample_edit(number, split="test", size=32)
    mask = torch.from_numpy(np.array(sample.mask)) > 127
    alone = []
    for block in range(3):
        options = {"steps": 2, "hold_threshold": 0, "seed": 5 + number, "blocks": block}
        alone.append(roc_auc(editor.edit(sample.source, sample.instruction, **options).mean_heat[0], mask))
    scores = card.rows[NO_HOLD][number]
    assert scores.blocks == pytest.approx(alone, abs=1e-3) and len(set(alone)) == 3
    assert scores.mean_block == pytest.approx(sum(scores.blocks) / 3)
    held = [scores for row, of_row in card.rows.items() if row != NO_HOLD for scores in of_row]
    assert not any(scores.blocks for scores in held), "all blocks are captured in one row only"


def test_only_local_edits_have_a_place_to_find(card):
    for edit, scores in zip(card.edits, card.rows[NO_HOLD], strict=True):
        if edit["category"] not in LOCAL_CATEGORIES:
            assert all(map(math.isnan, (scores.localisation, *scores.blocks)))
    assert {"background", "style"} & {edit["category"] for edit in card.edits}, "the test would say nothing"


def made_up(rows, categories, held_out=()):
    """A card of made-up rows: name → (success, leakage, blocks' localisation) of each edit."""
    edits = [
        {"edit": i, "category": category, "instruction": "", "held_out_pair": i in held_out, "psnr": 30.0}
        for i, category in enumerate(categories)
    ]
    settings = {"split": "test", "count": len(edits), "seed": 0, "shown": list(rows)[-1]}
    scores = {
        name: [Scores(5.0, leaked, done, math.nan, tuple(blocks)) for done, leaked, blocks in row]
        for name, row in ({COPY: [(0.0, 0.0, ())] * len(edits)} | rows).items()
    }
    return ScoreCard(settings, edits, scores)


def test_groups_of_edits():
    categories = ["style", "add", "motion", "add"]
    card = made_up({NO_HOLD: [(1.0, 0.0, ())] * 4}, categories, held_out={3})
    groups = {OVERALL: [0, 1, 2, 3], LOCAL: [1, 2, 3], HELD_OUT: [3], "add": [1, 3], "style": [0], "motion": [2]}
    assert card.groups == groups
    assert list(made_up({NO_HOLD: [(1.0, 0.0, ())]}, ["style"]).groups) == [OVERALL, "style"]


def test_the_best_block_is_one_for_all_edits():
    nan = math.nan
    blocks = [(0.9, 0.6, 0.5), (0.1, 0.7, 0.5), (nan, nan, nan)]
    card = made_up({NO_HOLD: [(1.0, 0.0, each) for each in blocks]}, ["add", "color", "style"])
    assert card.best_block == 1  # 0.65 in the mean; block 0 is best on one edit only
    assert card.values(NO_HOLD, "best_block") == [0.6, 0.7]
    assert card.values(NO_HOLD, "mean_block", "add") == [pytest.approx(2 / 3)]
    nowhere = made_up({NO_HOLD: [(1.0, 0.0, (nan, nan))]}, ["style"])
    assert nowhere.best_block is None and nowhere.values(NO_HOLD, "best_block") == []


def test_what_the_hold_does_against_no_hold():
    rows = {
        NO_HOLD: [(1.0, 0.04, ()), (1.0, 0.02, ()), (0.0, 0.04, ()), (1.0, 0.5, ())],
        "hold 0.1, commit": [(1.0, 0.01, ()), (0.0, 0.0, ()), (1.0, 0.01, ()), (0.0, 0.5, ())],
    }
    card = made_up(rows, ["add", "add", "color", "background"])
    compared = card.holds()["hold 0.1, commit"]
    assert compared["leakage_ratio"]["mean"] == pytest.approx(0.02 / 0.1)  # the background's leakage does not count
    assert {group: lost["mean"] for group, lost in compared["success_lost"].items()} == {
        OVERALL: 25, LOCAL: 0, "add": 50, "color": -100, "background": 100,
    }  # fmt: skip
    line = next(note for note in card.notes() if note.startswith("hold 0.1, commit"))
    assert "leakage × 0.20 (" in line and "25.0 (" in line and "0.0 (" in line
    assert made_up({NO_HOLD: rows[NO_HOLD]}, ["add"] * 4).holds() == {}


@pytest.mark.parametrize(
    ("category", "edits", "said"),
    [("style", 0, "leakage not measured in local"), ("add", 1, "nothing leaked in local")],
)
def test_no_local_edit_is_not_one_that_leaks_nothing(category, edits, said):
    card = made_up({NO_HOLD: [(1.0, 0.0, ())], "hold 0.1, commit": [(1.0, 0.0, ())]}, [category])
    compared = card.holds()["hold 0.1, commit"]
    assert compared["leakage_ratio"] is None and compared["leakage_edits"] == edits
    assert any(said in note for note in card.notes())


def test_agreement_counts_edits_that_succeed_or_fail_in_both_phrasings():
    rows = {
        NO_HOLD: [(1.0, 0.0, ()), (0.0, 0.0, ()), (1.0, 0.0, ()), (math.nan, 0.0, ())],
        OTHER_WORDS: [(1.0, 0.0, ()), (0.0, 0.0, ()), (0.0, 0.0, ()), (math.nan, 0.0, ())],
    }
    card = made_up(rows, ["add", "add", "color", "color"])
    card.settings["shown"] = NO_HOLD
    means = {group: (share["mean"], share["count"]) for group, share in card.agreement().items()}
    assert means == {OVERALL: (2 / 3, 3), LOCAL: (2 / 3, 3), "add": (1, 2), "color": (0, 1)}
    assert made_up({NO_HOLD: rows[NO_HOLD]}, ["add"] * 4).agreement() == {}


def test_paraphrases_ask_for_the_same_edit():
    for seed in range(40):
        sample = lab.world.sample_edit(seed, split="test")
        others = paraphrases(sample, unseen=True)
        every = {sample.instruction, *others}
        assert sample.instruction not in others and len(every) == len(others) + 1 >= 5
        again = paraphrases(replace(sample, instruction=others[seed % len(others)]), unseen=True)
        assert sample.instruction in again and {others[seed % len(others)], *again} == every
        shown = {word for text in paraphrases(sample) for word in text.split()}
        assert len(paraphrases(sample)) < len(others) and "None" not in shown


def test_every_edit_is_rephrased_by_its_own_number(editor):
    samples = [lab.world.sample_edit(i, size=32) for i in (3, 4)]
    asked = rephrased(Truth.of(editor, [3, 4], samples), "train")
    for text, sample in zip(asked, samples, strict=True):
        assert text in paraphrases(sample)


def test_a_model_without_hold_has_one_row_and_says_so(editor):
    card = evaluate(editor, count=1, steps=1, hold_thresholds=[0], progress=False)
    assert list(card.rows) == [COPY, TARGET, NO_HOLD] and card.settings["shown"] == NO_HOLD
    assert any("λ is 0" in note for note in card.notes())


def test_what_is_not_said_is_the_models_own(editor):
    own = {"strength": 1.5, "steps": 3, "guidance_scale": 2.0, "token_temperature": 0.7}
    card = evaluate(editor.with_defaults(**own), count=1, clip=None, progress=False)
    assert {name: card.settings[name] for name in own} == own
    said = evaluate(editor, count=1, clip=None, progress=False, **own)
    assert repr(card.rows) == repr(said.rows) != repr(evaluate(editor, count=1, clip=None, progress=False).rows)


def test_time_is_that_of_edits_not_of_heat_maps_of_single_blocks(editor, monkeypatch):
    now, heat_of = [0.0], study.heat_of

    def slow(*args):
        now[0] += 100
        return heat_of(*args)

    monkeypatch.setattr(study, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(study, "heat_of", slow)
    card = evaluate(editor, count=1, steps=1, clip=None, progress=False)
    assert now[0] == 300 and set(card.seconds.values()) == {0.0}, "of three blocks"
    assert "no hold, all blocks captured: 0.000 s an edit" in card.notes(), "which the other rows have not"


def test_score_card_repeats_by_seed(card, editor):
    own = editor.with_defaults(hold="commit")
    options = {"hold_thresholds": [0.3], "other_words": True, "progress": False}
    again = evaluate(own, count=COUNT, steps=2, batch=3, seed=5, **options)
    result, repeated = card.to_dict(), again.to_dict()
    assert result["summary"] == repeated["summary"] and result["edits"] == repeated["edits"]
    different = evaluate(own, count=3, steps=2, batch=3, seed=6, **options).to_dict()
    assert result["edits"][:3] != different["edits"]


def test_saved_files(card, tmp_path):
    paths = card.save(tmp_path / "new")
    saved = json.loads(paths[0].read_text(encoding="utf-8"))
    assert saved["settings"]["split"] == "test" and saved["settings"]["steps"] == 2
    mean = saved["summary"]["overall"][NO_HOLD]["leakage"]
    leaked = [edit["rows"][NO_HOLD]["leakage"] for edit in saved["edits"]]
    known = [value for value in leaked if value is not None]
    assert mean["count"] == len(known) and mean["mean"] == pytest.approx(sum(known) / len(known))
    assert mean["low"] <= mean["mean"] <= mean["high"]
    assert set(saved["seconds_per_edit"]) == {f"{NO_HOLD}, all blocks captured", "hold 0.3, commit", OTHER_WORDS}
    assert saved["best_block"] in range(3) and set(saved["holds"]) == {"hold 0.3, commit"}
    assert len(saved["edits"][0]["rows"][NO_HOLD]["blocks"]) == 3 and saved["agreement"]["overall"]["count"] > 0
    text = paths[1].read_text(encoding="utf-8")
    assert COPY in text and f"is {saved['best_block']}" in text
    with Image.open(paths[2]) as gallery:
        assert gallery.size[0] > 500 and len(np.unique(np.asarray(gallery.convert("L")))) > 20


def test_examples_are_the_first_of_the_extremes_of_each_category():
    pictures = torch.zeros(5, 3, 8, 8)
    kinds = ["add", "add", "add", "add", "color"]
    samples = [SimpleNamespace(category=kind, instruction=str(i)) for i, kind in enumerate(kinds)]
    truth = Truth(range(5), samples, pictures, pictures, pictures[:, 0] > 0.5, [30.0] * 5)
    scores = [Scores(score, 0.0, 0.0) for score in (math.nan, 4.0, 9.0, 4.0, 6.0)]
    examples = {}
    keep_extremes(examples, truth, SimpleNamespace(images=to_images(pictures)), scores)
    chosen = {place: example.instruction for place, example in examples.items()}
    best_and_worst = {("add", "worst"): "1", ("add", "best"): "2", ("color", "worst"): "4", ("color", "best"): "4"}
    assert chosen == best_and_worst


def test_equal_scores_rank_by_leakage():
    ranks = [Scores(score, leaked, success=0.0).rank for score, leaked in ((3, 0), (4, 0.3), (4, 0.1), (4, math.nan))]
    assert ranks == sorted(ranks) and len(set(ranks)) == 4


def test_table_is_aligned():
    lines = align([["a", "b", "c"], ["long name", "x", "1.00"]], left=2).splitlines()
    assert lines[0] == "a          b     c" and lines[2] == "long name  x  1.00"
    assert cell({"mean": 0.5, "low": 0.25, "high": 0.75, "count": 4}, 100, 0) == "50 (25–75)"
    assert cell({"mean": None, "low": None, "high": None, "count": 0}, 100, 0) == "–"


def test_evaluate_refuses_to_score_nothing(editor):
    with pytest.raises(SettingError, match="count is 0"):
        evaluate(editor, count=0)


def test_command(tiny_folder, tmp_path, capsys):
    options = ["--model", str(tiny_folder), "--count", "2", "--steps", "1", "--output", str(tmp_path)]
    assert main([*options, "--hold-threshold", "0.5", "--other-words"]) == 0
    printed = capsys.readouterr().out
    assert "copy the source" in printed and "hold 0.5, commit" in printed and OTHER_WORDS in printed
    settings = json.loads((tmp_path / "scorecard.json").read_text(encoding="utf-8"))["settings"]
    assert settings["count"] == 2 and settings["model"] == str(tiny_folder)
    assert settings["weights"] == weights_fingerprint(lab.load(tiny_folder))
    text = (tmp_path / "scorecard.txt").read_text(encoding="utf-8")
    assert str(tiny_folder) in text and settings["weights"] in text
    few = ["--clip", "none", "--hold-threshold", "0", "--category", "add", "--token-temperature", "0.25"]
    assert "CLIP-I" in printed and main([*options, *few]) == 0
    assert "tiny CLIP" in printed and "tiny CLIP" not in capsys.readouterr().out
    saved = json.loads((tmp_path / "scorecard.json").read_text(encoding="utf-8"))
    assert saved["settings"]["category"] == "add" and {edit["category"] for edit in saved["edits"]} == {"add"}
    assert saved["settings"]["token_temperature"] == 0.25
    assert main([*options, "--hold-threshold", "2"]) == 2
    assert "hold_threshold" in capsys.readouterr().err
