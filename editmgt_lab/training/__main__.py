"""`python -m editmgt_lab.training`: the whole recipe, from nothing to an editor folder. Run it again to resume."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from pathlib import Path

import torch

from ..transformer import MaskedGenerativeTransformer
from .build import build_text_encoder, save_editor
from .data import pictures, token_cache
from .recipe import TINY, Recipe
from .run import Run
from .transformer import start_from_codes, train_transformer
from .vq import train_vq


def train(recipe: Recipe, folder: Path, output: Path, device: str, seed: int = 0) -> None:
    """VQ model → text to image → editing. Every stage resumes from `folder`; the editor is written to `output`."""
    torch.manual_seed(seed)
    text_encoder = build_text_encoder(recipe)
    transformer = MaskedGenerativeTransformer(recipe.transformer)

    def vq_pictures() -> torch.Tensor:
        stack = pictures(recipe.vq_pictures, recipe.image_size).to(device)
        return stack.contiguous(memory_format=torch.channels_last)

    vq = train_vq(
        recipe.vq,
        vq_pictures,
        Run(folder / "vq"),
        samples=recipe.vq_samples,
        batch_size=recipe.vq_batch,
        crop=recipe.vq_crop,
        learning_rate=recipe.vq_learning_rate,
        device=device,
        seed=seed,
    )
    data = token_cache(folder / "tokens", vq, text_encoder, recipe.pairs, recipe.image_size)
    start_from_codes(transformer, vq.quantize.embedding.weight.cpu())
    transformer.to(device)
    text_encoder.to(device)
    for name, editing, samples in (
        ("text_to_image", False, recipe.text_to_image_samples),
        ("editing", True, recipe.editing_samples),
    ):
        average = train_transformer(
            transformer, text_encoder, data, Run(folder / name), recipe, editing=editing, samples=samples, seed=seed
        )
        transformer.load_state_dict(average["transformer"].state_dict())
        text_encoder.load_state_dict(average["text_encoder"].state_dict())
    save_editor(output, vq, text_encoder, transformer, recipe.image_size)
    print(f"The editor is in {output}.")


def main() -> None:
    """Read the command line; every number of the recipe is an option."""
    parser = argparse.ArgumentParser(prog="python -m editmgt_lab.training", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "editmgt-lab" / "tiny")
    parser.add_argument("--output", type=Path, default=Path("runs") / "tiny")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    numbers = [f for f in fields(Recipe) if isinstance(f.default, (int, float))]
    for field in numbers:
        option = "--" + field.name.replace("_", "-")
        parser.add_argument(option, type=type(field.default), default=getattr(TINY, field.name))
    options = parser.parse_args()
    recipe = replace(TINY, **{field.name: getattr(options, field.name) for field in numbers})
    train(recipe, options.folder, options.output, options.device)


if __name__ == "__main__":
    main()
