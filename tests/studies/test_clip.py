"""How far a CLIP can be trusted: the arithmetic of the three questions on made-up vectors, and the command."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F

from editmgt_lab.errors import SettingError
from editmgt_lab.metrics.backbones import load_clip
from editmgt_lab.studies import clip as study
from editmgt_lab.studies.clip import COPY, NEAR, OTHER, TRUE, Seen, agreement, directions, main, measure, retrieval


def made_up(count, right):
    """Edits whose pictures are their captions, but for those that are not `right`: there they are the other's."""
    torch.manual_seed(0)
    before, after = F.normalize(torch.randn(2, count, 64), dim=2)
    where = torch.tensor(right)[:, None]
    targets, sources = torch.where(where, after, before), torch.where(where, before, after)
    pictures = {TRUE: targets, COPY: sources, NEAR: F.normalize(targets + before, dim=1), OTHER: targets.roll(1, 0)}
    return Seen([], pictures, before, after)


def test_each_question_counts_what_it_asks(monkeypatch):
    monkeypatch.setattr(study, "POOL", 4)
    seen = made_up(10, [True] * 6 + [False] + [True] * 3)
    assert agreement(seen) == ([1] * 6 + [0] + [1] * 3, [1] * 6 + [0] + [1] * 3)
    seen.pictures[TRUE][6] = seen.after[5]
    assert retrieval(seen) == [1, 1, 1, 1, 1, 1, 0, 1], "two whole pools of four"
    seen.pictures[TRUE][6] = seen.before[6]
    found = directions(seen)
    assert found[TRUE][0] == pytest.approx(1) and found[TRUE][6] == pytest.approx(-1) and set(found[COPY]) == {0}
    assert 0.5 < found[NEAR][0] < 0.99 and found[OTHER][2] < found[NEAR][2]


def test_too_few_edits_are_refused():
    with pytest.raises(SettingError, match="count is 3"):
        measure(load_clip("tiny"), count=3)


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(study, "POOL", 7)
    assert main(["--count", "14", "--sizes", "64", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "tiny CLIP, 64 px" in printed and "random weights, 64 px" in printed
    saved = json.loads((tmp_path / "clip.json").read_text(encoding="utf-8"))
    rows = saved["rows"]
    assert saved["fingerprint"] == load_clip("tiny").fingerprint and set(rows) == {
        "tiny CLIP, 64 px",
        "random weights, 64 px",
    }
    own, chance = rows.values()
    assert own[study.TARGETS]["count"] == 14 and own[study.TARGETS]["mean"] > chance[study.TARGETS]["mean"]
    assert main(["--clip", str(tmp_path / "none"), "--output", str(tmp_path)]) == 2
