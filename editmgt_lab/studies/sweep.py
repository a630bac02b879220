"""One edit under many holds at once; what the holds have in common is computed once.

All holds of an edit begin with every token masked. So they share the pictures' tokens, the encoded text and the first
pass through the network; after that, holds whose tokens are equal go on sharing. All others are different rows of the
same batch, for which the random numbers of a step are drawn once: they have one seed. The result is what `Editor.edit`
gives for each hold alone, token for token.

Source: the paper's sweep over λ, with two controls that keep the dynamics of the decoding and change the place alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..decoding import map_to_hold_by
from ..editor import Editor
from ..errors import SettingError
from ..inputs import Task
from ..metrics.truth import Truth

HEAT, RANDOM, MASK = "heat", "random_hold", "true_mask"  # what says where to hold
RULES = (HEAT, RANDOM, MASK)
CPU_ROWS, ROWS = 8, 64  # edits in one pass: a CPU is faster where they fit its cache


class Hold(NamedTuple):
    """Where an edit holds: below λ by its own heat map; in as many cells at random; or outside the true edit.

    A random hold takes, in every step, what the hold by heat at the same λ holds, with the cells shuffled: the shuffle
    of a picture is one and the same for all steps and λ. So it holds the same number of cells in every step, and lets
    go of them and takes up new ones in the same rhythm. Where the hold is to agree with the network, what is shuffled
    are the cells that λ offers, and the network may agree in fewer of them at random places. Without a threshold (0)
    nothing is held, whatever the rule.
    """

    rule: str
    threshold: float


@dataclass(frozen=True)
class Swept:
    """B edits under H holds. tokens: long [H, B, h, w]; heat: [H, B, h, w], and held: bool [H, B, h, w], of the last
    step; counts: how many cells were held in each step, [steps, H, B]. All on the CPU. Where the hold is to agree with
    the network, held are of the cells that a rule names those in which it did.

    passes: how many edits went through the network, over all steps; alone: how many would have, one hold at a time.
    """

    holds: tuple[Hold, ...]
    tokens: Tensor
    heat: Tensor
    held: Tensor
    counts: Tensor
    passes: int
    alone: int


@torch.no_grad()
def sweep(editor: Editor, truth: Truth, holds: Sequence[Hold], *, seed: int, **options: Any) -> Swept:
    """Decode every edit of the batch under every hold; edit i decodes with seed + i, whatever the hold.

    options: as in `Editor.edit`, but for λ, and without a cache. Raises SettingError, for a random hold also where the
    hold by heat at its λ is not among the holds.
    """
    if options.get("refresh_every", 1) != 1:
        raise SettingError("a sweep with refresh_every", expected="exact passes, which holds share", fix="leave it out")
    holds = tuple(holds)
    check_holds(holds)
    task = truth.task(editor, seed, hold_threshold=0.0, **options)
    settings, pictures = task.settings, len(task.start)
    picture = torch.arange(pictures, device=editor.device).repeat(len(holds))  # of every row, hold by hold
    tokens, source, fixed = (each.repeat(len(holds), 1, 1) for each in (task.start, task.source, task.fixed))
    edited = truth.edit_cells(editor.vq.config.factor).to(editor.device)
    shuffles = draw_shuffles(task.start[0].numel(), [seed + number for number in truth.numbers]).to(editor.device)

    sampler = editor._sampler(settings)
    generators = [torch.Generator(editor.device).manual_seed(each) for each in settings.seeds] * len(holds)
    most = CPU_ROWS if editor.device.type == "cpu" else ROWS
    counts, passes, attended = [], 0, 0
    for index in range(settings.steps):
        states, state = distinct(picture, tokens)
        predicted = [
            editor._predict(rows_of(task, picture[rows]), tokens[rows], timestep=settings.steps - 1 - index)
            for rows in states.split(most)
        ]
        logits, attention = (torch.cat(parts)[state] for parts in zip(*predicted, strict=True))
        attended = attended + attention
        heat = editor._heat(map_to_hold_by(settings.hold_by, attention, attended), task)
        offered = where_held(holds, heat.unflatten(0, (len(holds), pictures)), edited, shuffles)
        decision = sampler.decide(
            logits, tokens, index, heat=(~offered).flatten(0, 1).float(), hold_threshold=0.5, source=source,
            fixed=fixed, generator=generators,
        )  # fmt: skip
        tokens, held = decision.tokens, decision.held.unflatten(0, (len(holds), pictures))
        counts.append(held.flatten(2).sum(dim=-1))
        passes += len(states)
    fields = (each.unflatten(0, (len(holds), pictures)) for each in (tokens, heat))
    tensors = (each.cpu() for each in (*fields, held, torch.stack(counts)))
    return Swept(holds, *tensors, passes, alone=len(holds) * pictures * settings.steps)


def where_held(holds: Sequence[Hold], heat: Tensor, edited: Tensor, shuffles: Tensor) -> Tensor:
    """bool [H, B, h, w]. heat: [H, B, h, w]; edited: bool [B, h, w], the true edit; shuffles: long [B, h · w]."""
    held = []
    for hold, own in zip(holds, heat, strict=True):
        if hold.rule == MASK:
            held.append(~edited if hold.threshold > 0 else torch.zeros_like(edited))
        elif hold.rule == RANDOM:
            cells = heat[holds.index(Hold(HEAT, hold.threshold))] < hold.threshold
            held.append(cells.flatten(1).gather(1, shuffles).view_as(cells))
        else:
            held.append(own < hold.threshold)
    return torch.stack(held)


def draw_shuffles(cells: int, seeds: Sequence[int]) -> Tensor:
    """For each seed an order of so many cells, long [B, cells]."""
    return torch.stack([torch.randperm(cells, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


def distinct(picture: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Rows that differ in their picture or tokens: a row of every state, [S], and the state of every row, [R].

    picture: [R]; tokens: [R, h, w].
    """
    states = torch.cat([picture[:, None], tokens.flatten(1)], dim=1)
    _, state = states.unique(dim=0, return_inverse=True)
    rows = torch.arange(len(state), device=state.device)
    first = rows.new_full((int(state.max()) + 1,), len(rows)).scatter_reduce(0, state, rows, "amin")
    return first, state


def rows_of(task: Task, rows: Tensor) -> Task:
    """The task of some of its pictures, [R], each as often as it is named; with guidance, both halves of the text."""
    halves = len(task.text.tokens) // len(task.start)
    texts = torch.cat([rows + half * len(task.start) for half in range(halves)])
    text = replace(
        task.text,
        tokens=task.text.tokens[texts],
        pooled=task.text.pooled[texts],
        padding=None if task.text.padding is None else task.text.padding[texts],
        texts=None,
        spans=None,
    )
    return replace(
        task,
        start=task.start[rows],
        source=task.source[rows],
        fixed=task.fixed[rows],
        text=text,
        words=task.words[rows],
    )


def check_holds(holds: Sequence[Hold]) -> None:
    for hold in holds:
        if hold.rule not in RULES:
            raise SettingError(f"unknown hold {hold.rule!r}", expected=f"one of {list(RULES)}", fix="choose one")
        if not 0 <= hold.threshold <= 1:
            raise SettingError(f"λ is {hold.threshold}", expected="a number in [0, 1]", fix="0 holds nothing")
        if hold.rule == RANDOM and Hold(HEAT, hold.threshold) not in holds:
            raise SettingError(
                f"a random hold at λ = {hold.threshold:g} alone",
                expected="the hold by heat at the same λ beside it, whose number of cells it takes",
                fix="add it to the holds",
            )
