"""The version matrix: its bounds, its interpreters and its table, without installing anything."""

import sys
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

pytest.importorskip("tomllib", reason="the matrix is run by Python 3.11 or newer")
from tests.matrix import __main__ as matrix  # noqa: E402
from tests.support import ROOT  # noqa: E402

REPORT = """<testsuites><testsuite tests="4" failures="1" errors="0" skipped="1" time="2.5">
<testcase classname="tests.a" name="one"/><testcase classname="tests.a" name="two"><failure/></testcase>
<testcase classname="tests.b" name="three"><skipped/></testcase><testcase classname="tests.b" name="four"/>
</testsuite></testsuites>"""


def test_every_dependency_has_a_lower_bound():
    pinned = dict(line.split("==") for line in matrix.lowest_versions())
    assert {"torch", "transformers", "pillow", "daft", "scikit-image", "pytest"} <= pinned.keys()
    assert "ray" not in pinned, "the cluster's extra is not installed"


@pytest.mark.parametrize("python", matrix.PYTHONS)
def test_no_pin_is_of_a_release_that_this_python_cannot_have(python):
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    for pin in pins:
        if pin.marker and not pin.marker.evaluate({"python_version": python}):
            continue
        try:
            installed = metadata.distribution(pin.name)
        except metadata.PackageNotFoundError:
            continue  # an extra that was not asked for
        if installed.version.split("+")[0] in pin.specifier:
            allowed = installed.metadata.get("Requires-Python", "")
            assert f"{python}.0" in SpecifierSet(allowed), f"{pin} wants Python {allowed}: say so beside its pin"


def test_this_python_is_found_and_one_that_is_missing_is_said(tmp_path):
    mine = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert matrix.interpreter(mine) and matrix.interpreter("3.1") is None
    assert matrix.run("3.1", matrix.NEWEST, [], tmp_path / "log")["outcome"] == "no such Python on this computer"


def test_the_table_counts_what_pytest_reports(tmp_path):
    (tmp_path / "report.xml").write_text(REPORT)
    told = matrix.counts(tmp_path / "report.xml")
    assert told["failed"] == ["tests.a::two"] and told["outcome"] == "2 passed, 1 skipped, 1 failed"
    row = {"python": "3.12", "dependencies": matrix.LOWEST} | told
    assert list(matrix.table([row]))[-1] == "| 3.12 | lowest | – | – | – | – | 2 passed, 1 skipped, 1 failed |"
    assert matrix.counts(tmp_path / "none.xml") == {"outcome": "the suite did not start"}
