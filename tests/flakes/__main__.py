"""`python -m tests.flakes`: the whole suite again and again, in another order each time, beside busy loops.

A test that hangs on the order, on what another one left, or on how fast a computer is fails here sooner or later.
Prints a line for each run with the seed of its order, and the names of what failed; exits with 1 where any did, or none
ran. Runs that are done stay in the output's flakes.json, and a rerun of the same goes on with the next seed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from editmgt_lab.basics.fingerprints import code_fingerprint, differences, fingerprint
from editmgt_lab.metrics.report import save_json
from tests.matrix.__main__ import counts, succeeded
from tests.support import ROOT

ROOMS, CODE = ("editmgt_lab", "tests", "notebooks"), (".py", ".js", ".css")
SUITE = ("-m", "pytest", "-q", "-n", "auto", "--dist", "loadgroup", "--random-order-bucket=module")


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """So many processes that do nothing, as fast as they can."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def run(seed: int, loops: int, tests: Sequence[str], folder: Path) -> dict[str, Any]:
    """The suite once, its files and the tests of each in the order of this seed: what came of it."""
    report = folder / f"{seed}.xml"
    report.unlink(missing_ok=True)  # of an earlier search
    command = [sys.executable, *SUITE, f"--random-order-seed={seed}", f"--junitxml={report}", *tests]
    with open(folder / f"{seed}.log", "w") as log, busy(loops):
        ended = subprocess.run(command, stdout=log, stderr=log, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return {"seed": seed, "busy loops": loops} | counts(report, ended.returncode)


def made_of(tests: Sequence[str], loops: int) -> dict[str, Any]:
    """What the runs of one search have in common: tests, busy loops and code, that of the tests too."""
    files = [file for room in ROOMS for file in (ROOT / room).rglob("*.*") if file.suffix in CODE]
    code = {"files": fingerprint({str(file.relative_to(ROOT)): file for file in files})} | code_fingerprint()
    return {"tests": list(tests) or "all", "busy loops": loops, "code": code}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.flakes", description=__doc__.split("\n\n")[0])
    parser.add_argument("--count", type=int, default=20, help="runs in all, those that are done among them")
    parser.add_argument("--busy", type=int, default=2, help="loops that keep the processor busy meanwhile")
    parser.add_argument("--output", type=Path, default=Path("outputs") / "flakes")
    parser.add_argument("tests", nargs="*", help="of these files only")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    kept = options.output / "flakes.json"
    search = {"made of": made_of(options.tests, options.busy), "runs": []}
    if kept.exists():
        before = json.loads(kept.read_text(encoding="utf-8"))
        before = before if isinstance(before, dict) else {"made of": {}}  # by an earlier release
        if changed := differences(before["made of"], search["made of"]):
            parser.error(
                f"{kept} has runs of something else: {'; '.join(changed)}\n"
                "take another --output, or delete that file to begin anew"
            )
        search = before
    runs = search["runs"]
    for seed in tqdm(range(len(runs), options.count), initial=len(runs), total=options.count, desc="the suite"):
        runs.append(run(seed, options.busy, options.tests, options.output.resolve()))
        save_json(search, kept)
    for each in runs:
        print(f"order {each['seed']}, {each['busy loops']} busy loops: {each['outcome']}", *each.get("failed", ()))
    return 0 if runs and all(map(succeeded, runs)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
