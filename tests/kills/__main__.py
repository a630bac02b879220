"""`python -m tests.kills`: kills at random moments over every command that writes, and disks that do not take it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping

import torch

from .commands import COMMANDS
from .disks import TROUBLES, Outcome, can_mount, disturb
from .kills import Count, kill, stages


def table(counts: Mapping[str, Count]) -> Iterator[str]:
    """The Markdown lines."""
    yield "| command | kills | while writing | reruns | lost | leftover temporaries |"
    yield "| --- |" + " ---: |" * 5
    rows = {name: (c.kills, c.writing, c.reruns, len(c.lost), len(c.leftover)) for name, c in counts.items()}
    rows["all"] = tuple(map(sum, zip(*rows.values(), strict=True)))
    for name, row in rows.items():
        yield f"| {name} | " + " | ".join(map(str, row)) + " |"


def disks_table(outcomes: Mapping[str, Outcome]) -> Iterator[str]:
    """The Markdown lines."""
    yield "| trouble | ended in a LabError | ended right all the same | wrong |"
    yield "| --- |" + " ---: |" * 3
    for trouble, each in outcomes.items():
        yield f"| {trouble} | {each.told} | {each.right} | {len(each.wrong)} |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kills", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="kills in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--troubles", type=int, default=1, help="cases of each disk trouble for each command")
    parser.add_argument("--commands", nargs="+", choices=list(COMMANDS), default=list(COMMANDS), help="these alone")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    began, counts = time.monotonic(), {}
    outcomes = {trouble: Outcome() for trouble in TROUBLES}
    if not can_mount():
        print("full disk: left out, since a small one may not be mounted here")
        del outcomes["full disk"]
    for name in chosen.commands:
        COMMANDS[name].imported()  # children have it then
    with stages(chosen.commands) as each:
        for number, (name, stage) in enumerate(each.items()):
            share = chosen.count // len(each) + (number < chosen.count % len(each))
            told = counts[name] = kill(stage, share, chosen.seed)
            wrong = [*told.lost, *told.leftover]
            for trouble, outcome in outcomes.items():
                wrong += disturb(stage, trouble, chosen.troubles, chosen.seed, outcome)
            print(*wrong, f"{name}: {share} kills, {time.monotonic() - began:.0f} s", sep="\n", flush=True)
    print("\n".join(table(counts)), "\n".join(disks_table(outcomes)), sep="\n\n")
    failed = any(count.lost or count.leftover for count in counts.values())
    return int(failed or any(outcome.wrong for outcome in outcomes.values()))


if __name__ == "__main__":
    raise SystemExit(main())
