"""Fresh modules for the recipe, and the folder that a trained editor is kept in."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer, PreTrainedTokenizerBase

from .. import world
from ..basics.folders import write_text, written_into
from ..checkpoints import save, some
from ..errors import SettingError
from ..settings import Defaults
from ..text import TextEncoder
from ..transformer import MaskedGenerativeTransformer, TransformerConfig
from ..vq import VQModel
from .recipe import Recipe

START, END = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer(sentences: list[str], length: int) -> CLIPTokenizer:
    """CLIP's tokenizer with a small vocabulary: every word of `sentences` is one token, others are spelled out."""
    blank = CLIPTokenizer()
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.normalizer = blank.backend_tokenizer.normalizer
    trained.pre_tokenizer = blank.backend_tokenizer.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained.train_from_iterator(
        sentences,
        trainers.BpeTrainer(vocab_size=4096, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False),
    )
    learned = json.loads(trained.to_str())["model"]
    pieces = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    pieces += [piece for piece in sorted(learned["vocab"], key=learned["vocab"].get) if piece not in set(pieces)]
    vocab = {piece: index for index, piece in enumerate([*pieces, START, END])}
    return CLIPTokenizer(vocab=vocab, merges=[tuple(pair) for pair in learned["merges"]], model_max_length=length)


def build_text_encoder(recipe: Recipe) -> TextEncoder:
    """A CLIP text model as wide as the transformer, as base Meissonic's is."""
    tokenizer = build_tokenizer(world.phrases(), recipe.text_length)
    width = recipe.transformer.width
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=recipe.transformer.pooled_projection_dim,
        num_hidden_layers=recipe.text_layers,
        num_attention_heads=recipe.transformer.num_attention_heads,
        max_position_embeddings=recipe.text_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_factor=1.0,
    )
    return TextEncoder(CLIPTextModelWithProjection(config), tokenizer)


def save_editor(
    folder: Path,
    vq: VQModel,
    text_encoder: TextEncoder,
    transformer: MaskedGenerativeTransformer,
    image_size: int,
    defaults: Defaults | None = None,
) -> None:
    """Write the released layout: `editmgt/`, `vqvae/`, `text_encoder/`, `tokenizer/`, `scheduler/`, and `llm_encoder/`
    where there is a language model; and `lab.json`.

    Raises SettingError, before anything is written, for a transformer that could not be loaded again from there: one
    with an adapter, or wrapped by a library; and for weights that are not in memory.
    """
    check_in_memory(text_encoder)
    with torch.device("meta"):
        plain = MaskedGenerativeTransformer(transformer.config).state_dict().keys()
    if other := sorted(plain ^ transformer.state_dict().keys()):
        raise SettingError(
            f"this transformer has other parts than its configuration says: {some(other)}",
            expected="a transformer without an adapter, as lab.load and a training make it",
            fix="save an adapter with finetuning.save_adapter, or take it off first with finetuning.remove_adapter",
        )
    levels = len(vq.config.block_out_channels)
    vq_config = {
        "_class_name": "VQModel",
        **{k: v for k, v in asdict(vq.config).items()},
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "sample_size": image_size,
        "scaling_factor": 0.18215,
        "lookup_from_codebook": True,
        "force_upcast": False,
    }
    save(vq, folder / "vqvae", vq_config)
    save(transformer, folder / "editmgt", {"_class_name": "Transformer2DModel", **asdict(transformer.config)})
    with written_into(folder / "text_encoder") as unfinished:
        text_encoder.clip.save_pretrained(unfinished)
    save_tokenizer(text_encoder.clip_tokenizer, folder / "tokenizer")
    if text_encoder.language_model is not None:
        with written_into(folder / "llm_encoder") as unfinished:
            text_encoder.language_model.save_pretrained(unfinished)
            as_built(text_encoder.language_tokenizer).save_pretrained(unfinished)
    scheduler = {
        "_class_name": "Scheduler",
        "mask_token_id": transformer.config.vocab_size - 1,
        "masking_schedule": "cosine",
    }
    write_text(folder / "scheduler" / "scheduler_config.json", json.dumps(scheduler, indent=2) + "\n")
    (defaults or small_defaults(transformer.config, image_size)).write(folder)


def check_in_memory(text_encoder: TextEncoder) -> None:
    """Raises SettingError for a text encoder whose weights were left in their files, and cannot be saved."""
    if any(each.is_meta for each in text_encoder.parameters()):
        raise SettingError(
            "the text encoder's weights were left in their files",
            expected="an editor that was loaded whole",
            fix="load it without offload",
        )


def save_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write a tokenizer as it was built."""
    with written_into(folder) as unfinished:
        as_built(tokenizer).save_pretrained(unfinished)


def as_built(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer without the padding and the length that the last call left on it."""
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def small_defaults(config: TransformerConfig, image_size: int) -> Defaults:
    """What a small model is used with: localised by the middle single-modal blocks, as far in as the released ones."""
    multi, single = config.num_layers, config.num_single_layers
    return Defaults(
        image_size=image_size,
        hold_threshold=0.1,
        strength=1.0,
        steps=12,
        guidance_scale=1.5,
        caption_guidance_scale=1.5,
        token_temperature=0.3,
        draw="inverse",
        blocks=tuple(range(multi + single // 2, multi + single * 22 // 28 + 1)),
        hold="commit",
        bias_text=False,
    )
