"""Stage 2: an instruction becomes text tokens and a pooled vector, and each word knows its rows."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .basics.depth import check_depth
from .basics.dtypes import Dtype, choose_dtype
from .basics.folders import check_texts_of
from .basics.words import occurrences, words_of
from .checkpoints import is_large, read_config, stored_shapes, weight_files
from .errors import CheckpointError, TextError

Focus = str | Sequence[str] | Sequence[Sequence[str]]


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

    def tokenize(self, texts: Sequence[str]) -> list[dict[str, Tensor]]:
        """Texts → padded ids, one dict of `input_ids`, `attention_mask` [B, L] and `offset_mapping` per encoder."""
        encoded = [self._tokenize(self.clip_tokenizer, texts, self.clip_length)]
        if self.language_model is not None:
            encoded.append(self._tokenize(self.language_tokenizer, texts, self.language_length))
        return encoded

    @staticmethod
    def _tokenize(tokenizer, texts: Sequence[str], length: int) -> dict[str, Tensor]:
        for text in texts:
            count = len(tokenizer(text, verbose=False).input_ids)
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
        _check_ids(encoded[0]["input_ids"], self.clip)
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


def load_text_encoder(
    folder: str | os.PathLike[str],
    *,
    architecture: str = "CLIP",
    mask_padding: bool = False,
    device: torch.device | str | None = None,
    dtype: Dtype | None = None,
) -> TextEncoder:
    """The text encoder in a checkpoint folder: CLIP in `text_encoder/`, the language model in `llm_encoder/`.

    architecture: the transformer's `text_encoder_architecture`: "CLIP" is CLIP alone, "CLIP_Gemma2" has the language
    model beside it. mask_padding: see TextEncoder. dtype: see dtypes.choose_dtype; None is as stored. Raises
    CheckpointError, and SettingError for a dtype that is none.
    """
    dtype = choose_dtype(dtype)
    from transformers import AutoModel, CLIPTextModelWithProjection  # slow to import

    if architecture not in ("CLIP", "CLIP_Gemma2"):
        raise CheckpointError(
            f"{folder} wants the text encoder {architecture!r}",
            expected="text_encoder_architecture 'CLIP' or 'CLIP_Gemma2'",
            fix="use a checkpoint of EditMGT or of this lab",
        )
    folder = Path(folder)
    parts = [_pretrained(CLIPTextModelWithProjection, folder / "text_encoder"), _tokenizer(folder / "tokenizer")]
    if architecture == "CLIP_Gemma2":
        parts += [_pretrained(AutoModel, folder / "llm_encoder"), _tokenizer(folder / "llm_encoder")]
    return TextEncoder(*parts, mask_padding=mask_padding).to(device, dtype).eval()


def _pretrained(kind: Any, folder: Path) -> nn.Module:
    """A model of transformers from safetensors, every name and shape checked."""
    check_texts_of(folder, CheckpointError)
    config = read_config(folder)
    files = weight_files(folder)  # refuses pickles
    shapes = stored_shapes(folder)
    check_depth(config, shapes, folder)
    try:
        with _quiet_transformers(progress=is_large(files)):
            _check_size(kind, folder, sum(math.prod(shape) for shape in shapes.values()))
            module, report = kind.from_pretrained(
                folder,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                trust_remote_code=False,
            )
    except Exception as error:  # transformers passes on the errors of every library below it
        raise CheckpointError(
            f"{folder} cannot be loaded: {error}",
            expected="a model saved by transformers",
            fix="download or copy it again",
        ) from error
    misshaped = [f"{name} {list(stored)} instead of {list(due)}" for name, stored, due in report["mismatched_keys"]]
    unexpected = [name for name in report["unexpected_keys"] if not name.startswith("lm_head")]  # a head is not needed
    problems = {"missing": sorted(report["missing_keys"]), "unexpected": unexpected, "of another shape": misshaped}
    if any(problems.values()):
        raise CheckpointError(
            f"{folder} does not fit its config.json\n"
            + "\n".join(f"  {len(names)} {kind}: {', '.join(names)}" for kind, names in problems.items() if names),
            expected="the weights that belong to it",
            fix="download or copy both again",
        )
    return module


def _check_size(kind: Any, folder: Path, stored: int) -> None:
    """Raises ValueError where the configuration describes a network of more values than are stored, before any of them
    takes memory."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        module = kind.from_config(config) if hasattr(kind, "from_config") else kind(config)
    due = sum(value.numel() for value in module.state_dict().values())
    if due > 2 * stored:
        raise ValueError(f"its config.json describes {due:,} values, and {stored:,} are stored")


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    check_texts_of(folder, CheckpointError)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        TextEncoder._tokenize(tokenizer, ["a word"], 64)  # what its configuration says wrongly shows at first use
        return tokenizer
    except Exception as error:  # as above
        raise CheckpointError(
            f"{folder} holds no tokenizer that can be loaded: {error}",
            expected="a folder with tokenizer_config.json and the vocabulary",
            fix="check the path, or download it again",
        ) from error


@contextmanager
def _quiet_transformers(*, progress: bool) -> Iterator[None]:
    """Without its own reports, which the errors here repeat, and without a bar for small files."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not progress:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
