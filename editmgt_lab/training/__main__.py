"""`python -m editmgt_lab.training`: the whole recipe, from nothing to an editor folder. Run it again to resume."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import torch

from ..editor import load
from ..errors import command
from ..transformer import MaskedGenerativeTransformer
from .build import build_text_encoder, save_editor
from .data import picture_pairs, pictures, token_cache
from .decoder import train_decoder
from .recipe import TINY, Recipe
from .run import Run
from .samples import sample_drawer
from .start import start_from_codes
from .transformer import train_transformer
from .vq import train_vq


def train(
    recipe: Recipe,
    folder: Path,
    output: Path,
    device: str,
    *,
    start: str | None = None,
    tokenizer: str | None = None,
    compiled: bool = False,
    seed: int = 0,
) -> None:
    """VQ model, its decoder again, then transformer. All resume from `folder`; the editor is written to `output`.

    start: an editor to go on from ("tiny" or a folder), whose VQ model stays; tokenizer: an editor of which only the VQ
    model is taken, and the transformer is learned anew.
    """
    torch.manual_seed(seed)
    if start is not None:
        editor = load(start, device=device)
        vq, text_encoder, transformer = editor.vq, editor.text_encoder, editor.transformer
    else:
        text_encoder = build_text_encoder(recipe).to(device)
        transformer = MaskedGenerativeTransformer(recipe.transformer).to(device)
        if tokenizer is not None:
            vq = load(tokenizer, device=device).vq
        else:
            vq = train_vq(
                recipe.vq,
                lambda: pictures(recipe.vq_pictures, recipe.image_size).to(device, memory_format=torch.channels_last),
                Run(folder / "vq"),
                samples=recipe.vq_samples,
                batch_size=recipe.vq_batch,
                crop=recipe.vq_crop,
                learning_rate=recipe.vq_learning_rate,
                muon_learning_rate=recipe.vq_muon_learning_rate,
                device=device,
                seed=seed,
            )
            train_decoder(
                vq,
                lambda: picture_pairs(recipe.decoder_pairs, recipe.image_size),
                Run(folder / "decoder"),
                samples=recipe.decoder_samples,
                batch_size=recipe.decoder_batch,
                learning_rate=recipe.decoder_learning_rate,
                muon_learning_rate=recipe.decoder_muon_learning_rate,
                seed=seed,
            )
        start_from_codes(transformer, vq.quantize.embedding.weight)
    data = token_cache(folder / "tokens", vq, text_encoder, recipe.pairs, recipe.image_size)
    run, show = Run(folder / "transformer"), sample_drawer(folder / "samples.png", vq, recipe)
    average = train_transformer(
        transformer,
        text_encoder,
        data,
        vq.quantize.embedding.weight.detach(),
        run,
        recipe,
        show=show,
        compiled=compiled,
        seed=seed,
    )
    transformer, text_encoder = average["transformer"], average["text_encoder"]
    save_editor(output, vq, text_encoder, transformer, recipe.image_size)
    print(f"The editor is in {output}.")


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line; every number of the recipe is an option."""
    parser = argparse.ArgumentParser(prog="python -m editmgt_lab.training", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "editmgt-lab" / "tiny")
    parser.add_argument("--output", type=Path, default=Path("runs") / "tiny")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--start", help="an editor to go on from, instead of from nothing; give it a --folder of its own"
    )
    parser.add_argument("--tokenizer", help="an editor whose VQ model to take; the transformer is learned anew")
    parser.add_argument(
        "--compiled", action="store_true", help="compile the blocks: faster after some minutes, needs a C++ compiler"
    )
    numbers = [f for f in fields(Recipe) if isinstance(f.default, (int, float))]
    for field in numbers:
        option = "--" + field.name.replace("_", "-")
        parser.add_argument(option, type=type(field.default), default=getattr(TINY, field.name))
    options = parser.parse_args(arguments)
    recipe = replace(TINY, **{field.name: getattr(options, field.name) for field in numbers})
    train(
        recipe,
        options.folder,
        options.output,
        options.device,
        start=options.start,
        tokenizer=options.tokenizer,
        compiled=options.compiled,
    )


if __name__ == "__main__":
    raise SystemExit(main())
