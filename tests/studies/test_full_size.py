"""The checkpoint of the released sizes: what it is made of, how it is written; and what an edit with it takes."""

from __future__ import annotations

import json
import mmap
import re
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, replace
from math import prod

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import editmgt_lab as lab
from editmgt_lab.errors import CheckpointError, LabError, SettingError
from editmgt_lab.studies.full_size import __main__ as command
from editmgt_lab.studies.full_size import build as building
from editmgt_lab.studies.full_size import growth
from editmgt_lab.studies.full_size.__main__ import main
from editmgt_lab.studies.full_size.build import build, in_all
from editmgt_lab.studies.full_size.floor import floors
from editmgt_lab.studies.full_size.measure import Meter, measure
from editmgt_lab.studies.full_size.parts import Sizes, clip_tokenizer, gemma_tokenizer, parts_of
from tests.support import ROOT
from tests.support.tiny import RECIPE

CLIP_WORDS, GEMMA_WORDS = len(clip_tokenizer()), len(gemma_tokenizer())
SMALL = Sizes(
    replace(
        RECIPE.transformer, text_encoder_architecture="CLIP_Gemma2", connector_type="linear", joint_attention_dim=24
    ),
    RECIPE.vq,
    {"vocab_size": CLIP_WORDS, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
     "num_attention_heads": 2, "projection_dim": 32, "max_position_embeddings": 77},
    {"vocab_size": GEMMA_WORDS, "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2,
     "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8},
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build(tmp_path_factory.mktemp("full") / "size", SMALL, progress=False)


def contents(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_released_sizes():
    inventory = json.loads((ROOT / "tests" / "parity" / "inventory_960m.json").read_text(encoding="utf-8"))
    parts = parts_of(Sizes.released())
    for ours, theirs in (("editmgt", "transformer"), ("vqvae", "vqvae")):
        shapes = {name: list(shape) for name, shape in parts[ours].shapes.items()}
        assert shapes == inventory[theirs]["parameters"]
        config = json.loads(json.dumps(parts[ours].config))
        assert {name: config[name] for name in inventory[theirs]["config"]} == inventory[theirs]["config"]
    numbers = {name: sum(map(prod, part.shapes.values())) for name, part in parts.items()}
    assert (numbers["text_encoder"], numbers["llm_encoder"]) == (354_032_640, 2_614_341_888)
    assert max(in_all(shapes) for part in parts.values() for shapes in building.shards(part).values()) < 1.2e9


def test_fewer_layers():
    few = Sizes.released(4)
    assert (few.transformer.num_layers, few.transformer.num_single_layers) == (1, 3)
    assert few.transformer.width == Sizes.released().transformer.width
    assert few.clip["num_hidden_layers"] == few.gemma["num_hidden_layers"] == 4
    assert sum(in_all(part.shapes) for part in parts_of(few).values()) < 1.4e9
    for wrong in (1, 42):
        with pytest.raises(SettingError, match="layers"):
            Sizes.released(wrong)


def test_it_loads_as_the_released_one_does(folder, picture):
    editor = lab.load(folder, device="cpu")
    tokenizers = editor.text_encoder.clip_tokenizer, editor.text_encoder.language_tokenizer
    assert [type(each).__name__ for each in tokenizers] == ["CLIPTokenizer", "GemmaTokenizer"]
    rows = editor.encode_text("make the ball blue")
    assert rows.tokens.shape == (1, 256, 24) and rows.padding[0, 0] and not rows.padding[0, -1]
    assert rows.rows("ball").sum() >= 1
    weights = dict(editor.transformer.named_parameters())
    spread = weights["single_transformer_blocks.0.proj_mlp.weight"].std().item()
    assert spread == pytest.approx(SMALL.transformer.width**-0.5, rel=0.1)
    assert (editor.defaults.steps, editor.defaults.strength) == (36, 1.1)  # no lab.json: the released defaults
    result = editor.with_defaults(image_size=32, blocks=(1,)).edit(picture(), "make the ball blue", steps=2, seed=0)
    assert result.tokens.max() < SMALL.vq.num_vq_embeddings


def test_killed_it_goes_on_to_the_same_bytes(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(building, "SHARD", 20_000)
    whole = build(tmp_path / "whole", SMALL, progress=False)
    assert len([*whole.glob("editmgt/*-of-*.safetensors")]) > 3
    written, save = [], building.save_file

    def killed(weights, file, metadata):
        if len(written) == 3:
            file.write_bytes(b"half")
            raise KeyboardInterrupt
        written.append(file)
        save(weights, file, metadata)

    with monkeypatch.context() as patch:
        patch.setattr(building, "save_file", killed)
        with pytest.raises(KeyboardInterrupt):
            build(tmp_path / "killed", SMALL, progress=False)
    with pytest.raises(LabError):
        lab.load(tmp_path / "killed")
    finished = [*(tmp_path / "killed").glob("*/[!.]*.safetensors")]
    kept = {file: file.stat().st_mtime_ns for file in finished}
    assert len(kept) == 3
    build(tmp_path / "killed", SMALL, progress=False)
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    assert contents(tmp_path / "killed") == contents(whole)
    a, b = (dict(lab.load(each, device="cpu").transformer.named_parameters()) for each in (whole, folder))
    assert all(torch.equal(value, b[name]) for name, value in a.items())  # sharded or not


def test_a_finished_one_is_not_written_again(folder, monkeypatch):
    monkeypatch.setattr(building, "save_file", lambda *_: pytest.fail("written again"))
    assert build(folder, SMALL) == folder


def test_other_sizes_are_built_anew_in_a_folder_of_its_own_alone(tmp_path):
    build(tmp_path / "it", SMALL, progress=False)
    (tmp_path / "it" / "result.json").write_text("{}", encoding="utf-8")
    before = contents(tmp_path / "it")
    other = replace(SMALL, transformer=replace(SMALL.transformer, num_single_layers=3))
    with pytest.raises(CheckpointError, match="other sizes(?s:.*)name another"):
        build(tmp_path / "it", other, progress=False)
    assert contents(tmp_path / "it") == before
    build(tmp_path / "it", other, own=True, progress=False)
    assert len(lab.load(tmp_path / "it").transformer.blocks) == 4


def test_what_is_refused(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("words", encoding="utf-8")
    with pytest.raises(CheckpointError, match="holds something else"):
        build(tmp_path / "mine", SMALL)
    monkeypatch.setattr(building.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**8})())
    with pytest.raises(CheckpointError, match=r"takes 4\d\d kB more, and 100 MB are free"):
        build(tmp_path / "new" / "place", SMALL)
    assert not (tmp_path / "new").exists()


def test_the_command(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Sizes, "released", lambda layers: SMALL)
    output = tmp_path / "out.json"
    options = ["--folder", str(folder), "--device", "cpu", "--output", str(output)]
    assert main([*options, "--size", "32", "--offload"]) == 0
    said = capsys.readouterr()
    result = json.loads(output.read_text(encoding="utf-8"))
    names = [stage["name"] for stage in result["stages"]]
    assert names == [
        "loading", "reading the picture", "reading the text", "step 1 of 2", "step 2 of 2", "painting the picture"
    ]  # fmt: skip
    assert all(stage["seconds"] > 0 and stage["peak"] > result["weights"] > 0 for stage in result["stages"])
    assert [stage["flops"] is None for stage in result["stages"]] == [True] + [False] * 5
    assert re.search(r"To decide 64 tokens, .* [\d.]+ s drawn by race, [\d.]+ s drawn by inverse\.", said.out)
    last = said.out.splitlines()[-1]
    took = sum(stage["seconds"] for stage in result["stages"][1:])
    assert re.match(rf"2 steps of 3 blocks at 32² px took {took:.1f} s and .* GiB at most, .* beside the weights", last)
    assert "decoding, step by step" in said.err
    assert main([*options, "--size", "33"]) == 2
    assert main([*options, "--held", "1"]) == 2


def test_options_are_looked_at_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(Sizes, "released", lambda layers: SMALL)
    for wrong in (["--held", "2"], ["--size", "100"], ["--steps", "0"]):
        assert main(["--folder", str(tmp_path / "new"), "--device", "cpu", *wrong]) == 2
    assert not (tmp_path / "new").exists()


def test_the_command_rebuilds_its_own_folder_and_no_named_one(tmp_path, monkeypatch):
    asked, layers, dtypes = [], [], []
    monkeypatch.setattr(Sizes, "released", lambda given: layers.append(given) or SMALL)
    monkeypatch.setattr(command, "build", lambda folder, sizes, own: asked.append((folder, own)))
    monkeypatch.setattr(command, "measure", lambda *_, dtype, **__: dtypes.append(dtype) or {})
    monkeypatch.setattr(command, "report", lambda _: "")
    monkeypatch.setattr(command.Path, "home", lambda: tmp_path)
    assert main(["--device", "cpu"]) == main(["--device", "cpu", "--folder", str(tmp_path / "mine")]) == 0
    assert main(["--device", "cpu", "--layers", "4", "--dtype", "bfloat16"]) == 0
    cache = tmp_path / ".cache" / "editmgt-lab"
    assert asked == [(cache / "full-size", True), (tmp_path / "mine", False), (cache / "full-size-4-layers", True)]
    assert layers == [None, None, 4] and dtypes == [None, None, torch.bfloat16]


def test_the_command_with_a_part_held(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Sizes, "released", lambda layers: SMALL)
    output = tmp_path / "out.json"
    options = ["--folder", str(folder), "--device", "cpu", "--output", str(output), "--size", "64", "--steps", "3"]
    computed, decode = [], lab.Editor.decode

    def watched(self, task):
        for step in decode(self, task):
            computed.append(step.computed.float().mean().item())
            yield step

    monkeypatch.setattr(lab.Editor, "decode", watched)
    assert main([*options, "--held", "0.7"]) == 0
    result = json.loads(output.read_text(encoding="utf-8"))
    assert result["settings"]["held"] == 0.75 and computed == [1, 0.25, 0.25]  # three of four rows of positions
    assert [stage["flops"] is None for stage in result["stages"] if stage["name"].startswith("step")] == [
        False,
        True,
        True,
    ]
    whole, *rest = (stage["seconds"] for stage in result["stages"] if stage["name"].startswith("step"))
    assert f"75% is held took {sum(rest) / 2 / whole:.0%} of a whole one" in capsys.readouterr().out


def test_floors_are_what_an_edit_multiplies(folder):
    parts = parts_of(SMALL)
    least = floors(parts, 32, passes=2)
    editor = lab.load(folder, device="cpu")
    tokens, text = torch.zeros(2, 8, 8, dtype=torch.long), editor.encode_text(["", "make the ball blue"])
    plain = sdpa_kernel(SDPBackend.MATH)  # the counter does not know the CPU's fused attention
    with torch.no_grad(), plain, FlopCounterMode(display=False) as counter:
        editor.transformer(tokens, text, torch.zeros(2), source=tokens)
    assert least["step"] == counter.get_total_flops() > 1e6
    assert floors(parts, 32, passes=1)["text"] * 2 == least["text"]
    clip, gemma = (parts[name].network for name in ("text_encoder", "llm_encoder"))
    linear = [
        sum(value.numel() for name, value in each.named_parameters() if value.ndim == 2 and "embed" not in name)
        for each in (clip, gemma)
    ]
    attention = 2 * 4 * (77**2 * 16 + 256**2 * 16)  # layers · 4 · rows² · width
    assert least["text"] == 2 * (2 * 77 * linear[0] + 2 * 256 * linear[1] + attention)


def test_the_meter_tells_stages_apart():
    meter = Meter(torch.device("cpu"), progress=False)
    with meter("before", 1):
        pass
    with meter("steps", 2) as done:
        with mmap.mmap(-1, 200_000_000) as room:  # of the system, whatever the process has kept of earlier tensors
            room.write(bytes(len(room)))
            done()
        done()
    before, first, _ = meter.stages
    assert [stage.name for stage in meter.stages] == ["before", "step 1 of 2", "step 2 of 2"]
    assert first.peak - before.peak > 1.5e8 and first.seconds > before.seconds
    with pytest.raises(KeyError), meter("broken", 1):
        raise KeyError
    assert meter.stages[-1].seconds > 0


def test_the_meter_reads_a_gpus_own_peak(monkeypatch):
    told, device = [], torch.device("cuda")
    for name in ("synchronize", "reset_peak_memory_stats", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda place, name=name: told.append((name, place)) or 1000 * len(told))
    meter = Meter(device, progress=False)
    with meter("steps", 2) as done:
        done()
        done()
    assert told == [(name, device) for name in ("reset_peak_memory_stats", "synchronize", "max_memory_allocated")] * 2
    assert [(stage.name, stage.peak) for stage in meter.stages] == [("step 1 of 2", 3000), ("step 2 of 2", 6000)]


def test_a_plan_is_json(folder):
    plan = json.loads((folder / building.PLAN).read_text(encoding="utf-8"))
    assert plan["sizes"] == json.loads(json.dumps(asdict(SMALL)))


def test_measuring_without_a_bar(folder, capsys):
    result = measure(folder, SMALL, size=32, steps=1, device=torch.device("cpu"), progress=False)
    assert result["settings"]["dtype"] == "float32" and capsys.readouterr().err == ""


def test_growth_is_the_power_between_sizes():
    taken = [growth.Taken(side, 2.0 * side**2, 10 * side**4, side**3) for side in (8, 16, 24)]
    assert growth.exponents(taken, "seconds") == pytest.approx([1, 1])
    assert growth.exponents(taken, "memory") == pytest.approx([2, 2])
    assert growth.exponents(taken, "flops") == pytest.approx([1.5, 1.5])
    text = growth.report(taken)
    assert re.search(r"16² +512.00 +1.00 +1 +2.00 +0.000 +1.50", text)
    assert "From 8² to 12² tokens, 2.25 times as many" in growth.report([taken[0], growth.Taken(12, 1.0, 1, 1.0)])
    assert "From 8² to 24² tokens, 9 times as many, a pass takes 9 times the time and 81 times the memory" in text
    time_axes, memory_axes = growth.growth_figure(taken, "3 blocks").axes
    assert [each.get_text() for each in memory_axes.texts] == ["2.00", "2.00"]
    assert [list(line.get_ydata()) for line in time_axes.lines] == [
        pytest.approx([128, 128 * 8, 128 * 27]), pytest.approx([128, 512, 1152])
    ]  # fmt: skip


def test_a_pass_over_more_tokens_takes_more():
    small, large = growth.measure(SMALL.transformer, (8, 96), passes=1, device=torch.device("cpu"), progress=False)
    assert large.seconds > small.seconds > 0 and large.memory > small.memory >= 0
    assert large.memory > 5e6, "the logits alone are 96² of 32 numbers, the MLP's inside 4,864 rows of 128"
    network, tokens = parts_of(SMALL)["editmgt"].network, torch.zeros(1, 8, 8, dtype=torch.long, device="meta")
    widths = (256, SMALL.transformer.text_width), (SMALL.transformer.pooled_projection_dim,)
    text = lab.TextCondition(*(torch.zeros(1, *width, device="meta") for width in widths))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(tokens, text, torch.zeros(1, device="meta"), source=tokens)
    assert small.flops == counter.get_total_flops()


def test_the_growth_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Sizes, "released", lambda layers: SMALL)
    output = tmp_path / "new" / "growth.json"
    assert main(["--growth", "8", "--steps", "1", "--device", "cpu", "--output", str(output)]) == 0
    result = json.loads(output.read_text(encoding="utf-8"))
    assert [size["side"] for size in result["sizes"]] == [8] and result["powers"]["seconds"] == []
    assert "3 blocks" in result["about"] and "From 8² to 8² tokens" in capsys.readouterr().out
    assert output.with_suffix(".png").stat().st_size > 10_000
    for wrong in (["16", "8"], ["9"], ["0"], ["8", "8"]):
        assert main(["--growth", *wrong, "--device", "cpu"]) == 2
    assert "rising" in capsys.readouterr().err


def test_a_process_that_is_ended_is_said(monkeypatch):
    def ended(*_):
        raise BrokenProcessPool("it was terminated abruptly")

    monkeypatch.setattr(growth.ProcessPoolExecutor, "submit", ended)
    with pytest.raises(SettingError, match="8² tokens could not be measured: it was terminated"):
        growth.measure(SMALL.transformer, [8], device=torch.device("cpu"), progress=False)


@pytest.mark.parametrize(
    "error", [torch.cuda.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate"), MemoryError()]
)
def test_memory_that_runs_out_leaves_what_was_measured(monkeypatch, capsys, error):
    def submit(pool, call, config, side, *_):
        done = Future()
        done.set_exception(error) if side > 16 else done.set_result(growth.Taken(side, 1.0, 1, 1.0))
        return done

    monkeypatch.setattr(growth.ProcessPoolExecutor, "submit", submit)
    place = {"device": torch.device("cpu"), "progress": False}
    assert [each.side for each in growth.measure(SMALL.transformer, [8, 16, 24, 32], **place)] == [8, 16]
    assert f"24² tokens could not be measured: {str(error) or 'MemoryError'}" in capsys.readouterr().err
    with pytest.raises(SettingError, match="24² tokens"):
        growth.measure(SMALL.transformer, [24], **place)


def test_what_the_libraries_take_once_is_no_part_of_a_pass(monkeypatch):
    seen, forward = [], lab.MaskedGenerativeTransformer.forward
    monkeypatch.setattr(
        growth.Meter, "__call__", lambda *asked, call=growth.Meter.__call__: seen.append(0) or call(*asked)
    )

    def spy(self, tokens, *asked, **options):
        if not tokens.is_meta:
            seen.append(tokens.shape[-1])
        return forward(self, tokens, *asked, **options)

    monkeypatch.setattr(lab.MaskedGenerativeTransformer, "forward", spy)
    growth.take(SMALL.transformer, 8, 2, torch.device("cpu"), torch.float32)
    assert seen == [2, 0, 0, 8, 8]  # 0: the meter begins
