"""The scores against hand computations, and the score card and the bench end to end on a random editor."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import editmgt_lab as lab
from editmgt_lab.attention import capture_attention
from editmgt_lab.errors import SettingError, ShapeError
from editmgt_lab.evaluation import Scores, bootstrap_interval, edit_score, evaluate, leakage, roc_auc, success
from editmgt_lab.evaluation import bench as bench_module
from editmgt_lab.evaluation.__main__ import main
from editmgt_lab.evaluation.scorecard import COPY, NO_HOLD, TARGET, Truth, align, cell, keep_extremes
from editmgt_lab.images import to_images, to_tensor


def flat(value: float) -> torch.Tensor:
    return torch.full((3, 8, 8), value)


@pytest.fixture
def left() -> torch.Tensor:
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[:, :4] = True
    return mask


def test_edit_score_is_the_share_of_the_way_inside_the_mask(left):
    output = torch.where(left, flat(0.5), flat(0.9))  # 0.3 of 0.4 gone; outside does not count
    assert edit_score(output, flat(0.2), flat(0.6), left) == pytest.approx(7.5)
    output[0] = torch.where(left, 0.2, 0.9)  # one of three channels left behind: 0.4 + 0.1 + 0.1 over 3 of 0.4
    assert edit_score(output, flat(0.2), flat(0.6), left) == pytest.approx(5.0)


def test_target_scores_ten_source_zero_and_worse_than_the_source_still_zero(left):
    source, target = flat(0.2), torch.where(left, flat(0.6), flat(0.2))
    assert edit_score(target, source, target, left) == 10
    assert success(10, leakage(target, source, left)) == 1
    assert edit_score(source, source, target, left) == 0
    assert success(0, leakage(source, source, left)) == 0
    assert edit_score(flat(0.0), source, target, left) == 0


def test_leakage_is_the_difference_outside_the_mask(left):
    output = torch.where(left, flat(1.0), flat(0.2))
    assert leakage(output, flat(0.2), left) == 0
    output[1, 0, 7] = 0.8  # one value of 3 · 32 off by 0.6
    assert leakage(output, flat(0.2), left) == pytest.approx(0.6 / 96)


@pytest.mark.parametrize(
    "score, leaked, expected",
    [(5.0, 0.02, 1), (4.999, 0.0, 0), (10.0, 0.0201, 0), (6.0, math.nan, 1), (4.0, math.nan, 0)],
)
def test_success_is_done_and_nothing_else_broken(score, leaked, expected):
    assert success(score, leaked) == expected


def test_what_cannot_be_measured_is_nan(left):
    everywhere = torch.ones(8, 8, dtype=torch.bool)
    assert math.isnan(edit_score(flat(0.5), flat(0.2), flat(0.202), left))  # half a level of 8 bits
    assert edit_score(flat(0.21), flat(0.2), flat(0.21), left) == 10
    assert math.isnan(edit_score(flat(0.5), flat(0.2), flat(0.6), ~everywhere))
    assert math.isnan(leakage(flat(0.5), flat(0.2), everywhere))
    assert math.isnan(success(math.nan, 0.0))
    assert math.isnan(roc_auc(torch.rand(4, 4), everywhere)) and math.isnan(roc_auc(torch.rand(4, 4), ~everywhere))


def test_roc_auc_is_pair_counting_with_ties_as_halves():
    torch.manual_seed(0)
    heat = torch.randint(0, 4, (4, 6)).float()  # many ties
    mask = torch.rand(8, 12) < 0.3
    hot = heat.numpy().repeat(2, axis=0).repeat(2, axis=1)
    inside, outside = hot[mask.numpy()], hot[~mask.numpy()]
    pairs = inside[:, None] - outside[None]
    expected = ((pairs > 0).sum() + 0.5 * (pairs == 0).sum()) / pairs.size
    assert roc_auc(heat, mask) == pytest.approx(expected, abs=1e-12)
    assert roc_auc(-heat, mask) == pytest.approx(1 - expected, abs=1e-12)


def test_roc_auc_of_the_mask_is_one_and_of_a_flat_map_a_half(left):
    assert roc_auc(left[::2, ::2].float(), left) == 1
    assert roc_auc(torch.zeros(4, 4), left) == 0.5


def test_wrong_shapes_are_refused(left):
    with pytest.raises(ShapeError):
        edit_score(flat(0.1)[:, :4], flat(0.1), flat(0.2), left)
    with pytest.raises(ShapeError):
        leakage(flat(0.1), flat(0.1), left.float())
    with pytest.raises(ShapeError):
        roc_auc(torch.rand(3, 3), left)


def test_bootstrap_interval_covers_the_mean_nineteen_times_in_twenty():
    rng = np.random.default_rng(0)
    intervals = [bootstrap_interval(rng.normal(3, 2, size=60).tolist(), seed) for seed in range(200)]
    covered = sum(low <= 3 <= high for low, high in intervals)
    assert 178 <= covered <= 199
    assert np.mean([high - low for low, high in intervals]) == pytest.approx(2 * 1.96 * 2 / 60**0.5, rel=0.1)


def test_bootstrap_interval_repeats_by_seed_and_leaves_nan_out():
    values = [0.0, 1.0, 1.0, 0.0, 1.0]
    assert bootstrap_interval(values, 1) == bootstrap_interval([*values, math.nan], 1)
    assert bootstrap_interval([2.0, 2.0]) == (2.0, 2.0)
    assert all(map(math.isnan, bootstrap_interval([math.nan])))


@pytest.fixture(scope="module")
def card(editor):
    return evaluate(editor, count=7, steps=2, hold_thresholds=[0.0, 0.3, 1.0], batch=3, seed=5, progress=False)


def test_rows_of_the_score_card(card):
    assert list(card.rows) == [COPY, TARGET, NO_HOLD, "hold 0.3", "hold 1"]  # λ = 0 is "no hold", once
    assert all(len(row) == len(card.edits) == 7 for row in card.rows.values())
    scored = card.values(COPY, "score")
    assert len(scored) > 0 and set(scored) == {0} and set(card.values(COPY, "leakage")) == {0}
    assert set(card.values(COPY, "success")) == {0}
    assert set(card.values(TARGET, "score")) == {10}
    assert len(card.values(NO_HOLD, "localisation")) > 0 and not card.values(COPY, "localisation")


def test_an_edit_is_scored_against_the_truth_of_its_own_number(card, editor):
    number = next(i for i in (5, 4, 2, 1) if not math.isnan(card.rows[NO_HOLD][i].localisation))
    sample = lab.crisp.sample_edit(number, split="test", size=32)
    assert card.edits[number] == {"edit": number, "category": sample.category, "instruction": sample.instruction}
    source = to_tensor(editor.detokenize(editor.tokenize(sample.source)))[0]
    mask = torch.from_numpy(np.array(sample.mask)) > 127
    for row, threshold in ((NO_HOLD, 0), ("hold 0.3", 0.3)):
        result = editor.edit(sample.source, sample.instruction, steps=2, hold_threshold=threshold, seed=5 + number)
        leaked = leakage(to_tensor(result.image)[0], source, mask)
        assert card.rows[row][number].leakage == pytest.approx(leaked, rel=1e-3, abs=1e-5)
        assert card.rows[row][number].localisation == pytest.approx(roc_auc(result.heat[0], mask), abs=1e-3)


def test_score_card_repeats_by_seed(card, editor):
    again = evaluate(editor, count=7, steps=2, hold_thresholds=[0.3, 1.0], batch=3, seed=5, progress=False)
    other = evaluate(editor, count=7, steps=2, hold_thresholds=[0.3, 1.0], batch=3, seed=6, progress=False)
    result, repeated, different = card.to_dict(), again.to_dict(), other.to_dict()
    assert result["summary"] == repeated["summary"] and result["edits"] == repeated["edits"]
    assert result["edits"] != different["edits"]


def test_saved_files(card, tmp_path):
    paths = card.save(tmp_path / "new")
    saved = json.loads(paths[0].read_text(encoding="utf-8"))
    assert saved["settings"]["split"] == "test" and saved["settings"]["steps"] == 2
    mean = saved["summary"]["overall"][NO_HOLD]["leakage"]
    leaked = [edit["rows"][NO_HOLD]["leakage"] for edit in saved["edits"]]
    known = [value for value in leaked if value is not None]
    assert mean["count"] == len(known) and mean["mean"] == pytest.approx(sum(known) / len(known))
    assert mean["low"] <= mean["mean"] <= mean["high"]
    assert set(saved["seconds_per_edit"]) == {NO_HOLD, "hold 0.3", "hold 1"}
    assert COPY in paths[1].read_text(encoding="utf-8")
    with Image.open(paths[2]) as gallery:
        assert gallery.size[0] > 500 and len(np.unique(np.asarray(gallery.convert("L")))) > 20


def test_examples_are_the_first_of_the_extremes_of_each_category():
    pictures = torch.zeros(5, 3, 8, 8)
    kinds = ["add", "add", "add", "add", "color"]
    samples = [SimpleNamespace(category=kind, instruction=str(i)) for i, kind in enumerate(kinds)]
    truth = Truth(samples, pictures, pictures, pictures[:, 0] > 0.5)
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
    lines = align([["a", "b", "c"], ["long name", "x", "1.00"]]).splitlines()
    assert lines[0] == "a          b     c" and lines[2] == "long name  x  1.00"
    assert cell({"mean": 0.5, "low": 0.25, "high": 0.75, "count": 4}, 100, 0) == "50 (25–75)"
    assert cell({"mean": None, "low": None, "high": None, "count": 0}, 100, 0) == "–"


def test_evaluate_refuses_to_score_nothing(editor):
    with pytest.raises(SettingError, match="count is 0"):
        evaluate(editor, count=0)


def test_command(tiny_folder, tmp_path, capsys):
    options = ["--model", str(tiny_folder), "--count", "2", "--steps", "1", "--output", str(tmp_path)]
    assert main(options) == 0
    assert "copy the source" in capsys.readouterr().out
    assert json.loads((tmp_path / "scorecard.json").read_text(encoding="utf-8"))["settings"]["count"] == 2
    assert main([*options, "--hold-threshold", "2"]) == 2
    assert "hold_threshold" in capsys.readouterr().err


def test_bench_command(tiny_folder, tmp_path, capsys):
    output = tmp_path / "new" / "bench.json"
    options = ["--model", str(tiny_folder), "--steps", "2", "--repetitions", "1", "--output", str(output)]
    assert bench_module.main(options) == 0
    result = json.loads(output.read_text(encoding="utf-8"))
    assert all(seconds > 0 for seconds in result["seconds"].values()) and len(result["seconds"]) == 8
    step, captured = (result["seconds"][name] for name in (bench_module.PLAIN, bench_module.CAPTURED))
    assert result["capture_cost"] == pytest.approx(captured / step - 1)
    assert bench_module.processor() in capsys.readouterr().out
    assert bench_module.main(["--model", str(tmp_path / "nothing")]) == 2


def test_bench_divides_loops_by_their_steps_and_nothing_else(tiny_folder, monkeypatch):
    monkeypatch.setattr(bench_module, "in_turn", lambda measures, *_: {name: [6.0, 6.0] for name in measures})
    seconds = bench_module.bench(str(tiny_folder), steps=3, progress=False)["seconds"]
    loops = {bench_module.PLAIN, bench_module.CAPTURED, bench_module.HEAT}
    assert seconds == {name: 2.0 if name in loops else 6.0 for name in seconds} and loops < set(seconds)


def test_bench_states_the_memory_that_capture_takes(editor, tiny_folder):
    result = bench_module.bench(str(tiny_folder), steps=1, repetitions=1, progress=False)
    tokens = torch.zeros(2, 8, 8, dtype=torch.long)
    with torch.no_grad(), capture_attention(editor.transformer, range(3)) as captured:
        editor.transformer(tokens, editor.encode_text(["", "remove the cat"]), torch.zeros(2), source=tokens)
    assert result["capture_bytes"] == captured.memory


def test_bench_loop_is_the_same_with_and_without_capture(editor, picture):
    source, text = editor.tokenize(picture()), editor.encode_text(["", "remove the cat"])
    plain = bench_module.decode(editor, source, text, 3)
    assert torch.equal(plain, bench_module.decode(editor, source, text, 3, range(3), heat=True))
    assert plain.max() < editor.vq.config.num_vq_embeddings


def test_measures_take_turns():
    calls = []
    times = bench_module.in_turn({name: lambda name=name: calls.append(name) for name in "abc"}, 2)
    assert "".join(calls) == "abc" + "abc" + "bca"
    assert {name: len(values) for name, values in times.items()} == {"a": 2, "b": 2, "c": 2}


def test_cost_compares_within_a_round():
    assert bench_module.cost([1.1, 22.0, 3.3], [1.0, 20.0, 3.0]) == pytest.approx(0.1)
