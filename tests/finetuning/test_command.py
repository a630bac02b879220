"""The fine-tuning command on a plain folder, and what `make skills` says of its lessons."""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import editmgt_lab as lab
from editmgt_lab.data.tokens import TokenPairs
from editmgt_lab.finetuning import Finetuner, load_adapter
from editmgt_lab.finetuning.__main__ import main, parted
from editmgt_lab.finetuning.adapters import WEIGHTS
from editmgt_lab.studies import skills
from editmgt_lab.studies.skills import Lesson, picture, table, verdicts

QUICK = ["--device", "cpu", "--steps", "3", "--batch", "2", "--learning-rate", "0.01"]


@pytest.fixture
def folder(tmp_path, picture):
    """Four pairs of one's own, one of them without a target."""
    for part in ("source", "target"):
        (tmp_path / "data" / part).mkdir(parents=True)
    lines = []
    for i in range(4):
        picture(40, 32, seed=i).save(tmp_path / "data" / "source" / f"{i}.png")
        if i < 3:
            picture(40, 32, seed=10 + i).save(tmp_path / "data" / "target" / f"{i}.png")
        lines.append({"source": f"{i}.png", "target": f"{i}.png", "instruction": "make it blue"})
    (tmp_path / "data" / "edits.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return tmp_path


def asked(folder, tiny_folder, *options: str) -> list[str]:
    places = ["--model", str(tiny_folder), "--folder", str(folder / "run"), "--output", str(folder / "out")]
    return [str(folder / "data"), *places, *QUICK, *options]


@pytest.mark.parametrize("given", ["--schema folder", "--split train"])
def test_a_skill_has_neither_schema_nor_split(tiny_folder, tmp_path, capsys, given):
    model = ["--model", str(tiny_folder), "--folder", str(tmp_path)]
    assert main(["cactus", *given.split(), *model, *QUICK]) == 2
    assert f"cactus is a skill of the drawn world, beside {given.split()[0]}" in capsys.readouterr().err


def test_a_skill_is_taught_beside_old_pairs_and_begun_anew(tiny_folder, tmp_path, monkeypatch, capsys):
    seen = []

    class Watched(Finetuner):
        def __init__(self, editor, pairs, settings, **given):
            seen.append((len(pairs), len(given["replay"]), settings.seed))
            super().__init__(editor, pairs, settings, **given)

    monkeypatch.setattr("editmgt_lab.finetuning.__main__.Finetuner", Watched)
    places = ["--model", str(tiny_folder), "--folder", str(tmp_path / "run"), "--output", str(tmp_path / "out")]
    given = ["cactus", "--limit", "4", "--replay", "5", "--rank", "2", *places, *QUICK]
    assert main(given) == 0
    assert main([*given, "--seed", "5"]) == 2 and "holds another run" in capsys.readouterr().err
    assert main([*given, "--seed", "5", "--anew"]) == 0
    assert seen == [(4, 5, 0), (4, 5, 5), (4, 5, 5)] and (tmp_path / "out" / WEIGHTS).exists()


def test_the_last_pairs_are_spared_to_validate_on():
    tokens = torch.arange(40)[:, None, None].expand(40, 2, 2)
    pairs = TokenPairs(tokens, tokens, [str(i) for i in range(40)])
    kept, spared = parted(pairs)
    assert kept.source[:, 0, 0].tolist() == [*range(38)] and spared.instructions == ["38", "39"]
    assert parted(pairs.subset(range(19)))[1] is None


def test_all_weights(folder, tiny_folder, capsys):
    assert main(asked(folder, tiny_folder)) == 0
    out = capsys.readouterr().out
    assert "3 pairs" in out and "1 × the target cannot be read" in out
    file = "editmgt/diffusion_pytorch_model.safetensors"
    before, after = load_file(tiny_folder / file), load_file(folder / "out" / file)
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    lab.load(folder / "out", device="cpu").edit(Image.new("RGB", (32, 32)), "make it blue", seed=0)


def test_an_adapter(folder, tiny_folder):
    assert main(asked(folder, tiny_folder, "--rank", "2", "--branch", "source")) == 0
    editor = lab.load(tiny_folder, device="cpu")
    load_adapter(editor.transformer, folder / "out")
    assert (folder / "out" / WEIGHTS).stat().st_size < 2_000_000


def test_run_again_it_has_nothing_left_to_do(folder, tiny_folder):
    assert main(asked(folder, tiny_folder, "--rank", "2")) == 0
    first = load_file(folder / "out" / WEIGHTS)
    assert main(asked(folder, tiny_folder, "--rank", "2")) == 0
    again = load_file(folder / "out" / WEIGHTS)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_other_settings_in_the_same_folder(folder, tiny_folder, capsys):
    assert main(asked(folder, tiny_folder)) == 0
    assert main(asked(folder, tiny_folder, "--seed", "5")) == 2
    assert "holds another run" in capsys.readouterr().err


def test_no_usable_row(folder, tiny_folder, capsys):
    for file in (folder / "data" / "target").iterdir():
        file.unlink()
    assert main(asked(folder, tiny_folder)) == 2
    assert "no usable row" in capsys.readouterr().err
    assert not (folder / "out").exists()


def lesson(way: str, after: float, old_after: float, share: float) -> Lesson:
    def rate(x: float) -> list[float]:
        return [1.0] * round(100 * x) + [0.0] * round(100 * (1 - x))

    return Lesson(
        "wrap", way, 0.1, rate(0), rate(after), rate(0.9), rate(old_after), 60.0, share, (Image.new("RGB", (8, 8)),) * 4
    )


def test_the_command_that_teaches_skills(tiny_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(skills, "REPLAY", 4)
    output, few = tmp_path / "new" / "skills.json", ["--count", "1", "--old-count", "1", "--steps", "1"]
    places = ["--model", str(tiny_folder), "--output", str(output), "--adapters", str(tmp_path / "adapters")]
    assert skills.main(["--skills", "cactus", "--ways", "LoRA", *few, *places]) == 0
    saved = json.loads(output.read_text(encoding="utf-8"))
    assert [(each["skill"], each["way"], each["hold"]) for each in saved["lessons"]] == [
        ("cactus", "LoRA", 0.0), ("cactus", "LoRA", lab.load(tiny_folder).defaults.hold_threshold)
    ]  # fmt: skip
    assert saved["settings"]["ways"]["LoRA"]["steps"] == 1 and saved["settings"]["model"] == str(tiny_folder)
    assert (tmp_path / "adapters" / "cactus" / WEIGHTS).exists() and output.with_suffix(".png").exists()
    assert "cactus, LoRA, no hold: " in capsys.readouterr().out


def test_verdicts():
    good = [lesson("all weights", 0.9, 0.88, 1.0), lesson("LoRA", 0.86, 0.9, 0.04)]
    assert "NO" not in verdicts(good)
    assert "NO" not in verdicts([lesson("all weights", 0.8, 0.87, 1.0)]), "the limits themselves are allowed"
    assert verdicts([lesson("all weights", 0.7, 0.9, 1.0)]).count("NO") == 1
    assert verdicts([lesson("all weights", 0.9, 0.8, 1.0)]).count("NO") == 1
    assert verdicts([good[0], lesson("LoRA", 0.84, 0.9, 0.06)]).count("NO") == 2
    assert "90 (" in table(good) and "4.0%" in table(good)
    assert len(picture(good).subfigs) == len(picture(good[:1]).subfigs) == 2
