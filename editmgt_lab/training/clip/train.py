"""The training of the small CLIP; resumes from its folder."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn
from transformers import CLIPModel, CLIPTokenizer

from ...world.scenes import GRID
from ..optimizer import load_all, make_optimizers, step_all
from ..reading import SceneReader
from ..run import Run, learning_rate_scale
from .build import build_clip
from .data import draw_batch, spoiled
from .objective import EmbeddingReader, training_loss
from .recipe import ClipRecipe

MATRIX = re.compile(r"layers\.\d+\..*(proj|fc\d)\.weight$")


def train_clip(recipe: ClipRecipe, run: Run, *, seed: int = 0) -> tuple[CLIPModel, CLIPTokenizer]:
    """From nothing, or from what `run` has; the same weights either way."""
    torch.manual_seed(seed)
    clip, tokenizer = build_clip(recipe)
    reader = SceneReader(recipe.width, (recipe.picture_layers - 2,), GRID * recipe.patch // recipe.image_size)
    model = nn.ModuleDict({"clip": clip, "reader": reader, "names": EmbeddingReader(recipe.projection)}).train()
    matrices = [p for name, p in model.named_parameters() if MATRIX.search(name)]
    words = list(clip.text_model.embeddings.parameters())  # slowly, as in training/transformer.py
    optimizers = make_optimizers(
        model, matrices=matrices, lr=recipe.adam_learning_rate, muon_lr=recipe.muon_learning_rate, slow=words
    )
    done = 0
    if kept := run.load():
        model.load_state_dict(kept["model"])
        load_all(optimizers, kept["optimizers"])
        done = kept["done"]

    def state() -> dict:
        return {"model": model.state_dict(), "optimizers": [each.state_dict() for each in optimizers]}

    def step(done: int) -> dict[str, Tensor]:
        torch.manual_seed(seed + done)
        batch = draw_batch(recipe, tokenizer, done)
        batch.pictures.copy_(spoiled(batch.pictures))
        found = training_loss(clip, reader, model["names"], batch, recipe)
        model.zero_grad()
        found["loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scale = learning_rate_scale(done, recipe.edits, warm_up=recipe.warm_up, cool_down=recipe.cool_down)
        step_all(optimizers, scale)
        return found

    run.repeat(step, state, done=done, samples=recipe.edits, batch=recipe.batch, title="CLIP", unit="edit")
    return clip.eval(), tokenizer
