"""The same rows on Ray: in a process of its own, on a local cluster that it starts."""

import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from editmgt_lab.crisp.__main__ import main
from editmgt_lab.crisp.drawn.pictures import draw
from editmgt_lab.crisp.engine.local_ray import ATTEMPTS, SLOW, _started_quickly, start_local
from editmgt_lab.errors import SettingError
from tests.support import PATIENCE, ROOT

STARTING = 2 * PATIENCE  # Ray and its workers alone take 30 seconds

pytest.importorskip("ray", reason="the extra [cluster] is not installed")


def test_ray_makes_the_same_rows(tmp_path):
    pictures = draw(tmp_path, 8, split="validation", progress=False)
    native, ray = tmp_path / "native", tmp_path / "ray"
    arguments = [str(pictures), "--preset", "drawn", "--output"]
    assert main([*arguments, str(native)]) == 0
    done = subprocess.run(
        [sys.executable, "-m", "editmgt_lab.crisp", *arguments, str(ray), "--runner", "ray"],
        cwd=ROOT, capture_output=True, text=True, timeout=STARTING,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Started a local Ray instance" in done.stderr
    tables = sorted(path.relative_to(native) for path in native.rglob("*.parquet"))
    assert tables == sorted(path.relative_to(ray) for path in ray.rglob("*.parquet"))
    assert {path.parts[0] for path in tables} == {"dataset", "losers", "shards"}
    for path in tables:
        assert pq.read_table(native / path).equals(pq.read_table(ray / path)), path


def test_a_local_ray_that_does_not_start_says_so(monkeypatch):
    calls = []

    def refuse(times):
        def init(**_):
            calls.append(os.environ["PYTHONPATH"])
            if len(calls) <= times:
                raise Exception("The current node timed out during startup.")

        return init

    before = os.environ.get("PYTHONPATH")
    monkeypatch.setattr("ray.init", refuse(ATTEMPTS))
    with pytest.raises(SettingError, match=f"in {ATTEMPTS} attempts: The current node timed out"):
        start_local()
    assert len(calls) == ATTEMPTS and os.environ.get("PYTHONPATH") == before
    calls.clear()
    monkeypatch.setattr("ray.init", refuse(1))
    start_local()
    assert len(calls) == 2


def test_its_processes_do_without_a_slow_import():
    with _started_quickly():
        said = subprocess.run([sys.executable, "-c", f"import {SLOW}"], capture_output=True, text=True)
    assert said.returncode == 1 and "ImportError" in said.stderr and "editmgt-lab-ray" in said.stderr
    assert "editmgt-lab-ray" not in os.environ.get("PYTHONPATH", "")
