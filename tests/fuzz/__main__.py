"""`python -m tests.fuzz`: bad input of every kind; the table by kind, and each failure with its smallest recipe."""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import suppress
from pathlib import Path

from .fuzz import KINDS, Report, fuzz, replay


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="cases in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), help="these alone (else all)")
    parser.add_argument("--output", type=Path, default=Path("outputs/fuzz"), help="where failures are kept")
    parser.add_argument("--replay", type=Path, help="do a kept failure again, here, and see what it raises")
    chosen = parser.parse_args()
    if chosen.replay:
        outcome = replay(json.loads(chosen.replay.read_text(encoding="utf-8")))
        print(outcome.end, outcome.where, outcome.told, sep="\n")
        return outcome.end not in ("right", "LabError")
    began, report = time.monotonic(), Report()
    with suppress(KeyboardInterrupt):
        for name, number, outcome in fuzz(chosen.count, chosen.seed, chosen.kinds, chosen.output):
            if report.add(name, outcome):
                last = outcome.told.strip().splitlines()[-1:]
                print(f"{name} {number}: {outcome.end}, {outcome.where}: {last}", flush=True)
            if (done := sum(report.cases().values())) % 1000 == 0:
                print(f"{done} cases, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print(report.table())
    print(f"seed {chosen.seed}, {time.monotonic() - began:.0f} s; failures are kept in {chosen.output}")
    return int(report.failed())


if __name__ == "__main__":
    raise SystemExit(main())
