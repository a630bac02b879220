"""Joint attention, injection and capture, on a small random network with non-square grids."""

import gc
import math
import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from editmgt_lab.attention import (
    attached,
    attention_probabilities,
    capture_attention,
    capture_memory,
    capture_steps,
    injection_bias,
    joint_attention,
    position_ids,
)
from editmgt_lab.blocks import TransformerConfig
from editmgt_lab.caching import FeatureCache
from editmgt_lab.consolidation import consolidate
from editmgt_lab.errors import LabError, SettingError, ShapeError, TextError
from editmgt_lab.text import TextCondition
from editmgt_lab.transformer import MaskedGenerativeTransformer

SIZES = {
    "num_layers": 2,
    "num_single_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 20,
    "pooled_projection_dim": 12,
    "axes_dims_rope": [4, 6, 6],
    "vocab_size": 40,
    "codebook_size": 32,
}
BLOCKS, HEADS, ROWS = 4, 2, 5


def network(**changes):
    torch.manual_seed(0)
    module = MaskedGenerativeTransformer.from_config(SIZES | changes)
    with torch.no_grad():
        for value in module.parameters():  # adaLN-zero would hide every block
            value.add_(0.1 * torch.randn_like(value))
    return module.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def transformer():
    return network()


def inputs(batch=3, h=4, w=6, padding=None):
    generator = torch.Generator().manual_seed(1)
    tokens, source = torch.randint(0, 32, (2, batch, h, w), generator=generator)
    text = TextCondition(
        torch.randn(batch, ROWS, 20, generator=generator), torch.randn(batch, 12, generator=generator), padding
    )
    return tokens, text, torch.tensor([7, 3, 0, 5])[:batch], source


# --- the network -------------------------------------------------------------------------------------------------


def test_non_square_logits_have_the_grid_of_the_tokens(transformer):
    tokens, text, timestep, source = inputs(h=2, w=8)
    assert transformer(tokens, text, timestep, source=source).shape == (3, 32, 2, 8)


def test_some_tokens_alone_get_the_logits_that_they_get_among_all(transformer):
    tokens, text, timestep, source = inputs()
    only = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(2)) < 0.3
    everything = transformer(tokens, text, timestep, source=source)  # [B, codebook, h, w]
    some = transformer(tokens, text, timestep, source=source, only=only)  # [n, codebook]
    torch.testing.assert_close(some, everything.permute(0, 2, 3, 1)[only])


def test_rows_and_columns_are_not_exchanged(transformer):
    tokens, text, timestep, source = inputs(h=4, w=6)
    straight = transformer(tokens, text, timestep, source=source)
    turned = transformer(tokens.mT, text, timestep, source=source.mT).mT
    assert straight.shape == turned.shape and not torch.allclose(straight, turned, atol=1e-3)
    assert position_ids(2, (2, 3), 2)[2:8].tolist() == [[0, r, c] for r in range(2) for c in range(3)]
    assert torch.equal(position_ids(2, (2, 3), 2)[8:], position_ids(2, (2, 3), 1)[2:])


@pytest.mark.parametrize("strength", [1.0, 1.4])
def test_a_batch_of_three_equals_three_singles(transformer, strength):
    tokens, text, timestep, source = inputs()
    together = transformer(tokens, text, timestep, source=source, strength=strength)
    for i in range(3):
        one = slice(i, i + 1)
        alone = transformer(
            tokens[one],
            TextCondition(text.tokens[one], text.pooled[one]),
            timestep[one],
            source=source[one],
            strength=strength,
        )
        torch.testing.assert_close(together[one], alone, atol=1e-5, rtol=1e-5)


def test_without_resampling_odd_grids_work():
    transformer = network(downsample=False, upsample=False)
    tokens, text, timestep, source = inputs(h=3, w=5)
    assert transformer(tokens, text, timestep, source=source).shape == (3, 32, 3, 5)


def test_bfloat16_is_close_to_float32(transformer):
    tokens, text, _, source = inputs()
    timestep = torch.zeros(3)
    exact = transformer(tokens, text, timestep, source=source, strength=1.3)
    half = network().to(torch.bfloat16)(tokens, text, timestep, source=source, strength=1.3)
    assert half.dtype == torch.bfloat16
    assert (half.float() - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_trains_in_mixed_precision_without_warnings():
    transformer = network().requires_grad_(True)
    tokens, text, timestep, source = inputs()
    with warnings.catch_warnings(), torch.autocast("cpu", dtype=torch.bfloat16):
        warnings.simplefilter("error")
        transformer(tokens, text, timestep, source=source).float().square().mean().backward()
    unused = [name for name, value in transformer.named_parameters() if value.grad is None]
    assert not unused


def test_untrained_blocks_change_nothing():
    torch.manual_seed(0)
    transformer = MaskedGenerativeTransformer.from_config(SIZES)
    tokens, text, timestep, source = inputs()
    logits = transformer(tokens, text, timestep)
    assert torch.equal(logits, transformer(tokens, text, timestep, source=source))
    assert logits.std() > 0


def test_default_micro_conditions_are_sixteen_pixels_a_token(transformer):
    tokens, text, timestep, _ = inputs(h=4, w=6)
    default = transformer(tokens, text, timestep)
    spelled = torch.tensor([[96.0, 64.0, 0.0, 0.0, 6.0]]).expand(3, 5)
    assert torch.equal(default, transformer(tokens, text, timestep, micro_conditions=spelled))
    exchanged = spelled[:, [1, 0, 2, 3, 4]]
    assert not torch.allclose(default, transformer(tokens, text, timestep, micro_conditions=exchanged), atol=1e-3)


@pytest.mark.parametrize("strength", [None, 0, 1, 1.3])
def test_what_is_prepared_once_serves_every_step(transformer, strength):
    tokens, text, timestep, source = inputs()
    settings = {} if strength is None else {"source": source, "strength": strength}
    prepared = transformer.prepare(tokens, text, **settings)
    for step in (0, 1):
        step_tokens, timesteps = tokens.roll(step, dims=-1), timestep + step
        expected = transformer(step_tokens, text, timesteps, **settings)
        assert torch.equal(transformer(step_tokens, prepared, timesteps), expected)
        only = step_tokens < 10
        torch.testing.assert_close(
            transformer(step_tokens, prepared, timesteps, only=only), expected.permute(0, 2, 3, 1)[only]
        )
    with pytest.raises(ShapeError, match="tokens is"):
        transformer(tokens[:, :2], prepared, timestep)
    with pytest.raises(ShapeError, match="timestep is"):
        transformer(tokens, prepared, timestep[:1])


def test_inputs_are_left_as_they_are(transformer):
    tokens, text, timestep, source = inputs()
    before = [x.clone() for x in (tokens, text.tokens, text.pooled, timestep, source)]
    transformer(tokens, text, timestep, source=source, strength=1.2)
    assert all(map(torch.equal, before, (tokens, text.tokens, text.pooled, timestep, source)))


# --- injection ---------------------------------------------------------------------------------------------------


def test_bias_matrices():
    paper = injection_bias(1, 2, 0.5, bias_text=False)
    released = injection_bias(1, 2, 0.5, bias_text=True)
    e = math.log(0.5)
    assert paper.tolist() == [
        pytest.approx(row) for row in [[0] * 5, [0, 0, 0, e, e], [0, 0, 0, e, e], [0, e, e, 0, 0], [0, e, e, 0, 0]]
    ]
    assert released.tolist() == [pytest.approx(row) for row in [[0, 0, 0, e, e]] * 3 + [[e, e, e, 0, 0]] * 2]


def test_fast_attention_equals_the_readable_one():
    q, k, v = torch.randn(3, 2, HEADS, 9, 16, generator=torch.Generator().manual_seed(0))
    for bias in (None, injection_bias(3, 3, 1.7, bias_text=False)):
        readable = attention_probabilities(q, k, bias) @ v
        torch.testing.assert_close(joint_attention(q, k, v, bias), readable, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("wrong", [{"bias_text": "no"}, {"only": torch.ones(1, 2, 2, dtype=torch.bool)}])
def test_settings_of_a_pass_that_are_none(transformer, wrong):
    tokens, text, timestep, source = inputs(1)
    with pytest.raises(LabError, match=next(iter(wrong))):
        transformer(tokens, text, timestep, source=source, **wrong)


@pytest.mark.parametrize("bias_text", [False, True])
def test_strength_zero_is_text_to_image_exactly(transformer, bias_text):
    tokens, text, timestep, source = inputs()
    plain = transformer(tokens, text, timestep)
    assert torch.equal(transformer(tokens, text, timestep, source=source, strength=0, bias_text=bias_text), plain)
    edit = transformer(tokens, text, timestep, source=source, strength=1, bias_text=bias_text)
    assert (edit - plain).abs().max() > 0.01


def test_only_the_released_bias_tends_to_text_to_image(transformer):
    tokens, text, timestep, source = inputs()
    plain = transformer(tokens, text, timestep)

    def distance(**settings):
        return (transformer(tokens, text, timestep, source=source, **settings) - plain).abs().max().item()

    released = [distance(strength=gamma, bias_text=True) for gamma in (1.0, 0.1, 0.01, 1e-9)]
    assert released == sorted(released, reverse=True) and released[-1] < 1e-5
    assert distance(strength=1e-9, bias_text=False) > 100 * released[-1]  # text still reads the source


def test_strength_leaves_nothing_behind(transformer):
    tokens, text, timestep, source = inputs()
    fresh = transformer(tokens, text, timestep, source=source)
    strong = transformer(tokens, text, timestep, source=source, strength=3.0)
    assert not torch.allclose(strong, fresh, atol=1e-3)
    assert torch.equal(transformer(tokens, text, timestep, source=source), fresh)


# --- capture -----------------------------------------------------------------------------------------------------


def turn(x, positions, axes=(4, 6, 6)):
    """Rotary positions written out with real numbers, pair by pair."""
    angles = torch.cat([positions[:, i, None] / 10_000 ** (torch.arange(0, n, 2) / n) for i, n in enumerate(axes)], 1)
    first, second = x[..., 0::2], x[..., 1::2]
    turned = torch.empty_like(x)
    turned[..., 0::2] = first * angles.cos() - second * angles.sin()
    turned[..., 1::2] = first * angles.sin() + second * angles.cos()
    return turned


@pytest.mark.parametrize("block", [0, 3])
@pytest.mark.parametrize("bias_text", [False, True])
@pytest.mark.parametrize("keys", ["all", "generated"])
def test_captured_maps_are_the_softmax_of_the_layer(transformer, block, bias_text, keys):
    tokens, text, timestep, source = inputs()
    attention, seen = transformer.blocks[block].attn, {}
    names = [name for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k") if hasattr(attention, name)]
    hooks = [
        getattr(attention, name).register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
        for name in names
    ]
    try:
        with capture_attention(transformer, blocks=[block], keys=keys) as captured:
            transformer(tokens, text, timestep, source=source, strength=1.6, bias_text=bias_text)
    finally:
        for hook in hooks:
            hook.remove()

    q, k = (
        torch.cat([seen[f"norm_added_{x}"], seen[f"norm_{x}"]], 2) if block == 0 else seen[f"norm_{x}"] for x in "qk"
    )
    grid = torch.tensor([[0, r, c] for r in range(2) for c in range(3)])
    positions = torch.cat([torch.zeros(ROWS, 3, dtype=torch.long), grid, grid])
    scores = turn(q, positions) @ turn(k, positions).mT / 4
    if bias_text:
        scores[:, :, :ROWS, ROWS + 6 :] += math.log(1.6)
    if keys == "generated":
        scores = scores[..., : ROWS + 6]
    expected = scores.softmax(-1)[:, :, :ROWS, ROWS : ROWS + 6]
    torch.testing.assert_close(captured.text_to_image(block), expected, atol=1e-6, rtol=1e-4)


def test_the_true_map_gives_the_source_its_share(transformer):
    tokens, text, timestep, source = inputs()
    sums = {}
    for keys in ("all", "generated"):
        with capture_attention(transformer, blocks=[3], keys=keys) as captured:
            transformer(tokens, text, timestep, source=source)
        sums[keys] = captured.text_to_image(3).sum(-1)
    assert (sums["all"] < sums["generated"]).all()


def test_capture_changes_nothing_and_leaves_nothing(transformer):
    tokens, text, timestep, source = inputs()
    before = transformer(tokens, text, timestep, source=source)
    with capture_attention(transformer, blocks=range(BLOCKS)):
        during = transformer(tokens, text, timestep, source=source)
    assert torch.equal(before, during)
    with pytest.raises(RuntimeError), capture_attention(transformer, blocks=[1, 2]):
        assert [len(block.attn.recorders) for block in transformer.blocks] == [0, 1, 1, 0]
        raise RuntimeError
    assert not any(block.attn.recorders for block in transformer.blocks)


def test_another_threads_pass_is_not_captured(transformer):
    tokens, text, timestep, source = inputs()
    with capture_attention(transformer, [0]) as captured:
        transformer(tokens, text, timestep, source=source)
        before = captured.text_to_image(0).clone()
        other = threading.Thread(target=lambda: transformer(source, text, timestep, source=tokens))
        other.start()
        other.join()
    assert torch.equal(captured.text_to_image(0), before)


def test_another_threads_pass_is_no_step(transformer):
    tokens, text, timestep, source = inputs()
    with capture_steps(transformer, [0]) as steps, ThreadPoolExecutor(1) as other:
        other.submit(transformer, source, text, timestep, source=tokens).result()  # before the first step of its own
        transformer(tokens, text, timestep, source=source)
        other.submit(transformer, source, text, timestep, source=tokens).result()
    assert len(steps) == 1


def test_contexts_nest_and_the_newest_pass_wins(transformer):
    tokens, text, timestep, source = inputs()
    with capture_attention(transformer, blocks=[1, 2]) as outer:
        with capture_attention(transformer, blocks=[2], keys="generated") as inner:
            transformer(tokens, text, timestep, source=source)
        first, inside = outer.text_to_image(2), inner.text_to_image(2)
        transformer(tokens, text, timestep)
    assert torch.equal(inner.text_to_image(2), inside)
    assert not torch.allclose(outer.text_to_image(2), first)


def test_capture_knows_its_grids_padding_and_cost(transformer):
    padding = torch.tensor([[False] * 4 + [True]] * 3)
    tokens, text, timestep, source = inputs(padding=padding)
    stated = capture_memory(transformer, [0, 3], batch=3, text=ROWS, token_grid=(4, 6))
    with capture_attention(transformer, blocks=[0, 3]) as captured:
        transformer(tokens, text, timestep, source=source)
    assert captured.text_to_image(0).shape == (3, HEADS, ROWS, 6)
    assert captured.text_to_image(0).untyped_storage().nbytes() * 2 == captured.memory == stated
    assert (captured.grid, captured.token_grid) == ((2, 3), (4, 6))
    half = captured[1:]
    assert torch.equal(half.text_to_image(3), captured.text_to_image(3)[1:]) and len(half.padding) == 2


@pytest.mark.parametrize("keys", ["all", "generated"])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_mean_of_the_heads_of_some_pictures(transformer, keys, batch):
    tokens, text, timestep, source = inputs(padding=torch.tensor([[False] * 4 + [True]] * 3))
    blocks, some = range(BLOCKS), slice(-batch, None)
    with (
        capture_attention(transformer, blocks, keys) as every_head,
        capture_attention(transformer, blocks, keys, heads="mean", pictures=some) as mean,
    ):
        transformer(tokens, text, timestep, source=source, strength=1.4, bias_text=True)
    for block in blocks:
        expected = every_head.text_to_image(block)[some].mean(1, keepdim=True)
        torch.testing.assert_close(mean.text_to_image(block), expected, atol=1e-7, rtol=1e-6)
    assert mean.padding.shape == (batch, ROWS) and mean.memory * 3 * HEADS == every_head.memory * batch
    torch.testing.assert_close(consolidate(mean), consolidate(every_head[some]), atol=1e-5, rtol=0)


def test_kept_maps_do_not_keep_the_cache(transformer):
    tokens, text, timestep, source = inputs(padding=torch.tensor([[False] * 4 + [True]] * 3))
    cache = FeatureCache(2)
    prepared = transformer.prepare(tokens, text, source=source, strength=1.3, cache=cache)
    with capture_attention(transformer, blocks=[0, 3]) as captured:
        for step in (0, 1):  # all positions, then the open ones alone
            transformer(tokens, prepared, timestep - step)
            assert captured.grid == (2, 3) and captured.padding.shape == (3, ROWS)
    kept = weakref.ref(cache), weakref.ref(prepared.layout.bias), weakref.ref(prepared.layout.rotary)
    del prepared, cache
    gc.collect()
    assert [each() for each in kept] == [None] * 3
    assert captured[1:].padding.shape == (2, ROWS) and consolidate(captured[1:]).shape == (2, 4, 6)


def test_captured_maps_carry_no_gradient():
    transformer = network().requires_grad_(True)
    tokens, text, timestep, source = inputs()
    with capture_attention(transformer, blocks=[0]) as captured:
        assert transformer(tokens, text, timestep, source=source).requires_grad
    assert not captured.text_to_image(0).requires_grad


# --- errors ------------------------------------------------------------------------------------------------------


def test_capture_errors(transformer):
    for wrong in ([BLOCKS], [-1], []):
        with pytest.raises(SettingError), capture_attention(transformer, blocks=wrong):
            pass
    with pytest.raises(SettingError, match="is a Linear(?s:.*)editor.transformer"):
        with capture_attention(torch.nn.Linear(1, 1), blocks=[0]):
            pass
    with pytest.raises(SettingError, match="generated"), capture_attention(transformer, blocks=[0], keys="image"):
        pass
    with pytest.raises(SettingError, match="unknown heads 'all'"), capture_attention(transformer, [0], heads="all"):
        pass
    with capture_attention(transformer, blocks=[0]) as captured:
        with pytest.raises(SettingError, match="no forward pass"):
            captured.text_to_image(0)
        with pytest.raises(SettingError, match="no forward pass"):
            captured.grid  # noqa: B018
        with pytest.raises(SettingError, match="block 2 was not captured"):
            captured.text_to_image(2)


@pytest.mark.parametrize("strength", [-0.1, math.inf, math.nan, "1", None])
def test_strength_errors(transformer, strength):
    tokens, text, timestep, source = inputs()
    with pytest.raises(SettingError, match="strength"):
        transformer(tokens, text, timestep, source=source, strength=strength)


def test_shape_errors(transformer):
    (tokens, text, timestep, source), one = inputs(), torch.tensor([1])
    wrong = {
        "multiple of 2": lambda: transformer(tokens[:, :3], text, timestep),
        "source is": lambda: transformer(tokens, text, timestep, source=source[:, :, :4]),
        "tokens are": lambda: transformer(tokens.float(), text, timestep),
        "timestep is": lambda: transformer(tokens, text, timestep[:2]),
        "text.tokens is": lambda: transformer(tokens, TextCondition(text.tokens[..., 1:], text.pooled), timestep),
        "text.pooled is": lambda: transformer(tokens, TextCondition(text.tokens, text.pooled[:1]), timestep),
        "text.padding is": lambda: transformer(
            tokens, TextCondition(text.tokens, text.pooled, torch.zeros(3, 2, dtype=torch.bool)), timestep
        ),
        "micro_conditions is": lambda: transformer(tokens, text, timestep, micro_conditions=torch.zeros(3, 4)),
        "timestep is 1": lambda: transformer(tokens, text, 1),
        "tokens are a list": lambda: transformer(tokens.tolist(), text, timestep),
        "tokens are ids from 0 to 40": lambda: transformer(tokens.clamp(max=0).index_fill(0, one, 40), text, timestep),
        "tokens are ids from -1 to 0": lambda: transformer(tokens.clamp(max=0).index_fill(0, one, -1), text, timestep),
        "source tokens are ids from 99": lambda: transformer(tokens, text, timestep, source=0 * source + 99),
        "source tokens are torch.float32": lambda: transformer(tokens, text, timestep, source=source.float()),
    }
    for message, call in wrong.items():
        with pytest.raises(ShapeError, match=message):
            call()


def test_every_id_of_the_vocabulary_may_come(transformer):
    tokens, text, timestep, _ = inputs()
    for ids in (0 * tokens, 0 * tokens + SIZES["vocab_size"] - 1, tokens.int()):
        assert transformer(ids, text, timestep).isfinite().all()
    assert len(transformer(tokens[:0], TextCondition(text.tokens[:0], text.pooled[:0]), timestep[:0])) == 0


def test_a_text_that_is_not_encoded(transformer):
    tokens, _, timestep, _ = inputs()
    for call in (lambda: transformer(tokens, "a ball", timestep), lambda: transformer.prepare(tokens, "a ball")):
        with pytest.raises(TextError, match="the text is a str"):
            call()


def test_what_was_prepared_takes_no_settings_of_its_own(transformer):
    tokens, text, timestep, source = inputs()
    prepared = transformer.prepare(tokens, text)
    settings = {
        "source": source, "strength": 0, "bias_text": True, "micro_conditions": torch.ones(3, 5),
        "origin": torch.zeros(3, 2),
    }  # fmt: skip
    for name, value in settings.items():
        with pytest.raises(SettingError, match=f"{name} beside what was prepared"):
            transformer(tokens, prepared, timestep, **{name: value})
    for ids in (tokens + 40, tokens - 40, tokens.float()):
        with pytest.raises(ShapeError, match="tokens are"):
            transformer(ids, prepared, timestep)
    assert torch.equal(transformer(tokens, prepared, timestep, strength=1), transformer(tokens, text, timestep))


def test_configuration():
    config = TransformerConfig.from_dict(SIZES | {"_class_name": "Transformer2DModel"})
    assert config.width == 32 and config.axes_dims_rope == (4, 6, 6)
    with pytest.raises(AttributeError):
        config.num_layers = 3
    for wrong in (
        {"depth": 3},
        {"axes_dims_rope": [4, 4, 4]},
        {"connector_type": "qformer"},
        {"guidance_embeds": True},
        {"upsample": False},
    ):
        with pytest.raises(SettingError):
            TransformerConfig.from_dict(SIZES | wrong)


@torch.no_grad()
def test_a_map_can_be_over_the_source(editor, picture):
    source = editor.tokenize(picture())
    text, timestep = editor.encode_text("make the ball blue"), torch.tensor([1])

    class Whole:
        thread = threading.get_ident()

        def record(self, q, k, layout):
            self.map = attention_probabilities(q[:, :, : layout.text], k)  # [B, heads, L, T]

    whole = Whole()
    with (
        attached(editor.transformer, {1: whole}),
        capture_attention(editor.transformer, [1], mapped="source") as over_source,
        capture_attention(editor.transformer, [1], mapped="both") as over_both,
        capture_attention(editor.transformer, [1]) as over_image,
    ):
        editor.transformer(source, text, timestep, source=source)
        length, positions = text.tokens.shape[1], over_image.text_to_image(1).shape[-1]
        parts = whole.map.split([length, positions, positions], dim=-1)
        assert torch.equal(over_image.text_to_image(1), parts[1]) and torch.equal(
            over_source.text_to_image(1), parts[2]
        )
        assert torch.equal(over_both.text_to_image(1), parts[1] + parts[2])
        editor.transformer(source, text, timestep)  # without a source there is the image alone
        for other in (over_source, over_both):
            assert torch.equal(other.text_to_image(1), over_image.text_to_image(1))
    with pytest.raises(SettingError, match="mapped"), capture_attention(editor.transformer, [0], mapped="text"):
        pass
    refused = capture_attention(editor.transformer, [0], "generated", mapped="source")  # it has no source keys
    with pytest.raises(SettingError, match="mapped is 'source' and keys is 'generated'"), refused:
        pass
    of_model = editor.with_defaults(heat_keys="generated", heat_from="both")
    with pytest.raises(SettingError, match="heat_from is 'both' and heat_keys is 'generated'") as told:
        of_model.edit(picture(), "make the ball blue")
    assert "heat_from='image'" in told.value.fix
