"""Focus words: found however their letters are coded, in scripts with and without spaces, and nowhere else."""

import shutil
import unicodedata

import pytest
import torch

import editmgt_lab as lab
from editmgt_lab.basics import words as words_module
from editmgt_lab.basics.words import occurrences, word_spans, words_of
from editmgt_lab.errors import TextError
from editmgt_lab.text import find_rows, load_text_encoder
from editmgt_lab.views.recording import word_rows
from tests.support.tiny import save_language_model

FOUND = [
    ("café", "paint the cafe\u0301 red", ["cafe\u0301"]),
    ("cafe\u0301", "paint the café red", ["café"]),
    ("CAFÉ", "the café", ["café"]),
    ("BALL", "the Ball and the ball", ["Ball", "ball"]),
    ("strasse", "make the Straße wet", ["Straße"]),
    ("fish", "the \ufb01sh swims", ["\ufb01sh"]),
    ("ＢＡＬＬ", "the ball", ["ball"]),
    ("ball", "the ｂａｌｌ", ["ｂａｌｌ"]),
    ("the ball", "make the \n ball blue", ["the \n ball"]),
    ("the ball", "make the\u00a0ball blue", ["the\u00a0ball"]),
    ("dog's", "the dog’s hat", ["dog’s"]),
    ("ball", "make ball-shaped (ball)!", ["ball", "ball"]),
    ("a\u0323\u0302", "say a\u0302\u0323 now", ["a\u0302\u0323"]),
    ("ậ", "say a\u0302\u0323 now", ["a\u0302\u0323"]),
    ("鱼", "把鱼变成蓝色", ["鱼"]),
    ("蓝色", "把鱼变成蓝色，不要蓝色的天", ["蓝色", "蓝色"]),
    ("cat", "把cat变成蓝色", ["cat"]),
    ("犬", "犬を青くする", ["犬"]),
    ("ガラス", "ｶﾞﾗｽを赤く", ["ｶﾞﾗｽ"]),
    ("ボール", "ボールを青くする", ["ボール"]),
    ("ปลา", "เปลี่ยนปลาเป็นสีน้ำเงิน", ["ปลา"]),
    ("น้ำเงิน", "เปลี่ยนปลาเป็นสีน้ำเงิน", ["น้ำเงิน"]),
    ("공", "공을 파랗게", ["공"]),
    ("공", unicodedata.normalize("NFD", "공을 파랗게"), [unicodedata.normalize("NFD", "공")]),
    ("الكرة", "اجعل الكرة زرقاء", ["الكرة"]),
    ("הכדור", "צבע את הכדור בכחול", ["הכדור"]),
    ("הכדור", "צבע את \u200fהכדור\u200f בכחול", ["הכדור"]),
    ("می\u200cخواهم", "من میخواهم", ["میخواهم"]),
    ("мяч", "сделай Мяч синим", ["Мяч"]),
    ("ΣΦΑΙΡΑΣ", "το χρώμα της σφαιρας", ["σφαιρας"]),
    ("गेंद", "गेंद को नीला करो", ["गेंद"]),
    ("🐟", "remove the🐟now", ["🐟"]),
    ("cat", "make the ´cat¨ blue", ["cat"]),
]


@pytest.mark.parametrize(("word", "text", "parts"), FOUND)
def test_found_where_it_stands(word, text, parts):
    assert [text[a:b] for a, b in occurrences(word, text)] == parts


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("bal", "the ball"),
        ("all", "the ball"),
        ("cafe", "the café"),
        ("cafe", "the cafe\u0301"),
        ("caf", "the café"),
        ("i", "the \ufb01sh"),
        ("고", "공을 파랗게"),
        ("고", unicodedata.normalize("NFD", "공을 파랗게")),
        ("กา", "กี่"),
        ("ग", "गेंद"),
        ("مرة", "اجعل الكرة زرقاء"),
        ("猫", "把鱼变成蓝色"),
        ("", "the ball"),
        (" \u200b", "the ball"),
    ],
)
def test_not_found_inside_of_another(word, text):
    assert occurrences(word, text) == []


def test_words_between_spaces_and_characters_without():
    def words(text):
        return [text[a:b] for a, b in word_spans(text)]

    assert words(" make  the purplish-red ball, now") == ["make", "the", "purplish-red", "ball,", "now"]
    assert words("把鱼变成 blue色") == ["把", "鱼", "变", "成", "blue", "色"]
    assert words("น้ำใจ") == ["น้ำ", "ใ", "จ"] or words("น้ำใจ")[0].startswith("น้")
    assert words("the cafe\u0301") == ["the", "cafe\u0301"] and words("") == []
    assert words_of("Paint (the) cafe\u0301, the “ball”!") == ["Paint", "the", "café", "ball"]
    assert words_of("สี ดำ") == ["สี", "ดำ"]


@pytest.fixture(scope="module")
def small():
    return lab.load(device="cpu")


@pytest.mark.parametrize(("word", "text", "parts"), FOUND)
def test_the_rows_are_the_tokenizers_own(small, word, text, parts):
    """Every row whose characters overlap the word's, of the tokenizer that makes the rows, and no other."""
    spans = small.text_encoder.clip_tokenizer(text, return_offsets_mapping=True, verbose=False).offset_mapping
    rows = find_rows(word, [text], torch.tensor([spans]))[0]
    places = {place for a, b in occurrences(word, text) for place in range(a, b)}
    assert rows.tolist() == [not places.isdisjoint(range(a, b)) for a, b in spans] and rows.any()
    covered = {place for a, b in torch.tensor(spans)[rows].tolist() for place in range(a, b)}
    assert min(places) in covered, "a composed letter has the place of its first part alone"


def test_rows_of_a_language_model(tiny_folder, tmp_path):
    shutil.copytree(tiny_folder, tmp_path, dirs_exist_ok=True)
    save_language_model(tmp_path / "llm_encoder", 24)
    both = load_text_encoder(tmp_path, architecture="CLIP_Gemma2")
    with torch.no_grad():
        condition = both(["the ＢＡ blue"])
    rows = condition.rows("ba")[0]
    covered = {place for a, b in condition.spans[0][rows].tolist() for place in range(a, b)}
    assert rows.shape == (256,) and {4, 5} <= covered <= {3, 4, 5}


def test_a_word_that_is_not_there_names_those_that_are(small):
    with pytest.raises(TextError, match="'balloon' is not in(?s:.*)expected: one of: paint, the, café, red"):
        small.encode_text("paint the cafe\u0301 red").rows("balloon")
    with pytest.raises(TextError, match="'猫' is not in(?s:.*)把鱼变成蓝色"):
        small.encode_text("把鱼变成蓝色").rows("猫")


def test_a_word_without_a_row_is_no_focus():
    with pytest.raises(TextError, match="'ball' has no row"):
        find_rows("ball", ["the ball"], torch.tensor([[[0, 3], [0, 0]]]))


def test_an_edit_localises_by_a_word_of_another_script(editor, picture):
    settings = {"steps": 1, "seed": 0, "guidance_scale": 1}
    one = editor.edit(picture(), "鱼 blue", focus="鱼", **settings)
    other = editor.edit(picture(), "鱼 blue", focus="blue", **settings)
    assert not torch.equal(one.heat, other.heat)


def test_the_widgets_part_words_in_the_same_way(small):
    names = [word.name for word in word_rows(small, "把鱼变蓝 blue")[0]]
    assert names == ["‹start›", "把", "鱼", "变", "蓝", "blue", "‹end›"]


def test_a_word_that_is_far_longer_than_the_text_is_not_even_decomposed(monkeypatch):
    monkeypatch.setattr(words_module, "_folded", None)
    assert occurrences("\ufdfa" * 4_000_000, "make the ball blue") == []
