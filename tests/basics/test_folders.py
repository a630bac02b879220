"""Stray files: what systems and editors leave in a folder is no row, no picture and no weight of it. And writing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from editmgt_lab.basics import folders
from editmgt_lab.basics.folders import (
    append_line,
    files_in,
    is_stray,
    make_folder,
    plain,
    remove,
    write_tensors,
    write_text,
    written_into,
    written_whole,
)
from editmgt_lab.benchmarks.anybench import AnyBench
from editmgt_lab.benchmarks.edits import made_of
from editmgt_lab.benchmarks.magicbrush import MagicBrush
from editmgt_lab.checkpoints import weight_files
from editmgt_lab.crisp.assure.rules import load_bounds
from editmgt_lab.crisp.curate.decode import header_size
from editmgt_lab.data.pairs import PairReader
from editmgt_lab.data.tables import read_rows, tables_of
from editmgt_lab.data.tokens import TokenPairs
from editmgt_lab.errors import CheckpointError, DataError, DiskError, SettingError

STRAY = (
    ".ipynb_checkpoints/test-checkpoint.jsonl", "__MACOSX/data/test.jsonl", "__MACOSX/._test.jsonl", ".DS_Store",
    "Thumbs.db", "thumbs.db", "desktop.ini", "Desktop.ini", "._test.jsonl", "data/._test.jsonl", "test.jsonl~",
    "test.jsonl.bak", ".test.jsonl.swp", "#test.jsonl#", ".#test.jsonl", "~$test.jsonl", ".git/test.jsonl",
    "data/.cache/test.jsonl", "test.jsonl.orig", "test.jsonl.part", "@eaDir/test.jsonl", "Icon\r",
)  # fmt: skip
MEANT = ("test.jsonl", "data/test-00000-of-00002.parquet", "#1 cat.png", "my~cat.png", "backup/test.jsonl", "a.b/c.png")


@pytest.mark.parametrize("name", STRAY)
def test_stray(name):
    assert is_stray(name)


@pytest.mark.parametrize("name", MEANT)
def test_meant(name):
    assert not is_stray(name)


@pytest.fixture
def littered(tmp_path):
    """A hidden folder of rows, as a cache may be, with every stray file in it."""
    folder = tmp_path / ".cache" / "set"
    for name in (*STRAY, "test.jsonl", "data/test.jsonl"):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"row": "stray" if name in STRAY else name}) + "\n", encoding="utf-8")
    return folder


def test_rows(littered, hub):
    expected = ["data/test.jsonl", "test.jsonl"]
    assert [row["row"] for row in read_rows(littered)] == expected
    assert [row["row"] for row in read_rows(littered / "test.jsonl")] == ["test.jsonl"]
    assert [file.relative_to(littered).as_posix() for file in files_in(littered)] == expected
    assert files_in(littered, deep=False) == [littered / "test.jsonl"] and files_in(littered / "gone") == []
    hub("someone/set", littered)
    assert [table.name for table in tables_of("someone/set")] == expected


def test_pairs_and_their_fingerprint(tmp_path, picture):
    for part in ("source", "target"):
        (tmp_path / part).mkdir()
        picture().save(tmp_path / part / "a.png")
    row = json.dumps({"source": "a.png", "target": "a.png", "instruction": "x"})
    (tmp_path / "edits.jsonl").write_text(row + "\n", encoding="utf-8")
    before = PairReader(tmp_path).fingerprint()
    (tmp_path / "source" / ".DS_Store").write_bytes(b"1")
    (tmp_path / "source" / "Thumbs.db").write_bytes(b"1")
    (tmp_path / "target" / ".ipynb_checkpoints").mkdir()
    assert PairReader(tmp_path).fingerprint() == before and len(list(PairReader(tmp_path))) == 1
    picture().save(tmp_path / "source" / "b.png")
    assert PairReader(tmp_path).fingerprint() != before


def test_sessions_and_results_of_benchmarks(tmp_path):
    sessions = tmp_path / "magic" / "test" / "edit_sessions.json"
    sessions.parent.mkdir(parents=True)
    sessions.write_text(json.dumps({"1": [{"input": "a.png", "instruction": "now"}]}), encoding="utf-8")
    results = tmp_path / "any" / "anybench" / "add" / "edit_result.json"
    results.parent.mkdir(parents=True)
    results.write_text(json.dumps([{"edit": "now", "edit_type": "add", "image_file": "a.png"}]), encoding="utf-8")
    for file in (sessions, results):
        for place in (".ipynb_checkpoints", "__MACOSX"):
            copy = file.parents[1] / place / file.parent.name / file.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
            copy.write_text(file.read_text(encoding="utf-8").replace("now", "before"), encoding="utf-8")
    assert [row.instruction for row in MagicBrush().rows(tmp_path / "magic")] == ["now"]
    assert [row.instruction for row in AnyBench().rows(tmp_path / "any")] == ["now"]


def test_weights(tmp_path):
    (tmp_path / "net.safetensors").write_bytes(b"")
    (tmp_path / "._net.safetensors").write_bytes(b"")
    assert weight_files(tmp_path) == [tmp_path / "net.safetensors"]
    (tmp_path / "net.safetensors").unlink()
    (tmp_path / "._net.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="holds no weights"):
        weight_files(tmp_path)


# Writing


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(tmp_path):
    """Whoever opens a pipe that nobody writes to waits for ever."""
    pipe = tmp_path / "pipe.safetensors"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="no plain file"):
        plain(pipe)
    with pytest.raises(FileNotFoundError):
        plain(tmp_path / "gone")
    assert plain(tmp_path) == tmp_path and made_of(pipe) is None and header_size(pipe) is None
    with pytest.raises(DataError, match="no plain file"):
        TokenPairs.load(pipe)
    with pytest.raises(SettingError, match="no plain file"):
        load_bounds(pipe)


def test_a_file_or_folder_takes_its_place_whole_or_not_at_all(tmp_path):
    for path in (tmp_path / "new" / "file.txt", tmp_path / "new" / "folder"):
        for content in ("first", "second"):
            with written_whole(path) as unfinished:
                if path.suffix:
                    unfinished.write_text(content, encoding="utf-8")
                else:
                    unfinished.mkdir()
                    (unfinished / content).write_text(content, encoding="utf-8")
                assert not path.exists() or content == "second"
        with pytest.raises(ZeroDivisionError), written_whole(path) as unfinished:
            unfinished.mkdir()
            (unfinished / "half").touch()
            raise ZeroDivisionError
    assert (tmp_path / "new" / "file.txt").read_text(encoding="utf-8") == "second"
    assert [each.name for each in (tmp_path / "new" / "folder").iterdir()] == ["second"]
    assert sorted(each.name for each in (tmp_path / "new").iterdir()) == ["file.txt", "folder"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077], ids=oct)
def test_who_may_read_new_files_may_read_weights(tmp_path, umask):
    tensors = {"weight": torch.zeros(2)}
    before = os.umask(umask)
    try:
        (tmp_path / "plain").touch()
        with written_whole(tmp_path / "file") as unfinished:
            save_file(tensors, unfinished)
        with written_whole(tmp_path / "folder") as unfinished:
            unfinished.mkdir()
            save_file(tensors, unfinished / "file")
        with written_into(tmp_path) as unfinished:
            save_file(tensors, unfinished / "other")
    finally:
        os.umask(before)
    modes = {name: (tmp_path / name).stat().st_mode for name in ("plain", "file", "folder/file", "other")}
    assert set(modes.values()) == {0o100666 & ~umask}, modes


def test_the_same_tensors_and_texts_are_the_same_bytes(tmp_path):
    tensors = {"weight": torch.arange(6.0).view(2, 3), "bias": torch.zeros(3, dtype=torch.int16)}
    texts = {f"name {i}": f'é 猫 "{i}" \\ \n\x1f\x7f\u2028' for i in range(20)}
    for i, order in enumerate((sorted(texts), sorted(texts, reverse=True))):
        write_tensors(tmp_path / str(i), tensors, {name: texts[name] for name in order})
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()
    with safe_open(tmp_path / "0", framework="pt") as file:
        assert file.metadata() == texts
        assert all(torch.equal(file.get_tensor(name), tensor) for name, tensor in tensors.items())


def test_files_are_moved_into_a_folder_and_others_stay_there(tmp_path):
    (tmp_path / "other").touch()
    with written_into(tmp_path) as unfinished:
        (unfinished / "a").write_text("a", encoding="utf-8")
        assert [each.name for each in tmp_path.iterdir() if each != unfinished] == ["other"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a", "other"]


def test_a_folder_that_the_disk_does_not_take_leaves_the_one_before(tmp_path, monkeypatch):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "old").touch()

    def full(number):
        assert (tmp_path / "set" / "old").exists(), "a kill right now would lose it"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders.os, "fsync", full)
    with pytest.raises(DiskError), written_whole(tmp_path / "set") as unfinished:
        unfinished.mkdir()
        (unfinished / "new").touch()
    assert [each.name for each in tmp_path.rglob("*")] == ["set", "old"]
    monkeypatch.undo()
    rename = Path.rename

    def stubborn(path, target):
        if target == tmp_path / "set" and (path / "new").exists():
            raise OSError(13, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", stubborn)
    with pytest.raises(DiskError), written_whole(tmp_path / "set") as unfinished:
        unfinished.mkdir()
        (unfinished / "new").touch()
    assert [each.name for each in tmp_path.rglob("*")] == ["set", "old"]


def test_nothing_is_beside_a_file_once_it_has_its_place(tmp_path, monkeypatch):
    """A process may be killed right then, and who comes after it has nothing to write there, nor to sweep."""
    replace, seen = Path.replace, []

    def watched(path, target):
        moved = replace(path, target)
        seen.append(sorted(each.name for each in tmp_path.iterdir()))
        return moved

    monkeypatch.setattr(Path, "replace", watched)
    write_text(tmp_path / "a.json", "{}")
    with written_into(tmp_path) as folder:
        for name in ("b.txt", "c.txt"):
            (folder / name).touch()
    assert seen[0] == ["a.json"] and seen[-1] == ["a.json", "b.txt", "c.txt"]


def test_what_a_killed_process_left_is_swept_and_what_one_is_writing_is_not(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", WRITES, str(tmp_path / "a.txt")], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"half\n"
    (half,) = tmp_path.iterdir()
    (tmp_path / ".a.txt.unfinished").touch()  # of who knows whom
    folders._swept.clear()
    write_text(tmp_path / "b.txt", "b")
    assert half.exists()
    process.kill()
    process.communicate()
    folders._swept.clear()
    write_text(tmp_path / "b.txt", "b")
    assert sorted(each.name for each in tmp_path.iterdir()) == [".a.txt.unfinished", "b.txt"]
    os.utime(tmp_path / ".a.txt.unfinished", (0, 0))
    folders._swept.clear()
    write_text(tmp_path / "b.txt", "b")
    assert [each.name for each in tmp_path.iterdir()] == ["b.txt"]


WRITES = """
import sys, time, pathlib
from editmgt_lab.basics.folders import written_whole
with written_whole(pathlib.Path(sys.argv[1])) as unfinished:
    unfinished.write_text("half")
    print("half", flush=True)
    time.sleep(60)
"""


def test_lines_are_added_to_what_is_there(tmp_path):
    file = tmp_path / "lines"
    with pytest.raises(DiskError, match="cannot be written"):
        append_line(file, "no file")
    write_text(file, "")
    append_line(file, "größe")
    append_line(file, "half of a pair: \ud83d")
    assert file.read_text(encoding="utf-8").splitlines() == ["größe", "half of a pair: \\ud83d"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
def test_a_full_disk_is_said():
    with pytest.raises(DiskError, match="No space left"):
        append_line(Path("/dev/full"), "line")
    for write in (written_whole, written_into):
        with pytest.raises(DiskError, match="run the same again"), write(Path("/dev/full/file")):
            pass
    with pytest.raises(DiskError):
        make_folder(Path("/dev/full/folder"))
    with pytest.raises(DiskError):
        remove(Path("/dev/full/folder"))
