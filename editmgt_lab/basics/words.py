"""Where words stand in a text, however their letters are coded and whether or not the script has spaces."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

# Scripts that put no space between words, or (Hangul) write particles onto them: a word may begin anywhere in these.
UNSPACED = (
    "CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "BOPOMOFO", "HANGUL", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN",
    "TAI", "NEW TAI LUE", "JAVANESE", "BALINESE", "YI",
)  # fmt: skip
MOST = 64  # times as long as a text is no word of it, however its letters are coded; decomposed, it could fill memory
ALIKE = str.maketrans("‘’ʼ‐–—", "'''---")


def occurrences(word: str, text: str) -> list[tuple[int, int]]:
    """Where `word` stands in `text` as a word of its own: spans of characters of the text as it is.

    Upper and lower case, composed and decomposed accents, full-width and other compatibility forms, kinds of space, of
    apostrophe and of hyphen do not matter, nor characters that are not seen (zero width, direction). An accent does.
    """
    if len(word) > MOST * len(text):
        return []
    wanted = "".join(letter for letter, _ in _folded(word)).strip()
    letters = _folded(text)
    plain = "".join(letter for letter, _ in letters)
    found, start = [], plain.find(wanted) if wanted else -1
    while start >= 0:
        end = start + len(wanted)
        if _parts(letters, start) and _parts(letters, end):
            places = [place for _, place in letters[start:end]]
            found.append((min(places), max(places) + 1))
        start = plain.find(wanted, start + 1)
    return found


def word_spans(text: str) -> list[tuple[int, int]]:
    """The words of a text as spans of its characters: what stands between spaces, and of a script without spaces every
    character with its marks."""
    spans: list[tuple[int, int]] = []
    for index, letter in enumerate(text):
        if letter.isspace():
            continue
        before = text[index - 1] if spans and spans[-1][1] == index else None
        if before is not None and (_extends(letter) or not (_unspaced(before) or _unspaced(letter))):
            spans[-1] = (spans[-1][0], index + 1)
        else:
            spans.append((index, index + 1))
    return spans


def words_of(text: str) -> list[str]:
    """The words between the spaces, composed, without punctuation around them, each once: for an error to name."""
    words = []
    for piece in unicodedata.normalize("NFC", text).split():
        inside = [index for index, letter in enumerate(piece) if _in_word(letter)]
        seen = any(unicodedata.category(piece[index]) != "Cf" for index in inside)  # a joiner alone is no word
        words += [piece[inside[0] : inside[-1] + 1]] if seen else []
    return list(dict.fromkeys(words))


def _folded(text: str) -> list[tuple[str, int]]:
    """The letters that count for comparing, decomposed and in lower case, each with its place in the text."""
    letters: list[tuple[str, int]] = []
    for index, letter in enumerate(text.translate(ALIKE)):
        parts = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", letter).casefold()).translate(ALIKE)
        if parts[:1] == " " != letter and len(parts) > 1:  # an accent that stands alone, and on no letter: ´ or ¨
            parts = letter
        for part in parts:
            if part.isspace():
                if letters and letters[-1][0] != " ":
                    letters.append((" ", index))
            elif unicodedata.category(part) != "Cf":
                letters.append((part, index))
    return _in_order(letters)


def _in_order(letters: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Marks on one letter in Unicode's canonical order, whichever was typed first."""
    ordered, marks = [], []
    for each in [*letters, ("", -1)]:
        if each[0] and unicodedata.combining(each[0]):
            marks.append(each)
            continue
        ordered += sorted(marks, key=lambda mark: unicodedata.combining(mark[0]))
        marks = []
        ordered += [each] if each[0] else []
    return ordered


def _parts(letters: list[tuple[str, int]], place: int) -> bool:
    """Whether a word may end before this letter and another begin with it."""
    if place in (0, len(letters)):
        return True
    (before, first), (after, second) = letters[place - 1 : place + 1]
    if first == second or (_extends(after) and _in_word(before)):  # inside one character, or before its marks
        return False
    return not (_in_word(before) and _in_word(after)) or _unspaced(before) or _unspaced(after)


def _in_word(letter: str) -> bool:
    return letter.isalnum() or letter == "_" or _extends(letter)


@lru_cache(maxsize=4096)
def _unspaced(letter: str) -> bool:
    return unicodedata.name(letter, "").startswith(UNSPACED)


def _extends(letter: str) -> bool:
    """Whether it belongs to the letter before it: accents, vowel signs, later parts of a Hangul syllable, joiners."""
    return unicodedata.category(letter)[0] == "M" or "\u1160" <= letter <= "\u11ff" or letter in "\u200c\u200d"
