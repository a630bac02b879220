"""Stray files: what systems and editors leave in a folder is no row, no picture and no weight of it."""

import json
import shutil

import pytest

from editmgt_lab.basics.folders import files_in, is_stray
from editmgt_lab.benchmarks.anybench import AnyBench
from editmgt_lab.benchmarks.magicbrush import MagicBrush
from editmgt_lab.checkpoints import weight_files
from editmgt_lab.data.pairs import PairReader
from editmgt_lab.data.tables import read_rows, tables_of
from editmgt_lab.errors import CheckpointError

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
        file.write_text(json.dumps({"row": "stray" if name in STRAY else name}) + "\n")
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
    (tmp_path / "edits.jsonl").write_text(json.dumps({"source": "a.png", "target": "a.png", "instruction": "x"}) + "\n")
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
    sessions.write_text(json.dumps({"1": [{"input": "a.png", "instruction": "now"}]}))
    results = tmp_path / "any" / "anybench" / "add" / "edit_result.json"
    results.parent.mkdir(parents=True)
    results.write_text(json.dumps([{"edit": "now", "edit_type": "add", "image_file": "a.png"}]))
    for file in (sessions, results):
        for place in (".ipynb_checkpoints", "__MACOSX"):
            copy = file.parents[1] / place / file.parent.name / file.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy)
            copy.write_text(file.read_text().replace("now", "before"))
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
