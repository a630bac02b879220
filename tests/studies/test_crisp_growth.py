"""The growth study: one small run measured for real, and the arithmetic of what it says."""

import json
import math

import pytest

from editmgt_lab.errors import DataError, SettingError
from editmgt_lab.studies import crisp_growth
from editmgt_lab.studies.crisp_growth import Taken, growth, main, measure, memory_growth, picture, table, take, told
from tests.support import ROOT

pytest.importorskip("daft", reason="the extra [crisp] is not installed")


def runs(power, peaks, counts=(100, 1000, 2000)):
    return [Taken(n, 2 * n, 1.0, 0.01 * n**power, peak) for n, peak in zip(counts, peaks, strict=True)]


def test_a_run_is_measured_and_saved(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)  # where a process finds the package
    (one,) = measure([3], tmp_path, ["--until", "curate"])
    assert one.scenes == 3 and one.rows == 6  # measured, then curated
    assert 0 < one.processor and 50e6 < one.peak < 5e9 and one.seconds > 0
    saved = json.loads((tmp_path / "growth.json").read_text(encoding="utf-8"))
    assert saved["runs"][0]["peak"] == one.peak and saved["exponent"] is None
    assert (tmp_path / "growth.svg").exists() and not (tmp_path / "3").exists()
    with pytest.raises(DataError, match="at 3 scenes: .*faults: drift"):
        take(3, tmp_path / "3", ["--editor", "magic"])


def test_linear_and_quadratic_growth_are_told_apart():
    assert growth(runs(1, [1, 1, 1])) == pytest.approx(1) and growth(runs(2, [1, 1, 1])) == pytest.approx(2)
    assert math.isnan(growth(runs(1, [1, 1, 1])[:1]))
    assert memory_growth(runs(1, [100, 120, 200])) == (10, pytest.approx(1.2))
    assert memory_growth(runs(1, [100, 120, 200], (10, 20, 200))) == (10, pytest.approx(200 / 120))
    assert memory_growth(runs(1, [100, 110, 120, 200], (10, 20, 100, 200))) == (10, pytest.approx(200 / 110))
    assert memory_growth(runs(1, [1, 1, 1])[:1]) is None
    assert memory_growth(runs(1, [100, 150], (1000, 2500))) == (2.5, pytest.approx(1.5))
    assert "2.5 times the scenes take 1.50 times the peak" in told(runs(1, [100, 150], (1000, 2500)))
    said = told(runs(2, [100, 150, 200]))
    assert "the power 2.00" in said and "10 times the scenes take 1.50 times the peak" in said
    assert table(runs(1, [1e6, 2e6, 3e6])).splitlines()[3].split() == ["1000", "2000", "10", "10", "1", "2"]
    assert len(picture(runs(1, [1e9, 1e9, 1e9])).axes) == 2


def test_command(tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(crisp_growth, "measure", lambda *given: asked.append(given) or runs(1, [1e6, 2e6, 3e6]))
    assert main(["--counts", "3", "6", "--until", "curate", "--size", "64", "--output", str(tmp_path)]) == 0
    assert asked == [([3, 6], tmp_path, ["--until", "curate", "--size", "64"])]
    printed = capsys.readouterr().out
    assert "the power 1.00" in printed and f"saved: {tmp_path / 'growth.png'}" in printed


@pytest.mark.parametrize("counts", [[], [2, 1], [0, 1], [1, 1]])
def test_counts_must_rise(counts, tmp_path):
    with pytest.raises(SettingError, match="counts are"):
        measure(counts, tmp_path)
