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
    assert in_order["outcome"] == "6 passed, 0 skipped" and shuffled["failed"]
    assert {name.partition("[")[0].rpartition("::")[2] for name in shuffled["failed"]} == {"test_numbers"}


def test_a_rerun_goes_on(tmp_path, monkeypatch, capsys):
    def run(seed, loops, tests, folder):
        assert (loops, tests) == (3, ["tests/one.py"])
        failed = ["tests.one::test_it"] if seed == 1 else []
        return {"seed": seed, "busy loops": loops, "outcome": f"run {len(asked)}", "failed": failed}

    asked = []
    monkeypatch.setattr(flakes, "run", lambda *given: asked.append(given) or run(*given))
    for count in (1, 3):
        command = ["flakes", "--count", str(count), "--busy", "3", "--output", str(tmp_path), "tests/one.py"]
        monkeypatch.setattr("sys.argv", command)
        assert flakes.main() == (count == 3)
    assert [seed for seed, *_ in asked] == [0, 1, 2]
    assert [each["outcome"] for each in json.loads((tmp_path / "flakes.json").read_text())] == [
        "run 1",
        "run 2",
        "run 3",
    ]
    assert "order 1, 3 busy loops: run 2 tests.one::test_it" in capsys.readouterr().out


def test_the_loops_end_with_their_run():
    with pytest.raises(KeyboardInterrupt), flakes.busy(1):
        raise KeyboardInterrupt
