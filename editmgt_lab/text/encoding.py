"""Stage 2: an instruction becomes text tokens and a pooled vector, and each word knows its rows."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..basics.dtypes import Dtype, choose_dtype
from ..basics.words import occurrences, words_of
from ..errors import CheckpointError, TextError
from ..plain_text import one_line

Focus = str | Sequence[str] | Sequence[Sequence[str]]
LONGEST_SHOWN = 100  # letters of a focus word in an error
TOKENIZING = threading.Lock()  # a tokenizer is told anew in every call what to cut off and where to pad


@dataclass(frozen=True)
class TextCondition:
    """What the transformer reads of the text.

    tokens: [B, L, D] one row per text token; pooled: [B, P] one vector per text;
    padding: bool [B, L], True where a row is padding (None: no row is).
    texts and spans say where the rows come from: row l of text b covers the characters spans[b, l, 0]:spans[b, l, 1]
    (empty for padding and special tokens). Both are None for tensors that came without a tokenizer.
    """

    tokens: Tensor
    pooled: Tensor
    padding: Tensor | None = None
    texts: tuple[str, ...] | None = None
    spans: Tensor | None = None

    def rows(self, focus: Focus) -> Tensor:
        """The rows of the focus words: bool [B, L], every sub-token of every occurrence.

        focus: one word or phrase, a list of them for all texts, or one such list per text.
        Letters are compared, not their coding: see words.occurrences. Raises TextError where a text does not have the
        word, or the tokenizer has no row for it.
        """
        if self.texts is None or self.spans is None:
            raise TextError(
                "This text condition has no words.",
                expected="a condition made by `encode_text`, which remembers the words of each row.",
                fix="Pass row numbers instead of words, or encode the instruction with `Editor.encode_text`.",
            )
        return find_rows(focus, self.texts, self.spans)

    def to(self, device: torch.device | str | None = None, dtype: Dtype | None = None) -> TextCondition:
        """The same condition on another device or in another dtype, which may be a name. Raises SettingError."""
        dtype = choose_dtype(dtype)
        return replace(
            self,
            tokens=self.tokens.to(device, dtype),
            pooled=self.pooled.to(device, dtype),
            padding=None if self.padding is None else self.padding.to(device),
        )


def find_rows(focus: Focus, texts: Sequence[str], spans: Tensor) -> Tensor:
    """The rows of the focus words: bool [B, L]; see TextCondition.rows. spans: [B, L, 2]. Raises TextError."""
    focus = [focus] if isinstance(focus, str) else focus
    per_text = [focus] * len(texts) if _are_words(focus) else focus
    if not isinstance(per_text, (list, tuple)) or len(per_text) != len(texts) or not all(map(_are_words, per_text)):
        raise TextError(
            f"The focus {focus!r} does not say which words of {len(texts)} instruction(s) are meant.",
            expected="a word, a list of words for all instructions, or one such list per instruction.",
            fix="Choose words of the instruction, or leave `focus` out to use all of them.",
        )
    return torch.stack(
        [
            torch.stack([_rows_of(word, text, rows) for word in words]).any(dim=0)
            for words, text, rows in zip(per_text, texts, spans, strict=True)
        ]
    )  # (B, L)


def _are_words(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(word, str) for word in value)


def _rows_of(word: str, text: str, spans: Tensor) -> Tensor:
    """bool [L]: the rows whose characters overlap an occurrence of `word` in `text`."""
    found = occurrences(word, text)
    word = word if len(word) < LONGEST_SHOWN else word[:LONGEST_SHOWN] + "…"
    if not found:
        raise TextError(
            f"The focus word {word!r} is not in the instruction {text!r}.",
            expected=f"one of: {', '.join(words_of(text))}.",
            fix="Choose a word of the instruction, or leave `focus` out to use all of them.",
        )
    start, end = spans[:, 0], spans[:, 1]
    rows = torch.stack([(start < b) & (end > a) & (end > start) for a, b in found]).any(dim=0)
    if not rows.any():
        raise TextError(
            f"The focus word {word!r} has no row: the tokenizer leaves its letters out.",
            expected="a word that the tokenizer knows letters of.",
            fix="Choose another word of the instruction, or leave `focus` out to use all of them.",
        )
    return rows


class TextEncoder(nn.Module):
    """CLIP alone (base Meissonic and the small model), or CLIP with a language model (EditMGT).

    The pooled vector is CLIP's projected one. The text tokens are the second-to-last hidden layer of the language
    model where there is one, of CLIP otherwise (facts: released code, `encode_prompt`).

    The released code pads the language model's text to 256 tokens and gives it no attention mask, so padding changes
    the embeddings of the words; `mask_padding=False` keeps what the released weights were trained with.

    A text that is too long is refused. Where a language model reads it, CLIP alone may be given its beginning, with a
    warning, as in the released code. device: where its inputs go; None is where CLIP's weights are.
    """

    def __init__(
        self,
        clip: nn.Module,
        clip_tokenizer,
        language_model: nn.Module | None = None,
        language_tokenizer=None,
        *,
        language_length: int = 256,
        mask_padding: bool = False,
        device: torch.device | None = None,
    ):
        super().__init__()
        self._device = device
        self.clip, self.clip_tokenizer = clip, clip_tokenizer
        self.language_model, self.language_tokenizer = language_model, language_tokenizer
        self.language_length, self.mask_padding = language_length, mask_padding

    @property
    def width(self) -> int:
        """D, of a text token."""
        return (self.clip if self.language_model is None else self.language_model).config.hidden_size

    @property
    def pooled_width(self) -> int:
        """P, of the pooled vector."""
        return self.clip.config.projection_dim

    @property
    def clip_length(self) -> int:
        """Rows of CLIP's padded text."""
        return self.clip.config.max_position_embeddings

    @property
    def device(self) -> torch.device:
        return self._device or self.clip.device

    def tokenize(self, texts: Sequence[str]) -> list[dict[str, Tensor]]:
        """Texts → padded ids, one dict of `input_ids`, `attention_mask` [B, L] and `offset_mapping` per encoder.

        Raises TextError for a text that is too long for the encoder whose rows become the text tokens.
        """
        ways = [(self.clip_tokenizer, self.clip_length)]
        if self.language_model is not None:
            ways.append((self.language_tokenizer, self.language_length))
        tokenizer, length = ways[-1]
        for text in texts:
            if (count := token_count(tokenizer, text)) > length:
                raise TextError(
                    f"A text has {count} text tokens: {text[:60]!r}…",
                    expected=f"at most {length} text tokens.",
                    fix="Say it in fewer words; nothing is cut off silently.",
                )
        return [padded(tokenizer, texts, length) for tokenizer, length in ways]

    def forward(self, texts: Sequence[str]) -> TextCondition:
        """Texts → TextCondition on the encoder's device."""
        encoded = self.tokenize(texts)
        _check_ids(encoded[0]["input_ids"], self.clip)
        for text in texts:
            if (count := token_count(self.clip_tokenizer, text)) > self.clip_length:
                warnings.warn(
                    f"a text has {count} tokens for CLIP, which reads the first {self.clip_length} alone; the "
                    f"language model reads all of it: {one_line(text[:60])!r}…",
                    stacklevel=2,
                )
        device = self.device
        condition = self.encode_ids(encoded[0]["input_ids"].to(device))
        if self.language_model is not None:
            _check_ids(encoded[1]["input_ids"], self.language_model)
            ids, mask = (encoded[1][name].to(device) for name in ("input_ids", "attention_mask"))
            hidden = self.language_model(
                input_ids=ids,
                attention_mask=mask if self.mask_padding else None,
                output_hidden_states=True,
                use_cache=False,
            ).hidden_states[-2]
            condition = replace(condition, tokens=hidden)
        rows = encoded[-1]
        return replace(
            condition,
            padding=rows["attention_mask"].to(device) == 0,
            texts=tuple(texts),
            spans=rows["offset_mapping"],
        )

    def encode_ids(self, ids: Tensor) -> TextCondition:
        """CLIP ids [B, L] → text tokens [B, L, D] and pooled vector [B, P]; differentiable."""
        output = self.clip(input_ids=ids, output_hidden_states=True)
        return TextCondition(tokens=output.hidden_states[-2], pooled=output.text_embeds)


def _check_ids(ids: Tensor, model: nn.Module) -> None:
    known, highest = model.get_input_embeddings().num_embeddings, int(ids.max())
    if highest >= known:
        raise CheckpointError(
            f"the tokenizer gives the token {highest}, and its network knows {known}",
            expected="a tokenizer and a network that belong together",
            fix="download or copy both again",
        )


def padded(tokenizer: Any, texts: Sequence[str], length: int) -> dict[str, Tensor]:
    """`input_ids`, `attention_mask` [B, length] and `offset_mapping` of the texts, longer ones cut off."""
    with TOKENIZING:
        return tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=length, return_offsets_mapping=True,
            return_tensors="pt",
        )  # fmt: skip


def token_count(tokenizer: Any, text: str) -> int:
    """Tokens of a whole text, special ones included."""
    with TOKENIZING:
        return len(tokenizer(text, verbose=False).input_ids)
