"""The search for flakes finds a test that hangs on the order, and goes on where it was stopped."""

import json

import pytest

from tests.flakes import __main__ as flakes

HANGS_ON_THE_ORDER = """
import pytest

seen = []

@pytest.mark.parametrize("number", range(6))
def test_numbers(number):
    seen.append(number)
    assert seen == list(range(number + 1))
"""


def test_a_test_that_hangs_on_the_order_is_found(tmp_path):
    suite = tmp_path / "test_order.py"
    suite.write_text(HANGS_ON_THE_ORDER)
    in_order, shuffled = (
        flakes.run(1, 1, ["-n0", *options, str(suite)], tmp_path) for options in (["--random-order-bucket=none"], [])
    )
    assert in_order["outcome"] == "6 passed, 0 skipped" and flakes.succeeded(in_order)
    assert shuffled["failed"] and not flakes.succeeded(shuffled)
    assert {name.partition("[")[0].rpartition("::")[2] for name in shuffled["failed"]} == {"test_numbers"}


def test_a_rerun_goes_on(tmp_path, monkeypatch, capsys):
    def run(seed, loops, tests, folder):
        assert (loops, tests) == (3, ["tests/one.py"])
        failed = ["tests.one::test_it"] if seed == 1 else []
        told = {"outcome": f"run {len(asked)}", "failed": failed, "passed": 1, "code": len(failed)}
        return {"seed": seed, "busy loops": loops} | told

    asked = []
    monkeypatch.setattr(flakes, "run", lambda *given: asked.append(given) or run(*given))
    for count in (1, 3):
        command = ["flakes", "--count", str(count), "--busy", "3", "--output", str(tmp_path), "tests/one.py"]
        monkeypatch.setattr("sys.argv", command)
        assert flakes.main() == (count == 3)
    assert [seed for seed, *_ in asked] == [0, 1, 2]
    assert [each["outcome"] for each in json.loads((tmp_path / "flakes.json").read_text())["runs"]] == [
        "run 1",
        "run 2",
        "run 3",
    ]
    assert "order 1, 3 busy loops: run 2 tests.one::test_it" in capsys.readouterr().out


@pytest.fixture
def search(tmp_path, monkeypatch):
    """The command, with runs that take no time."""
    good = {"outcome": "1 passed", "failed": [], "passed": 1, "code": 0}
    monkeypatch.setattr(flakes, "run", lambda seed, loops, *_: good | {"seed": seed, "busy loops": loops})

    def search(*arguments):
        monkeypatch.setattr("sys.argv", ["flakes", "--output", str(tmp_path), *arguments])
        return flakes.main()

    return search


def test_runs_of_something_else_are_not_gone_on_with(search, tmp_path, monkeypatch, capsys):
    assert search("--count", "2", "--busy", "0", "tests/a.py") == 0 == search("--busy", "0", "tests/a.py")
    with pytest.raises(SystemExit) as refused:
        search("--count", "2", "--busy", "2")
    said = capsys.readouterr().err
    assert refused.value.code == 2 and "busy loops 0, now 2; tests ['tests/a.py'], now all" in said
    assert "another --output, or delete that file" in said
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(flakes, "fingerprint", lambda code: "other")
        search("--busy", "0", "tests/a.py")
    assert "code.files" in capsys.readouterr().err
    (tmp_path / "flakes.json").write_text(json.dumps([{"seed": 0, "outcome": "1 passed", "failed": []}]))
    with pytest.raises(SystemExit):
        search("--busy", "0", "tests/a.py")
    (tmp_path / "flakes.json").unlink()
    assert search("--count", "1") == 0


def test_a_search_in_which_no_test_ran_is_no_success(search, tmp_path, monkeypatch):
    assert search("--count", "0") == 1
    (tmp_path / "7.xml").write_text('<testsuites><testsuite tests="9"/></testsuites>')  # of an earlier search
    monkeypatch.undo()
    for tests in (["tests/no_such_file.py"], [str(tmp_path)], ["-k", "nothing", __file__]):
        told = flakes.run(7, 0, ["-n0", "-p", "no:cacheprovider", *tests], tmp_path)
        assert not flakes.succeeded(told) and told["code"] in (4, 5)


def test_the_loops_end_with_their_run():
    with pytest.raises(KeyboardInterrupt), flakes.busy(1):
        raise KeyboardInterrupt
