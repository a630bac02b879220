"""The same rows on Ray: in a process of its own, on a local cluster that it starts."""

import subprocess
import sys

import pytest

from editmgt_lab.crisp import options
from editmgt_lab.crisp.curate.sources import Source
from editmgt_lab.crisp.drawn.pictures import draw
from editmgt_lab.crisp.engine.shards import Store
from editmgt_lab.crisp.pipeline import STAGES, run
from tests.support import ROOT

pytest.importorskip("ray", reason="the extra [cluster] is not installed")


def test_ray_makes_the_same_rows(tmp_path):
    pictures = draw(tmp_path, 8, split="validation", progress=False)
    plan = options.plan_of(options.parser().parse_args([]))
    native = run(Source(str(pictures)), plan, tmp_path / "native", progress=False)
    arguments = [str(pictures), "--preset", "drawn", "--runner", "ray", "--output", str(tmp_path / "ray")]
    done = subprocess.run(
        [sys.executable, "-m", "editmgt_lab.crisp", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    if "timed out during startup" in done.stderr:
        pytest.skip("a local Ray did not start within its own time limit")
    assert done.returncode == 0, done.stderr[-3000:]
    store = Store(tmp_path / "ray" / "shards")
    for stage in STAGES:
        for shard in native.shards[stage]:
            again = store.find(stage, shard.key)
            assert again is not None, stage
            for dropped in (False, True):
                assert [*store.rows(again, dropped=dropped)] == [*native.store.rows(shard, dropped=dropped)]
