"""The scores and their intervals against hand computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from editmgt_lab.errors import SettingError, ShapeError
from editmgt_lab.metrics import bootstrap_interval, edit_score, leakage, read_scene, roc_auc, success
from editmgt_lab.metrics.arithmetic import ratio_interval, summary


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
    heats = (torch.rand(3, 3), torch.rand(1, 4, 4), torch.rand(4), torch.rand(0, 4), torch.rand(16, 16))
    for heat, mask in (*((heat, left) for heat in heats), (torch.rand(4, 4), left.float()), (heats[0], left[:0])):
        with pytest.raises(ShapeError, match="heat"):
            roc_auc(heat, mask)


def test_a_scene_on_an_unknown_background_is_refused():
    with pytest.raises(SettingError, match="unknown background 'nowhere'"):
        read_scene(Image.new("RGB", (64, 64)), "nowhere")


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


def test_ratio_interval_resamples_both_alike():
    below = np.random.default_rng(0).uniform(0.5, 5, 40)
    assert ratio_interval((0.3 * below).tolist(), below.tolist()) == pytest.approx((0.3, 0.3))
    low, high = ratio_interval((0.3 * below[::-1]).tolist(), below.tolist())
    assert low < 0.25 and 0.35 < high
    assert all(map(math.isnan, ratio_interval([0.0, 0.0], [0.0, 0.0])))
    assert ratio_interval([1.0, 1.0], [0.0, 2.0]) == (0.5, 1.0), "resamples with nothing to divide by are left out"


def test_summary_is_ready_for_json():
    values = [0.0, 1.0, math.nan, 1.0]
    low, high = bootstrap_interval(values, 3)
    assert summary(values, 3) == {"mean": pytest.approx(2 / 3), "low": low, "high": high, "count": 3}
    assert summary([math.nan]) == {"mean": None, "low": None, "high": None, "count": 0}
