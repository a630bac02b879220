"""`python -m editmgt_lab.studies.training_size`: how many pairs does it take to learn a kind of edit?

A small version of the paper's figure of score against the amount of training data. From nothing even the small model
takes hours, so the question is put to an editor that has learned everything else: it is taught one kind of edit that
its training never had, a new size ("make the cat big"), from few pairs and from many, always for the same number of
samples, so that few pairs are seen the more often. Larger sets contain the smaller ones. Every editor that comes out
is asked, without hold, for the same edits: of the new kind in scenes that it never saw; of the new kind in its own
training pairs, to tell what is understood from what is known by heart; and of the old kinds, to see what was lost.

What it shows: whether, at equal work, more pairs generalise better. What it does not show: how an editor as a whole
grows with its data, which is what the paper's figure is about; nor how much two runs of one size differ, since each is
run once and the intervals are over edits alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from ..basics.checks import check_counts
from ..basics.fingerprints import code_fingerprint, editor_fingerprint
from ..basics.folders import remove, written_whole
from ..benchmarks.journal import Journal
from ..data.tokens import keep_unchanged
from ..editor import Editor
from ..errors import SettingError, command
from ..images import to_tensor
from ..loading import load
from ..metrics.arithmetic import summary
from ..metrics.report import align, cell, save_figure, save_json
from ..metrics.truth import Truth, draw_truths, picture_size
from ..plain_text import literal
from ..training.data import tokenize_edits
from ..training.recipe import SMALL, Recipe
from ..training.run import Run
from ..training.transformer import train_transformer
from ..world import EditSample
from ..world.edits import make_sample
from ..world.scenes import ITEM_COUNTS, PIXELS, draw_scene, stream
from .bench import computer
from .options import OF_NO_MATTER, measuring, which_model

PHRASINGS = ("make the {} {}", "turn the {} {}", "draw the {} {}", "the {} should be {}")
RESIZES = (("small", "big"), ("medium", "big"), ("big", "small"), ("medium", "small"))
SIZES = (0, 16, 64, 256)
RECIPE = replace(SMALL, window=0, window_samples=0, batch=SMALL.whole_batch, caption_share=0.0, reading_weight=0.0)
GROUPS = {"unseen": "new kind, unseen scenes", "own": "new kind, own training pairs", "old": "the old kinds"}
STYLES = {
    "unseen": {"color": "#d55e00", "marker": "o", "linewidth": 2.4},
    "own": {"color": "#0072b2", "marker": "^", "linestyle": "--"},
    "old": {"color": "0.55", "marker": "x"},
}
METRICS = {"success": ("success %", 100, 0), "score": ("edit score", 1, 2)}  # name → head of the column, factor, digits


def sample_resize(seed: int, *, split: str = "train", size: int = PIXELS) -> EditSample:
    """The edit number `seed` of the new kind: one object of a scene, at its place, becomes big or small."""
    rng = stream(seed, split, "edit size")
    drawn = draw_scene(rng, rng.choices(range(1, 5), ITEM_COUNTS)[0])
    old, new = rng.choice(RESIZES)
    item = replace(drawn.items[0], size=old, start=(0, 0))
    before = drawn.swapped(drawn.items[0], item)
    after = before.swapped(item, replace(item, size=new))
    return make_sample(before, after, rng.choice(PHRASINGS).format(item.kind, new), "size", size)


def measure(
    model: str,
    folder: Path,
    *,
    sizes: Sequence[int] = SIZES,
    samples: int = 1200,
    split: str = "validation",
    count: int = 40,
    batch: int = 20,
    seed: int = 0,
    anew: bool = False,
) -> list[dict[str, Any]]:
    """Teach and ask once for each size, 0 being the model as it is; returns a row for each.

    A row has `pairs`, and for every one of GROUPS success and score as `arithmetic.summary`. samples: that each size is
    trained for; count: edits of each group. What is done is kept in `folder`: run again to go
    on, with the same weights, settings and code; anew: forget what lies there. Raises SettingError.
    """
    check_counts(samples=samples, count=count, batch=batch)
    if list(sizes) != sorted({*sizes}) or any(each != 0 and each < RECIPE.batch for each in sizes):
        raise SettingError(
            f"sizes are {list(sizes)}",
            expected=f"sizes that rise, each 0 or at least {RECIPE.batch} (one batch)",
            fix="leave them out for the usual",
        )
    editor = load(model)
    picture = picture_size(editor)
    recipe = replace(RECIPE, image_size=picture, samples=samples)
    asked = {"split": split, "count": count, "seed": seed, "recipe": asdict(recipe)}
    rooms = (measuring, Run, Truth, draw_scene, keep_unchanged)
    code = code_fingerprint(*(each.__module__ for each in rooms))
    asked |= {"editor": editor_fingerprint(editor), "code": code}
    if anew:  # before the journal names the new settings: a kill in between leaves no old state under them
        for path in (*folder.glob("pairs_*.safetensors"), *folder.glob("*_pairs")):
            remove(path)
    journal = Journal(folder, asked, {}, anew=anew)
    new = [sample_resize(i, split=split, size=picture) for i in range(count)]
    unseen = batches_of(editor, new, batch)
    old = list(draw_truths(editor, split=split, count=count, batch=batch))
    for pairs in sizes:
        if str(pairs) in journal.rows:
            continue
        own = [sample_resize(i, size=picture) for i in range(min(pairs, count))]
        groups = {"unseen": unseen, "own": batches_of(editor, own, batch), "old": old}
        run, taught = folder / f"{pairs}_pairs", editor
        if pairs:
            data = training_pairs(editor, folder, max(sizes), picture)
            chosen = {name: each[:pairs] for name, each in data.items()}
            taught = teach(load(model, dtype=torch.float32), chosen, Run(run, asked | {"pairs": pairs}), recipe, seed)
        known = {name: ask(taught, truths, seed, f"{pairs} pairs, {name}") for name, truths in groups.items()}
        journal.add({"key": str(pairs), "pairs": pairs, **known})
        remove(run)
    return [journal.rows[str(pairs)] for pairs in sizes]


def training_pairs(editor: Editor, folder: Path, pairs: int, size: int) -> dict[str, Tensor]:
    """The training pairs 0 … pairs - 1 of the new kind, tokenized once and kept in `folder`."""
    path = folder / f"pairs_{pairs}.safetensors"
    if not path.exists():
        samples = [sample_resize(i, size=size) for i in tqdm(range(pairs), desc="drawing pairs", unit="pair")]
        tokens = tokenize_edits(editor.vq, editor.text_encoder, samples)
        with written_whole(path) as unfinished:
            save_file(tokens, unfinished)
    return {name: tensor.long() for name, tensor in load_file(path).items()}


def teach(editor: Editor, data: dict[str, Tensor], run: Run, recipe: Recipe, seed: int) -> Editor:
    """The editor after training on these pairs; resumes what the run has kept."""
    torch.manual_seed(seed)
    average = train_transformer(
        editor.transformer,
        editor.text_encoder,
        data,
        editor.vq.quantize.embedding.weight.detach(),
        run,
        recipe,
        seed=seed,
    )
    return Editor(
        editor.vq,
        average["text_encoder"],
        average["transformer"],
        mask_token_id=editor.mask_token_id,
        defaults=editor.defaults,
    )


def ask(editor: Editor, truths: Sequence[Truth], seed: int, what: str) -> dict[str, dict[str, float | None]]:
    """Success and score of the editor's answers without hold, each as `arithmetic.summary`."""
    scores = []
    for truth in tqdm(truths, desc=what, unit="batch"):
        scores += truth.scores(to_tensor(truth.edit(editor, seed, hold_threshold=0.0).images))
    return {metric: summary([getattr(each, metric) for each in scores], seed) for metric in METRICS}


def batches_of(editor: Editor, samples: Sequence[EditSample], batch: int) -> list[Truth]:
    starts = range(0, len(samples), batch)
    return [Truth.of(editor, range(i, i + batch)[: len(samples) - i], samples[i : i + batch]) for i in starts]


@literal
def picture(rows: Sequence[dict[str, Any]]) -> Figure:
    """Success over the number of pairs, a curve with its 95% band for each group."""
    figure = Figure(figsize=(8, 4.6), layout="constrained")
    axes = figure.add_subplot()
    for group, name in GROUPS.items():
        known = [(i, row[group]["success"]) for i, row in enumerate(rows) if row[group]["success"]["count"]]
        places = [i for i, _ in known]
        mean, low, high = ([100 * each[side] for _, each in known] for side in ("mean", "low", "high"))
        axes.fill_between(places, low, high, color=STYLES[group]["color"], alpha=0.15, linewidth=0)
        axes.plot(places, mean, label=name, **STYLES[group])
    axes.set_xticks(range(len(rows)), [f"{row['pairs']}" for row in rows])
    axes.set_xlabel("pairs of the new kind", fontsize=13)
    axes.set_ylabel("success %", fontsize=13)
    axes.set_ylim(0, 102)
    axes.tick_params(labelsize=12)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper left", ncols=len(GROUPS), frameon=False, fontsize=12)
    return figure


def report(rows: Sequence[dict[str, Any]]) -> str:
    """Plain text: a line for every size, means with their 95% intervals."""
    heads = [f"{group}: {head}" for group in GROUPS for head, _, _ in METRICS.values()]
    lines = [["pairs", *heads]]
    for row in rows:
        cells = [cell(row[g][m], factor, digits) for g in GROUPS for m, (_, factor, digits) in METRICS.items()]
        lines.append([str(row["pairs"]), *cells])
    return align(lines)


@command
def main(arguments: list[str] | None = None) -> None:
    """Print the table; save it as JSON, with what it was made on, and its picture."""
    output = Path("outputs") / "training_size"
    parser = measuring(__doc__, count=40, counted="edits of each group", output=output, split="validation")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of pairs, rising; 0: as it is")
    parser.add_argument("--samples", type=int, default=1200, help="that each size is trained for")
    parser.add_argument("--anew", action="store_true", help="forget what lies in the folder and begin again")
    options = vars(parser.parse_args(arguments))
    model, folder, anew = (options.pop(name) for name in ("model", "output", "anew"))
    rows = measure(model, folder, anew=anew, **options)
    print(report(rows))
    editor = load(model)
    settings = options | which_model(model, editor, without=OF_NO_MATTER)
    saved = {"settings": settings, "computer": computer(editor), "rows": rows}
    paths = [folder / "training_size.json", folder / "training_size.png"]
    save_json(saved, paths[0])
    save_figure(picture(rows), paths[1], dpi=130)
    print("saved:", *paths)


if __name__ == "__main__":
    raise SystemExit(main())
