"""The schedule, one step of sampling, and the two ways to hold."""

import math

import pytest
import torch

from editmgt_lab.decoding import DRAWS, HOLDS, ORDERS, SCHEDULES, RegionHoldSampler, draw_tokens, guide
from editmgt_lab.decoding.draws import ROWS, exponential_times, inverse
from editmgt_lab.decoding.orders import halton_ranks, neighbours
from editmgt_lab.errors import SettingError, ShapeError

MASK, CODEBOOK, STEPS = 20, 16, 7


def scene(batch=2, h=5, w=8):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(STEPS, batch, CODEBOOK, h, w, generator=generator)
    source = torch.randint(0, CODEBOOK, (batch, h, w), generator=generator)
    heat = torch.rand(batch, h, w, generator=generator)
    return logits, torch.full((batch, h, w), MASK), source, heat


def decode(sampler, *, seed=5, hold_threshold=0.0, tokens=None, generator=None, pictures=slice(None)):
    logits, masked, source, heat = scene()
    tokens = masked[pictures] if tokens is None else tokens
    generator = generator or torch.Generator().manual_seed(seed)
    decisions = []
    for index in range(sampler.steps):
        decisions.append(
            sampler.decide(
                logits[index, pictures],
                tokens,
                index,
                heat=heat[pictures],
                hold_threshold=hold_threshold,
                source=source[pictures],
                generator=generator,
            )
        )
        tokens = decisions[-1].tokens
    return decisions, source, heat


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_schedule_says_how_many_stay_masked(schedule):
    decisions, _, _ = decode(RegionHoldSampler(MASK, STEPS, schedule=schedule))
    for index, decision in enumerate(decisions[:-1]):
        progress = (index + 1) / STEPS
        ratio = math.cos(math.pi / 2 * progress) if schedule == "cosine" else 1 - progress
        assert decision.masked.sum(dim=(1, 2)).tolist() == [math.floor(40 * ratio)] * 2
    assert not decisions[-1].masked.any()
    ends = SCHEDULES[schedule](torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(ends, torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize("hold", HOLDS)
def test_fixed_tokens_stay_whatever_is_held(hold):
    logits, tokens, source, heat = scene()
    fixed = torch.rand(heat.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    own = torch.where(fixed, (source + 1) % CODEBOOK, tokens)
    sampler = RegionHoldSampler(MASK, STEPS, hold=hold)
    for index in range(STEPS):
        decision = sampler.decide(
            logits[index], own, index, heat=heat, hold_threshold=0.5, source=source, fixed=fixed,
            generator=torch.Generator().manual_seed(index),
        )  # fmt: skip
        own = decision.tokens
        assert torch.equal(own[fixed], ((source + 1) % CODEBOOK)[fixed])


def test_without_noise_the_least_confident_are_masked_again():
    logits, tokens, _, _ = scene()
    sampler = RegionHoldSampler(MASK, STEPS, temperature=(0.0, 0.0))
    decision = sampler.decide(logits[0], tokens, 1, generator=torch.Generator().manual_seed(0))
    probability = logits[0].softmax(1).gather(1, decision.sampled[:, None])[:, 0]
    torch.testing.assert_close(decision.confidence, probability.log(), atol=1e-5, rtol=1e-5)
    for picture in range(2):
        masked = decision.masked[picture]
        assert 0 < masked.sum() < 40
        assert probability[picture][masked].max() <= probability[picture][~masked].min()


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_keeps_to_the_schedule_and_the_hold(order):
    decisions, source, heat = decode(RegionHoldSampler(MASK, STEPS, order=order, hold="commit"), hold_threshold=0.4)
    held = heat < 0.4
    before = torch.ones_like(held)
    for index, decision in enumerate(decisions):
        ratio = math.cos(math.pi / 2 * (index + 1) / STEPS) if index < STEPS - 1 else 0
        assert decision.masked.sum(dim=(1, 2)).tolist() == [math.floor(n * ratio) for n in (~held).sum(dim=(1, 2))]
        assert not (decision.masked & ~before).any()  # what is decided stays
        assert torch.equal(decision.tokens[held], source[held])
        before = decision.masked
    masked = {name: decode(RegionHoldSampler(MASK, STEPS, order=name))[0][1].masked for name in ORDERS}
    assert sum(torch.equal(masked[order], other) for other in masked.values()) == 1


@pytest.mark.parametrize("hold", HOLDS)
@pytest.mark.parametrize("order", ORDERS)
def test_places_of_equal_priority_keep_to_the_schedule(order, hold):
    _, tokens, source, heat = scene()
    sure = 40.0 * torch.nn.functional.one_hot(source.flip(0), CODEBOOK).movedim(-1, 1)  # each probability is 0 or 1
    settings = {"order": order, "hold": hold, "temperature": (0.0, 0.0), "token_temperature": 0.01}
    sampler, given = RegionHoldSampler(MASK, STEPS, **settings), {"heat": heat, "hold_threshold": 0.4, "source": source}
    for index in range(STEPS):
        decision = sampler.decide(sure, tokens, index, **given, generator=torch.Generator().manual_seed(0))
        tokens, ratio = decision.tokens, math.cos(math.pi / 2 * (index + 1) / STEPS) if index < STEPS - 1 else 0
        places = (~decision.held | (hold == "released")).sum(dim=(1, 2)).tolist()
        assert decision.masked.sum(dim=(1, 2)).tolist() == [math.floor(n * ratio) for n in places]


def test_halton_ranks_are_the_sequence_by_hand():
    # (1/2, 1/3), (1/4, 2/3), (3/4, 1/9), (1/8, 4/9), (5/8, 7/9), (3/8, 2/9) … after (0, 0), in 2 × 3 cells
    visited = [(0, 0), (1, 1), (0, 2), (1, 0), (0, 1), (1, 2)]
    ranks = halton_ranks(2, 3)
    assert [ranks[cell].item() for cell in visited] == list(range(6))
    for h, w in ((1, 1), (5, 8), (64, 48)):
        assert sorted(halton_ranks(h, w).flatten().tolist()) == list(range(h * w))


def test_halton_spreads_what_is_decided_together():
    for count in (16, 64, 100):  # of 256 cells: in every quarter of the picture a quarter of them
        first = halton_ranks(16, 16) < count
        quarters = [part.sum().item() for half in first.chunk(2) for part in half.chunk(2, dim=1)]
        assert max(quarters) - min(quarters) <= 0.06 * count + 2


def test_halton_goes_by_place_alone():
    decisions, _, _ = decode(RegionHoldSampler(MASK, STEPS, order="halton"))
    for decision in decisions[:-1]:
        assert torch.equal(decision.masked[0], decision.masked[1])
        assert torch.equal(decision.masked[0], halton_ranks(5, 8) >= 40 - decision.masked[0].sum())


def test_the_frontier_grows_from_what_is_known():
    logits, tokens, source, _ = scene()
    tokens[:, 2, 3] = source[:, 2, 3]
    sampler = RegionHoldSampler(MASK, STEPS, order="frontier", schedule="linear")
    for index in range(3):
        known = tokens != MASK
        tokens = sampler.step(logits[index], tokens, index)
        fresh = (tokens != MASK) & ~known
        ahead = neighbours(known) & ~known
        for picture in range(2):  # the ring is decided before anything beyond it
            assert (fresh[picture] <= ahead[picture]).all() or (ahead[picture] <= fresh[picture]).all()
        assert fresh.any()


def test_revision_masks_what_has_become_improbable():
    logits, tokens, source, heat = scene()
    known = source.clone()
    known[:, 0] = MASK
    surely = 20.0 * torch.nn.functional.one_hot(source, CODEBOOK).movedim(-1, 1)
    doubted = torch.zeros_like(known, dtype=torch.bool)
    doubted[:, 3, 2:5] = True
    surely[doubted.unsqueeze(1).expand_as(surely)] = 0  # 1 / 16 for every code
    heat = torch.ones_like(heat)
    heat[:, 3, 4] = 0  # held: not revised

    def masked(index=0, **settings):
        sampler = RegionHoldSampler(MASK, STEPS, **settings)
        return sampler.decide(surely, known, index, heat=heat, hold_threshold=0.5, source=source).masked

    revised, plain = masked(revise=0.1), masked()
    assert torch.equal(revised[:, 1:], (doubted & (heat > 0.5))[:, 1:])
    assert not plain[:, 1:].any() and not masked(revise=0.05)[:, 1:].any()
    assert not masked(STEPS - 1, revise=0.1).any()


@pytest.mark.parametrize("hold", ["commit", "agree"])
def test_what_a_hold_has_settled_is_not_revised_when_the_heat_moves(hold):
    source, logits = torch.zeros(1, 4, 4, dtype=torch.long), torch.zeros(1, CODEBOOK, 4, 4)
    logits[:, 5] = 9  # the network would have another code everywhere
    tokens = torch.full_like(source, MASK) if hold == "commit" else source.clone()  # "agree" changes no known token
    settings = {"hold_threshold": 0.5, "source": source}

    def step(tokens, index, heat, hold=hold):
        sampler = RegionHoldSampler(MASK, STEPS, hold=hold, revise=0.01)
        return sampler.step(logits, tokens, index, heat=torch.full((1, 4, 4), heat), **settings)

    settled = step(tokens, 0, 0.0)
    assert torch.equal(settled, source) and torch.equal(step(settled, 1, 1.0), source)
    assert (step(settled, 1, 1.0, hold="released") == MASK).all()  # which is not for good
    settled[:, 0] = 3  # neither held nor probable
    revised = step(settled, 1, 1.0)
    assert (revised[:, 0] == MASK).all() and torch.equal(revised[:, 1:], source[:, 1:])


def test_known_tokens_stay():
    logits, tokens, source, _ = scene()
    tokens[:, :2] = source[:, :2]
    before = tokens.clone()
    decisions, *_ = decode(RegionHoldSampler(MASK, STEPS), tokens=tokens)
    for decision in decisions:
        assert torch.equal(decision.tokens[:, :2], source[:, :2])
    assert torch.equal(tokens, before)


def test_a_committed_hold_is_never_masked_again():
    decisions, source, heat = decode(RegionHoldSampler(MASK, STEPS, hold="commit"), hold_threshold=0.4)
    held = heat < 0.4
    free = (~held).sum(dim=(1, 2))
    assert 0 < free.min() and free.max() < 40
    for index, decision in enumerate(decisions):
        assert torch.equal(decision.held, held)
        assert torch.equal(decision.tokens[held], source[held])
        if index < STEPS - 1:
            ratio = math.cos(math.pi / 2 * (index + 1) / STEPS)
            assert decision.masked.sum(dim=(1, 2)).tolist() == [math.floor(n * ratio) for n in free.tolist()]
    assert not decisions[-1].masked.any()
    assert not torch.equal(decisions[-1].tokens[~held], source[~held])


def test_an_agreeing_hold_commits_where_the_network_says_the_same():
    logits, tokens, source, heat = scene()
    before = tokens.clone()
    before[:, 0] = source[:, 0]  # known and as the source: held where it is cold
    before[:, 1] = (source[:, 1] + 1) % CODEBOOK  # known and different: never undone
    certain = logits[0] + 50 * torch.nn.functional.one_hot(source, CODEBOOK).movedim(-1, 1) * (heat < 0.2).unsqueeze(1)

    def run(hold):
        settings = {"heat": heat, "hold_threshold": 0.4, "source": source}
        sampler = RegionHoldSampler(MASK, STEPS, hold=hold)
        return sampler.decide(certain, before, 0, generator=torch.Generator().manual_seed(0), **settings)

    decision, cold = run("agree"), heat < 0.4
    drawn = (
        RegionHoldSampler(MASK, STEPS).decide(certain, before, 0, generator=torch.Generator().manual_seed(0)).sampled
    )
    assert torch.equal(decision.held, cold & (drawn == source)) and torch.equal(decision.sampled, drawn)
    assert decision.held[:, 2:][(heat < 0.2)[:, 2:]].all() and not decision.held[:, 1].any()
    assert decision.held.sum() < run("commit").held.sum() and not (decision.masked & decision.held).any()
    assert torch.equal(decision.tokens[:, 1], before[:, 1])


def test_the_released_hold_leaks_until_the_last_step():
    decisions, source, heat = decode(RegionHoldSampler(MASK, STEPS, hold="released"), hold_threshold=0.4)
    held = heat < 0.4
    assert (decisions[-2].tokens[held] == MASK).any()
    assert torch.equal(decisions[-1].tokens[held], source[held])


def test_only_a_committed_hold_replaces_known_tokens():
    logits, tokens, source, heat = scene()
    known = (source + 1) % CODEBOOK
    settings = {"heat": 0 * heat, "hold_threshold": 0.5, "source": source}
    assert torch.equal(RegionHoldSampler(MASK, STEPS).step(logits[0], known, STEPS - 1, **settings), known)
    assert torch.equal(RegionHoldSampler(MASK, STEPS, hold="commit").step(logits[0], known, 0, **settings), source)


@pytest.mark.parametrize("hold", ["released", "commit"])
def test_threshold_zero_holds_nothing(hold):
    sampler = RegionHoldSampler(MASK, STEPS, hold=hold)
    logits, tokens, source, heat = scene()
    plain = sampler.step(logits[0], tokens, 0, generator=torch.Generator().manual_seed(1))
    zero = sampler.decide(
        logits[0], tokens, 0, heat=0 * heat, source=source, generator=torch.Generator().manual_seed(1)
    )
    assert torch.equal(zero.tokens, plain) and not zero.held.any()


def test_everything_held_is_the_source_at_once():
    logits, tokens, source, heat = scene()
    sampler = RegionHoldSampler(MASK, STEPS, hold="commit")
    assert torch.equal(sampler.step(logits[0], tokens, 0, heat=0 * heat, hold_threshold=1.0, source=source), source)


@pytest.mark.parametrize("hold", ["released", "commit"])
def test_inputs_are_left_as_they_are(hold):
    logits, tokens, source, heat = scene()
    before = [x.clone() for x in (logits, tokens, source, heat)]
    sampler = RegionHoldSampler(MASK, STEPS, hold=hold)
    sampler.step(logits[0], tokens, 0, heat=heat, hold_threshold=0.5, source=source)
    assert all(map(torch.equal, before, (logits, tokens, source, heat)))


def test_a_seed_repeats_and_another_does_not():
    sampler = RegionHoldSampler(MASK, STEPS)
    first, again, other = (decode(sampler, seed=seed)[0][-1].tokens for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_one_generator_for_each_picture_fits_any_batch():
    sampler = RegionHoldSampler(MASK, STEPS, hold="commit")
    generators = [torch.Generator().manual_seed(seed) for seed in (7, 8)]
    together = decode(sampler, generator=generators, hold_threshold=0.3)[0][-1].tokens
    second = torch.Generator().manual_seed(8)
    alone = decode(sampler, generator=second, hold_threshold=0.3, pictures=slice(1, 2))[0][-1].tokens
    assert torch.equal(together[1:], alone)


def test_half_precision_logits_and_a_single_position():
    logits, tokens, _, _ = scene()
    sampler = RegionHoldSampler(MASK, STEPS, temperature=1.0)
    assert (sampler.step(logits[0].bfloat16(), tokens, STEPS - 1) < CODEBOOK).all()
    one = tokens[:1, :1, :1]
    for index in range(STEPS):
        one = sampler.step(logits[index, :1, :, :1, :1], one, index)
    assert one.item() < CODEBOOK


def test_a_lower_token_temperature_draws_likelier_tokens():
    logits, tokens, _, _ = scene()
    best = logits[0].argmax(dim=1)

    def drawn(token_temperature):
        sampler = RegionHoldSampler(MASK, STEPS, token_temperature=token_temperature)
        return sampler.decide(logits[0], tokens, 0, generator=torch.Generator().manual_seed(0))

    shares = [(drawn(t).sampled == best).float().mean() for t in (2.0, 1.0, 0.5, 0.01)]
    assert shares == sorted(shares) and shares[0] < shares[2] and shares[3] == 1
    halved = RegionHoldSampler(MASK, STEPS).decide(2 * logits[0], tokens, 0, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn(0.5).tokens, halved.tokens) and torch.equal(drawn(0.5).confidence, halved.confidence)


def test_guidance_goes_from_without_the_text_to_with_it_and_beyond():
    logits = torch.tensor([[1.0, 5.0], [2.0, 3.0]])
    for scale, expected in ((0.0, [1.0, 5.0]), (1.0, [2.0, 3.0]), (3.0, [4.0, -1.0])):
        assert guide(logits, scale).tolist() == [expected]


def test_setting_errors():
    for settings in (
        {"schedule": "square"},
        {"hold": "tight"},
        {"order": "alphabetical"},
        {"draw": "straws"},
        {"revise": -0.1},
        {"revise": math.nan},
        {"mask_token_id": "a"},
        {"mask_token_id": -1},
        {"temperature": (-1.0, 0.0)},
        {"temperature": math.nan},
        {"temperature": (1.0,)},
        {"temperature": None},
        {"steps": 2.5},
        {"steps": 0},
        {"order": ["halton"]},
        {"token_temperature": "cold"},
        {"token_temperature": 0.0},
        {"token_temperature": math.inf},
    ):
        with pytest.raises(SettingError):
            RegionHoldSampler(**{"mask_token_id": MASK, "steps": STEPS} | settings)
    sampler = RegionHoldSampler(MASK, STEPS)
    logits, tokens, source, heat = scene()
    for index in (-1, STEPS, 1.5, "0", None):
        with pytest.raises(SettingError, match="step index"):
            sampler.step(logits[0], tokens, index)
    for hold_threshold in (-0.1, 1.1, math.nan, "0.2"):
        with pytest.raises(SettingError, match="hold_threshold"):
            sampler.step(logits[0], tokens, 0, heat=heat, source=source, hold_threshold=hold_threshold)
    with pytest.raises(SettingError, match="5, which is a code"):
        RegionHoldSampler(5, STEPS).step(logits[0], tokens, 0)
    with pytest.raises(SettingError, match="heat and source is missing"):
        sampler.step(logits[0], tokens, 0, hold_threshold=0.2)
    with pytest.raises(SettingError, match="generators"):
        sampler.step(logits[0], tokens, 0, generator=[torch.Generator()])
    for generator in (3, "0", [torch.Generator(), 4], {0: torch.Generator()}):
        with pytest.raises(SettingError, match="generator is"):
            sampler.step(logits[0], tokens, 0, generator=generator)


def test_shape_errors():
    sampler = RegionHoldSampler(MASK, STEPS)
    logits, tokens, source, heat = scene()
    hold = {"hold_threshold": 0.2, "source": source, "heat": heat}
    for changes in ({"source": source[:, 1:]}, {"heat": heat[:, 1:]}, {"source": torch.full_like(source, MASK)}):
        with pytest.raises(ShapeError):
            sampler.step(logits[0], tokens, 0, **(hold | changes))
    with pytest.raises(ShapeError):
        sampler.step(logits[0], tokens.mT, 0)
    with pytest.raises(ShapeError, match="^tokens are torch.float32"):
        sampler.step(logits[0], tokens.float(), 0)
    with pytest.raises(ShapeError, match="source tokens are torch.float32"):
        sampler.step(logits[0], tokens, 0, **hold | {"source": source.float()})
    for wrong in (source - 1, source + 1, torch.full_like(source, MASK - 1)):  # the last: another mask token
        with pytest.raises(ShapeError, match=r"^tokens hold (-1|16|19)(?s:.*)from 0 to 15"):
            sampler.step(logits[0], wrong, 0)
        with pytest.raises(ShapeError, match="source tokens hold"):
            sampler.step(logits[0], tokens, 0, **hold | {"source": wrong})
    for name, thing in (("heat", heat.numpy()), ("source", source.tolist())):
        with pytest.raises(ShapeError, match=f"{name}.*: a (ndarray|list)"):
            sampler.step(logits[0], tokens, 0, **hold | {name: thing})
    for thing in (None, logits[0].numpy()):
        with pytest.raises(ShapeError, match="logits: a"):
            sampler.step(thing, tokens, 0)
    with pytest.raises(ShapeError, match=r"tokens \[0, 5, 8\]"):
        sampler.step(logits[0, :0], tokens[:0], 0)
    for fixed in (heat[:, 1:] > 0.5, heat[0] > 0.5, (heat > 0.5).long()):
        with pytest.raises(ShapeError, match="fixed"):
            sampler.decide(logits[0], tokens, 0, fixed=fixed)


def torch_has_other_exponential_numbers():
    one, other = (torch.Generator().manual_seed(1) for _ in range(2))
    like = torch.empty(8)
    return not torch.equal(exponential_times(like, other), like.exponential_(generator=one))


as_torch_draws = pytest.mark.skipif(
    torch.__version__ < "2.9" and torch_has_other_exponential_numbers(), reason="this torch asks MKL for them"
)


@as_torch_draws
@pytest.mark.parametrize("places", [6, 2 * ROWS + 3])
def test_tokens_are_those_of_torch_multinomial(places):
    probabilities = torch.randn(2, places, 50, generator=torch.Generator().manual_seed(0)).mul(3).softmax(dim=-1)
    one, other = (torch.Generator().manual_seed(1) for _ in range(2))
    expected = torch.multinomial(probabilities.flatten(0, 1), 1, generator=one).reshape(2, places)
    assert torch.equal(draw_tokens(probabilities, other), expected)
    assert torch.equal(torch.rand(3, generator=one), torch.rand(3, generator=other))  # as many numbers were used
    each = [torch.Generator().manual_seed(seed) for seed in (2, 3)]
    expected = [torch.multinomial(probabilities[i], 1, generator=each[i].clone_state()).flatten() for i in range(2)]
    assert torch.equal(draw_tokens(probabilities, each), torch.stack(expected))


@as_torch_draws
def test_times_are_the_numbers_of_exponential():
    one, other = (torch.Generator().manual_seed(1) for _ in range(2))
    expected = torch.empty(300, 400).exponential_(generator=one)
    assert torch.equal(exponential_times(torch.empty(300, 400), other), expected)
    assert torch.equal(torch.rand(3, generator=one), torch.rand(3, generator=other))


@pytest.mark.parametrize("draw", DRAWS)
def test_rows_of_one_generator_share_its_draws(draw):
    probabilities = torch.full((1, 2 * ROWS + 3, 50), 1 / 50)
    first, second = (torch.Generator().manual_seed(seed) for seed in (1, 2))
    drawn = draw_tokens(probabilities.repeat(3, 1, 1), [first, second, first], draw)
    assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[:1], draw_tokens(probabilities, [torch.Generator().manual_seed(1)], draw))


@pytest.mark.parametrize("draw", DRAWS)
def test_codes_are_drawn_as_often_as_they_are_probable(draw):
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.2, 0.3, 0.0])
    drawn = draw_tokens(probabilities.expand(2, 10_000, 6), torch.Generator().manual_seed(0), draw)
    shares = drawn.flatten().bincount(minlength=6) / 20_000
    assert (shares[probabilities == 0] == 0).all()
    assert torch.allclose(shares, probabilities, atol=0.015)  # over four standard deviations


@pytest.mark.parametrize("number", [0.0, 1 - 2**-24])
def test_the_least_and_the_largest_number_draw_a_probable_code(number, monkeypatch):
    monkeypatch.setattr("editmgt_lab.decoding.draws.uniform_numbers", lambda like, _: torch.full_like(like, number))
    totals = torch.linspace(0.9, 1.1, 1001).view(1, -1, 1)  # a sum of many roundings is not quite 1
    drawn = inverse(torch.tensor([0.0, 0.25, 0.25, 0.5, 0.0]) * totals, None)
    assert (drawn == (1 if number == 0 else 3)).all()


def test_logits_that_are_no_numbers_are_refused():
    logits, tokens, _, _ = scene()
    with pytest.raises(SettingError, match="not numbers"):
        RegionHoldSampler(MASK, 1).step(logits[0] * math.nan, tokens, 0)


def test_heat_that_is_no_number_is_refused():
    logits, tokens, source, heat = scene()
    heat[1, 2, 3] = math.nan
    for hold in HOLDS:
        sampler, given = RegionHoldSampler(MASK, 1, hold=hold), {"heat": heat, "source": source}
        with pytest.raises(SettingError, match="heat map's values are not numbers"):
            sampler.step(logits[0], tokens, 0, hold_threshold=0.2, **given)
        assert (sampler.step(logits[0], tokens, 0, **given) < MASK).all()  # where nothing is held it is not asked
