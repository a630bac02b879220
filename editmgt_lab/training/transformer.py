"""Stages 2 and 3 of the recipe: text to image, then editing with the same weights and no new parameter."""

from __future__ import annotations

import copy
import re
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..text import TextEncoder
from ..transformer import MaskedGenerativeTransformer
from .data import batches
from .objective import hide, mask_ratio, step_index
from .optimizer import make_optimizers, step_all
from .recipe import Recipe
from .run import Run, learning_rate_scale

BLOCK_MATRIX = re.compile(r"(blocks|layers)\.\d+\..*(to_|add_|ff|proj|fc).*weight$")


def average_into(average: nn.Module, model: nn.Module, decay: float) -> None:
    """One step of the exponential moving average of the weights."""
    with torch.no_grad():
        for kept, new in zip(average.parameters(), model.parameters(), strict=True):
            kept.lerp_(new, 1 - decay)


def training_loss(
    model: nn.ModuleDict, batch: dict[str, Tensor], empty_text: Tensor, recipe: Recipe, editing: bool
) -> Tensor:
    """Cross-entropy of one batch in nats a hidden token. Text to image learns both pictures of an edit by caption."""
    if editing:
        target, source, ids = batch["target"], batch["source"], batch["instruction"]
    else:
        first = torch.rand(len(batch["source"]), device=batch["source"].device) < 0.5
        target = torch.where(first[:, None, None], batch["source"], batch["target"])
        ids = torch.where(first[:, None], batch["source_caption"], batch["target_caption"])
        source = None
    dropped = torch.rand(len(ids), device=ids.device) < recipe.text_dropout
    ids = torch.where(dropped[:, None], empty_text.to(ids), ids)

    transformer = model["transformer"]
    u = torch.rand(len(ids), device=ids.device)
    tokens, hidden = hide(target, mask_ratio(u), transformer.config.vocab_size - 1)
    micro = torch.tensor([recipe.image_size, recipe.image_size, 0, 0, 6.0], device=ids.device).expand(len(ids), 5)
    text = model["text_encoder"].encode_ids(ids)
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=ids.is_cuda):
        logits = transformer(tokens, text, step_index(u), source=source, micro_conditions=micro, only=hidden)
    return F.cross_entropy(logits.float(), target[hidden])


def train_transformer(
    transformer: MaskedGenerativeTransformer,
    text_encoder: TextEncoder,
    data: dict[str, Tensor],
    run: Run,
    recipe: Recipe,
    *,
    editing: bool,
    samples: int,
    seed: int = 0,
) -> nn.ModuleDict:
    """Train both modules in place; resumes from `run`. Returns their moving average."""
    model = nn.ModuleDict({"transformer": transformer, "text_encoder": text_encoder}).train()
    average = copy.deepcopy(model).requires_grad_(False)
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and BLOCK_MATRIX.search(name)]
    optimizers = make_optimizers(
        model, matrices=matrices, lr=recipe.adam_learning_rate, muon_lr=recipe.muon_learning_rate
    )
    device = next(transformer.parameters()).device
    empty_text = text_encoder.tokenize([""])[0]["input_ids"].to(device)
    done = 0
    if state := run.load():
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        done = state["done"]

    def save() -> None:
        run.save(
            {
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "done": done,
            }
        )

    progress = tqdm(total=samples, initial=done, desc="editing" if editing else "text to image", unit="sample")
    recent, started = {True: [], False: []}, time.monotonic()
    for chosen in batches(len(data["source"]), recipe.batch, done, seed):
        if done >= samples:
            break
        torch.manual_seed(seed + done)
        batch = {name: tensor[chosen].to(device) for name, tensor in data.items()}
        instructed = editing and torch.rand(()).item() >= recipe.caption_share
        loss = training_loss(model, batch, empty_text, recipe, instructed)
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        step_all(optimizers, learning_rate_scale(done, samples))
        done += recipe.batch
        average_into(average, model, min(recipe.average_decay, 1 - 10 / (10 + done / recipe.batch)))
        recent[instructed].append(loss.item())
        progress.update(recipe.batch)
        if len(recent[editing]) == 50:
            means = {name: sum(losses) / len(losses) for name, losses in recent.items() if losses}
            run.log(done=done, loss=means[editing], caption_loss=means.get(False), seconds=time.monotonic() - started)
            progress.set_postfix(loss=f"{means[editing]:.3f}")
            recent = {True: [], False: []}
        if run.is_due():
            save()
    progress.close()
    save()
    return average.eval()
