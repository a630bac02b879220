"""A fresh small CLIP with its tokenizer, and the folder that it is kept in: transformers' `CLIPModel` layout."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig

from ... import world
from ...basics.folders import written_into
from ..build import build_tokenizer, save_tokenizer
from .recipe import ClipRecipe


def build_clip(recipe: ClipRecipe) -> tuple[CLIPModel, CLIPTokenizer]:
    """Random weights, by torch's generator; every word of the drawn world is one token."""
    tokenizer = build_tokenizer(world.phrases(), recipe.text_length)
    sizes = {
        "hidden_size": recipe.width, "intermediate_size": 2 * recipe.width, "num_attention_heads": recipe.heads,
        "projection_dim": recipe.projection,
    }  # fmt: skip
    text = CLIPTextConfig(
        **sizes,
        num_hidden_layers=recipe.text_layers,
        vocab_size=len(tokenizer),
        max_position_embeddings=recipe.text_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(
        **sizes, num_hidden_layers=recipe.picture_layers, image_size=recipe.image_size, patch_size=recipe.patch
    )
    config = CLIPConfig(
        text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=recipe.projection
    )  # fmt: skip
    return CLIPModel(config), tokenizer


def save_clip(folder: Path, model: CLIPModel, tokenizer: CLIPTokenizer) -> None:
    """Write config.json, model.safetensors in half precision, and the tokenizer: what `load_clip` reads."""
    with written_into(folder) as unfinished:
        copy.deepcopy(model).to(torch.float16).save_pretrained(unfinished)
    save_tokenizer(tokenizer, folder)
