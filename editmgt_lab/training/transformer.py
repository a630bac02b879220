"""Stage 2 of the recipe: text to image and editing, side by side, with the same weights and no parameter of its own.

The paper takes a text-to-image model and adapts it. Here a text-to-image stage of its own was measured to unlearn the
start as a copier (see `start`): 15,000 edits later 77% of the tokens outside an edit were the source's, against 99%
after 7,000 edits learned from the start.
"""

from __future__ import annotations

import copy
import re
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..basics.dtypes import has_bfloat16
from ..text import TextEncoder
from ..transformer import MaskedGenerativeTransformer
from .data import batches
from .objective import (
    ask,
    by_token,
    edit_weights,
    hide,
    mask_ratio,
    nearest_codes,
    picture_conditions,
    revealed_late,
    step_index,
    token_losses,
)
from .optimizer import load_all, make_optimizers, step_all
from .reading import SceneReader
from .recipe import Recipe
from .run import Run, learning_rate_scale
from .windows import ANYWHERE, NOWHERE, caption_windows, corners, cut

BLOCK_MATRIX = re.compile(r"(blocks|layers)\.\d+\..*(to_|add_|ff|proj|fc).*weight$")


def average_into(average: nn.Module, model: nn.Module, decay: float) -> None:
    """One step of the exponential moving average of the weights."""
    with torch.no_grad():
        for kept, new in zip(average.parameters(), model.parameters(), strict=True):
            kept.lerp_(new, 1 - decay)


def read_blocks(transformer: MaskedGenerativeTransformer) -> tuple[int, int]:
    """Where the reader listens: after the multi-modal blocks, and halfway through the single-modal ones."""
    multi, single = transformer.config.num_layers, transformer.config.num_single_layers
    return multi - 1, multi + single // 2 - 1


def windowed(batch: dict[str, Tensor], index: Tensor, window: int) -> tuple[dict[str, Tensor], Tensor]:
    """The batch as it is seen through these windows, `window` tokens wide, and where they begin in positions [B, 2]."""
    side, units = batch["source"].shape[-1], batch["source_labels"].shape[-1]
    seen = dict(batch)
    for name in ("source", "target"):
        seen[name] = cut(batch[name], index, window)
        seen[f"{name}_labels"] = cut(batch[f"{name}_labels"], index, window * units // side)
    return seen, corners(side // 2, window // 2)[index.cpu()]


def training_loss(
    model: nn.ModuleDict,
    batch: dict[str, Tensor],
    empty_text: Tensor,
    looks: tuple[Tensor, Tensor],
    recipe: Recipe,
    editing: bool,
    window: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """The objectives of one batch: `token_losses`, exact and by look, of a mean hidden token, and the reader's.

    Text to image learns both pictures of an edit by caption. looks: as `nearest_codes` gives it; window: tokens along
    the side of the windows that are seen, 0 for whole pictures.
    """
    origin = None
    if not editing:  # one of the two pictures, in the place of the target
        first = torch.rand(len(batch["source"]), device=batch["source"].device) < 0.5
        one_of = {"target": "source", "target_labels": "source_labels", "target_caption": "source_caption"}
        batch = batch | {
            name: torch.where(first.view(-1, *[1] * (batch[name].ndim - 1)), batch[other], batch[name])
            for name, other in one_of.items()
        }
    if window:
        if editing:
            index = torch.where(batch["window"] == ANYWHERE, torch.randint_like(batch["window"], 9), batch["window"])
        else:
            units = batch["target_labels"].shape[-1]
            index = caption_windows(batch["target_labels"], window * units // batch["target"].shape[-1])
        batch, origin = windowed(batch, index, window)
    target, source = batch["target"], batch["source"] if editing else None
    labels = [batch["target_labels"], batch["source_labels"]] if editing else [batch["target_labels"]]
    ids = batch["instruction" if editing else "target_caption"]
    dropped = torch.rand(len(ids), device=ids.device) < recipe.text_dropout
    ids = torch.where(dropped[:, None], empty_text.to(ids), ids)

    transformer = model["transformer"]
    u = torch.rand(len(ids), device=ids.device)
    changed = source != target if editing else torch.zeros_like(target, dtype=torch.bool)
    late = revealed_late(changed, recipe.late_share)
    tokens, hidden = hide(target, mask_ratio(u), transformer.config.vocab_size - 1, late=late)
    counts = ask(hidden, changed, recipe.asked_share)
    asked = counts > 0
    micro = picture_conditions(recipe.image_size, recipe.image_size, len(ids), ids.device)
    text = model["text_encoder"].encode_ids(ids)
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=has_bfloat16(ids.device)):
        with model["reader"].listening(transformer, ids.shape[1]) as streams:
            logits = transformer(
                tokens, text, step_index(u), source=source, micro_conditions=micro, only=asked, origin=origin
            )
        read = model["reader"].loss(streams, labels)
    losses = token_losses(logits.float(), target[asked], *looks)  # [2, n]
    if not editing:
        return *losses.mean(dim=1), read
    weights = by_token(edit_weights(source, target), asked) * counts[asked]
    return *((losses * weights).sum(dim=1) / weights.sum()), read


def train_transformer(
    transformer: MaskedGenerativeTransformer,
    text_encoder: TextEncoder,
    data: dict[str, Tensor],
    codes: Tensor,
    run: Run,
    recipe: Recipe,
    *,
    show: Callable[[nn.ModuleDict, int], None] = lambda average, window: None,
    compiled: bool = False,
    seed: int = 0,
) -> nn.ModuleDict:
    """Train both modules in place; resumes from `run`. Returns their moving average.

    data: as `token_cache` makes it; codes: the VQ model's codebook [codebook, C]; show: called with the moving average
    and the window (0: whole pictures) whenever the state is saved; compiled: let torch compile the blocks, which needs
    a C++ compiler and pays after some minutes.
    """
    device = next(transformer.parameters()).device
    cells = 2 * data["source_labels"].shape[-1] // data["source"].shape[-1]  # units along a position
    reader = SceneReader(transformer.config.width, read_blocks(transformer), cells).to(device)
    model = nn.ModuleDict({"transformer": transformer, "text_encoder": text_encoder, "reader": reader}).train()
    average = copy.deepcopy(model).requires_grad_(False)
    if compiled:
        transformer.compile_blocks()
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and BLOCK_MATRIX.search(name)]
    # Faster, the words' embeddings grow until the text encoder's attention adds nothing to them: "blue" then never
    # learns of what.
    words = list(text_encoder.clip.text_model.embeddings.parameters())
    optimizers = make_optimizers(
        model, matrices=matrices, lr=recipe.adam_learning_rate, muon_lr=recipe.muon_learning_rate, slow=words
    )
    looks = nearest_codes(codes, reach=recipe.look_reach)
    empty_text = text_encoder.tokenize([""])[0]["input_ids"].to(device)
    done, recent = 0, {"loss": [], "caption_loss": [], "look": [], "reading": []}
    if state := run.load():
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        load_all(optimizers, state["optimizers"])
        done, recent = state["done"], state.get("recent", recent)

    def save(window: int) -> None:
        run.save(
            {
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "done": done,
                "recent": recent,
            }
        )
        show(average, window)

    progress = tqdm(total=recipe.samples, initial=done, desc="text to image and editing", unit="sample")
    started = time.monotonic()
    everything = torch.arange(len(data["source"]))
    whole = (0, recipe.samples, recipe.whole_batch or recipe.batch)
    stages = [(recipe.window, recipe.window_samples, recipe.batch), whole]
    for window, until, size in stages if recipe.window else stages[1:]:
        rows = everything[data["window"] != NOWHERE] if window else everything
        for chosen in batches(len(rows), size, done, seed):
            if done >= until:
                break
            torch.manual_seed(seed + done)
            batch = {name: tensor[rows[chosen]].to(device) for name, tensor in data.items()}
            editing = torch.rand(()).item() >= recipe.caption_share
            exact, look, read = training_loss(model, batch, empty_text, looks, recipe, editing, window)
            model.zero_grad()
            (exact + recipe.look_weight * look + recipe.reading_weight * read).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            step_all(optimizers, learning_rate_scale(done, recipe.samples, cool_down=recipe.cool_down))
            done += size
            average_into(average, model, min(recipe.average_decay, 1 - 10 / (10 + done / size)))
            recent["loss" if editing else "caption_loss"].append(exact.item())
            recent["look"].append(look.item())
            recent["reading"].append(read.item())
            progress.update(size)
            if len(recent["loss"]) == 50:
                means = {name: sum(losses) / len(losses) for name, losses in recent.items() if losses}
                run.log(done=done, seconds=time.monotonic() - started, window=window, **means)
                progress.set_postfix(loss=f"{means['loss']:.3f}")
                recent = {name: [] for name in recent}
            if run.is_due():
                save(window)
    progress.close()
    save(0)
    return average.eval()
