"""`python -m tests.matrix`: the suite, without a browser, on every supported Python, and on the oldest with the lowest
versions of all dependencies together.

Every run has an empty environment of its own, which is removed afterwards. Prints a Markdown table; exits with 1 where
a test failed, none ran, nothing could be installed, or this computer lacks one of the Pythons.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from tqdm.auto import tqdm

from editmgt_lab.metrics.report import save_json
from tests.support import ROOT

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
ABSENT = "no such Python on this computer"
NEWEST, LOWEST = "as in constraints.txt", "lowest"
# "writing" with the lowest alone: its rapidocr-onnxruntime cannot be installed on Python 3.13.
EXTRAS = {NEWEST: ("crisp", "cluster", "test"), LOWEST: ("crisp", "writing", "cluster", "test")}
SHOWN = ("torch", "transformers", "numpy", "pillow")
ENDED = (0, 1)  # pytest's return codes of a suite that ran to its end: all passed, some failed
SUITE = ("-m", "pytest", "-q", "-n", "auto", "--dist", "loadgroup", "-m", "not browser")


def lowest_versions() -> list[str]:
    """`name==version` of every dependency, those of the extras among them: the lowest that pyproject.toml allows."""
    import tomllib  # Python 3.10, which runs what else is here, has none

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = (project["optional-dependencies"][extra] for extra in EXTRAS[LOWEST])
    named = map(Requirement, itertools.chain(project["dependencies"], *extras))
    others = (each for each in named if each.name != project["name"])  # an extra may be made of another one
    bounds = {each.name: next(part.version for part in each.specifier if part.operator == ">=") for each in others}
    return [f"{name}=={version}" for name, version in sorted(bounds.items())]


def interpreter(python: str) -> str | None:
    """The path of this Python, on the PATH or among pyenv's, or None."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    places = [shutil.which(f"python{python}"), *map(str, pyenv.glob(f"{python}.*/bin/python")), sys.executable]
    for place in filter(None, places):
        asked = [place, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"]
        if subprocess.run(asked, capture_output=True, text=True).stdout.strip() == python:
            return place
    return None


def run(python: str, bounds: str, tests: Sequence[str], log: Path) -> dict[str, Any]:
    """Install and test in a fresh environment: what came of it, and with which versions."""
    told: dict[str, Any] = {"python": python, "dependencies": bounds}
    found = interpreter(python)
    if found is None:
        return told | {"outcome": ABSENT}
    with tempfile.TemporaryDirectory() as folder, log.open("w") as output:
        place = Path(folder)
        pip = [str(place / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        constraints = ROOT / "constraints.txt"
        if bounds == LOWEST:
            constraints = place / "lowest.txt"
            constraints.write_text("\n".join(lowest_versions()) + "\n")
        steps = (
            [found, "-m", "venv", folder],
            [*pip, "install", "--quiet", "-c", str(constraints), "-e", f"{ROOT}[{','.join(EXTRAS[bounds])}]"],
        )
        for step in steps:
            if subprocess.run(step, stdout=output, stderr=output, cwd=ROOT).returncode:
                return told | {"outcome": f"cannot be installed: see {log}"}
        listed = subprocess.run([*pip, "list", "--format=json"], capture_output=True, text=True, check=True).stdout
        versions = {each["name"].lower(): each["version"] for each in json.loads(listed)}
        told |= {name: versions[name] for name in SHOWN}
        report = place / "report.xml"
        suite = [pip[0], *SUITE, f"--junitxml={report}", *tests]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        ended = subprocess.run(suite, stdout=output, stderr=output, cwd=ROOT, env=environment)
        return told | counts(report, ended.returncode)


def counts(report: Path, code: int) -> dict[str, Any]:
    """From pytest's return code and JUnit file: how many passed, failed and were skipped, and the names of those that
    failed."""
    if not report.exists():
        return {"outcome": f"the suite did not start (pytest ended with {code})", "code": code}
    suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    total, failures, errors, skipped = (int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped"))
    failed = [
        f"{case.get('classname')}::{case.get('name')}"
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
    passed = total - failures - errors - skipped
    outcome = f"{passed} passed, {skipped} skipped" + (f", {failures + errors} failed" if failed else "")
    outcome += "" if code in ENDED else f" (pytest ended with {code})"
    numbers = {"passed": passed, "skipped": skipped, "failed": failed, "seconds": suite.get("time")}
    return {"outcome": outcome, "code": code} | numbers


def succeeded(run: dict[str, Any]) -> bool:
    """Whether a suite ran to its end, something passed and nothing failed."""
    return run.get("code") == 0 and run.get("passed", 0) > 0


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The Markdown lines."""
    heads = ("python", "dependencies", *SHOWN, "outcome")
    yield "| " + " | ".join(heads) + " |"
    yield "| " + " | ".join("---" for _ in heads) + " |"
    for row in rows:
        yield "| " + " | ".join(row.get(head, "–") for head in heads) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__.split("\n\n")[0])
    parser.add_argument("--pythons", nargs="+", default=PYTHONS, metavar="X.Y")
    parser.add_argument("--bounds", choices=("newest", "lowest", "both"), default="both")
    parser.add_argument("--output", type=Path, default=Path("outputs") / "matrix")
    parser.add_argument("tests", nargs="*", help="of these files only")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)

    cases = [(python, NEWEST) for python in options.pythons if options.bounds != "lowest"]
    if options.bounds != "newest":
        cases.append((min(options.pythons, key=lambda python: int(python.split(".")[1])), LOWEST))
    rows = []
    for python, bounds in tqdm(cases, desc="environments"):
        rows.append(run(python, bounds, options.tests, options.output / f"{python}-{bounds.split()[0]}.log"))
        save_json({"date": str(datetime.date.today()), "runs": rows}, options.output / "matrix.json")
    print(f"{datetime.date.today()}, {sys.platform}")
    print("\n".join(table(rows)))
    return 0 if rows and all(map(succeeded, rows)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
