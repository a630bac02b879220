"""Folders of random weights in the layouts of the real networks, small enough for a test."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTModel,
)

SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
SEEING = {"image_size": 32, "patch_size": 8, **SMALL}
LONGEST = 12


def save_clip(folder: Path) -> Path:
    """CLIP's two towers and a tokenizer of single letters; a text may have 12 tokens."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=LONGEST).save_pretrained(
        folder
    )
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    text = CLIPTextConfig(vocab_size=len(words), max_position_embeddings=LONGEST, **SMALL, **ends)
    vision = CLIPVisionConfig(**SEEING)
    torch.manual_seed(0)
    config = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    return folder


def save_dino(folder: Path) -> Path:
    torch.manual_seed(1)
    ViTModel(ViTConfig(**SEEING), add_pooling_layer=False).save_pretrained(folder)
    return folder


def save_dinov2(folder: Path) -> Path:
    torch.manual_seed(2)
    config = {**SEEING, "mlp_ratio": 2}
    config.pop("intermediate_size")
    Dinov2Model(Dinov2Config(**config)).save_pretrained(folder)
    return folder
