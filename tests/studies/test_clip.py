"""How far a CLIP can be trusted: the arithmetic of the three questions on made-up vectors, and the command."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from editmgt_lab.errors import SettingError
from editmgt_lab.metrics.backbones import load_clip
from editmgt_lab.studies import clip as study
from editmgt_lab.studies.clip import COPY, NEAR, OTHER, TRUE, Seen, agreement, directions, main, measure, retrieval
from editmgt_lab.world import CATEGORIES


def made_up(count, right):
    """Edits whose pictures are their captions, but for those that are not `right`: there they are the other's."""
    torch.manual_seed(0)
    before, after = F.normalize(torch.randn(2, count, 64), dim=2)
    where = torch.tensor(right)[:, None]
    targets, sources = torch.where(where, after, before), torch.where(where, before, after)
    pictures = {TRUE: targets, COPY: sources, NEAR: F.normalize(targets + before, dim=1), OTHER: targets.roll(1, 0)}
    return Seen([SimpleNamespace(target_caption=str(i)) for i in range(count)], pictures, before, after)


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


def test_a_caption_of_the_same_words_is_found_as_well(monkeypatch):
    monkeypatch.setattr(study, "POOL", 4)
    seen = made_up(4, [True] * 4)
    seen.after[2], seen.pictures[TRUE][2] = seen.after[0], seen.after[0]
    assert retrieval(seen) == [1, 1, 0, 1], "another caption"
    seen.samples[2] = seen.samples[0]
    assert retrieval(seen) == [1, 1, 1, 1]


@pytest.mark.parametrize("count", [14, 16, 100, 1000])
def test_another_edit_is_of_the_same_category_whatever_the_count(count):
    categories = [CATEGORIES[number % 7] for number in range(count)]
    places = study.another(categories)
    assert sorted(places) == list(range(count)), "each once"
    assert [categories[place] for place in places] == categories and all(i != place for i, place in enumerate(places))
    assert places[7:] == list(range(count - 7))


def test_the_other_pictures_are_of_the_same_category():
    """Of a network that sees of a picture only the how manieth it is."""
    clip = SimpleNamespace(
        name="made up", embed=lambda pictures: torch.eye(16), embed_texts=lambda texts: torch.eye(16)
    )
    seen = study.embed(clip, range(16), split="test", size=32)
    other = [int(picture.argmax()) for picture in seen.pictures[OTHER]]
    assert other[:7] == [14, 15, 9, 10, 11, 12, 13] and other[7:] == list(range(9))


def test_an_edit_without_a_direction_is_neither_ahead_nor_behind():
    assert (study.ahead(0.5, 0.1), study.ahead(0.1, 0.5)) == (1, 0)
    assert math.isnan(study.ahead(math.nan, 0.5)) and math.isnan(study.ahead(0.5, math.nan))


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
