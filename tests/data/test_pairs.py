"""Pairs from small data sets of the published schemas, with bad rows of every kind; and their tokens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import editmgt_lab as lab
from editmgt_lab.basics import folders
from editmgt_lab.data import tables, tokens
from editmgt_lab.data.pairs import Pair, PairReader, main
from editmgt_lab.data.tables import absent_files
from editmgt_lab.data.tokens import TokenPairs, token_pairs
from editmgt_lab.errors import DataError, DiskError, ImageError, SettingError, ShapeError, TextError
from editmgt_lab.finetuning.drawn import pairs_of
from tests.support import PATIENCE
from tests.support.parquet import IMAGE, column, png, write

CRISP = [("input_img", IMAGE), ("output_img", IMAGE), ("instruction", pa.string()), ("type", pa.string())]
ANY = [
    ("image_id", pa.string()), ("edit_instruction", pa.string()), ("edit_type", pa.string()), ("image_file", IMAGE),
    ("edited_file", IMAGE), ("visual_input", IMAGE), ("input", pa.string()), ("output", pa.string()),
]  # fmt: skip
MAGIC = [
    ("img_id", pa.string()), ("turn_index", pa.int32()), ("source_img", IMAGE), ("mask_img", IMAGE),
    ("instruction", pa.string()), ("target_img", IMAGE),
]  # fmt: skip
LONG = "make the ball " + "very " * 40 + "blue"


def crisp_row(picture, number, **changed):
    row = {"input_img": column(picture(seed=number)), "output_img": column(picture(seed=number + 100))}
    return row | {"instruction": f"make the {number}. thing blue", "type": "color"} | changed


@pytest.fixture
def crisp(tmp_path, picture):
    """Files as CrispEdit-2M has them: five good rows, bad ones of every kind, and two bad files."""
    folder = tmp_path / "crisp"
    broken = png(picture(seed=9))[:200]
    rows = [
        crisp_row(picture, 0),
        crisp_row(picture, 1, output_img=column(picture(64, 64, seed=1))),  # another size, one shape
        crisp_row(picture, 2, output_img=column(picture(48, 32))),
        crisp_row(picture, 3, output_img=None),
        crisp_row(picture, 4, output_img={"bytes": None, "path": None}),
        crisp_row(picture, 5, input_img=column(broken)),
        crisp_row(picture, 6, instruction=" "),
        crisp_row(picture, 7, instruction=None),
        crisp_row(picture, 8, input_img=column(Image.new("RGB", (1, 1)))),
    ]
    write(folder / "color_00000.parquet", CRISP, rows)
    write(folder / "color_00003.parquet", CRISP, [crisp_row(picture, 10), crisp_row(picture, 11)])
    write(folder / "color_00004.parquet", CRISP, [crisp_row(picture, 12, type=None)])
    whole = (folder / "color_00003.parquet").read_bytes()
    (folder / "color_00001.parquet").write_bytes(whole[: len(whole) // 2])  # and color_00002 is not there
    (folder / "README.md").write_text("what it is")
    return folder


def test_crispedit_counts_and_skips_bad_rows_and_files(crisp):
    reader = PairReader(crisp)
    pairs = list(reader)
    assert reader.schema == "crispedit"
    assert [pair.instruction for pair in pairs] == [f"make the {n}. thing blue" for n in (0, 1, 10, 11, 12)]
    assert [pair.category for pair in pairs] == ["color"] * 4 + [None]
    assert (pairs[1].source.size, pairs[1].target.size) == ((32, 32), (64, 64))
    report = reader.report
    assert (report.rows, report.used) == (12, 5)
    assert report.skipped == {
        "source and target are of different shapes": 1,
        "the target is missing": 2,
        "the source cannot be read": 1,
        "the instruction is empty": 2,
        "the source is too small": 1,
    }
    assert report.files == {
        "the numbers of the others say that there is one more file": 1,
        "the file cannot be read to its end": 1,
    }
    said = str(report)
    assert "7 of 12 rows were skipped:\n  2 × the target is missing (such as row 3 of color_00000.parquet" in said
    assert "the target is 48×32 px and the source 32×32 px" in said
    assert "color_00002.parquet" in said and "color_00001.parquet cannot be read" in said
    assert len(list(reader)) == 5 and reader.report == report  # a second reading counts anew


def test_a_damaged_file_gives_the_rows_before_the_damage(tmp_path, picture):
    file = tmp_path / "add_00000.parquet"
    write(file, CRISP, [crisp_row(picture, number) for number in range(5)], row_group_size=1)
    content, place = bytearray(file.read_bytes()), pyarrow.parquet.read_metadata(file).row_group(3).column(0)
    content[place.data_page_offset : place.data_page_offset + 20] = bytes(20)
    file.write_bytes(content)
    reader = PairReader(tmp_path)
    assert len(list(reader)) == 3
    assert reader.report.files == {"the file cannot be read to its end": 1}


def test_damaged_offsets_of_an_arrow_file_are_noticed(tmp_path):
    """pyarrow itself follows them out of its memory, which ends the process."""
    table, file = pa.table({"text": ["ab", "cd", "ef"]}), tmp_path / "add_00000.arrow"
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    offsets = np.array([0, 2, 4, 6], np.int32).tobytes()
    assert file.read_bytes().count(offsets) == 1
    file.write_bytes(file.read_bytes().replace(offsets, np.array([0, 2**30, 4, 6], np.int32).tobytes()))
    with pytest.raises(DataError, match="cannot be read: .*(?i:offset)"):
        list(tables.read_rows(tmp_path))


@pytest.mark.parametrize("kind", [pa.ipc.new_stream, pa.ipc.new_file])
def test_both_kinds_of_arrow_file_are_read(tmp_path, picture, kind):
    rows = [crisp_row(picture, number) for number in range(3)]
    table = pa.Table.from_pylist(rows, schema=pa.schema(CRISP))
    with pa.OSFile(str(tmp_path / "add_00000.arrow"), "wb") as sink, kind(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    assert [pair.instruction for pair in PairReader(tmp_path)] == [row["instruction"] for row in rows]


def test_a_limit_is_of_usable_pairs(crisp):
    reader = PairReader(crisp, limit=3)
    assert len(list(reader)) == 3 and reader.report.rows == 10
    for limit in (0, -1, 1.5, "3", True):
        with pytest.raises(SettingError, match="limit is"):
            PairReader(crisp, limit=limit)


def any_row(picture, number, **changed):
    row = {"image_id": str(number), "edit_instruction": "remove the cat", "edit_type": "remove", "input": "a cat"}
    pictures = {"image_file": column(picture(seed=number)), "edited_file": column(picture(seed=number + 1))}
    return row | pictures | {"visual_input": None, "output": ""} | changed


def test_anyedit_trains_on_no_validation_row_and_on_none_with_a_reference(tmp_path, picture):
    rows = [any_row(picture, 0), any_row(picture, 1, edit_type="visual_depth"), any_row(picture, 2, image_file=None)]
    write(tmp_path / "data/train-00000-of-00003.parquet", ANY, rows)
    write(tmp_path / "data/validation-00000-of-00001.parquet", ANY, [any_row(picture, 3, edit_type="add")] * 2)
    reader = PairReader(tmp_path)
    assert [(pair.instruction, pair.category) for pair in reader] == [("remove the cat", "remove")]
    assert reader.schema == "anyedit"
    assert reader.report.skipped == {"it wants a reference picture": 1, "the source is missing": 1}
    assert list(reader.report.files.values()) == [2]
    assert [pair.category for pair in PairReader(tmp_path, split="validation")] == ["add"] * 2
    (tmp_path / "data/train-00000-of-00003.parquet").unlink()
    with pytest.raises(DataError, match="kept for tests.*\n.*\n.*split='validation'"):
        PairReader(tmp_path)


def test_magicbrush_from_a_stand_in_of_the_hub(tmp_path, picture, hub):
    row = {"img_id": "1", "turn_index": 1, "mask_img": column(picture()), "instruction": "put a hat on the dog"}
    good = row | {"source_img": column(picture(48, 32)), "target_img": column(picture(48, 32, seed=1))}
    write(tmp_path / "set/data/train-00000-of-00001.parquet", MAGIC, [good, good | {"target_img": None}, good])
    write(tmp_path / "set/data/dev-00000-of-00001.parquet", MAGIC, [good])
    hub("osunlp/MagicBrush", tmp_path / "set")
    reader = PairReader("osunlp/MagicBrush")
    pairs = list(reader)
    assert len(pairs) == 2 and pairs[0].category is None and pairs[0].mask is None
    assert np.array_equal(pairs[0].target, picture(48, 32, seed=1))
    assert reader.schema == "magicbrush" and reader.report.skipped == {"the target is missing": 1}


@pytest.fixture
def plain(tmp_path, picture):
    folder = tmp_path / "plain"
    for part, seed in (("source", 0), ("target", 1)):
        (folder / part).mkdir(parents=True)
        picture(seed=seed).save(folder / part / "a.png")
    (folder / "source/b.png").write_bytes(b"no picture")
    lines = [
        {"source": "a.png", "target": "a.png", "instruction": " make it blue ", "category": "color"},
        {"source": "a.png", "target": "a.png", "instruction": "make it red"},
        {"source": "a.png", "target": "gone.png", "instruction": "make it red"},
        {"source": "a.png", "instruction": "make it red"},
        {"source": "b.png", "target": "a.png", "instruction": "make it red"},
        {"source": "a.png", "target": "a.png", "instruction": 3},
        ["a.png"],
    ]
    text = "\n".join(map(json.dumps, lines)) + '\n\n{"source": "a.png", \n' + "[" * 200_000 + "\n"
    (folder / "edits.jsonl").write_bytes(text.encode() + b'{"source": "\xff"}')
    return folder


def test_a_plain_folder(plain):
    reader = PairReader(plain)
    assert [(pair.instruction, pair.category) for pair in reader] == [("make it blue", "color"), ("make it red", None)]
    assert reader.schema == "folder" and reader.report.rows == 10
    assert reader.report.skipped == {
        "the target cannot be read": 1,
        "the target is missing": 1,
        "the source cannot be read": 1,
        "the instruction is empty": 1,
        "the line is no JSON object": 4,
    }


def test_a_plain_folder_by_its_file_and_without_splits(plain):
    named = PairReader(plain / "edits.jsonl")
    assert [pair.instruction for pair in named] == [pair.instruction for pair in PairReader(plain)]
    with pytest.raises(SettingError, match="split 'test' of .*, whose pairs are in one edits.jsonl"):
        PairReader(plain, split="test")


def unreadable(*_, **__):
    raise PermissionError(13, "Permission denied")


def test_what_may_not_be_read_says_so(plain, crisp, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", unreadable)
        with pytest.raises(DataError, match=r"edits.jsonl cannot be read: .*Permission denied"):
            list(PairReader(plain))
    monkeypatch.setattr(tables, "files_in", unreadable)  # a folder that may be listed and not entered
    with pytest.raises(DataError, match="the files of .* cannot be told: .*Permission denied"):
        PairReader(crisp)


def test_a_local_name_is_no_chain_of_file_systems(tmp_path, picture):
    write(tmp_path / "a::b" / "zip::c.parquet", CRISP, [crisp_row(picture, 0)])
    (tmp_path / "a::b" / "zip::d.jsonl").write_text('{"instruction": "x"}')
    reader = PairReader(tmp_path / "a::b", schema="crispedit")
    assert len(list(reader)) == 1 and (reader.report.rows, reader.report.files) == (2, {})


def test_the_hub_names_no_picture_here(tmp_path, picture, hub, monkeypatch):
    row = {"source_img": "a.png", "target_img": "a.png", "instruction": "x"}
    (tmp_path / "set").mkdir()
    (tmp_path / "set/rows.jsonl").write_text(json.dumps(row))
    hub("somebody/names", tmp_path / "set")
    reader = PairReader("somebody/names")
    with pytest.raises(DataError, match="names the picture 'a.png' and does not hold it"):
        list(reader)
    assert reader.fingerprint()


@pytest.mark.parametrize("name", ["x" * 5000, "x/" * 2500, "~no such user/x", "a\0b"])
def test_a_name_that_no_folder_can_have_is_no_source(name):
    with pytest.raises(DataError, match="there is no data set"):
        PairReader(name)


@pytest.mark.parametrize("part", ["", "deep/rows.jsonl"])
def test_a_picture_that_a_table_names_is_part_of_the_data(tmp_path, picture, part):
    """A picture with another content, or one that comes later, and no picture that nobody names."""
    (tmp_path / "deep").mkdir()
    row = {"source_img": "s.png", "target_img": "t.png", "instruction": "make it blue"}
    (tmp_path / "deep/rows.jsonl").write_text("[]\n" + json.dumps(row) + "\n" + json.dumps(row) + "\nno JSON")
    home = (tmp_path / part).parent if part else tmp_path
    fingerprints = []
    for name, seed in ((None, 0), ("s.png", 1), ("s.png", 2), ("t.png", 3)):
        if name:
            picture(seed=seed).save(home / name)
            os.utime(home / name, ns=(0, seed))
        fingerprints.append(PairReader(tmp_path / part, schema="magicbrush").fingerprint())
    assert len({*fingerprints}) == 4
    (home / "other.png").write_bytes(b"no row names it")
    assert PairReader(tmp_path / part, schema="magicbrush").fingerprint() == fingerprints[-1]


def test_sources_that_cannot_be_used(tmp_path, crisp, picture):
    write(tmp_path / "other/a.parquet", [("image", IMAGE), ("caption", pa.string())], [{"image": None, "caption": "x"}])
    with pytest.raises(DataError, match="has the columns image, caption"):
        PairReader(tmp_path / "other")
    with pytest.raises(DataError, match="those of anyedit"):
        PairReader(crisp, schema="anyedit")
    with pytest.raises(SettingError, match="unknown schema 'crisp'"):
        PairReader(crisp, schema="crisp")
    with pytest.raises(DataError, match="holds no rows of the split 'style'"):
        PairReader(crisp, split="style")
    with pytest.raises(DataError, match="there is no data set"):
        PairReader(tmp_path / "none")
    with pytest.raises(DataError, match="none of the 1 files .* can be used: color_00001.parquet cannot be read"):
        PairReader(crisp, split="color_00001.parquet")
    write(tmp_path / "bad/a.parquet", CRISP, [crisp_row(picture, 0, instruction="")] * 3)
    with pytest.raises(
        DataError, match=r"has no usable row. 3 of 3 rows were skipped:\n  3 × the instruction is empty"
    ):
        list(PairReader(tmp_path / "bad"))


def test_absent_files_are_told_by_the_numbers_of_the_others():
    assert absent_files(["d/train-00001-of-00003.parquet"]) == (2, "d/train-00000-of-00003.parquet")
    assert absent_files(["d/train-00000-of-00002.parquet", "d/train-00001-of-00002.parquet"]) == (0, None)
    assert absent_files([f"d/x-{number}-of-00003.arrow" for number in ("00001", "00002", "00003")]) == (0, None)
    assert absent_files(["d/x-00001-of-00003.arrow", "d/x-00003-of-00003.arrow"]) == (1, "d/x-00002-of-00003.arrow")
    assert absent_files(["add_07.parquet", "add_09.parquet", "style_3.parquet", "x.parquet"]) == (1, "add_08.parquet")
    assert absent_files(["a_9.parquet", "a_12.parquet", "b-2.arrow", "b-4.arrow"]) == (3, "a_10.parquet")


@pytest.mark.parametrize("far", ["a_20000000.parquet", "a_1_20260101123000.parquet", "a-1-of-9999999999.parquet"])
def test_numbers_too_far_apart_are_no_numbering(far):
    near = far.replace("20000000", "1").replace("20260101123000", "1")
    assert absent_files([near, far]) == (0, None)


def test_the_command_prints_the_report(crisp, tmp_path, capsys):
    assert main([str(crisp)]) == 0
    assert capsys.readouterr().out.startswith("5 usable pairs in the schema crispedit\n7 of 12 rows were skipped")
    assert main([str(tmp_path / "none")]) == 2 and "there is no data set" in capsys.readouterr().err


def test_source_and_target_are_cropped_together(editor, monkeypatch):
    """A mark at one place of both pictures, which are wide and of two sizes, lands on one place of the square."""
    seen = []
    monkeypatch.setattr(
        editor.vq, "encode", lambda images: seen.append(images) or torch.zeros(len(images), 8, 8).long()
    )
    source, target = Image.new("RGB", (120, 60)), Image.new("RGB", (240, 120))
    source.paste("red", (30, 0, 60, 30)), target.paste("red", (60, 0, 120, 60))  # the square's top left quarter
    source.paste("green", (0, 0, 28, 60)), target.paste("green", (0, 0, 56, 120))  # cut away
    token_pairs(editor, [Pair(source, target, "make it blue")], progress=False)
    for images in seen:
        assert images.shape == (1, 3, 32, 32)
        red = images[0, 0] > 0.5
        assert red[1:15, 1:15].all() and not red[17:].any() and not red[:, 17:].any()
        assert images[0, 1].max() < 0.1
    assert len(seen) == 2


def test_a_slightly_different_shape_is_stretched_and_another_one_refused(editor, picture):
    near, far = Pair(picture(100, 100), picture(101, 100), "x"), Pair(picture(100, 100), picture(104, 100), "x")
    assert len(token_pairs(editor, [near], progress=False)) == 1
    with pytest.raises(ImageError, match="cannot line up"):
        token_pairs(editor, [far], progress=False)


def test_drawn_pairs_keep_the_source_tokens_away_from_their_mask(editor):
    samples = [lab.world.sample_edit(seed, category="color", size=32) for seed in range(3)]
    made = token_pairs(editor, pairs_of(samples), batch=2, progress=False)
    assert made.source.shape == (3, 8, 8) and made.source.dtype == torch.long
    assert torch.equal(made.source, editor.tokenize([each.source for each in samples]))
    target = editor.tokenize([each.target for each in samples])
    mask = torch.from_numpy(np.stack([np.asarray(each.mask) for each in samples]))[:, None].float()
    near = torch.nn.functional.max_pool2d(mask, 12, 4, 4)[:, 0] > 0
    assert torch.equal(made.target, torch.where(near, target, made.source)) and not near.all()
    unmasked = token_pairs(editor, [replace(pair, mask=None) for pair in pairs_of(samples)], progress=False)
    assert torch.equal(unmasked.target, target)


def test_token_pairs_are_taken_apart_joined_and_kept(editor, tmp_path):
    made = token_pairs(editor, pairs_of([lab.world.sample_edit(seed, size=32) for seed in range(4)]), progress=False)
    part = made.subset([3, 1])
    assert torch.equal(part.target, made.target[[3, 1]]) and part.instructions == [made.instructions[i] for i in (3, 1)]
    joined = TokenPairs.concatenate([made.subset(torch.tensor([0, 1])), made.subset([2, 3])])
    joined.save(tmp_path / "deep/pairs.safetensors")
    again = TokenPairs.load(tmp_path / "deep/pairs.safetensors")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["pairs.safetensors"]
    for name in ("source", "target"):
        assert torch.equal(getattr(again, name), getattr(made, name))
    assert (again.instructions, again.categories) == (made.instructions, made.categories)
    with pytest.raises(ShapeError):
        TokenPairs(made.source, made.target[:2], made.instructions, made.categories)
    with pytest.raises(ShapeError):
        TokenPairs.concatenate([])
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match="cannot be written"):
        made.save(tmp_path / "file/pairs.safetensors")
    deep = {"instructions": "[" * 200_000, "categories": "[]"}
    save_file({"source": made.source, "target": made.target}, tmp_path / "deep/deep.safetensors", deep)
    for bad in ("file", "none", "deep/deep.safetensors"):
        with pytest.raises(DataError, match="holds no token pairs"):
            TokenPairs.load(tmp_path / bad)


def test_a_full_disk_leaves_the_file_before_as_it_was(editor, tmp_path, monkeypatch):
    made = token_pairs(editor, pairs_of([lab.world.sample_edit(0, size=32)]), progress=False)
    made.save(tmp_path / "pairs.safetensors")
    before = (tmp_path / "pairs.safetensors").read_bytes()

    def full(content, path, **more):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders, "save_file", full)
    with pytest.raises(DiskError, match="No space left"):
        made.save(tmp_path / "pairs.safetensors")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


def test_what_the_text_encoder_cannot_take(editor, crisp, picture):
    write(crisp / "long_00000.parquet", CRISP, [crisp_row(picture, 0, instruction=LONG)])
    reader = PairReader(crisp)
    assert len(token_pairs(editor, reader, progress=False)) == 5
    assert reader.report.used == 5 and reader.report.rows == 13
    assert reader.report.skipped["the instruction is too long for the text encoder"] == 1
    with pytest.raises(TextError):
        token_pairs(editor, [Pair(picture(), picture(), LONG)], progress=False)
    with pytest.raises(DataError, match="there is no pair"):
        token_pairs(editor, [], progress=False)
    for batch in (0, -1, 2.0, "4", 10**30):
        with pytest.raises(SettingError, match="batch is"):
            token_pairs(editor, [Pair(picture(), picture(), "x")], batch=batch, progress=False)


@pytest.mark.parametrize("stopped", [*range(10), "writing"])
def test_a_stopped_run_goes_on_without_repeating(editor, crisp, tmp_path, monkeypatch, stopped):
    """Stopped before one of the ten pictures, or while the first shard of two pairs is being written."""
    plain = PairReader(crisp)
    wanted = token_pairs(editor, plain, progress=False)
    calls, encode = [], tokens.encode

    def counted(vq, pictures):
        if len(calls) == stopped:
            raise KeyboardInterrupt
        calls.append(pictures)
        return encode(vq, pictures)

    def torn(content, path, **more):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    def kept():
        reader = PairReader(crisp)
        return token_pairs(editor, reader, folder=tmp_path / "kept", batch=1, progress=False), reader.report

    monkeypatch.setattr(tokens, "SHARD", 2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tokens, "encode", counted)
        if stopped == "writing":
            patch.setattr(folders, "save_file", torn)
        kept()
    whole = len(calls) // 4 * 2 if stopped != "writing" else 0  # pairs in whole shards
    stopped = None
    calls.clear()
    monkeypatch.setattr(tokens, "encode", counted)
    for encoded in (2 * (len(wanted) - whole), 0):
        made, report = kept()
        assert len(calls) == encoded
        assert torch.equal(made.source, wanted.source) and torch.equal(made.target, wanted.target)
        assert (made.instructions, made.categories) == (wanted.instructions, wanted.categories)
        assert report == plain.report
        calls.clear()


def test_a_shard_that_was_removed_is_tokenized_again(editor, crisp, tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "SHARD", 2)
    made = token_pairs(editor, PairReader(crisp), folder=tmp_path, progress=False)
    next(tmp_path.rglob("00000.safetensors")).unlink()
    reader = PairReader(crisp)
    again = token_pairs(editor, reader, folder=tmp_path, progress=False)
    assert torch.equal(again.source, made.source) and again.instructions == made.instructions
    assert reader.report.rows == len(list(PairReader(crisp))) + sum(reader.report.skipped.values())


KILLED = """
import os, signal, sys
import editmgt_lab as lab
from editmgt_lab.data import tokens
from editmgt_lab.data.pairs import PairReader
tokens.SHARD, encode, calls = 2, tokens.encode, []
def fragile(vq, pictures):
    calls.append(1)
    if len(calls) == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(vq, pictures)
tokens.encode = fragile
tokens.token_pairs(lab.load(sys.argv[1], device="cpu"), PairReader(sys.argv[2]), folder=sys.argv[3], batch=1)
"""


def test_another_process_goes_on_where_one_was_killed(editor, tiny_folder, crisp, tmp_path, monkeypatch):
    (tmp_path / "killed.py").write_text(KILLED)
    command = [sys.executable, str(tmp_path / "killed.py"), str(tiny_folder), str(crisp), str(tmp_path / "kept")]
    paths = str(Path(lab.__file__).parents[1]), os.environ["PYTHONPATH"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
    assert run.returncode == -signal.SIGKILL, run.stderr
    calls, encode = [], tokens.encode
    monkeypatch.setattr(tokens, "encode", lambda *given: calls.append(1) or encode(*given))
    made = token_pairs(editor, PairReader(crisp), folder=tmp_path / "kept", batch=1, progress=False)
    assert len(calls) == 6 and torch.equal(made.source, token_pairs(editor, PairReader(crisp), progress=False).source)


def test_kept_tokens_belong_to_their_model_and_data(editor, tiny_folder, crisp, picture, tmp_path):
    def made(editor, **choice):
        token_pairs(editor, PairReader(crisp, **choice), folder=tmp_path / "kept", progress=False)
        return len(list((tmp_path / "kept").iterdir()))

    assert [made(editor), made(editor), made(editor, limit=2)] == [1, 1, 2]
    other = lab.load(tiny_folder, device="cpu")
    with torch.no_grad():
        other.vq.decoder.conv_in.weight.add_(1)
    assert made(other) == 2  # the decoder makes no tokens
    with torch.no_grad():
        other.vq.encoder.conv_in.weight.add_(0.1)
    assert made(other) == 3
    write(crisp / "color_00005.parquet", CRISP, [crisp_row(picture, 20)])
    assert made(editor) == 4
    with pytest.raises(SettingError, match="not kept"):
        token_pairs(editor, [], folder=tmp_path / "kept")


def test_a_subset_by_numbers_or_by_what_is_true():
    tokens = torch.arange(4).view(4, 1, 1)
    pairs = TokenPairs(tokens, tokens, list("abcd"))
    assert pairs.subset([2, 0]).instructions == ["c", "a"]
    chosen = pairs.subset(torch.tensor([False, False, True, True]))
    assert chosen.instructions == ["c", "d"] and chosen.source.flatten().tolist() == [2, 3]
