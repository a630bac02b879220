"""`python -m editmgt_lab.training`: the whole recipe, from nothing to an editor folder. Run it again to resume."""

from __future__ import annotations

import argparse
import shutil
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch

from ..crisp import sample_edit
from ..editor import load
from ..errors import command
from ..fingerprints import code_fingerprint, fingerprint, tokenizer_fingerprint
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
    anew: bool = False,
    other_code: bool = False,
) -> None:
    """VQ model, its decoder again, then transformer. All resume from `folder`; the editor is written to `output`.

    start: an editor to go on from ("tiny" or a folder), whose VQ model stays; tokenizer: an editor of which only the VQ
    model is taken, and the transformer is learned anew. anew: forget what lies in `folder`; other_code: go on with it
    although code or libraries have changed. Raises CheckpointError where it was begun with another recipe or start.
    """

    def stage(name: str, about: dict[str, Any], **made_of: Any) -> Run:
        record = {"recipe": about, "seed": seed, "code": code_fingerprint(__name__, sample_edit.__module__)} | made_of
        run = Run(folder / name, record, other_code=other_code)
        if anew:
            run.clear()
        return run

    numbers = asdict(recipe)
    vq_numbers = {name: numbers.pop(name) for name in [*numbers] if name.startswith("vq")}
    decoder_numbers = {name: numbers.pop(name) for name in [*numbers] if name.startswith("decoder")}
    size = {"image_size": recipe.image_size}
    if anew:
        shutil.rmtree(folder / "tokens", ignore_errors=True)
    torch.manual_seed(seed)
    began: Any = "nothing"
    if start is not None:
        editor = load(start, device=device)
        vq, text_encoder, transformer = editor.vq, editor.text_encoder, editor.transformer
        began = fingerprint(transformer, text_encoder, tokenizer_fingerprint(text_encoder))
    else:
        text_encoder = build_text_encoder(recipe).to(device)
        transformer = MaskedGenerativeTransformer(recipe.transformer).to(device)
        if tokenizer is not None:
            vq = load(tokenizer, device=device).vq
        else:
            vq = train_vq(
                recipe.vq,
                lambda: pictures(recipe.vq_pictures, recipe.image_size).to(device, memory_format=torch.channels_last),
                stage("vq", vq_numbers | size),
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
                stage("decoder", decoder_numbers | size, **{"VQ model": fingerprint(vq)}),
                samples=recipe.decoder_samples,
                batch_size=recipe.decoder_batch,
                learning_rate=recipe.decoder_learning_rate,
                muon_learning_rate=recipe.decoder_muon_learning_rate,
                seed=seed,
            )
        start_from_codes(transformer, vq.quantize.embedding.weight)
    run = stage("transformer", numbers, start=began, **{"VQ model": fingerprint(vq)})
    run.load()  # before the tokens, which take long: it refuses the state of another run
    tokens = folder / "tokens"
    data = token_cache(tokens, vq, text_encoder, recipe.pairs, recipe.image_size, other_code=other_code)
    show = sample_drawer(folder / "samples.png", vq, recipe)
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
def main(arguments: list[str] | None = None) -> None:
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
    parser.add_argument("--anew", action="store_true", help="forget what lies in the folder and begin again")
    parser.add_argument("--other-code", action="store_true", help="go on although code or libraries have changed")
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
        anew=options.anew,
        other_code=options.other_code,
    )


if __name__ == "__main__":
    raise SystemExit(main())
