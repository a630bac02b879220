"""`python -m editmgt_lab.training`: the whole recipe, from nothing to an editor folder. Run it again to resume."""

from __future__ import annotations

import argparse
from dataclasses import fields, replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ..editor import load
from ..transformer import MaskedGenerativeTransformer
from ..vq import VQModel
from .build import build_text_encoder, save_editor
from .codebook import thinned
from .data import picture_pairs, pictures, token_cache
from .decoder import train_decoder
from .recipe import RECIPES, Recipe
from .run import Run
from .samples import sample_drawer
from .start import start_from_codes
from .transformer import train_transformer
from .vq import train_vq

STAGES = ("vq", "decoder", "tokens", "transformer", "save")


def make_vq(recipe: Recipe, folder: Path, device: str, *, start: VQModel | None, trains: bool, seed: int) -> VQModel:
    """The VQ model, thinned out and tuned; where it does not train, what `folder` has of it. start: one to tune."""
    settings = {
        "batch_size": recipe.vq_batch,
        "crop": recipe.vq_crop,
        "learning_rate": recipe.vq_learning_rate,
        "muon_learning_rate": recipe.vq_muon_learning_rate,
        "device": device,
        "seed": seed,
    }

    @cache
    def draw() -> Tensor:
        return pictures(recipe.vq_pictures, recipe.image_size)

    vq = start
    if vq is None:
        vq = train_vq(recipe.vq, draw, Run(folder / "vq"), samples=recipe.vq_samples if trains else 0, **settings)
        if recipe.codes:
            vq = thinned(vq, Run(folder / "vq").load()["average"]["count"], recipe.codes)
    if recipe.tune_samples:
        settings |= {name: settings[name] / 2 for name in ("learning_rate", "muon_learning_rate")}
        samples = recipe.tune_samples if trains else 0
        vq = train_vq(
            vq.config, draw, Run(folder / "tune"), samples=samples, start=vq, among=recipe.tune_among, **settings
        )
    return vq


def train(
    recipe: Recipe,
    folder: Path,
    output: Path,
    device: str,
    *,
    only: str | None = None,
    start: str | None = None,
    tokenizer: str | None = None,
    words: str | None = None,
    compiled: bool = False,
    seed: int = 0,
) -> None:
    """VQ model, its decoder again, tokens, transformer. All resume from `folder`; the editor is written to `output`.

    only: one of the STAGES, with what `folder` has of those before it, finished or not: so tokens can be drawn on one
    core while the decoder, which does not change them, is trained on another. "save" writes, in half precision, the
    editor as it is. start: an editor to go on from ("tiny" or a folder), whose VQ model stays unless it is the only
    stage: then it is tuned, or its decoder trained; tokenizer: an editor of which the VQ model is taken, and the
    transformer is learned anew; words: an editor whose text encoder is where to start.
    """
    torch.manual_seed(seed)

    def runs(stage: str) -> bool:
        return only in (None, stage)

    editor = load(start, device=device, dtype=torch.float32) if start is not None else None
    given = editor or (load(tokenizer, device=device, dtype=torch.float32) if tokenizer is not None else None)
    vq = None if given is None else given.vq
    if only == "vq" or given is None:
        vq = make_vq(recipe, folder, device, start=vq, trains=runs("vq"), seed=seed)
    if only == "decoder" or given is None:
        train_decoder(
            vq,
            lambda: picture_pairs(recipe.decoder_pairs, recipe.image_size),
            Run(folder / "decoder"),
            samples=recipe.decoder_samples if runs("decoder") else 0,
            batch_size=recipe.decoder_batch,
            learning_rate=recipe.decoder_learning_rate,
            muon_learning_rate=recipe.decoder_muon_learning_rate,
            crop=recipe.decoder_crop,
            seed=seed,
        )
    codes = vq.quantize.embedding.weight.detach()
    if only in ("vq", "decoder"):
        if given is not None:
            save_editor(output, vq, given.text_encoder, given.transformer, recipe.image_size)
        return

    if editor is not None:
        text_encoder, transformer = editor.text_encoder, editor.transformer
    else:
        named = None if words is None else load(words, device=device, dtype=torch.float32).text_encoder
        text_encoder = named or build_text_encoder(recipe).to(device)
        transformer = MaskedGenerativeTransformer(recipe.transformer).to(device)
        start_from_codes(transformer, codes, recipe.image_size // (2 * vq.config.factor))
    if only == "save":
        average = Run(folder / "transformer").load()["average"]
        for name, module in (("transformer", transformer), ("text_encoder", text_encoder)):
            own = {key.removeprefix(name + "."): value for key, value in average.items() if key.startswith(name + ".")}
            module.load_state_dict(own)
            module.half()
        save_editor(output, vq, text_encoder, transformer, recipe.image_size)
        return
    data = token_cache(folder / "tokens", vq, text_encoder, recipe.pairs, recipe.image_size)
    if only == "tokens":
        return
    average = train_transformer(
        transformer,
        text_encoder,
        data,
        codes,
        Run(folder / "transformer"),
        recipe,
        show=sample_drawer(folder / "samples.png", vq, recipe),
        compiled=compiled,
        seed=seed,
    )
    save_editor(output, vq, average["text_encoder"], average["transformer"], recipe.image_size)
    print(f"The editor is in {output}.")


def main() -> None:
    """Read the command line; every number of the recipe is an option."""
    parser = argparse.ArgumentParser(prog="python -m editmgt_lab.training", description=__doc__)
    parser.add_argument("--recipe", choices=RECIPES, default="tiny", help="tiny: 64 px, as shipped; small: 256 px")
    parser.add_argument("--folder", type=Path, help="where to resume from (default: ~/.cache/editmgt-lab/RECIPE)")
    parser.add_argument("--output", type=Path, help="where the editor goes (default: runs/RECIPE)")
    parser.add_argument("--only", choices=STAGES, help="this stage alone")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--start", help="an editor to go on from, instead of from nothing; give it a --folder of its own"
    )
    parser.add_argument("--tokenizer", help="an editor whose VQ model to take; the transformer is learned anew")
    parser.add_argument("--words", help="an editor whose text encoder the transformer starts with")
    parser.add_argument(
        "--compiled", action="store_true", help="compile the blocks: faster after some minutes, needs a C++ compiler"
    )
    numbers = [f for f in fields(Recipe) if isinstance(f.default, (int, float))]
    for field in numbers:
        parser.add_argument("--" + field.name.replace("_", "-"), type=type(field.default))
    options = parser.parse_args()
    chosen = {field.name: getattr(options, field.name) for field in numbers}
    train(
        replace(RECIPES[options.recipe], **{name: value for name, value in chosen.items() if value is not None}),
        options.folder or Path.home() / ".cache" / "editmgt-lab" / options.recipe,
        options.output or Path("runs") / options.recipe,
        options.device,
        only=options.only,
        start=options.start,
        tokenizer=options.tokenizer,
        words=options.words,
        compiled=options.compiled,
    )


if __name__ == "__main__":
    main()
