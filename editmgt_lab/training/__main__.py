"""`python -m editmgt_lab.training`: the whole recipe, from nothing to an editor folder. Run it again to resume."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..basics.checks import check_number
from ..basics.devices import choose_device
from ..basics.fingerprints import code_fingerprint, fingerprint, tokenizer_fingerprint
from ..basics.folders import remove
from ..editor import Editor
from ..errors import SettingError, TrainingError, command
from ..loading import load
from ..text import TextEncoder
from ..transformer import MaskedGenerativeTransformer
from ..vq import VQModel
from ..world import sample_edit
from ..world.scenes import GRID
from .build import build_text_encoder, save_editor
from .data import picture_pairs, pictures, token_cache
from .recipe import RECIPES, SPARE_IDS, Recipe
from .run import Run, check_numbers, option
from .samples import sample_drawer
from .start import start_from_codes
from .tokenizer.codebook import thinned
from .tokenizer.decoder import train_decoder
from .tokenizer.vq import train_vq
from .transformer import train_transformer

STAGES = ("vq", "decoder", "tokens", "transformer", "save")


def check(recipe: Recipe) -> None:
    """Raises SettingError for a number that is out of range, crops that no picture holds or that are no whole tokens,
    more codes than there are, windows that an edit is not seen through, and pictures whose positions do not fit the
    drawn world's units."""
    check_numbers(recipe)
    unit = 2 * recipe.vq.factor  # px of a position
    if recipe.image_size % unit or GRID % (recipe.image_size // unit):
        raise SettingError(
            f"--image-size is {recipe.image_size}",
            expected=f"{unit} px times a number that divides {GRID}, the units along a side of the drawn world",
            fix=f"take {GRID * unit}",
        )
    check_number(recipe.codes, "--codes", 0, recipe.vq.num_vq_embeddings, "0 keeps all of the VQ model's")
    if recipe.window:
        half = recipe.image_size // recipe.vq.factor // 2
        check_number(recipe.window, "--window", half, half, f"{half} is half of a picture; 0 shows whole ones")
        check_number(recipe.window_samples, "--window-samples", 0, recipe.samples, "they count among --samples")
    for name in ("vq_crop", "decoder_crop"):
        crop = getattr(recipe, name)
        check_number(crop, option(name), 0, recipe.image_size, "crops are cut out of the pictures")
        if crop % recipe.vq.factor:
            fix = f"take {crop - crop % recipe.vq.factor}"
            raise SettingError(f"{option(name)} is {crop}", expected=f"a multiple of {recipe.vq.factor} px", fix=fix)


def check_words(words: TextEncoder, recipe: Recipe) -> None:
    """Raises SettingError for a text encoder of another width than the transformer's."""
    ours = recipe.transformer.joint_attention_dim, recipe.transformer.pooled_projection_dim
    if (words.width, words.pooled_width) != ours:
        raise SettingError(
            f"--words has texts {words.width} and {words.pooled_width} wide",
            expected=f"{ours[0]} and {ours[1]}, as the recipe's transformer reads them",
            fix="name an editor that this recipe made, or leave it out",
        )


def make_vq(
    recipe: Recipe, stage: Callable[..., Run], device: str, *, start: VQModel | None, trains: bool, seed: int
) -> VQModel:
    """The VQ model, thinned out and tuned; where it does not train, what its stages have kept. start: one to tune."""
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
        run = stage("vq")
        if not trains:
            _state(run)
        vq = train_vq(recipe.vq, draw, run, samples=recipe.vq_samples if trains else 0, **settings)
        if recipe.codes:
            vq = thinned(vq, _state(run)["average"]["count"], recipe.codes)
    if recipe.tune_samples:
        settings |= {name: settings[name] / 2 for name in ("learning_rate", "muon_learning_rate")}
        run = stage("tune", **{"VQ model": fingerprint(vq)})
        if not trains:
            _state(run)
        vq = train_vq(
            vq.config,
            draw,
            run,
            samples=recipe.tune_samples if trains else 0,
            start=vq,
            among=recipe.tune_among,
            **settings,
        )
    return vq


def _state(run: Run) -> dict[str, Any]:
    """What a stage has kept, which a later one goes on from. Raises TrainingError where it has not begun."""
    if (state := run.load()) is None:
        stage = run.folder.name
        only = "vq" if stage == "tune" else stage
        raise TrainingError(
            f"{run.folder} holds no state of the stage {stage!r}",
            expected="what that stage has kept, finished or not",
            fix=f"run it first, --only {only} or all without --only, or name the --folder that has it",
        )
    return state


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
    anew: bool = False,
    other_code: bool = False,
) -> None:
    """VQ model, its decoder again, tokens, transformer. All resume from `folder`; the editor is written to `output`.

    only: one of the STAGES, with what `folder` has of those before it, finished or not: so tokens can be drawn on one
    core while the decoder, which does not change them, is trained on another. "save" writes, in half precision, the
    editor as it is. start: an editor to go on from ("tiny" or a folder), whose VQ model stays unless it is the only
    stage: then it is tuned, or its decoder trained; tokenizer: an editor of which the VQ model is taken, and the
    transformer is learned anew; words: an editor whose text encoder is where to start. anew: forget what `folder` has
    of it; other_code: go on with it although code or libraries have changed.

    Raises CheckpointError where the folder was begun with another recipe or start, TrainingError where `only` has
    nothing to go on from, SettingError for a device or a number of the recipe that cannot be, and for a tokenizer or
    words beside a start, which has its own.
    """
    check(recipe)
    for name, value in {"tokenizer": tokenizer, "words": words}.items():
        if start is not None and value is not None:
            raise SettingError(
                f"--{name} {value} beside --start {start}, which has its own",
                expected="--start alone, or --tokenizer and --words",
                fix="leave one of them out",
            )
    device = str(choose_device(device))
    numbers = asdict(recipe)
    of_stage = {
        name: {each: numbers.pop(each) for each in [*numbers] if each.startswith(name)}
        for name in ("vq", "tune", "decoder")
    }
    code = code_fingerprint(Run.__module__, sample_edit.__module__)

    def stage(name: str, **made_of: Any) -> Run:
        about = of_stage.get(name, numbers) | {"image_size": recipe.image_size}
        run = Run(folder / name, {"recipe": about, "seed": seed, "code": code} | made_of, other_code=other_code)
        if anew and only in (None, "vq" if name == "tune" else name):
            run.clear()
        return run

    def write(vq: VQModel, text_encoder: TextEncoder, transformer: nn.Module, of: Editor | None) -> None:
        defaults = None if of is None else replace(of.defaults, image_size=recipe.image_size)
        save_editor(output, vq, text_encoder, transformer, recipe.image_size, defaults)

    def samples_of(name: str, samples: int) -> int:
        return samples if only in (None, name) else 0

    if anew and only in (None, "tokens"):
        remove(folder / "tokens")
    torch.manual_seed(seed)
    editor = load(start, device=device, dtype=torch.float32) if start is not None else None
    began: Any = "nothing"
    if editor is not None:
        began = fingerprint(editor.transformer, editor.text_encoder, tokenizer_fingerprint(editor.text_encoder))
    named = None
    if words is not None:
        named = load(words, device=device, dtype=torch.float32).text_encoder
        began = {"words": fingerprint(named, tokenizer_fingerprint(named))}
        check_words(named, recipe)
    given = editor or (load(tokenizer, device=device, dtype=torch.float32) if tokenizer is not None else None)
    vq = None if given is None else given.vq
    if only == "vq" or given is None:
        vq = make_vq(recipe, stage, device, start=vq, trains=only in (None, "vq"), seed=seed)
    if only == "decoder" or (given is None and only != "vq"):
        train_decoder(
            vq,
            lambda: picture_pairs(recipe.decoder_pairs, recipe.image_size),
            stage("decoder", **{"VQ model": fingerprint(vq)}),
            samples=samples_of("decoder", recipe.decoder_samples),
            batch_size=recipe.decoder_batch,
            learning_rate=recipe.decoder_learning_rate,
            muon_learning_rate=recipe.decoder_muon_learning_rate,
            crop=recipe.decoder_crop,
            seed=seed,
        )
    codes = vq.quantize.embedding.weight.detach()
    if only in ("vq", "decoder"):
        if given is not None:
            write(vq, given.text_encoder, given.transformer, given)
        return

    torch.manual_seed(seed)  # again: after a kill, what comes before need not be trained
    if editor is not None:
        text_encoder, transformer = editor.text_encoder, editor.transformer
    else:
        text_encoder = named or build_text_encoder(recipe).to(device)
        count, channels = codes.shape
        sizes = {"codebook_size": count, "vocab_size": count + SPARE_IDS, "in_channels": channels}
        transformer = MaskedGenerativeTransformer(replace(recipe.transformer, **sizes)).to(device)
        start_from_codes(transformer, codes, recipe.image_size // (2 * vq.config.factor))
    encoder = {"VQ model": fingerprint(vq.encoder, vq.quant_conv, vq.quantize)}  # its decoder changes no token
    run = stage("transformer", start=began, **encoder)
    if only == "save":
        average = _state(run)["average"]
        for name, module in (("transformer", transformer), ("text_encoder", text_encoder)):
            own = {key.removeprefix(name + "."): value for key, value in average.items() if key.startswith(name + ".")}
            module.load_state_dict(own)
            module.half()
        write(vq, text_encoder, transformer, editor)
        return
    run.load()  # before the tokens, which take long: it refuses the state of another run
    data = token_cache(
        folder / "tokens",
        vq,
        text_encoder,
        recipe.pairs,
        recipe.image_size,
        hard_share=recipe.hard_share,
        other_code=other_code,
    )
    if only == "tokens":
        return
    average = train_transformer(
        transformer,
        text_encoder,
        data,
        codes,
        run,
        recipe,
        show=sample_drawer(folder / "samples.png", vq, recipe),
        compiled=compiled,
        seed=seed,
    )
    write(vq, average["text_encoder"], average["transformer"], editor)
    print(f"The editor is in {output}.")


@command
def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line; every number of the recipe is an option."""
    parser = argparse.ArgumentParser(prog="python -m editmgt_lab.training", description=__doc__)
    parser.add_argument("--recipe", choices=RECIPES, default="small", help="small: 256 px, as shipped; tiny: 64 px")
    parser.add_argument("--folder", type=Path, help="where to resume from (default: ~/.cache/editmgt-lab/RECIPE)")
    parser.add_argument("--output", type=Path, help="where the editor goes (default: runs/RECIPE)")
    parser.add_argument("--only", choices=STAGES, help="this stage alone")
    parser.add_argument("--seed", type=int, default=0)
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
        parser.add_argument(option(field.name), type=type(field.default))
    parser.add_argument("--anew", action="store_true", help="forget what lies in the folder and begin again")
    parser.add_argument("--other-code", action="store_true", help="go on although code or libraries have changed")
    options = parser.parse_args(arguments)
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
        seed=options.seed,
        anew=options.anew,
        other_code=options.other_code,
    )


if __name__ == "__main__":
    raise SystemExit(main())
