"""Stage 2: an instruction becomes text tokens and a pooled vector, and each word knows its rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .errors import TextError


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

    def rows(self, focus: str | Sequence[str] | Sequence[Sequence[str]]) -> Tensor:
        """The rows of the focus words: bool [B, L], every sub-token of every occurrence.

        focus: one word or phrase, a list of them for all texts, or one such list per text.
        Raises TextError where a text does not have the word.
        """
        if self.texts is None or self.spans is None:
            raise TextError(
                "This text condition has no words.",
                expected="a condition made by `encode_text`, which remembers the words of each row.",
                fix="Pass row numbers instead of words, or encode the instruction with `Editor.encode_text`.",
            )
        focus = [focus] if isinstance(focus, str) else list(focus)
        per_text = focus if focus and not isinstance(focus[0], str) else [focus] * len(self.texts)
        if not focus or len(per_text) != len(self.texts):
            raise TextError(
                f"{len(per_text)} lists of focus words for {len(self.texts)} instructions.",
                expected="at least one word, or one list of words per instruction.",
                fix="Give `focus` as a word, a list of words, or a list of such lists.",
            )
        return torch.stack(
            [
                torch.stack([_rows_of(word, text, spans) for word in words]).any(dim=0)
                for words, text, spans in zip(per_text, self.texts, self.spans)
            ]
        )  # (B, L)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> TextCondition:
        """The same condition on another device or in another dtype."""
        return replace(
            self,
            tokens=self.tokens.to(device, dtype),
            pooled=self.pooled.to(device, dtype),
            padding=None if self.padding is None else self.padding.to(device),
        )


def _rows_of(word: str, text: str, spans: Tensor) -> Tensor:
    """bool [L]: the rows whose characters overlap an occurrence of `word` in `text`."""
    found = [m.span() for m in re.finditer(rf"(?<!\w){re.escape(word.strip())}(?!\w)", text, re.IGNORECASE)]
    if not word.strip() or not found:
        words = dict.fromkeys(re.findall(r"[\w-]+", text))
        raise TextError(
            f"The focus word {word!r} is not in the instruction {text!r}.",
            expected=f"one of: {', '.join(words)}.",
            fix="Choose a word of the instruction, or leave `focus` out to use all of them.",
        )
    start, end = spans[:, 0], spans[:, 1]
    return torch.stack([(start < b) & (end > a) & (end > start) for a, b in found]).any(dim=0)


class TextEncoder(nn.Module):
    """CLIP alone (base Meissonic and the small model), or CLIP with a language model (EditMGT).

    The pooled vector is CLIP's projected one. The text tokens are the second-to-last hidden layer of the language
    model where there is one, of CLIP otherwise (facts: released code, `encode_prompt`).

    The released code pads the language model's text to 256 tokens and gives it no attention mask, so padding changes
    the embeddings of the words; `mask_padding=False` keeps what the released weights were trained with.
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
    ):
        super().__init__()
        self.clip, self.clip_tokenizer = clip, clip_tokenizer
        self.language_model, self.language_tokenizer = language_model, language_tokenizer
        self.language_length, self.mask_padding = language_length, mask_padding

    @property
    def clip_length(self) -> int:
        """Rows of CLIP's padded text."""
        return self.clip.config.max_position_embeddings

    def tokenize(self, texts: Sequence[str]) -> list[dict[str, Tensor]]:
        """Texts → padded ids, one dict of `input_ids`, `attention_mask` [B, L] and `offset_mapping` per encoder."""
        encoded = [self._tokenize(self.clip_tokenizer, texts, self.clip_length)]
        if self.language_model is not None:
            encoded.append(self._tokenize(self.language_tokenizer, texts, self.language_length))
        return encoded

    @staticmethod
    def _tokenize(tokenizer, texts: Sequence[str], length: int) -> dict[str, Tensor]:
        for text in texts:
            count = len(tokenizer(text).input_ids)
            if count > length:
                raise TextError(
                    f"The instruction has {count} text tokens: {text[:60]!r}…",
                    expected=f"at most {length} text tokens.",
                    fix="Say it in fewer words; nothing is cut off silently.",
                )
        return tokenizer(
            list(texts), padding="max_length", max_length=length, return_offsets_mapping=True, return_tensors="pt"
        )

    def forward(self, texts: Sequence[str]) -> TextCondition:
        """Texts → TextCondition on the encoder's device."""
        encoded = self.tokenize(texts)
        device = self.clip.device
        condition = self.encode_ids(encoded[0]["input_ids"].to(device))
        if self.language_model is not None:
            ids, mask = (encoded[1][name].to(device) for name in ("input_ids", "attention_mask"))
            hidden = self.language_model(
                input_ids=ids, attention_mask=mask if self.mask_padding else None, output_hidden_states=True
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
