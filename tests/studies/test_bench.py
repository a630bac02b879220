"""The bench end to end on a random editor, and its arithmetic."""

from __future__ import annotations

import json

import pytest
import torch

from editmgt_lab import load
from editmgt_lab.attention import capture_attention
from editmgt_lab.studies import bench as bench_module


def test_bench_command(tiny_folder, tmp_path, capsys):
    output = tmp_path / "new" / "bench.json"
    options = ["--model", str(tiny_folder), "--steps", "2", "--repetitions", "1", "--output", str(output)]
    assert bench_module.main(options) == 0
    result = json.loads(output.read_text(encoding="utf-8"))
    assert all(seconds > 0 for seconds in result["seconds"].values()) and len(result["seconds"]) == 8
    step, captured = (result["seconds"][name] for name in (bench_module.PLAIN, bench_module.CAPTURED))
    assert result["capture_cost"] == pytest.approx(captured / step - 1)
    usual, fast = (result["ways"][name] for name in (bench_module.USUAL_EDIT, bench_module.FAST_EDIT))
    assert result["fast_share"] == pytest.approx(fast / usual) and fast > 0
    printed = capsys.readouterr().out
    assert bench_module.processor() in printed
    guidance = bench_module.GUIDANCE_SCALE
    assert result["settings"]["guidance_scale"] == guidance and f"2 steps, guidance scale {guidance:g}" in printed
    assert result["settings"]["guidance_scale_of_the_ways"] == load(tiny_folder).defaults.guidance_scale
    assert bench_module.main(["--model", str(tmp_path / "nothing")]) == 2


def test_bench_divides_loops_by_their_steps_and_nothing_else(tiny_folder, monkeypatch):
    monkeypatch.setattr(bench_module, "in_turn", lambda measures, *_: {name: [6.0, 6.0] for name in measures})
    seconds = bench_module.bench(str(tiny_folder), steps=3, progress=False)["seconds"]
    loops = {bench_module.PLAIN, bench_module.CAPTURED, bench_module.HEAT}
    assert seconds == {name: 2.0 if name in loops else 6.0 for name in seconds} and loops < set(seconds)


def test_bench_states_the_memory_that_capture_takes(editor, tiny_folder):
    result = bench_module.bench(str(tiny_folder), steps=1, repetitions=1, progress=False)
    tokens = torch.zeros(2, 8, 8, dtype=torch.long)
    with torch.no_grad(), capture_attention(editor.transformer, range(3)) as captured:
        editor.transformer(tokens, editor.encode_text(["", "remove the cat"]), torch.zeros(2), source=tokens)
    assert result["capture_bytes"] == captured.memory


def test_bench_loop_is_the_same_with_and_without_capture(editor, picture):
    source, text = editor.tokenize(picture()), editor.encode_text(["", "remove the cat"])
    plain = bench_module.decode(editor, source, text, 3)
    assert torch.equal(plain, bench_module.decode(editor, source, text, 3, range(3), heat=True))
    assert plain.max() < editor.vq.config.num_vq_embeddings


def test_measures_take_turns():
    calls = []
    times = bench_module.in_turn({name: lambda name=name: calls.append(name) for name in "abc"}, 2)
    assert "".join(calls) == "abc" + "abc" + "bca"
    assert {name: len(values) for name, values in times.items()} == {"a": 2, "b": 2, "c": 2}


def test_cost_compares_within_a_round():
    assert bench_module.cost([1.1, 22.0, 3.3], [1.0, 20.0, 3.0]) == pytest.approx(0.1)
