"""Stage 5: tokens are drawn from the network's probabilities, in one of two ways, both from the same distribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..basics.checks import check_name, may_look
from ..errors import SettingError

Generators = torch.Generator | Sequence[torch.Generator] | None
Draw = Callable[[Tensor, Generators], Tensor]
"""(probabilities [B, n, codebook], generator) → codes [B, n]; the generators draw on from call to call."""
ROWS = 64  # that are drawn at once on the CPU: what that makes stays in the processor's cache


def race(probabilities: Tensor, generator: Generators) -> Tensor:
    """Each code takes an exponential time over its probability, and the first one wins: the released code's way.

    `torch.multinomial` draws the same tokens with the same numbers, but for every row anew.
    """
    return (probabilities / for_each_generator(exponential_times, probabilities, generator)).argmax(dim=-1)


def inverse(probabilities: Tensor, generator: Generators) -> Tensor:
    """One uniform number a place, looked up in the cumulative probabilities of its codes (inversion): faster on a CPU,
    which makes random numbers one after the other, as a place takes one and not one for every code.
    """
    cumulative = probabilities.cumsum(dim=-1)
    drawn = for_each_generator(uniform_numbers, probabilities[..., :1], generator) * cumulative[..., -1:]
    return torch.searchsorted(cumulative, drawn, right=True).squeeze(-1).clamp(max=cumulative.shape[-1] - 1)


DRAWS: dict[str, Draw] = {"race": race, "inverse": inverse}


def draw_tokens(probabilities: Tensor, generator: Generators, draw: str = "race") -> Tensor:
    """One token for each position, by a way of DRAWS. probabilities: [B, N, codebook]; returns [B, N].

    Raises SettingError for an unknown way, and for what is not a number, if it is on the CPU.
    """
    check_name(draw, "draw", DRAWS)
    if may_look(probabilities):
        refuse_nan(probabilities)
    one = generator is None or isinstance(generator, torch.Generator)
    places = probabilities.flatten(0, 1).unsqueeze(0) if one else probabilities  # it draws row after row
    return some_at_once(lambda rows: DRAWS[draw](rows, generator), places).view(probabilities.shape[:2])


def to_probabilities(logits: Tensor, token_temperature: float) -> Tensor:
    """[B, N, codebook] → the same in float32, each place's softmax at the token temperature."""
    return some_at_once(lambda rows: (rows.float() / token_temperature).softmax(dim=-1), logits)


def some_at_once(work: Callable[[Tensor], Tensor], places: Tensor) -> Tensor:
    """What the work makes of [B, N, codebook], which on the CPU it gets in parts, ROWS of N each."""
    return torch.cat([work(rows) for rows in places.split(ROWS, dim=1)], dim=1) if may_look(places) else work(places)


def exponential_times(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Exponential noise in the shape of `like`: on the CPU too the numbers of `exponential_`, in half its time.

    An older torch with MKL, such as 2.4, has others of its own there; these are the same with every torch.
    """
    device = like.device if generator is None else generator.device
    if device.type != "cpu":
        times = torch.empty(like.shape, dtype=torch.float32, device=device)
        return times.exponential_(generator=generator).to(like.device)
    uniform = torch.empty(like.shape, dtype=torch.float64).uniform_(generator=generator)
    return uniform.neg_().log1p_().neg_().float().to(like.device)


def uniform_numbers(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Numbers from 0 on, below 1, in the shape of `like`."""
    device = like.device if generator is None else generator.device
    return torch.empty(like.shape, dtype=torch.float32, device=device).uniform_(generator=generator).to(like.device)


def gumbel_noise(like: Tensor, generator: Generators) -> Tensor:
    """Gumbel noise in the shape of `like` [B, N]."""

    def draw(rows: Tensor, generator: torch.Generator | None) -> Tensor:
        uniform = uniform_numbers(rows, generator)
        return -(-uniform.clamp(min=1e-20).log()).clamp(min=1e-20).log()

    return for_each_generator(draw, like, generator)


def for_each_generator(draw: Callable, rows: Tensor, generator: Generators) -> Tensor:
    """One generator draws for the whole batch; a list has one for each picture, whose draws then fit any batch.

    draw: noise in the shape of the rows it gets, whatever their values. A generator that the list names again draws
    once, for all of its rows.
    """
    if generator is None or isinstance(generator, torch.Generator):
        return draw(rows, generator)
    if not isinstance(generator, Sequence) or not all(isinstance(each, torch.Generator) for each in generator):
        raise SettingError(
            f"generator is {generator!r}",
            expected="a torch.Generator, or a list of one for each picture",
            fix="pass torch.Generator().manual_seed(seed)",
        )
    if len(generator) != len(rows):
        raise SettingError(
            f"{len(generator)} generators for {len(rows)} pictures", expected="one for each", fix="or pass a single one"
        )
    drawn = {id(each): draw(rows[:1], each) for each in {id(each): each for each in generator}.values()}
    return torch.cat([drawn[id(each)] for each in generator])


def refuse_nan(values: Tensor) -> None:
    """Raises SettingError for values made of logits that are no numbers."""
    if values.sum().isnan():
        raise SettingError(
            "the network's logits are not numbers",
            expected="finite logits",
            fix="load it with dtype=torch.float32; if it was, get its weights again",
        )
