"""The benchmarks on small sets of the published schemas, with bad rows among them; killed, and gone on with."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

import editmgt_lab as lab
from editmgt_lab.benchmarks import BENCHMARKS, AnyBench, EmuEdit, GEdit, MagicBrush, SmallWorld, run
from editmgt_lab.benchmarks.__main__ import main
from editmgt_lab.benchmarks.magicbrush import edit_region
from editmgt_lab.benchmarks.run import editor_answers
from editmgt_lab.data.tables import read_rows
from editmgt_lab.errors import DataError, EndpointError, SettingError, TextError
from editmgt_lab.metrics.backbones import CLIP_SOURCE, DINO_SOURCE, DINOV2_SOURCE, load_clip
from editmgt_lab.metrics.measured import ALL
from editmgt_lab.metrics.measures import Tools
from tests.support import PATIENCE
from tests.support.backbones import save_clip, save_dino
from tests.support.parquet import IMAGE, column, png, write

NONE = Tools()
COPY = "copy the source"


def sample(number):
    return lab.world.sample_edit(number, split="test", size=64)


def invert(source, instruction, number):
    return Image.fromarray(255 - np.asarray(source))


def done(folder):
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]


def skipped(folder):
    return {row["key"]: row["skipped"] for row in done(folder) if "skipped" in row}


EMU = [
    ("instruction", pa.string()), ("image", IMAGE), ("task", pa.string()), ("split", pa.string()), ("idx", pa.int64()),
    ("hash", pa.string()), ("input_caption", pa.string()), ("output_caption", pa.string()),
]  # fmt: skip


def emu_row(number, **changed):
    row = {
        "instruction": sample(number).instruction, "image": column(sample(number).source), "task": "add",
        "split": "test", "idx": number, "hash": f"h{number}", "input_caption": "a cat", "output_caption": "a dog",
    }  # fmt: skip
    return row | changed


@pytest.fixture
def emu(tmp_path):
    rows = [
        emu_row(0),
        emu_row(1, image=column(png(sample(1).source)[:200])),
        emu_row(2, instruction="  "),
        emu_row(3, image=None),
        emu_row(4, image=column(Image.new("RGB", (1, 1)))),
        emu_row(5, task="style", output_caption="a very long caption indeed"),
        emu_row(5, hash="other"),
    ]
    write(tmp_path / "emu/data/test-00000-of-00002.parquet", EMU, rows[:4])
    write(tmp_path / "emu/data/test-00001-of-00002.parquet", EMU, rows[4:])
    write(tmp_path / "emu/data/validation-00000-of-00001.parquet", EMU, [emu_row(9)])
    return tmp_path / "emu"


def test_emu_edit(emu, tmp_path):
    tools = Tools(clip=save_clip(tmp_path / "clip"), dino=save_dino(tmp_path / "dino"))
    folder = tmp_path / "out"
    card = run(EmuEdit(), emu, {"mine": invert}, folder, tools=tools, progress=False)
    reasons = skipped(folder)
    assert list(reasons) == ["1", "2", "3", "4"] and len(done(folder)) == 7
    assert "source: the picture's bytes cannot be read" in reasons["1"]
    assert (reasons["2"], reasons["3"]) == ("the instruction is empty", "the source is missing")
    assert reasons["4"] == "the source is 1×1 px"
    assert sorted(path.name for path in (folder / "mine").iterdir()) == ["0.png", "5.png", "5_other.png"]
    assert {group: len(places) for group, places in card.groups.items()} == {"add": 2, "style": 1}
    assert card.values(COPY, "L1, source") == [0, 0, 0] and card.values(COPY, "CLIP-I, source") == pytest.approx(
        [1] * 3
    )
    expected = np.abs(255 - 2 * np.asarray(sample(0).source, float)).mean() / 255
    assert card.values("mine", "L1, source")[0] == pytest.approx(expected, abs=1e-6)
    table = (folder / "results.txt").read_text(encoding="utf-8")
    assert "4 of 7 rows were skipped" in table and "1 × the instruction is empty (such as 2)" in table
    assert "CLIP saw only the beginning of 1 of 3 target captions" in table
    assert "left out: DINOv2, source: no dinov2 network was given" in table
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert set(results["absent"]) == {"DINOv2, source", "LPIPS, source"}


MAGIC = [
    ("img_id", pa.string()), ("turn_index", pa.int32()), ("source_img", IMAGE), ("mask_img", IMAGE),
    ("instruction", pa.string()), ("target_img", IMAGE),
]  # fmt: skip


def painted(sample):
    """A mask as it is published: the source, white where the edit is."""
    return Image.composite(Image.new("RGB", sample.source.size, "white"), sample.source, sample.mask)


def magic_row(image, turn, number, **changed):
    one = sample(number)
    row = {
        "img_id": image, "turn_index": turn, "source_img": column(one.source), "mask_img": column(painted(one)),
        "instruction": one.instruction, "target_img": column(one.target),
    }  # fmt: skip
    return row | changed


@pytest.fixture
def magic(tmp_path):
    rows = [
        magic_row("30", 1, 0),
        magic_row("139", 1, 1),
        magic_row("139", 2, 2),
        magic_row("139", 3, 3),
        magic_row("7", 1, 4, target_img=None),
        magic_row("7", 2, 5),
        magic_row("8", 1, 6, target_img=column(sample(6).target.resize((64, 40)))),
        magic_row(None, None, 7),
    ]
    write(tmp_path / "magic/data/dev-00000-of-00001.parquet", MAGIC, rows)
    return tmp_path / "magic"


def test_magicbrush_of_the_hub(magic, tmp_path):
    folder = tmp_path / "out"
    card = run(MagicBrush(), magic, {"mine": invert}, folder, tools=NONE, progress=False)
    reasons = skipped(folder)
    assert reasons["7_1"] == "the target is missing" and reasons["7_iter_2"] == "the turn before it was skipped"
    assert reasons["8_1"] == "the target is 64×40 px and the source 64×64 px"
    assert reasons["row7_1"] == "it has no img_id and turn_index" and len(reasons) == 4
    # The layout of the authors' readme, and their rule that pictures and truth are found in pairs.
    names = {
        "30": ["30_1"],
        "139": ["139_1", "139_inde_2", "139_inde_3", "139_iter_2", "139_iter_3"],
        "7": ["7_inde_2"],
    }
    for image, expected in names.items():
        assert sorted(path.stem for path in (folder / "mine" / image).iterdir()) == sorted(expected)
        single = [name for name in expected if "_iter_" not in name]
        assert len(list((folder / "ground_truth" / image).glob("*output*"))) == len(single)
    assert {path.name for path in (folder / "ground_truth").iterdir()} == set(names)
    # An own output is edited further: twice inverted is the first source again.
    with Image.open(folder / "mine/139/139_iter_2.png") as picture:
        assert np.array_equal(np.asarray(picture), np.asarray(sample(1).source))
    keys = [row["key"] for row in done(folder) if "scores" in row]
    groups = {name: [keys[i] for i in places] for name, places in card.groups.items()}
    assert groups["all turns"] == ["30_1", "139_1", "139_inde_2", "139_inde_3", "7_inde_2"]
    assert groups["final turn"] == ["30_1", "139_iter_3"]
    assert list(card.summary()) == ["all turns", "final turn"], "no number is of both, with later turns twice"
    assert card.figure().get_suptitle() == "magicbrush: 7 of 11 rows, all turns"
    for key, reference in (("139_inde_2", sample(2).source), ("139_iter_2", sample(1).source)):
        expected = np.abs(np.asarray(reference, float) - np.asarray(sample(2).target, float)).mean() / 255
        assert done_values(folder, key)["L1, target"] == pytest.approx(expected, abs=1e-6)
    assert done_values(folder, "30_1")["L1, target, outside"] < done_values(folder, "30_1")["L1, target, inside"]


def test_no_earlier_turn_stands_for_the_last_one(tmp_path):
    turns = [(image, turn) for image in "ab" for turn in (1, 2, 3)]
    changed = {("b", 3): {"instruction": " "}}
    rows = [magic_row(*each, number, **changed.get(each, {})) for number, each in enumerate(turns)]
    write(tmp_path / "magic/dev.parquet", MAGIC, rows)
    for count, final in ((None, ["a_iter_3"]), (6, ["a_iter_3"]), (3, [])):
        folder = tmp_path / f"out_{count}"
        card = run(MagicBrush(), tmp_path / "magic", {}, folder, tools=NONE, count=count, progress=False)
        keys = [row["key"] for row in done(folder) if "scores" in row]
        assert [keys[i] for i in card.groups["final turn"]] == final
        assert "; 1 sessions have none, since a turn of theirs was skipped or lies beyond" in card.table()


def done_values(folder, key, answer=COPY):
    return next(row["scores"][answer] for row in done(folder) if row["key"] == key)


def test_magicbrush_masks_are_white_where_the_edit_is():
    one = sample(0)
    inside = np.asarray(one.mask) > 127
    found = np.asarray(edit_region(painted(one), one.source)) > 127
    assert (found <= inside).all() and found.sum() > 0.9 * inside.sum()
    plain = np.asarray(edit_region(one.mask.point(lambda v: 255 * (v > 127)).convert("RGB"), one.source)) > 127
    assert np.array_equal(plain, inside)


def test_magicbrush_of_the_zip(tmp_path):
    root = tmp_path / "test"
    for number, image in enumerate(("30", "139")):
        (root / "images" / image).mkdir(parents=True)
        for name, picture in (
            ("input", sample(number).source),
            ("output1", sample(number).target),
            ("mask1", painted(sample(number))),
        ):
            picture.save(root / "images" / image / f"{image}-{name}.png")
    turn = {
        image: {name: f"{image}-{name}{n}.png" for name, n in (("input", ""), ("mask", 1), ("output", 1))}
        for image in ("30", "139")
    }
    sessions = {image: [fields | {"instruction": "make it blue"}] for image, fields in turn.items()}
    sessions["139"].append({"input": "139-output1.png", "output": "139-output2.png", "mask": None, "instruction": "no"})
    (root / "edit_sessions.json").write_text(json.dumps(sessions), encoding="utf-8")
    captions = {"30": {"30-output1.png": "a blue cat"}}
    (root / "local_descriptions.json").write_text(json.dumps(captions), encoding="utf-8")
    tools = Tools(clip=save_clip(tmp_path / "clip"))
    card = run(MagicBrush(), root, {"mine": invert}, tmp_path / "out", tools=tools, progress=False)
    assert list(skipped(tmp_path / "out")) == ["139_inde_2", "139_iter_2"]
    assert (
        len(card.values("mine", "CLIP-T, target caption")) == 1 and len(card.values("mine", "L1, target, inside")) == 2
    )
    assert not (tmp_path / "out" / "ground_truth").exists()


def any_item(folder, kind, number, **changed):
    one, ending = sample(number), "jpg" if kind == "add" else "png"
    item = {
        "edit": one.instruction, "edited object": "cat", "input": "a cat", "output": "a dog", "edit_type": kind,
        "visual_input": "None", "image_file": f"anybench/{kind}/input_img/{number}.{ending}",
        "edited_file": f"anybench/{kind}/edited_img/{number}.png",
    }  # fmt: skip
    for name, picture in (("image_file", one.source), ("edited_file", one.target)):
        path = folder / item[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    return {key: value for key, value in (item | changed).items() if value is not None}


def test_anybench_of_the_zip(tmp_path):
    root = tmp_path / "any"
    items = {
        "add": [
            any_item(root, "add", 0),
            any_item(root, "add", 0),
            any_item(root, "add", 1, edited_file="anybench/no.png"),
        ],
        "outpaint": [any_item(root, "outpaint", 2)],
        "visual_depth": [any_item(root, "visual_depth", 3)],
        "remove": [any_item(root, "remove", 4, edit=""), any_item(root, "remove", 5, image_file=None), "no object"],
    }
    Image.new("RGB", (80, 64)).save(root / items["outpaint"][0]["edited_file"])
    for kind, each in items.items():
        (root / "anybench" / kind / "edit_result.json").write_text(json.dumps(each), encoding="utf-8")
    folder = tmp_path / "out"
    card = run(AnyBench(), root, {"mine": invert}, folder, tools=NONE, progress=False)
    reasons = skipped(folder)
    assert reasons["visual_depth/3"] == "visual_depth wants a reference picture"
    assert "there is no picture file" in reasons["add/1"] and reasons["remove/4"] == "the instruction is empty"
    assert len(reasons) == 5 and sum("no picture's name" in reason for reason in reasons.values()) == 2
    outputs = sorted((folder / "mine/add").iterdir())
    assert [path.name for path in outputs] == ["0.jpg", "0_1.jpg"], "as the authors' script looks for them"
    with Image.open(outputs[0]) as picture:
        assert picture.format == "PNG", "and nothing is lost"
    assert set(card.groups) == {"add", "outpaint"}
    (wide,) = card.values(COPY, "L1, target", "outpaint")
    expected = np.asarray(sample(2).source.resize((80, 64)), float).mean() / 255
    assert wide == pytest.approx(expected, abs=1e-6)


def test_anybench_of_the_hub(tmp_path):
    text = ("image_id", "edit_instruction", "edit_type", "input", "output")
    schema = [
        *((name, pa.string()) for name in text),
        *((name, IMAGE) for name in ("image_file", "edited_file", "visual_input")),
    ]
    row = {
        "image_id": "a1", "edit_instruction": "add a cat", "edit_type": "add", "input": "a", "output": "b",
        "image_file": column(sample(0).source), "edited_file": column(sample(0).target), "visual_input": None,
    }  # fmt: skip
    rows = [row, row | {"image_id": "../../out"}, row | {"image_id": "a2", "edited_file": None}]
    write(tmp_path / "any/data/validation-00000-of-00001.parquet", schema, rows)
    run(AnyBench(), tmp_path / "any", {}, tmp_path / "out", tools=NONE, progress=False)
    reasons = skipped(tmp_path / "out")
    assert len(reasons) == 2 and "would lie at" in reasons["add/../../out"] and "target is missing" in reasons["add/a2"]


def write_arrow(path, schema, rows):
    path.parent.mkdir(parents=True)
    table = pa.Table.from_pylist(rows, schema=pa.schema(schema))
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def test_gedit(tmp_path):
    text = ("task_type", "key", "instruction", "instruction_language")
    schema = [
        *((name, pa.string()) for name in text), ("input_image", IMAGE), ("input_image_raw", IMAGE),
        ("Intersection_exist", pa.bool_()),
    ]  # fmt: skip

    def row(number, task, language="en", **changed):
        raw = column(sample(number).source.resize((96, 64)))
        fields = {"task_type": task, "key": f"k{number}{language}", "instruction": "make it blue"}
        fields |= {"instruction_language": language, "input_image": raw, "input_image_raw": raw}
        return fields | {"Intersection_exist": number == 0} | changed

    rows = [row(0, "color_alter"), row(1, "color_alter"), row(2, "subject-add"), row(0, "color_alter", "cn")]
    rows += [row(3, "unknown"), row(4, "subject-add", input_image_raw=column(b"broken"))]
    write_arrow(tmp_path / "gedit/data-00000-of-00001.arrow", schema, rows)
    (tmp_path / "gedit/state.json").write_text("{}", encoding="utf-8")
    sizes = set()

    def judge(pictures, question):
        sizes.update(picture.size for picture in pictures)
        same = len(pictures) == 2 and np.array_equal(*(np.asarray(picture) for picture in pictures))
        if judge.asked == 2:
            judge.asked = 0
            return "I would rather not say"
        judge.asked += len(pictures) == 2 and not same
        return json.dumps({"score": [0, 10] if same else [6, 9]})

    judge.asked = 0
    tools = Tools(judge=judge, judge_name="fair")
    folder = tmp_path / "out"
    card = run(GEdit(), tmp_path / "gedit", {"mine": invert}, folder, tools=tools, progress=False)
    assert sizes in ({(627, 418)}, {(627, 417)}), "512² px of area, in the shape of 96 × 64"
    assert list(skipped(folder)) == ["k3en", "k4en"] and len(done(folder)) == 5
    for key, task in (("k0en", "color_alter"), ("k1en", "color_alter"), ("k2en", "subject-add")):
        for name in (f"{key}.png", f"{key}_SRCIMG.png"):
            with Image.open(folder / "mine/fullset" / task / "en" / name) as picture:
                assert picture.size == (96, 64)
    assert set(card.groups) == {"color_alter", "subject-add", "intersection"} and len(card.groups["intersection"]) == 1
    overall = "VIEScore overall, source"
    assert card.values(COPY, overall) == [0, 0, 0]
    mine = card.values("mine", overall)
    assert mine == [6] * len(mine) and len(mine) == 2, "an answer that was not read is left out, and said"
    assert "not measured: 1 × VIEScore overall, source: the judge's answer holds no scores" in card.table()
    with (folder / "csv/mine/fair/mine_color_alter_en_vie_score.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert lines[0]["key"] == "k0en" and (float(lines[0]["sementics_score"]), float(lines[0]["quality_score"])) == (
        6,
        6,
    )
    assert lines[0]["instruction_language"] == "en" and lines[0]["intersection_exist"] == "True"
    assert (folder / lines[0]["edited_image"]).exists()
    assert "copy the source: average of 2 tasks 0.000" in (folder / "gedit.txt").read_text(encoding="utf-8")


def test_gedit_keys_may_have_folders(tmp_path):
    row = {"task_type": "color_alter", "key": "a/b.1", "instruction": "make it blue", "instruction_language": "en"}
    schema = [*((name, pa.string()) for name in row), ("input_image", IMAGE)]
    write(tmp_path / "gedit/train.parquet", schema, [row | {"input_image": column(sample(0).source)}])
    run(GEdit(), tmp_path / "gedit", {"mine": invert}, tmp_path / "out", tools=NONE, progress=False)
    names = [path.name for path in sorted((tmp_path / "out/mine/fullset/color_alter/en/a").iterdir())]
    assert names == ["b.1.png", "b.1_SRCIMG.png"]


def test_small_world_with_an_editor_has_copy_and_no_hold_rows(editor, tmp_path):
    with pytest.raises(SettingError, match="unknown setting 'stepz'"):
        editor_answers(editor, stepz=3)
    answers = editor_answers(editor, hold_threshold=0.3, steps=2)
    card = run(SmallWorld(), "3", answers, tmp_path, tools=NONE, progress=False)
    assert card.answers == [COPY, "no hold", "hold 0.3"] and len(card.scored) == 3
    assert card.values(COPY, "PSNR, source") == [] and card.values(COPY, "L1, source, inside")[0] == 0
    assert len(card.values("hold 0.3", "L1, target, outside")) > 0
    last = lab.world.sample_edit(2, split="test")
    result = editor.edit(last.source, last.instruction, hold_threshold=0.0, seed=2, steps=2)
    with Image.open(tmp_path / "no_hold/00002.png") as picture:
        expected = result.geometry.paste_back(result.image, last.source)
        assert np.array_equal(np.asarray(picture), np.asarray(expected))
    assert (tmp_path / "gallery.png").exists() and "s an edit" in card.table()


SLOW = """
import os, signal
from PIL import ImageOps
def edit(source, instruction, number):
    with open("calls.txt", "a") as file:
        file.write(f"{number}\\n")
    if number == 3 and not os.path.exists("killed"):
        open("killed", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return ImageOps.invert(source)
"""


def test_a_killed_run_goes_on_without_losing_or_repeating_a_row(tmp_path, monkeypatch):
    (tmp_path / "slow_editor.py").write_text(SLOW, encoding="utf-8")
    options = (
        "small-world --data 6 --editor slow_editor:edit --output out --clip none --dino none --dinov2 none".split()
    )
    root = Path(lab.__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (root, tmp_path, os.environ["PYTHONPATH"])))}
    command = [sys.executable, "-m", "editmgt_lab.benchmarks", *options]
    killed = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=PATIENCE)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    folder = tmp_path / "out"
    before = (folder / "rows.jsonl").read_text(encoding="utf-8")
    assert [row["key"] for row in done(folder)] == ["00000", "00001", "00002"]
    (folder / "rows.jsonl").write_text(before + before.splitlines()[0][:40], encoding="utf-8")  # the last line torn
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(options) == 0
    assert (folder / "rows.jsonl").read_text(encoding="utf-8").startswith(before)
    assert [row["key"] for row in done(folder)] == [f"{number:05d}" for number in range(6)]
    assert (tmp_path / "calls.txt").read_text(encoding="utf-8").split() == ["0", "1", "2", "3", "3", "4", "5"]
    assert "6 of 6 rows" in (folder / "results.txt").read_text(encoding="utf-8") and main(options) == 0
    assert len((tmp_path / "calls.txt").read_text(encoding="utf-8").split()) == 7, "nothing was left to do"


def test_an_editor_that_raises_stops_the_run_and_the_next_one_goes_on(tmp_path):
    calls = []

    def fails(source, instruction, number):
        calls.append(number)
        if calls.count(2) == 1 and number == 2:
            raise RuntimeError("out of memory")
        return source

    for attempt in range(2):
        if attempt == 0:
            with pytest.raises(RuntimeError):
                run(SmallWorld(), "4", {"mine": fails}, tmp_path, tools=NONE, progress=False)
            continue
        # A picture that is there already is not made again, though its row was not written down.
        (tmp_path / "mine").mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), "red").save(tmp_path / "mine/00003.png")
        card = run(SmallWorld(), "4", {"mine": fails}, tmp_path, tools=NONE, progress=False)
    assert calls == [0, 1, 2, 2] and len(card.scored) == 4
    with pytest.raises(SettingError, match="begun with other settings: answers"):
        run(SmallWorld(), "4", {"other": fails}, tmp_path, tools=NONE, progress=False)
    tools = Tools(dino=save_dino(tmp_path / "dino"))
    with pytest.raises(SettingError, match="measures"):
        run(SmallWorld(), "4", {"mine": fails}, tmp_path, tools=tools, progress=False)
    card = run(SmallWorld(), "4", {"mine": fails}, tmp_path, tools=tools, rescore=True, progress=False)
    assert len(calls) == 4 and len(card.values("mine", "DINO, target")) == 4
    with pytest.raises(SettingError, match="seed None, now 1"):
        run(
            SmallWorld(),
            "4",
            {"mine": fails},
            tmp_path,
            tools=tools,
            settings={"seed": 1},
            rescore=True,
            progress=False,
        )


def test_a_run_begun_anew_and_stopped_goes_on_without_the_old_pictures(tmp_path):
    grey, stop = 10, None

    def mine(source, instruction, number):
        if number == stop:
            raise KeyboardInterrupt
        return Image.new("RGB", source.size, (grey,) * 3)

    mine.made_of = "weights that changed unseen"
    for name in ("my_notes/a.txt", "b.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("the user's own", encoding="utf-8")
    options = {"tools": NONE, "progress": False}
    run(SmallWorld(), "4", {"mine": mine, "before": invert}, tmp_path, **options)
    grey, stop = 200, 2
    with pytest.raises(KeyboardInterrupt):
        run(SmallWorld(), "4", {"mine": mine}, tmp_path, anew=True, **options)
    stop = None
    run(SmallWorld(), "4", {"mine": mine}, tmp_path, **options)
    assert [Image.open(path).getpixel((0, 0))[0] for path in sorted((tmp_path / "mine").iterdir())] == [200] * 4
    assert not (tmp_path / "before").exists() and (tmp_path / "shown").exists()
    assert (tmp_path / "my_notes/a.txt").exists() and (tmp_path / "b.txt").exists()


def test_nothing_is_forgotten_where_no_run_was_begun(tmp_path):
    for folder in ("csv", "mine"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own.txt").write_text("the user's own", encoding="utf-8")
    run(SmallWorld(), "1", {"mine": invert}, tmp_path, tools=NONE, anew=True, progress=False)
    assert (tmp_path / "csv/own.txt").exists() and (tmp_path / "mine/own.txt").exists()


@pytest.mark.parametrize("name", ["..", "?", ""])
def test_an_answer_without_a_folder_of_its_own_is_refused(name, tmp_path):
    with pytest.raises(SettingError, match="folder of its own"):
        run(SmallWorld(), "1", {name: invert}, tmp_path / "out", tools=NONE, progress=False)


@pytest.mark.parametrize("option", ["--steps 0", "--hold-threshold 5", "--guidance-scale 0.5", "--seed -1"])
def test_a_setting_out_of_range_is_no_bad_row(option, tiny_folder, tmp_path, capsys):
    places = ["--model", str(tiny_folder), "--output", str(tmp_path / "out"), *SILENT]
    assert main(["small-world", "--data", "2", *option.split(), *places]) == 2
    assert f"is {option.split()[1]}" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_only_errors_of_the_row_skip_it(tmp_path):
    down = True

    def mine(source, instruction, number):
        if number == 0:
            raise TextError("too long", expected="fewer words", fix="shorten it")
        if number == 1 and down:
            raise EndpointError("the server is down", expected="one that answers", fix="start it")
        return source

    with pytest.raises(EndpointError):
        run(SmallWorld(), "3", {"mine": mine}, tmp_path, tools=NONE, progress=False)
    down = False
    run(SmallWorld(), "3", {"mine": mine}, tmp_path, tools=NONE, progress=False)
    assert skipped(tmp_path) == {"00000": "too long"} and len(done(tmp_path)) == 3


def test_a_damaged_journal_is_an_error(tmp_path):
    run(SmallWorld(), "2", {}, tmp_path, tools=NONE, progress=False)
    lines = (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    for broken in ("{broken", "[" * 200_000, '{"key": "a", "scores": 3}', "3"):
        (tmp_path / "rows.jsonl").write_text("\n".join([broken, *lines]) + "\n", encoding="utf-8")
        with pytest.raises(DataError, match="line 1"):
            run(SmallWorld(), "2", {}, tmp_path, tools=NONE, progress=False)
    for broken in ("[]", '{"edits": {}}', '{"edits": [], "measures": {}}'):
        (tmp_path / "settings.json").write_text(broken, encoding="utf-8")
        with pytest.raises(DataError, match="no record of a run's settings"):
            run(SmallWorld(), "2", {}, tmp_path, tools=NONE, progress=False)


def test_the_card_is_of_this_runs_rows(tmp_path):
    """Fewer rows or more of them in one folder: none is edited twice."""
    calls = []

    def edit(source, instruction, number):
        calls.append(number)
        return source

    shown = []
    for data, count in (("2", None), ("4", None), ("4", 1), ("3", None)):
        card = run(SmallWorld(), data, {"mine": edit}, tmp_path, tools=NONE, count=count, progress=False)
        results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
        assert f"0 of {len(card.scored)} rows were skipped" in card.table()
        shown.append((len(card.scored), results["summary"][ALL]["mine"]["L1, source"]["count"]))
    assert shown == [(2, 2), (4, 4), (1, 1), (3, 3)] and calls == [0, 1, 2, 3] and len(done(tmp_path)) == 4
    with pytest.raises(DataError, match="is not what was measured"):
        run(SmallWorld("validation"), "2", {"mine": edit}, tmp_path, tools=NONE, progress=False)
    for count in (0, 1.5, "2", 10**30):
        with pytest.raises(SettingError, match="count is"):
            run(SmallWorld(), "2", {}, tmp_path, tools=NONE, count=count, progress=False)


def test_a_folder_is_the_same_however_it_is_named(magic, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = []
    for name in ("magic", "./magic/../magic", magic):
        card = run(MagicBrush(), name, {"mine": invert}, tmp_path / "out", tools=NONE, progress=False)
        shown.append(((tmp_path / "out/rows.jsonl").read_text(encoding="utf-8"), card.table()))
    assert shown[0] == shown[1] == shown[2]


def test_rows_of_more_data_go_into_the_same_folder(emu, tmp_path):
    write(tmp_path / "more/test.parquet", EMU, [emu_row(7), emu_row(8)])
    for data in (emu, tmp_path / "more"):
        card = run(EmuEdit(), data, {"mine": invert}, tmp_path / "out", tools=NONE, progress=False)
    assert len(card.scored) == 2 and len(done(tmp_path / "out")) == 9 and "0 of 2 rows were skipped" in card.table()


def test_keys_that_repeat_are_reported(tmp_path):
    rows = [magic_row("30", 1, 0), magic_row("30", 1, 1)]
    write(tmp_path / "magic/dev.parquet", MAGIC, rows)
    run(MagicBrush(), tmp_path / "magic", {}, tmp_path / "out", tools=NONE, progress=False)
    assert skipped(tmp_path / "out") == {"30_1 (row 1)": "the key 30_1 came before"}


def test_tables_of_every_kind(emu, tmp_path, monkeypatch):
    assert [row["idx"] for row in read_rows(emu, "test")] == [0, 1, 2, 3, 4, 5, 5]
    assert [row["idx"] for row in read_rows(emu)] == [0, 1, 2, 3, 4, 5, 5, 9]
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n', encoding="utf-8")
    (tmp_path / "rows.json").write_text('[{"a": 3}]', encoding="utf-8")
    assert [row["a"] for name in ("rows.jsonl", "rows.json") for row in read_rows(tmp_path / name)] == [1, 2, 3]
    (tmp_path / "rows.json").write_text("{}", encoding="utf-8")
    (tmp_path / "cut.parquet").write_bytes(next((emu / "data").iterdir()).read_bytes()[:500])
    for source, split in (("rows.json", None), ("cut.parquet", None), ("none", None), ("emu", "dev")):
        with pytest.raises(DataError):
            list(read_rows(tmp_path / source, split))


def test_rows_are_streamed_from_the_hub(emu, hub):
    hub("facebook/emu_edit_test_set", emu)
    assert len(list(read_rows("facebook/emu_edit_test_set", "test"))) == 7
    with pytest.raises(DataError, match="could not be had from the hub: no such repository"):
        list(read_rows("facebook/another"))


def test_the_drawn_world_has_a_clip_of_its_own(tmp_path):
    tools = Tools(**SmallWorld.networks)
    card = run(SmallWorld(), "3", {"mine": invert}, tmp_path, tools=tools, progress=False)
    clip = next(each for each in card.measures if each.name == "CLIP-T")
    assert clip.backbone == "tiny CLIP" and not any(name.startswith("CLIP") for name in card.absent)
    assert card.values(COPY, "CLIP-dir, captions") == [0, 0, 0] and len(card.values("mine", "CLIP-I, target")) == 3
    networks = json.loads((tmp_path / "settings.json").read_text(encoding="utf-8"))["measures"]["networks"]
    assert networks["clip"] == load_clip("tiny").fingerprint


def test_the_command_takes_the_benchmarks_own_networks_and_the_drawn_world_none_of_the_hub(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "editmgt_lab.benchmarks.__main__.run",
        lambda *_, tools, **__: asked.append((tools.clip, tools.dino, tools.dinov2)),
    )
    monkeypatch.setattr("editmgt_lab.benchmarks.__main__.say", print)
    given = ("small-world", "magicbrush", "small-world --clip none --dino a/b", "emu-edit --clip tiny --dinov2 none")
    for arguments in map(str.split, given):
        with pytest.raises(AttributeError):  # there is no card to print
            main([*arguments, "--data", "1", "--editor", "builtins:print"])
    assert asked == [
        ("tiny", None, None),
        (CLIP_SOURCE, DINO_SOURCE, DINOV2_SOURCE),
        (None, "a/b", None),
        ("tiny", DINO_SOURCE, None),
    ]


@pytest.mark.parametrize(
    ("benchmark", "given"), [("gedit", "--dino a/b"), ("emu-edit", "--judge builtins:print"), ("gedit", "--clip tiny")]
)
def test_what_a_benchmark_has_no_measure_for_is_refused(tmp_path, capsys, benchmark, given):
    assert main([benchmark, *given.split(), "--editor", "builtins:print", "--output", str(tmp_path / "out")]) == 2
    assert f"{benchmark} has no measure that would ask {given}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_damaged_line_of_the_journal_is_not_gone_on_with(tmp_path):
    def go():
        return run(SmallWorld(), "2", {"mine": invert}, tmp_path, tools=NONE, progress=False)

    go()
    lines = (tmp_path / "rows.jsonl").read_text(encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text(lines.replace('"group"', '"grouq"', 1), encoding="utf-8")
    with pytest.raises(DataError, match="the line of row 00000 in .* has no group"):
        go()


@pytest.mark.parametrize("kind", ["a\0", "a\udabf"])
def test_names_that_no_file_can_have_are_skipped(tmp_path, kind):
    root = tmp_path / "any"
    items = [any_item(root, "add", 0), any_item(root, "add", 1, edit_type=kind)]
    (root / "anybench" / "add" / "edit_result.json").write_text(json.dumps(items), encoding="utf-8")
    run(AnyBench(), root, {"mine": invert}, tmp_path / "out", tools=NONE, progress=False)
    assert list(skipped(tmp_path / "out").values()) == [f"no file can be called {f'{kind}/1.jpg'!r}"]


@pytest.mark.parametrize(("benchmark", "file"), [(MagicBrush, "edit_sessions.json"), (AnyBench, "edit_result.json")])
def test_a_zip_has_no_splits(tmp_path, benchmark, file):
    (tmp_path / file).write_text("{}", encoding="utf-8")
    assert list(benchmark().rows(tmp_path)) == []
    with pytest.raises(SettingError, match="the split 'train' was asked of edit_"):
        list(benchmark("train").rows(tmp_path))


SILENT = "--clip none --dino none --dinov2 none".split()


@pytest.mark.parametrize(
    "given", ["--hold-threshold 0.1", "--steps 3", "--guidance-scale 2", "--strength 1", "--model tiny"]
)
def test_what_another_editor_would_not_hear_is_refused(tmp_path, capsys, given):
    places = ["--output", str(tmp_path / "out"), *SILENT]
    assert main(["small-world", "--data", "2", "--editor", "builtins:print", *given.split(), *places]) == 2
    assert f"{given.split()[0]} is for the lab's own editors" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_and_a_split_are_the_same_however_they_are_named(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny_folder.parent)
    for model, split in ((str(tiny_folder), []), (tiny_folder.name, ["--split", "test"])):
        options = ["--model", model, "--steps", "1", "--output", str(tmp_path / "out"), *split, *SILENT]
        assert main(["small-world", "--data", "1", *options]) == 0
    kept = json.loads((tmp_path / "out/settings.json").read_text(encoding="utf-8"))["edits"]
    assert kept["model"] == str(tiny_folder.resolve()) and kept["split"] == "test"


def test_the_command_measures_again_where_it_is_asked_to(tmp_path, capsys):
    given = ["small-world", "--data", "2", "--editor", f"{__name__}:invert", "--output", str(tmp_path / "out"), *SILENT]
    assert main(given) == 0 and "left out: DINO, target" in capsys.readouterr().out
    made = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*invert*/*.png")}
    given += ["--dino", str(save_dino(tmp_path / "dino"))]
    assert main(given) == 2 and "--rescore" in capsys.readouterr().err
    assert main([*given, "--rescore"]) == 0 and "left out: DINO, target" not in capsys.readouterr().out
    assert len(made) == 2 and all(file.stat().st_mtime_ns == written for file, written in made.items())


def test_command_line_says_what_is_wrong(tmp_path, capsys):
    assert main(["small-world", "--output", str(tmp_path)]) == 2
    assert main(["small-world", "--data", "2", "--editor", "no_such_module:edit", "--output", str(tmp_path)]) == 2
    assert (
        main(["gedit", "--data", str(tmp_path / "none"), "--editor", "builtins:print", "--output", str(tmp_path)]) == 2
    )
    rest = [*SILENT, "--output", str(tmp_path / "drawn")]
    for number in ("²", "-1", "0", "1.5", "9" * 5000):
        assert main(["small-world", "--data", number, "--editor", "builtins:print", *rest]) == 2
    for name in ("os:sep", ".os:sep", "os:", ":print", "os"):
        assert main(["small-world", "--data", "2", "--editor", name, *rest]) == 2
        assert main(["small-world", "--data", "2", "--editor", "builtins:print", "--judge", name, *rest]) == 2
    said = capsys.readouterr().err
    assert "begun with other" not in said and "'os:sep' is no function" in said and "data is '²'" in said
    assert "pass --data 100" in said and "cannot be imported" in said and "there is no data set" in said
    assert set(BENCHMARKS) == {"emu-edit", "magicbrush", "anybench", "gedit", "small-world"} and ALL == "all"
