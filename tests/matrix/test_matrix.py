"""The version matrix: its bounds, its interpreters and its table, without installing anything."""

import subprocess
import sys
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.matrix import __main__ as matrix
from tests.support import ROOT

REPORT = """<testsuites><testsuite tests="4" failures="1" errors="0" skipped="1" time="2.5">
<testcase classname="tests.a" name="one"/><testcase classname="tests.a" name="two"><failure/></testcase>
<testcase classname="tests.b" name="three"><skipped/></testcase><testcase classname="tests.b" name="four"/>
</testsuite></testsuites>"""


def test_every_dependency_has_a_lower_bound():
    tomllib = pytest.importorskip("tomllib", reason="the lowest versions are read by Python 3.11 or newer")
    pinned = dict(line.split("==") for line in matrix.lowest_versions())
    assert {"torch", "transformers", "pillow", "daft", "ray", "rapidocr-onnxruntime", "pytest"} <= pinned.keys()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert {*matrix.EXTRAS[matrix.LOWEST]} == extras.keys()


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
    told = matrix.counts(tmp_path / "report.xml", 1)
    assert told["failed"] == ["tests.a::two"] and not matrix.succeeded(told)
    assert told["outcome"] == "2 passed, 1 skipped, 1 failed"
    row = {"python": "3.12", "dependencies": matrix.LOWEST} | told
    assert list(matrix.table([row]))[-1] == "| 3.12 | lowest | – | – | – | – | 2 passed, 1 skipped, 1 failed |"
    none = matrix.counts(tmp_path / "none.xml", 4)
    assert none["outcome"] == "the suite did not start (pytest ended with 4)" and not matrix.succeeded(none)


@pytest.mark.parametrize("code, succeeded", [(0, True), (1, False), (2, False), (3, False), (5, False), (-9, False)])
def test_a_suite_that_did_not_run_to_its_end_is_no_success(tmp_path, code, succeeded):
    report = tmp_path / "report.xml"
    report.write_text('<testsuites><testsuite tests="2" failures="0" errors="0" skipped="1" time="1"/></testsuites>')
    told = matrix.counts(report, code)
    assert matrix.succeeded(told) == succeeded
    assert told["outcome"] == "1 passed, 1 skipped" + (f" (pytest ended with {code})" if code not in (0, 1) else "")
    report.write_text('<testsuites><testsuite tests="1" failures="0" errors="0" skipped="1" time="1"/></testsuites>')
    assert not matrix.succeeded(matrix.counts(report, code)), "nothing passed"


@pytest.mark.parametrize("pythons, status", [(["3.12"], 0), (["3.12", "3.1"], 1), (["3.1"], 1)])
def test_a_computer_that_lacks_one_of_these_pythons_is_no_success(tmp_path, monkeypatch, capsys, pythons, status):
    one = {"python": "3.12", "dependencies": matrix.NEWEST, "outcome": "1 passed", "code": 0, "passed": 1}
    run = matrix.run
    monkeypatch.setattr(matrix, "run", lambda python, *given: one if python == "3.12" else run(python, *given))
    options = ["--bounds", "newest", "--output", str(tmp_path)]
    monkeypatch.setattr("sys.argv", ["matrix", "--pythons", *pythons, *options])
    assert matrix.main() == status
    assert (matrix.ABSENT in capsys.readouterr().out) == ("3.1" in pythons)


def test_it_is_imported_where_there_is_no_tomllib():
    code = "import sys; sys.modules['tomllib'] = None; import tests.matrix.__main__, tests.flakes.__main__"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
