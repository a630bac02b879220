"""From captured maps to one heat map, against loops and numpy."""

import numpy as np
import pytest
import torch

from editmgt_lab.attention import capture_attention
from editmgt_lab.consolidation import consolidate, over_steps, smooth_heat
from editmgt_lab.errors import SettingError, ShapeError, TextError
from editmgt_lab.text import TextCondition
from editmgt_lab.transformer import MaskedGenerativeTransformer


@pytest.fixture
def maps():
    return [torch.rand(2, 3, 5, 12, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]


def expected_heat(maps, rows_of_picture):
    heats = []
    for picture, rows in enumerate(rows_of_picture):
        mean = np.mean(
            [[m[picture, head, row].numpy() for row in rows for head in range(3)] for m in maps], axis=(0, 1)
        )
        heats.append((mean - mean.min()) / (mean.max() - mean.min()))
    return torch.from_numpy(np.stack(heats)).reshape(2, 3, 4)


def test_mean_over_blocks_heads_and_words(maps):
    for words, rows in ((None, [range(5)] * 2), ([1, 3], [[1, 3]] * 2), (torch.tensor([4]), [[4]] * 2)):
        heat = consolidate(maps, words=words, smooth=False, grid=(3, 4))
        torch.testing.assert_close(heat, expected_heat(maps, rows), atol=1e-5, rtol=1e-5)
    assert heat.amin() == 0 and heat.amax() == 1


def test_words_of_each_picture(maps):
    words = torch.zeros(2, 5, dtype=torch.bool)
    words[0, 1] = words[1, 2] = words[1, 4] = True
    heat = consolidate(maps, words=words, smooth=False, grid=(3, 4))
    torch.testing.assert_close(heat, expected_heat(maps, [[1], [2, 4]]), atol=1e-5, rtol=1e-5)


def test_stacked_maps_equal_a_sequence(maps):
    stacked = torch.stack(maps, dim=1)
    assert torch.equal(consolidate(stacked, grid=(3, 4)), consolidate(maps, grid=(3, 4)))
    assert consolidate(torch.rand(1, 2, 3, 4, 9)).shape == (1, 3, 3)


def test_smoothing_is_the_adaptive_filter(maps):
    raw = consolidate(maps, smooth=False, grid=(3, 4))
    assert torch.equal(consolidate(maps, smooth=True, grid=(3, 4)), smooth_heat(raw).clamp(0, 1))
    assert not torch.allclose(smooth_heat(raw), raw, atol=0.01)


def test_half_precision_maps(maps):
    half = consolidate([m.bfloat16() for m in maps], grid=(3, 4))
    torch.testing.assert_close(half, consolidate(maps, grid=(3, 4)), atol=0.1, rtol=0)


def captured(padding=None):
    torch.manual_seed(0)
    transformer = MaskedGenerativeTransformer.from_config(
        {
            "num_layers": 1,
            "num_single_layers": 1,
            "attention_head_dim": 12,
            "num_attention_heads": 2,
            "joint_attention_dim": 8,
            "pooled_projection_dim": 8,
            "axes_dims_rope": [4, 4, 4],
            "vocab_size": 20,
            "codebook_size": 16,
        }
    )
    with torch.no_grad():
        for value in transformer.parameters():
            value.add_(0.2 * torch.randn_like(value))
    text = TextCondition(torch.randn(2, 3, 8), torch.randn(2, 8), padding)
    with capture_attention(transformer, blocks=[0, 1]) as maps, torch.no_grad():
        transformer(torch.randint(0, 16, (2, 8, 12)), text, torch.zeros(2))
    return maps


def test_captured_maps_give_a_heat_map_on_the_token_grid():
    maps = captured()
    heat = consolidate(maps)
    assert heat.shape == (2, 8, 12) and 0 <= heat.amin() and heat.amax() <= 1
    torch.testing.assert_close(consolidate(maps[1:]), heat[1:])
    plain = consolidate([maps.text_to_image(0), maps.text_to_image(1)], grid=maps.grid)
    pooled = torch.nn.functional.avg_pool2d(heat, 2)
    assert np.corrcoef(plain.flatten(), pooled.flatten())[0, 1] > 0.95


def test_bicubic_overshoot_is_clamped():
    maps = captured()
    peak = torch.zeros(2, 2, 3, 24)
    peak[..., 8] = 1
    maps.maps = dict.fromkeys(maps.maps, peak)
    raw = torch.nn.functional.interpolate(peak[:, 0, :1].reshape(2, 1, 4, 6), size=(8, 12), mode="bicubic")
    assert raw.min() < -0.01
    heat = consolidate(maps, smooth=False)
    assert torch.equal(heat, raw.squeeze(1).clamp(0, 1))


def test_padding_rows_are_left_out():
    padding = torch.tensor([[False, True, True], [False, False, True]])
    maps = captured(padding)
    assert torch.equal(consolidate(maps), consolidate(maps, words=~padding))
    assert not torch.allclose(consolidate(maps), consolidate(maps, words=[0, 1, 2]), atol=1e-3)
    with pytest.raises(TextError, match="picture \\[0\\]"):
        consolidate(captured(torch.tensor([[True] * 3, [False] * 3])))


def test_constant_maps_give_zeros():
    for value in (0.0, 1 / 12):
        assert torch.equal(consolidate([torch.full((2, 3, 5, 12), value)], grid=(3, 4)), torch.zeros(2, 3, 4))


def test_errors(maps):
    for words in ([], torch.zeros(2, 5, dtype=torch.bool), torch.tensor([[True] * 5, [False] * 5])):
        with pytest.raises(TextError, match="no text row"):
            consolidate(maps, words=words, grid=(3, 4))
    for words in ([5], [-1], [[0], [1]]):
        with pytest.raises(TextError, match="text rows"):
            consolidate(maps, words=words, grid=(3, 4))
    with pytest.raises(ShapeError, match="conditional half"):
        consolidate(maps, words=torch.ones(1, 5, dtype=torch.bool), grid=(3, 4))
    with pytest.raises(ShapeError, match="no square"):
        consolidate(maps)
    with pytest.raises(ShapeError, match="over 12 positions"):
        consolidate(maps, grid=(3, 5))
    with pytest.raises(ShapeError, match="alike"):
        consolidate([maps[0], maps[1][:1]], grid=(3, 4))


# --- the filter --------------------------------------------------------------------------------------------------


def reference_filter(raw):
    """The recipe written out for one picture, with numpy's mirrored padding."""
    h, w = raw.shape
    taps = np.exp(-0.5 * (np.arange(-6, 7) / 1.5) ** 2)
    taps /= taps.sum()
    wide, near = np.pad(raw, 6, mode="symmetric"), np.pad(raw, 2, mode="symmetric")
    blurred, variance = np.empty_like(raw), np.empty_like(raw)
    for r in range(h):
        for c in range(w):
            blurred[r, c] = taps @ wide[r : r + 13, c : c + 13] @ taps
            variance[r, c] = near[r : r + 5, c : c + 5].var()
    kept = 0.7 * (variance - variance.min()) / (variance.max() - variance.min())
    smooth = kept * raw + (1 - kept) * blurred
    peak = raw > np.percentile(raw, 90)
    smooth[peak] = 0.7 * raw[peak] + 0.3 * smooth[peak]
    smooth = (smooth - smooth.min()) / (smooth.max() - smooth.min())
    return smooth * (raw.max() - raw.min()) + raw.min()


@pytest.mark.parametrize("grid", [(8, 8), (3, 11), (2, 2), (9, 4)])
def test_filter_on_any_grid(grid):
    raw = np.random.default_rng(0).random(grid)
    smoothed = smooth_heat(torch.from_numpy(raw))
    np.testing.assert_allclose(smoothed.numpy(), reference_filter(raw), atol=1e-9)


def test_filter_on_batches_and_dtypes():
    heat = torch.rand(2, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    before = heat.clone()
    smoothed = smooth_heat(heat)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(smoothed[i, j], smooth_heat(heat[i, j]))
    for dtype in (torch.bfloat16, torch.float16):
        half = smooth_heat(heat.to(dtype))
        assert half.dtype == dtype
        torch.testing.assert_close(half.float(), smoothed, atol=0.05, rtol=0)
    assert torch.equal(heat, before)


def test_filter_keeps_a_flat_map():
    flat = torch.full((4, 4), 0.3)
    assert torch.allclose(smooth_heat(flat), flat)
    with pytest.raises(ShapeError):
        smooth_heat(torch.ones(4, 4, dtype=torch.long))


@pytest.mark.parametrize("words", ["ball", ["ball"], [1.7], torch.tensor([1.0, 3.0]), [[1], [2, 3]], [1j], [2**70]])
def test_words_that_are_no_row_numbers(maps, words):
    with pytest.raises(TextError, match=r"(?s)words is .*text\.rows\(.ball.\)"):
        consolidate(maps, words=words, grid=(3, 4))


def test_no_steps_have_no_mean():
    with pytest.raises(SettingError, match="no steps"):
        over_steps([])


def test_captured_maps_have_their_own_grid():
    maps = captured()
    with pytest.raises(SettingError, match=r"(?s)grid is \(6, 4\) beside captured maps.*\(4, 6\)"):
        consolidate(maps, grid=(6, 4))


def test_heat_that_is_no_tensor():
    with pytest.raises(ShapeError, match="heat is a ndarray"):
        smooth_heat(np.zeros((3, 3)))


def test_maps_that_are_no_numbers_stay_none(maps):
    maps[1][0, 2, 3, 4] = torch.nan
    for smooth in (False, True):
        heat = consolidate(maps, smooth=smooth, grid=(3, 4))
        assert heat[0].isnan().all() and heat[1].isfinite().all() and heat[1].max() > 0.5


@pytest.mark.parametrize("grid", [4, (4, 4, 1), (3.0, 4), "34", (-3, -4), ()])
def test_a_grid_that_is_none(maps, grid):
    with pytest.raises((SettingError, ShapeError), match="grid"):
        consolidate(maps, grid=grid)


@pytest.mark.parametrize("thing", [[[1]], np.ones((1, 2, 3, 4)), 3, "maps", None])
def test_maps_that_are_none(thing):
    with pytest.raises(ShapeError, match="maps are a (list|ndarray|int|str|NoneType)"):
        consolidate(thing)


def test_an_empty_heat_map():
    with pytest.raises(ShapeError, match=r"\[0, 4, 4\]"):
        smooth_heat(torch.rand(0, 4, 4))
